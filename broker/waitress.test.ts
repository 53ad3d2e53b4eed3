import { describe, expect, it } from 'vitest';
import { backoffMs } from './backoff.js';
import { ChairError } from './errors.js';
import { Waitress } from './waitress.js';

describe('waitress', () => {
  it('hands a reply to the one who waits for its key', async () => {
    const waitress = new Waitress<string>();
    const [one, two] = [waitress.wait('1', 1000, 'x'), waitress.wait('2', 1000, 'y')];
    expect([waitress.settle('2', 'second'), waitress.settle('1', 'first'), waitress.settle('1', 'again')]).toEqual([true, true, false]);
    expect([await one.reply, await two.reply, waitress.size]).toEqual(['first', 'second', 0]);
  });

  it('says what was waited for, with the stack of who asked', async () => {
    const waitress = new Waitress<string>();
    function askPi3() {
      return waitress.wait('1', 10, 'prepare epoch 3 from agent pi-3').reply;
    }
    const error: Error = await askPi3().then(
      () => new Error('no error'),
      (reason) => reason,
    );
    expect(error.message).toBe('no reply to prepare epoch 3 from agent pi-3; expected one within 10 ms; got none');
    expect(error.stack).toContain('askPi3');
    expect(waitress.settle('1', 'late')).toBe(false);
  });

  it('can be told that no reply will come, without anyone being told twice', async () => {
    const waitress = new Waitress<string>();
    const waits = [waitress.wait('1', 1000, 'x'), waitress.wait('2', 1000, 'y')];
    waits[0]?.cancel(new ChairError('BROKER_LOST', 'gone'));
    waitress.cancelAll(new ChairError('STOPPED', 'over'));
    const codes = await Promise.all(waits.map(({ reply }) => reply.catch((error: ChairError) => error.code)));
    expect([codes, waitress.size]).toEqual([['BROKER_LOST', 'STOPPED'], 0]);
    expect(() => [waitress.wait('3', 10, 'x'), waitress.wait('3', 10, 'x')]).toThrow(/already/);
    waitress.cancelAll(new ChairError('STOPPED', 'over'));
  });
});

describe('backoff', () => {
  it('spreads over a window that doubles up to its cap', () => {
    const longest = [0, 1, 2, 3, 10, 1000].map((attempt) => backoffMs(attempt, () => 1, 100, 5000));
    expect(longest).toEqual([100, 200, 400, 800, 5000, 5000]);
    expect(backoffMs(3, () => 0.25, 100, 5000)).toBe(200);
  });
});

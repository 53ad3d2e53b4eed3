import { describe, expect, it } from 'vitest';
import { type AnswerWatch, watchAnswer } from './answer-watch.js';

/** A watch over a gateway that has run for `uptimeMs` (undefined: it says nothing), with a clock of its own. */
function world(options: Partial<AnswerWatch> = {}) {
  let nowMs = 1000;
  const seen = {
    connected: true,
    again: 0,
    uptimeMs: 5_000 as number | undefined,
    listener: (): void => undefined,
    asked: 0,
    listening: 0,
  };
  const over = new AbortController();
  const ended = watchAnswer(
    {
      what: 'adjust net',
      uptimeMs: async () => {
        seen.asked++;
        nowMs += 100;
        if (seen.uptimeMs === undefined) throw new Error('no answer');
        seen.uptimeMs += 100;
        return seen.uptimeMs;
      },
      again: () => seen.again++,
      connected: () => seen.connected,
      onConnect: (listener) => {
        seen.listener = listener;
        seen.listening++;
        return () => void seen.listening--;
      },
      everyMs: 1,
      silentMs: 1_000,
      nowMs: () => {
        nowMs += 1;
        return nowMs;
      },
      ...options,
    },
    over.signal,
  );
  ended.catch(() => undefined);
  const until = async (holds: () => boolean): Promise<void> => {
    while (!holds()) await new Promise((resolve) => setTimeout(resolve, 1));
  };
  return { seen, over, ended, until };
}

describe('waiting for an answer', () => {
  it('goes on while the gateway that was asked is there, however long, and ends with the answer', async () => {
    const { seen, over, ended, until } = world();
    await until(() => seen.asked > 50);
    over.abort();
    await ended;
    expect(seen).toMatchObject({ again: 0, listening: 0 });
  });

  it('ends at once when another gateway is there, which never heard of it', async () => {
    const { seen, ended, until } = world({ everyMs: 60_000 });
    await until(() => seen.listening === 1);
    seen.uptimeMs = -200;
    seen.listener();
    await expect(ended).rejects.toMatchObject({ code: 'STOPPED' });
    await expect(ended).rejects.toThrow(/started again before it answered 'adjust net'.*may have been done or not/);
    expect(seen.listening).toBe(0);
  });

  it('asks the same gateway once more when the connection was away: its answer may have gone with it', async () => {
    const { seen, over, ended, until } = world();
    seen.listener();
    await until(() => seen.again > 0);
    const { asked } = seen;
    await until(() => seen.asked > asked + 20);
    expect(seen.again).toBe(1);
    over.abort();
    await ended;
  });

  it('ends when nobody is there any more, sooner without a connection', async () => {
    const gone = world();
    gone.seen.connected = false;
    await expect(gone.ended).rejects.toMatchObject({ code: 'REQUEST_TIMEOUT' });
    expect(gone.seen.asked).toBe(0);
    const silent = world();
    silent.seen.uptimeMs = undefined;
    await expect(silent.ended).rejects.toThrow(/fell silent.*adjust net.*nothing for 3 s/);
  });
});

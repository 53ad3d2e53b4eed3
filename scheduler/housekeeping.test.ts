import { describe, expect, it } from 'vitest';
import { Housekeeping } from './housekeeping.js';

function gate() {
  let open = (): void => undefined;
  const passed = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, passed };
}
const turn = () => new Promise((resolve) => setImmediate(resolve));

describe('housekeeping', () => {
  it('cleans when asked to, once nobody writes, and no writer starts meanwhile', async () => {
    const trace: string[] = [];
    const [cleaning, writing] = [gate(), gate()];
    const house = new Housekeeping(
      async () => {
        trace.push('clean');
        await cleaning.passed;
        trace.push('cleaned');
      },
      () => undefined,
    );
    const first = house.during(async () => {
      trace.push('write');
      await writing.passed;
      trace.push('written');
    });
    await turn();
    house.request();
    house.request();
    await turn();
    expect(trace).toEqual(['write']);
    writing.open();
    await first;
    await turn();
    const second = house.during(async () => trace.push('write again'));
    await turn();
    expect(trace).toEqual(['write', 'written', 'clean']);
    cleaning.open();
    await second;
    expect(trace).toEqual(['write', 'written', 'clean', 'cleaned', 'write again']);
    await house.settled();
    expect(trace).toHaveLength(5);
  });

  it('goes on after a cleaning that failed, and says so', async () => {
    const failures: unknown[] = [];
    let cleanings = 0;
    const house = new Housekeeping(
      async () => {
        if (++cleanings === 1) throw new Error('the disk is gone');
      },
      (error) => failures.push(error),
    );
    house.request();
    await house.settled();
    expect(await house.during(async () => 'written')).toBe('written');
    house.request();
    await house.settled();
    expect([cleanings, failures.length]).toEqual([2, 1]);
  });
});

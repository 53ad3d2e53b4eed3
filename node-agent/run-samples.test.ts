import { describe, expect, it } from 'vitest';
import { samplesOf } from './run-samples.js';

const options = { runs: 5, budgetMs: 400, batchMs: 60, threads: 1 };

/** Runs of `cpuMs` at full speed, each followed by the pause of a quota: as a kernel that looks at what was used between two runs only. */
function pausedBetween(cpuMs: number, cpuLimit: number) {
  let clockMs = 0;
  const run = async () => {
    clockMs += cpuMs / cpuLimit;
    return { runMs: cpuMs, cpuMs };
  };
  return { run, nowMs: () => clockMs };
}

describe('how long a run takes', () => {
  it('is under a quota what it costs among many, although its pauses fall between runs', async () => {
    const { run, nowMs } = pausedBetween(1.1, 0.09);
    for (const ms of await samplesOf(run, { ...options, cpuLimit: 0.09 }, nowMs)) expect(ms).toBeCloseTo(1.1 / 0.09, 6);
  });

  it('is by the clock where the quota leaves every thread of the engine a core, or there is none', async () => {
    for (const cpuLimit of [0, 1, 2]) {
      const { run, nowMs } = pausedBetween(2, 1);
      const longer = async () => ({ ...(await run()), runMs: 3 });
      expect(await samplesOf(longer, { ...options, cpuLimit }, nowMs)).toEqual([3, 3, 3, 3, 3]);
    }
  });

  it('is what it waits for where that is not its quota: a disk, or the one thread that has work', async () => {
    const disk = pausedBetween(10, 0.5);
    const reading = async () => ({ ...(await disk.run()), runMs: 200 });
    for (const ms of await samplesOf(reading, { ...options, cpuLimit: 0.5 }, disk.nowMs)) expect(ms).toBeCloseTo(200, 6);
    const oneBusy = pausedBetween(10, 3.5);
    for (const ms of await samplesOf(oneBusy.run, { ...options, threads: 4, cpuLimit: 3.5 }, oneBusy.nowMs)) expect(ms).toBeCloseTo(10, 6);
  });

  it('is by the clock where that of the CPU stands still', async () => {
    const { run, nowMs } = pausedBetween(10, 0.5);
    const coarse = async () => ({ ...(await run()), cpuMs: 0 });
    expect(await samplesOf(coarse, { ...options, cpuLimit: 0.5 }, nowMs)).toEqual([10, 10, 10, 10, 10]);
  });

  it('is measured at least three times, and the first run is not counted, unless it takes many seconds', async () => {
    const slow = pausedBetween(300, 1);
    expect(await samplesOf(slow.run, { ...options, cpuLimit: 0 }, slow.nowMs)).toHaveLength(3);
    const slower = pausedBetween(5000, 1);
    expect(await samplesOf(slower.run, { ...options, cpuLimit: 0 }, slower.nowMs)).toHaveLength(1);
    // It warms up and counts at once.
    expect(slower.nowMs()).toBe(5000);
  });
});

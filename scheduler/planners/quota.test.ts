import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { auto } from './auto.js';
import { chain } from './chain-model.js';
import { busy } from './cost.js';
import { pipeline } from './pipeline.js';
import { type CpuQuota, type Device, isRefusal, type Links, type PlanProblem } from './problem.js';

const QUOTA: CpuQuota = { periodMs: 10, fullSpeed: 0.2 };
const RESTED = Number.NEGATIVE_INFINITY;
const FREE: Links = { usual: { bytesPerSecond: 1e12, latencyMs: 0 }, between: new Map() };

/** Jobs one after the other: when each is done. */
function doneBy(quota: CpuQuota | undefined, jobs: readonly (readonly [fromMs: number, ms: number])[]): number[] {
  let freeMs = RESTED;
  return jobs.map(([fromMs, ms]) => {
    const one = busy(quota, freeMs, fromMs, ms);
    freeMs = one.freeMs;
    return one.doneMs;
  });
}

describe('work under a CPU quota', () => {
  it('is done at full speed after a rest, as long as what one period gives lasts', () => {
    // 10 ms of long work are 2 ms of CPU, all that a period gives.
    expect(doneBy(QUOTA, [[100, 10]])).toEqual([102]);
    expect(doneBy(QUOTA, [[100, 5]])).toEqual([101]);
  });

  it('is done one period sooner than long work after a rest, and no sooner in the midst of it', () => {
    expect(
      doneBy(QUOTA, [
        [100, 50],
        [140, 50],
        [150, 50],
      ]),
    ).toEqual([140, 190, 240]);
  });

  it('makes up for a wait, but not for more than a period', () => {
    // Free at 90; what came at 94 found 4 ms unused, what came 60 ms later a whole period.
    expect(
      doneBy(QUOTA, [
        [50, 50],
        [94, 50],
        [200, 50],
      ]),
    ).toEqual([90, 140, 240]);
  });

  it('takes as long as it takes where there is no quota', () => {
    expect(
      doneBy(undefined, [
        [10, 5],
        [12, 5],
        [30, 5],
      ]),
    ).toEqual([15, 20, 35]);
  });

  it('never does more than the quota gives: a period and what has passed', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.double({ min: 0, max: 30, noNaN: true }), fc.double({ min: 0, max: 30, noNaN: true }))), (steps) => {
        let [nowMs, startMs, sum] = [0, 0, 0];
        let freeMs = RESTED;
        for (const [waitMs, ms] of steps) {
          const fromMs = nowMs + waitMs;
          if (sum === 0) startMs = fromMs;
          const { doneMs, ...rest } = busy(QUOTA, freeMs, fromMs, ms);
          freeMs = rest.freeMs;
          sum += ms;
          expect(sum).toBeLessThanOrEqual(doneMs - startMs + QUOTA.periodMs + 1e-6);
          expect(doneMs).toBeGreaterThanOrEqual(fromMs + ms * QUOTA.fullSpeed - 1e-9);
          nowMs = doneMs;
        }
      }),
    );
  });
});

describe('plans on devices with a quota', () => {
  const facts = chain(
    Array.from({ length: 3 }, () => ({ macs: 5e7, weightBytes: 2 ** 20, rows: 4 })),
    4,
  );
  const devices = (count: number, quota?: CpuQuota): Device[] =>
    Array.from({ length: count }, (_, i) => ({
      ...{ agent: `d${i}`, macsPerSecond: 1e9, memoryBytes: 0, runMs: 0, nodeMs: 0, messageMs: 0, copyBytesPerSecond: 1e12 },
      ...(quota === undefined ? {} : { quota }),
    }));
  const problem = (over: Partial<PlanProblem>): PlanProblem => ({
    facts,
    devices: devices(3),
    links: FREE,
    objective: 'throughput',
    inFlight: 0,
    ...over,
  });
  const planned = (made: ReturnType<typeof pipeline>) => {
    if (isRefusal(made)) throw new Error(made.reason);
    return made.estimate;
  };

  it('gain a period at each device that a frame finds rested, and nothing in throughput', () => {
    const [without, under] = [planned(pipeline(problem({}))), planned(pipeline(problem({ devices: devices(3, QUOTA) })))];
    expect(without.latencyMs - under.latencyMs).toBeCloseTo(3 * QUOTA.periodMs, 6);
    expect(under.bottleneck).toEqual(without.bottleneck);
  });

  it('pay for messages out of the same quota as for runs', () => {
    const handled = (quota?: CpuQuota): number =>
      planned(pipeline(problem({ devices: devices(3, quota).map((device) => ({ ...device, messageMs: 20 })) }))).latencyMs -
      planned(pipeline(problem({ devices: devices(3, quota) }))).latencyMs;
    // Each device takes in one message and sends one; what links take meanwhile is hidden behind it.
    expect(handled(QUOTA)).toBeGreaterThan(6 * 20 - 1);
    expect(handled(QUOTA)).toBeLessThanOrEqual(6 * 20);
  });

  it('are found also where a rest is worth more than a cut', () => {
    const plan = auto(problem({ objective: 'latency', devices: devices(2, { periodMs: 100, fullSpeed: 0.1 }) }));
    // 150 ms of long work: one device does 15 ms of it at full speed within its first period and a half.
    expect(planned(plan).latencyMs).toBeLessThan(51);
  });
});

/** What one network's frames teach must not spoil another one's plan; what they tell of the device must reach it. */
import { describe, expect, it } from 'vitest';
import { type ChainBlock, chain } from '../planners/chain-model.js';
import { computeMs } from '../planners/cost.js';
import { estimate } from '../planners/estimate.js';
import { PLANNERS } from '../planners/planners.js';
import { type Correction, type Device, isRefusal, type PlanDraft } from '../planners/problem.js';
import { LiveCorrection } from './correction.js';

const MIB = 2 ** 20;
const SPEEDS = [1, 2, 4, 1, 2, 4];
/** Six devices as planners know them: memory was not measured. */
const DEVICES: readonly Device[] = SPEEDS.map((speed, i) => ({ agent: `d${i}`, macsPerSecond: 1e10 * speed, memoryBytes: 2 ** 30 }));
/** As they are: what a core gets of the memory is what it gets of its time. */
const REAL: readonly Device[] = DEVICES.map((device, i) => ({ ...device, memoryBytesPerSecond: 5e8 * (SPEEDS[i] ?? 1) }));
const LINKS = { usual: { bytesPerSecond: 125e6, latencyMs: 0.3 }, between: new Map() };
/** Sixteen layers that compute: 15 GMAC, few weights. */
const CONVOLUTIONS = chain(
  Array.from({ length: 8 }, (): ChainBlock => ({ macs: 1.9e9, weightBytes: 2 * MIB, rows: 200 })),
  200,
);
const WHOLE = { nodes: [0, 20] as const, cut: 'whole' as const };
/** All that a frame of the first network does, most of it reading weights. */
const WEIGHTY = { macs: 7e8, movedBytes: 240 * MIB, nodes: 20, weightBytes: 233 * MIB, activationBytes: MIB, inputs: [], outputs: [] };

/** A minute of the first network's frames on each of these devices; `slowed`: how much slower each has become in the second half. */
function learned(slowed: readonly number[] = []): (agent: string, model: string) => Correction | undefined {
  const live = new LiveCorrection();
  for (let second = 0; second < 120; second++) {
    for (const [i, device] of DEVICES.entries()) {
      const real = REAL[i] ?? device;
      live.observe(
        {
          ...{ agent: device.agent, nonce: '1', basis: 'probe', model: 'weighty', nodes: WHOLE.nodes, cut: WHOLE.cut, frames: 3 },
          predictedMs: computeMs(device, WEIGHTY, WHOLE, 1),
          measuredMs: computeMs(real, WEIGHTY, WHOLE, 1) * (second < 60 ? 1 : (slowed[i] ?? 1)),
        },
        second * 1000,
      );
    }
  }
  return (agent, model) => live.correction(agent, model, 'probe', 120_000);
}

function planned(devices: readonly Device[]): PlanDraft {
  const plan = PLANNERS.get('auto')?.({ facts: CONVOLUTIONS, devices, links: LINKS, objective: 'throughput', inFlight: 0 });
  if (plan === undefined || isRefusal(plan)) throw new Error(plan?.reason ?? 'no planner');
  return plan;
}

const corrected = (corrections: ReturnType<typeof learned>, model: string): Device[] =>
  DEVICES.map((device) => {
    const correction = corrections(device.agent, model);
    return correction === undefined ? device : { ...device, correction };
  });

/** What a plan does on devices as they are. */
const fpsOn = (devices: readonly Device[], { cut, stages, inFlight }: PlanDraft): number =>
  estimate(cut, stages, devices, LINKS, inFlight).fps;

describe('what was learned from another network', () => {
  it('does not spoil the plan of a network whose layers are limited by something else', () => {
    const corrections = learned();
    // Far off for the first one, and differently on each kind of device.
    const factors = DEVICES.slice(0, 3).map(({ agent }) => corrections(agent, 'weighty')?.all ?? 1);
    expect(Math.max(...factors) / Math.min(...factors)).toBeGreaterThan(1.8);
    const best = fpsOn(REAL, planned(DEVICES));
    const after = corrected(corrections, 'convolutions');
    const plan = planned(after);
    expect(fpsOn(REAL, plan) / best).toBeGreaterThan(0.99);
    expect(plan.estimate.fps / fpsOn(REAL, plan)).toBeCloseTo(1, 1);
  });

  it('tells of a device that has become slower than it was', () => {
    const hot = learned([1, 1, 2.5, 1, 1, 1]);
    expect(hot('d2', 'convolutions')?.all).toBeCloseTo(2.5, 0);
    expect(hot('d5', 'convolutions')).toBeUndefined();
    const now = REAL.map((device) => (device.agent === 'd2' ? { ...device, macsPerSecond: device.macsPerSecond / 2.5 } : device));
    const plan = planned(corrected(hot, 'convolutions'));
    expect(plan.estimate.fps / fpsOn(now, plan)).toBeCloseTo(1, 1);
  });
});

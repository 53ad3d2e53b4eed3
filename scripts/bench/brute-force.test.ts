import { describe, expect, it } from 'vitest';
import { chain } from '../../scheduler/planners/chain-model.js';
import { draft, score } from '../../scheduler/planners/draft.js';
import { isRefusal, type PlanProblem } from '../../scheduler/planners/problem.js';
import { bruteForce } from './brute-force.js';

const problem = (objective: PlanProblem['objective'], speeds: readonly number[]): PlanProblem => ({
  facts: chain([
    { macs: 1e9, weightBytes: 1e6, rows: 8 },
    { macs: 2e9, weightBytes: 1e6, rows: 8 },
  ]),
  devices: speeds.map((macsPerSecond, i) => ({ agent: `d${i}`, macsPerSecond, memoryBytes: 0 })),
  links: { usual: { bytesPerSecond: 1e9, latencyMs: 0.1 }, between: new Map() },
  objective,
  inFlight: 0,
});

describe('brute force', () => {
  it('finds nothing better than one device where there is one device', () => {
    const p = problem('latency', [1e9]);
    const { best, judged, settled } = bruteForce(p, Number.POSITIVE_INFINITY);
    const whole = draft(p, 'x', [{ spec: { nodes: [0, 2], cut: 'whole', shares: [1] }, agents: [['d0']] }]);
    if (isRefusal(whole)) throw new Error(whole.reason);
    expect(settled).toBe(true);
    expect(judged).toBeGreaterThan(0);
    expect(best).toBeCloseTo(score(whole.estimate, 'latency'), 6);
  });

  it('finds the cut that halves the latency, and no plan below a bound that none can reach', () => {
    const p = problem('latency', [1e9, 1e9]);
    expect(bruteForce(p, Number.POSITIVE_INFINITY).best).toBeLessThan(1700);
    expect(bruteForce(p, 1400)).toMatchObject({ best: 1400, settled: true });
  });

  it('gives the same with a bound as without: what is cut off was no better', () => {
    const p = problem('throughput', [1e9, 2e9]);
    const { best, judged } = bruteForce(p, Number.POSITIVE_INFINITY);
    const bounded = bruteForce(p, best * 1.01);
    expect(bounded.best).toBeCloseTo(best, 9);
    expect(bounded.judged).toBeLessThanOrEqual(judged);
  });

  it('says when its time was over', () => {
    let clock = 0;
    expect(bruteForce(problem('latency', [1e9, 1e9]), Number.POSITIVE_INFINITY, 5, () => ++clock).settled).toBe(false);
  });
});

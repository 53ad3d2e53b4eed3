import { describe, expect, it } from 'vitest';
import type { PlanAlternative, PlanReport } from '../broker/messages.js';
import { explainText } from './explain-text.js';

const row = (name: string, fps: number, over: Partial<PlanAlternative> = {}): PlanAlternative => ({
  ...{ name, planner: name, agents: 1, latencyMs: 1000 / fps, fps, refused: '', ...over },
});

function report(alternatives: readonly PlanAlternative[], changes: readonly PlanAlternative[]): PlanReport {
  const seat = { stage: 0, cut: 'rows', replica: 0, slice: '', macs: 1, weightBytes: 1, predictedMs: 1, bytesIn: 1, bytesOut: 1 };
  return {
    ...{ deployment: 'net', epoch: 0, planner: 'rows:2', why: '', basis: '', predictedLatencyMs: 80, predictedFps: 20 },
    seats: [
      { ...seat, part: 0, agent: 'a' },
      { ...seat, part: 1, agent: 'b' },
    ],
    ...{ links: [], memory: [], precision: null, redundancy: null },
    details: { file: '', inFlight: 2, maxRelDiff: -1, alternatives, changes },
  };
}

describe('an explanation as text', () => {
  const alternatives = [
    row('single', 10),
    row('replicas', 15, { agents: 2 }),
    row('pipeline', 0, { refused: 'pipeline: not enough memory: a has 1 MiB of the 2 MiB it needs' }),
    row('auto', 20, { planner: 'rows:2', agents: 2, latencyMs: 80 }),
  ];
  const changes = [
    row('twice the memory for every agent', 20, { planner: 'rows:2' }),
    row('links ten times as fast', 50, { planner: 'rows:2' }),
  ];

  it('says the next best and what it costs, which is not the same plan by another planner, and what would help most', () => {
    const text = explainText(report(alternatives, changes), 'throughput<200', 100);
    expect(text).toContain('Next best: replicas, 15.0 frames/s instead of 20.0 frames/s.');
    expect(text).toContain('What would help most: links ten times as fast, 50.0 frames/s.');
    expect(text).toContain('pipeline: not possible, not enough memory: a has 1 MiB of the 2 MiB it needs');
  });

  it('counts gain by the objective', () => {
    const throughput = explainText(report(alternatives, changes), 'throughput', 100);
    expect(throughput).toMatch(/^single .* 10\.0 +-50 %$/m);
    expect(throughput).toMatch(/^links ten times as fast .* \+150 %$/m);
    const latency = explainText(report(alternatives, changes), 'latency', 100);
    expect(latency).toMatch(/^single .* 100 +10\.0 +-20 %$/m);
    expect(latency).toContain('Predicted to be better: replicas, 66.7 ms instead of 80.0 ms.');
  });

  it('says that nothing would help, and that nothing else is possible', () => {
    const text = explainText(report([], [row('twice the memory for every agent', 20, { latencyMs: 80 })]), 'throughput', 100);
    expect(text).toContain('no other plan is possible');
    expect(text).toContain('Nothing that was tried would make a better plan.');
    expect(text).toMatch(/twice the memory .* same$/m);
  });

  it.each([60, 80, 100])('fits %i columns', (width) => {
    const long = row('musical-chair-2018', 3, { refused: `musical-chair-2018: ${'not enough memory, '.repeat(20)}` });
    for (const line of explainText(report([...alternatives, long], changes), 'throughput', width).split('\n'))
      expect(line.length).toBeLessThanOrEqual(width);
  });
});

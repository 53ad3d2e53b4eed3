import { describe, expect, it } from 'vitest';
import { BlockTable } from './block-table.js';
import { chain } from './chain-model.js';
import type { Device, PlanProblem } from './problem.js';
import { search } from './search.js';

const COUNT = 5;
const facts = chain(
  Array.from({ length: 6 }, () => ({ macs: 1e8, weightBytes: 2 ** 20, rows: 8 })),
  8,
);
const links = { usual: { bytesPerSecond: 1e9, latencyMs: 0.1 }, between: new Map() };

/** Throughput on equal devices, 0.6 s a frame on one of them; the best plans of no more than `bound` ms a frame. */
function found(bound: number, more: Partial<Device>) {
  const devices = Array.from({ length: COUNT }, (_, i): Device => ({ agent: `d${i}`, macsPerSecond: 1e9, memoryBytes: 0, ...more }));
  const problem: PlanProblem = { facts, devices, links, objective: 'throughput', inFlight: 0 };
  return search(problem, BlockTable.of(facts), devices, { width: 50, finalists: 3, bound });
}

describe('the search for throughput, of agents on one host', () => {
  it('finds what it finds on machines of their own when each agent keeps only its part of the cores busy', () => {
    const apart = found(500, {});
    expect(apart.length).toBeGreaterThan(0);
    expect(found(500, { host: 'box', hostShare: 1 / (2 * COUNT) })).toEqual(apart);
  });

  it('finds nothing faster than one agent when each keeps all of the cores busy', () => {
    expect(found(500, { host: 'box', hostShare: 1 })).toEqual([]);
    expect(found(500, { host: 'box' })).toEqual([]);
  });
});

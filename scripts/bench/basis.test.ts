import { describe, expect, it } from 'vitest';
import type { AgentStatus, LinkStatus, LiveRow } from '../../broker/messages.js';
import { DISPATCHER } from '../../broker/topics.js';
import { basisOf } from './basis.js';
import { figure } from './figures.js';
import { figureTable } from './report.js';

function agent(name: string, probeMacsPerSecond: number): AgentStatus {
  return {
    ...{ agent: name, state: 'ready', why: '', losses: 0, heldMs: 0, addresses: [], lanePort: 0, cores: 2, host: '', hostCores: 2 },
    ...{ cpuLimit: 0.18, cpuPeriodMs: 17.5, engineThreads: 1, correction: 1, memoryBytes: 0, probeMacsPerSecond, probeBytesPerSecond: 4e9 },
    ...{ probeSmallRunMs: 0.04, softwareVersion: '', encrypted: false, health: null, fingerprint: '', cpu: '' },
  };
}

const link = (from: string, to: string, bytesPerSecond: number): LinkStatus => ({
  ...{ from, to, lane: 'direct', bytesPerSecond, latencyMs: 0.2, spread: 0.1, source: 'measured', ageMs: 5, problem: '' },
});

const seat = (replica: number, name: string, predictedMs: number) => ({
  ...{ stage: 0, cut: 'whole', replica, part: 0, agent: name, slice: '', macs: 1, weightBytes: 1, predictedMs, bytesIn: 1, bytesOut: 1 },
});

const live = (replica: number, name: string, measuredMs: number): LiveRow => ({
  ...{ stage: 0, replica, part: 0, agent: name, predictedMs: 0, measuredMs, frames: 30, factor: 1 },
});

const BASIS = basisOf({
  report: { why: 'bottleneck: a\nrunner-up: none', basis: 'the probe', predictedFps: 40, seats: [seat(0, 'a', 20), seat(1, 'b', 100 / 3)] },
  status: {
    agents: [agent('a', 2e10), agent('b', 1e10), agent('idle', 1e10)],
    links: [link(DISPATCHER, 'a', 125e6), link('a', 'b', 58e6), link('a', 'idle', 1e6)],
  },
  reported: {
    devices: [{ agent: 'a', macsPerSecond: 2e10, memoryBytes: 0, runMs: 2.5, aroundMs: 6 }],
    links: {
      usual: { bytesPerSecond: 125e6, latencyMs: 1 },
      gateway: { upBytesPerSecond: 125e6, downBytesPerSecond: 120e6, latencyMs: 0.1 },
      between: new Map([
        ['a>b', { bytesPerSecond: 58e6, latencyMs: 0.2 }],
        ['a>idle', { bytesPerSecond: 1e6, latencyMs: 0.2 }],
      ]),
    },
    draft: {
      inFlight: 5,
      stages: [
        { spec: { nodes: [0, 1], cut: 'whole', shares: [1] }, agents: [['a'], ['b']], weights: [2, 1] },
        { spec: { nodes: [1, 2], cut: 'whole', shares: [1] }, agents: [['a']] },
      ],
    },
  },
  live: [live(1, 'b', 41.23456)],
  busy: [{ what: 'compute (quota of b)', share: 1 }],
});

describe('what a prediction stood on', () => {
  it('are the agents and links of the plan as they were probed and measured, and the pairs that are named', () => {
    expect(BASIS).toMatchObject({ why: ['bottleneck: a', 'runner-up: none'], standsOn: 'the probe', inFlight: 5, weights: [[2, 1]] });
    expect(BASIS.agents.map((one) => [one.agent, one.probeMacsPerSecond, one.cpuPeriodMs, one.runMs])).toEqual([
      ['a', 2e10, 17.5, 2.5],
      ['b', 1e10, 17.5, undefined],
    ]);
    expect(BASIS.measuredLinks.map(({ from, to, bytesPerSecond }) => [from, to, bytesPerSecond])).toEqual([
      [DISPATCHER, 'a', 125e6],
      ['a', 'b', 58e6],
    ]);
    expect(BASIS.pairs).toEqual({ 'a>b': { bytesPerSecond: 58e6, latencyMs: 0.2 } });
    expect(BASIS.gateway).toMatchObject({ downBytesPerSecond: 120e6 });
  });

  it('is what each seat was taken for beside what it did, where it did anything', () => {
    expect(BASIS.seats).toEqual([
      { stage: 0, replica: 0, part: 0, agent: 'a', predictedMs: 20 },
      { stage: 0, replica: 1, part: 0, agent: 'b', predictedMs: 33.33, measuredMs: 41.23, frames: 30 },
    ]);
  });

  it('is kept with the figure, and not in the table', () => {
    const kept = figure('net: frames per second', 'fps', [40], undefined, { basis: BASIS });
    expect(JSON.parse(JSON.stringify(kept)).basis.agents).toHaveLength(2);
    expect(figureTable([kept])).toEqual(figureTable([figure('net: frames per second', 'fps', [40])]));
  });
});

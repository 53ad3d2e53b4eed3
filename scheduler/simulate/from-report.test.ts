import { describe, expect, it } from 'vitest';
import { isChairError } from '../../broker/errors.js';
import type { AgentStatus, LinkStatus, PlanReport } from '../../broker/messages.js';
import { reportOf } from '../plan-builder.js';
import { planFileText } from '../plan-file.js';
import { chain } from '../planners/chain-model.js';
import { pipeline } from '../planners/pipeline.js';
import { type Device, isRefusal, type PlanProblem } from '../planners/problem.js';
import { besidesComputing } from '../planning.js';
import { reported, simulateReport } from './from-report.js';
import { simulatePlan } from './simulate.js';

const SHA = 'a'.repeat(64);
const FACTS = chain([1, 2, 3].map((n) => ({ macs: n * 1e8, weightBytes: 1e6, rows: 50 })));
const DEVICES: Device[] = ['a', 'b'].map((agent) => ({
  agent,
  macsPerSecond: 1e9,
  memoryBytes: 0,
  ...besidesComputing({ cpuLimit: 0, cpuPeriodMs: 0, engineThreads: 1, probeSmallRunMs: 0 }),
}));
const PROBLEM: PlanProblem = {
  ...{ facts: FACTS, devices: DEVICES, objective: 'throughput', inFlight: 0 },
  links: { usual: { bytesPerSecond: 125e6, latencyMs: 1 }, between: new Map() },
};
const LOAD = { load: { kind: 'closed' as const, inFlight: 4 }, frames: 60 };

function planned() {
  const draft = pipeline(PROBLEM);
  if (isRefusal(draft)) throw new Error(draft.reason);
  const head = { deployment: 'net', model: SHA, shapes: [], images: [], objective: 'throughput', maxError: 0 };
  const details = { file: planFileText(head, draft, FACTS), inFlight: draft.inFlight, maxRelDiff: -1, alternatives: [], changes: [] };
  const report: PlanReport = { ...reportOf('net', 1, draft), details };
  return { draft, report };
}

function agent(name: string, over: Partial<AgentStatus> = {}): AgentStatus {
  return {
    ...{
      agent: name,
      state: 'ready',
      why: '',
      losses: 0,
      heldMs: 0,
      addresses: [],
      lanePort: 0,
      cores: 4,
      host: '',
      hostCores: 4,
      cpuLimit: 0,
      cpuPeriodMs: 0,
      engineThreads: 4,
      correction: 1,
    },
    ...{
      memoryBytes: 0,
      probeMacsPerSecond: 1e9,
      probeBytesPerSecond: 0,
      probeSmallRunMs: 0,
      softwareVersion: '',
      encrypted: false,
      health: null,
      fingerprint: '',
      cpu: '',
    },
    ...over,
  };
}

const STATUS = { agents: [agent('a'), agent('b')], links: [] as LinkStatus[] };

describe('a reported plan', () => {
  it('is simulated as the draft that it was made of', () => {
    const { draft, report } = planned();
    const direct = simulatePlan({ draft, devices: DEVICES, links: PROBLEM.links, ...LOAD });
    const again = simulateReport(report, { sha256: SHA }, FACTS, STATUS, LOAD);
    expect(again.fps).toBeCloseTo(direct.fps, 6);
    expect(again.latencyMs.p50).toBeCloseTo(direct.latencyMs.p50, 6);
  });

  it('takes the times of its seats, or live ones where they are given', () => {
    const { report } = planned();
    const slow = { ...report, seats: report.seats.map((seat) => ({ ...seat, predictedMs: 3 * seat.predictedMs })) };
    const fps = (one: PlanReport, live = {}): number => simulateReport(one, { sha256: SHA }, FACTS, { ...STATUS, ...live }, LOAD).fps;
    expect(fps(report) / fps(slow)).toBeCloseTo(3, 1);
    const live = report.seats.map(({ stage, replica, part, agent: who, predictedMs }) => ({
      ...{ stage, replica, part, agent: who, predictedMs, frames: 9, factor: 1 },
      measuredMs: 2 * predictedMs,
    }));
    expect(fps(report) / fps(report, { live })).toBeCloseTo(2, 1);
  });

  it('knows measured links, machines that are shared, and quotas', () => {
    const { report } = planned();
    const row = { lane: 'direct', latencyMs: 2, spread: 0, source: 'measured', ageMs: 0, problem: '' };
    const links = [
      { ...row, from: 'dispatcher', to: 'a', bytesPerSecond: 2e6 },
      { ...row, from: 'dispatcher', to: 'b', bytesPerSecond: 2e6 },
    ];
    const agents = ['a', 'b'].map((name) => agent(name, { host: 'board', hostCores: 1, engineThreads: 1, cpuLimit: 0.8 }));
    const seen = reported(report, SHA, FACTS, { agents, links });
    expect(seen.links.gateway?.upBytesPerSecond).toBeCloseTo(2e6, -4);
    expect(seen.devices.map(({ hostShare }) => hostShare)).toEqual([0.8, 0.8]);
    expect(seen.devices[0]?.messageMs).toBeGreaterThan(0.1);
  });

  it('of another model, or without its file, is refused', () => {
    const { report } = planned();
    const code = (run: () => unknown): string => {
      try {
        run();
      } catch (error) {
        return isChairError(error) ? error.code : String(error);
      }
      return '';
    };
    expect(code(() => reported(report, 'b'.repeat(64), FACTS, STATUS))).toBe('PLAN_MODEL_MISMATCH');
    expect(code(() => reported({ ...report, details: null }, SHA, FACTS, STATUS))).toBe('PLAN_INVALID');
  });
});

import { describe, expect, it } from 'vitest';
import { isChairError } from '../broker/errors.js';
import type { DeployRequest } from '../broker/messages.js';
import { drawZoo } from '../models/zoo/index.js';
import { structureOf } from '../models/zoo/structure.js';
import { factsOf } from './model-library.js';
import { chain } from './planners/chain-model.js';
import { AROUND_RUN_MS, COLD_MESSAGE_MS, SERIALISE_BYTES_PER_SECOND, SMALL_RUN_MS } from './planners/cost.js';
import {
  arriving,
  besidesComputing,
  checkRequest,
  draftPlan,
  leastOnMachine,
  memoryOf,
  type PlanningInput,
  problemOf,
} from './planning.js';
import type { AgentRecord, AgentState } from './registry.js';
import { helloOf } from './simulate/said.js';

const MIB = 2 ** 20;
const request: DeployRequest = {
  ...{ name: 'm', model: 'x', shapes: [], images: [], objective: 'latency', planner: 'single', cut: '', shares: [], agents: [] },
  ...{
    inFlight: 0,
    deadlineMs: 0,
    maxError: 0,
    calibration: [],
    redundancy: 0,
    weight: 1,
    plan: '',
    verify: false,
    dryRun: false,
    explain: false,
  },
};

function agent(name: string, speed: number, state: AgentState = 'ready', memoryMib = 1000): AgentRecord {
  const hello = helloOf(name, '1', { fingerprint: 'f1', probeMacsPerSecond: speed, memoryBytes: memoryMib * MIB });
  return { agent: name, nonce: '1', state, why: '', hello, health: null, seenMs: 0 };
}

const input = (over: Partial<PlanningInput> = {}): PlanningInput => ({
  request,
  facts: chain(new Array(3).fill({ macs: 1e9, weightBytes: 100 * MIB, rows: 12 }), 12),
  manual: undefined,
  agents: [agent('a', 1e9), agent('b', 2e9)],
  excluded: new Map(),
  usedBytes: new Map(),
  links: { usual: { bytesPerSecond: 1e8, latencyMs: 1 }, between: new Map() },
  fewerParts: false,
  ...over,
});
const agentsOf = async (over: Partial<PlanningInput>) => (await draftPlan(input(over))).stages.flatMap((stage) => stage.agents.flat());
async function codeOf(over: Partial<PlanningInput>): Promise<string> {
  try {
    await draftPlan(input(over));
    return 'no error';
  } catch (error) {
    return isChairError(error) ? error.code : String(error);
  }
}

describe('planning', () => {
  it('plans with ready agents only, and without those that could not prepare', async () => {
    expect(await agentsOf({})).toEqual(['b']);
    expect(await agentsOf({ agents: [agent('a', 1e9), agent('b', 2e9, 'suspect')] })).toEqual(['a']);
    expect(await agentsOf({ excluded: new Map([['b', 'disk full']]) })).toEqual(['a']);
    expect(await codeOf({ agents: [agent('b', 2e9, 'draining')] })).toBe('NO_AGENTS');
  });

  it('says of agents that are not ready what they are, and why', async () => {
    const held = { ...agent('c', 1e9, 'joining'), why: 'held back: it was lost 3 times' };
    const agents = [agent('a', 1e9, 'joining'), agent('b', 1e9, 'lost'), held];
    await expect(draftPlan(input({ agents }))).rejects.toMatchObject({
      code: 'NO_AGENTS',
      message: expect.stringContaining(
        '3 agents known, 0 ready: a joining (its first health message has not come), b lost, c joining (held back: it was lost 3 times)',
      ),
    });
    await expect(draftPlan(input({ agents: Array.from({ length: 9 }, (_, i) => agent(`n${i}`, 1e9, 'lost')) }))).rejects.toMatchObject({
      message: expect.stringMatching(/0 ready: n0 lost, n1 lost, n2 lost, n3 lost, n4 lost, \.\.\./),
    });
    expect(arriving(request, [...agents, agent('d', 1e9)])).toEqual(['a']);
    expect(arriving({ ...request, agents: ['b', 'c', 'd'] }, agents)).toEqual([]);
  });

  it('counts the memory that other deployments hold', async () => {
    const first = await draftPlan(input());
    const used = memoryOf([first]);
    expect(used.get('b')).toBeGreaterThan(300 * MIB);
    expect(await agentsOf({ usedBytes: used })).toEqual(['b']);
    const small = [agent('a', 1e9, 'ready', 600), agent('b', 2e9, 'ready', 600)];
    expect(await agentsOf({ agents: small, usedBytes: used })).toEqual(['a']);
    expect(await codeOf({ agents: small.slice(1), usedBytes: used })).toBe('PLAN_NOT_POSSIBLE');
  });

  it('takes an agent that could not probe itself for an average one', async () => {
    expect(await agentsOf({ agents: [agent('a', 0), agent('b', 2e9), agent('c', 3e9)] })).toEqual(['c']);
  });

  it('takes how fast weights are read from the probes, the median of each class of device', () => {
    const reads = (name: string, probeBytesPerSecond: number, fingerprint = 'f1'): AgentRecord => {
      const one = agent(name, 1e9);
      return { ...one, hello: { ...one.hello, probeBytesPerSecond, fingerprint } };
    };
    const agents = [reads('a', 3e9), reads('b', 4e9), reads('c', 0), reads('d', 2e10, 'f2'), reads('e', 1e9), reads('f', 0, 'f3')];
    const { devices } = problemOf(input({ agents })).problem;
    expect(devices.map((device) => device.memoryBytesPerSecond)).toEqual([3e9, 3e9, 3e9, 2e10, 3e9, undefined]);
  });

  it('predicts four times the time under a quarter of the quota, also of a network whose layers are limited by memory', async () => {
    const alexnet = factsOf(structureOf(drawZoo('alexnet')));
    const msOf = async (cpuLimit: number): Promise<number> => {
      const one = agent('a', 1e11 * cpuLimit);
      const hello = { ...one.hello, cpuLimit, cpuPeriodMs: 0, engineThreads: 1, probeBytesPerSecond: 1e10 * cpuLimit };
      const { estimate } = await draftPlan(input({ facts: alexnet, agents: [{ ...one, hello }] }));
      return estimate.seats.reduce((sum, { ms }) => sum + ms, 0);
    };
    // What was assumed of memory did not know quotas: live corrections of 0.6 and 1.5 on the agents of one board spoilt plans of other networks.
    expect((await msOf(0.1)) / (await msOf(0.4))).toBeCloseTo(4, 6);
  });

  it('takes what goes on around runs as much longer as a small run takes on that processor, and as its quota leaves less of it', () => {
    const pi = { cpuLimit: 0, cpuPeriodMs: 0, engineThreads: 4, probeSmallRunMs: 5 * SMALL_RUN_MS };
    expect(besidesComputing(pi).aroundMs).toBeCloseTo(5 * AROUND_RUN_MS, 9);
    expect(besidesComputing(pi).messageMs).toBeCloseTo(5 * COLD_MESSAGE_MS, 9);
    expect(besidesComputing(pi).copyBytesPerSecond).toBeCloseTo(SERIALISE_BYTES_PER_SECOND / 5, 3);
    const limited = { cpuLimit: 0.2, cpuPeriodMs: 10, engineThreads: 1, probeSmallRunMs: SMALL_RUN_MS };
    expect(besidesComputing(limited).aroundMs).toBeCloseTo(5 * AROUND_RUN_MS, 9);
    expect(besidesComputing(limited).quota).toEqual({ periodMs: 10, fullSpeed: 0.2 });
    // What a busy moment explains, or threads that wake slowly, is no slower processor.
    expect(besidesComputing({ ...pi, probeSmallRunMs: 3 * SMALL_RUN_MS }).aroundMs).toBeCloseTo(AROUND_RUN_MS, 9);
    expect(besidesComputing({ ...pi, probeSmallRunMs: SMALL_RUN_MS / 3 }).aroundMs).toBeCloseTo(AROUND_RUN_MS, 9);
    // What did not probe is taken for the machine that the constants are of.
    expect(besidesComputing({ ...pi, probeSmallRunMs: 0 }).aroundMs).toBe(AROUND_RUN_MS);
  });

  it('takes processors whose small runs differ by little for little apart, wherever that is', () => {
    const aroundMs = (times: number): number =>
      besidesComputing({ cpuLimit: 0, cpuPeriodMs: 0, engineThreads: 4, probeSmallRunMs: times * SMALL_RUN_MS }).aroundMs ?? 0;
    for (let times = 0.1; times < 10; times *= 1.01) {
      const growth = aroundMs(times * 1.01) / aroundMs(times);
      expect(growth, `${times}`).toBeGreaterThanOrEqual(1 - 1e-9);
      expect(growth, `${times}`).toBeLessThan(1.05);
    }
  });

  it('takes agents of one machine for one processor: what the least disturbed of them found of it', () => {
    const agents = [
      { host: 'a', ms: 0.15 },
      { host: 'a', ms: 0.09 },
      { host: 'a', ms: 0 },
      { host: 'b', ms: 0.3 },
      { host: '', ms: 0.2 },
      { host: '', ms: 0.1 },
    ];
    expect(agents.map(leastOnMachine(agents, ({ ms }) => ms))).toEqual([0.09, 0.09, 0, 0.3, 0.2, 0.1]);
  });

  it('reduces a cut made by hand to the agents left, but only after a loss', async () => {
    const manual = { kind: 'rows', parts: 3 };
    expect(await codeOf({ manual })).toBe('PLAN_NOT_POSSIBLE');
    expect((await draftPlan(input({ manual, fewerParts: true }))).planner).toBe('rows:2');
    expect((await draftPlan(input({ manual, fewerParts: true, agents: [agent('a', 1e9)] }))).stages).toHaveLength(1);
  });

  it('refuses requests that contradict themselves before a model is loaded', () => {
    for (const wrong of [
      { objective: 'cheap' },
      { planner: 'nope' },
      { planner: 'manual' },
      { shares: [1, 2] },
      { cut: 'rows:2', shares: [1, 0] },
      { maxError: -0.1 },
      { maxError: 1.5 },
      { maxError: Number.NaN },
      { calibration: ['f'.repeat(64)] },
    ]) {
      expect(() => checkRequest({ ...request, ...wrong })).toThrow(/is wrong/);
    }
    expect(() => checkRequest({ ...request, planner: '', objective: '', cut: 'rows:2', shares: [2, 1] })).not.toThrow();
  });
});

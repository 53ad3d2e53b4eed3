import { describe, expect, it } from 'vitest';
import { isChairError } from '../broker/errors.js';
import type { DeployRequest } from '../broker/messages.js';
import { OUR_SCHEMAS } from '../broker/schema/version.js';
import { DEPLOY_DEFAULTS } from './deploy-defaults.js';
import { withPlanFile } from './plan-file.js';
import { chain } from './planners/chain-model.js';
import { checkRequest, draftPlan, type PlanningInput } from './planning.js';
import type { AgentRecord, AgentState } from './registry.js';

const MIB = 2 ** 20;
const SHA = 'a'.repeat(64);
const facts = chain(new Array(3).fill({ macs: 1e9, weightBytes: 100 * MIB, rows: 12 }), 12);
const file = (agents: string, objective = 'throughput') =>
  `version: 1\nmodel: "${SHA}"\nobjective: ${objective}\ninFlight: 3\nstages:\n  - {blocks: [0, 3], cut: rows, shares: [3, 1], agents: [${agents}]}\n`;

function request(over: Partial<DeployRequest> = {}): DeployRequest {
  return { ...DEPLOY_DEFAULTS, name: 'm', model: 'x', plan: file('b, a'), ...over };
}

function agent(name: string, state: AgentState = 'ready', memoryMib = 1000): AgentRecord {
  const hello = {
    ...{
      agent: name,
      nonce: '1',
      ...OUR_SCHEMAS,
      softwareVersion: '0',
      term: 0,
      scheduler: '',
      addresses: [],
      lanePort: 0,
      cores: 1,
      arch: '',
    },
    ...{ host: '', hostCores: 1, cpuLimit: 0, cpuPeriodMs: 0, engineThreads: 1, cpu: '', fingerprint: '' },
    ...{
      engine: '',
      engineVersion: '',
      storeBytesFree: 0,
      slices: [],
      healthMs: 1000,
      connection: 0,
      encrypted: false,
      probeMacsPerSecond: 1e9,
      probeBytesPerSecond: 0,
      probeSmallRunMs: 0,
      memoryBytes: memoryMib * MIB,
    },
  };
  return { agent: name, nonce: '1', state, why: '', hello, health: null, seenMs: 0 };
}

const input = (over: Partial<PlanningInput> = {}): PlanningInput => ({
  request: withPlanFile(request()),
  facts,
  manual: undefined,
  agents: [agent('a'), agent('b'), agent('c')],
  excluded: new Map(),
  usedBytes: new Map(),
  links: { usual: { bytesPerSecond: 1e8, latencyMs: 1 }, between: new Map() },
  fewerParts: false,
  model: SHA,
  ...over,
});

async function refusal(over: Partial<PlanningInput>): Promise<string> {
  try {
    await draftPlan(input(over));
    return 'no error';
  } catch (error) {
    return isChairError(error) ? `${error.code}: ${error.message}` : String(error);
  }
}

describe('planning with a plan file', () => {
  it("gives the file's plan, for the objective and the frames in flight of the file", async () => {
    const plan = await draftPlan(input());
    expect(plan.stages).toEqual([{ spec: { nodes: [0, 3], cut: 'rows', shares: [3, 1] }, agents: [['b', 'a']] }]);
    expect(plan).toMatchObject({ planner: 'file', inFlight: 3 });
    expect(withPlanFile(request()).objective).toBe('throughput');
    expect((await draftPlan(input({ request: withPlanFile(request({ inFlight: 7 })) }))).inFlight).toBe(7);
  });

  it('refuses agents that nobody knows, that are not ready, or that could not prepare', async () => {
    expect(await refusal({ agents: [agent('a')] })).toMatch(/^AGENT_UNKNOWN: .*b/);
    expect(await refusal({ agents: [agent('a'), agent('b', 'suspect')] })).toMatch(/^NO_AGENTS: .*b: suspect/);
    expect(await refusal({ excluded: new Map([['a', 'disk full']]) })).toMatch(/^NO_AGENTS: .*a: disk full/);
  });

  it('refuses another model, and a slice that does not fit', async () => {
    expect(await refusal({ model: 'b'.repeat(64) })).toMatch(/^PLAN_MODEL_MISMATCH/);
    expect(await refusal({ agents: [agent('a'), agent('b', 'ready', 400)] })).toMatch(/^PLAN_NOT_POSSIBLE: .*b has 340 MiB/);
  });

  it('goes on with other agents after a loss, and takes the file up again when its agents are back', async () => {
    const left = await draftPlan(input({ agents: [agent('a'), agent('b', 'lost'), agent('c')], fewerParts: true }));
    expect(left.planner).not.toBe('file');
    expect(left.stages.flatMap((stage) => stage.agents.flat())).not.toContain('b');
    expect((await draftPlan(input({ agents: [agent('a')], fewerParts: true }))).planner).toBe('single');
    expect((await draftPlan(input({ fewerParts: true }))).planner).toBe('file');
  });

  it('refuses a file beside a cut or agents, and an objective that is none, before a model is loaded', () => {
    expect(() => checkRequest(request({ cut: 'rows:2' }))).toThrow(expect.objectContaining({ code: 'PLAN_INVALID' }));
    expect(() => checkRequest(request({ agents: ['a'] }))).toThrow(expect.objectContaining({ code: 'PLAN_INVALID' }));
    expect(() => checkRequest(request({ plan: file('a, b', 'speed') }))).toThrow(expect.objectContaining({ code: 'PLAN_INVALID' }));
    expect(() => checkRequest(request({ plan: 'nonsense' }))).toThrow(expect.objectContaining({ code: 'PLAN_FILE_UNREADABLE' }));
    expect(() => checkRequest(request())).not.toThrow();
  });
});

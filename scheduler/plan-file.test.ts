import { describe, expect, it } from 'vitest';
import { type ErrorCode, isChairError } from '../broker/errors.js';
import { drawZoo } from '../models/zoo/index.js';
import { structureOf } from '../models/zoo/structure.js';
import { expand, parseDeviceFile } from './devices/device-file.js';
import { describeNodes, factsOf } from './model-library.js';
import { agentsNamed, checkSent, MAX_PLAN_FILE_BYTES, parsePlanFile, planFileText, stagesOf } from './plan-file.js';
import { auto } from './planners/auto.js';
import { filed } from './planners/filed.js';
import { manual } from './planners/manual.js';
import { musicalChair2018 } from './planners/musical-chair-2018.js';
import { pipeline } from './planners/pipeline.js';
import { isRefusal, type PlanDraft, type Planner, type PlanProblem } from './planners/problem.js';
import { replicas } from './planners/replicas.js';
import { MAX_SENT_YAML } from './read-yaml.js';

const model = structureOf(drawZoo('alexnet'));
const facts = factsOf(model);
const COUNT = facts.blocks.length;
const head = { deployment: 'net', model: model.sha256, shapes: ['image=1,3,227,227'], images: [], objective: 'throughput', maxError: 0.01 };
const describeAlexNet = (start: number, end: number): string => describeNodes(model, start, end);

function problem(devices = 'devices: [{profile: pi4, count: 3}]'): PlanProblem {
  return { facts, ...expand(parseDeviceFile(devices), model, facts), objective: 'throughput', inFlight: 0 };
}
function planned(planner: Planner, on: PlanProblem): PlanDraft {
  const plan = planner(on);
  if (isRefusal(plan)) throw new Error(plan.reason);
  return plan;
}

/** A file of these stages, for this model. */
const file = (stages: string, model_ = model.sha256): string => `version: 1\nmodel: "${model_}"\nstages:\n${stages}`;
const WHOLE = `  - {blocks: [0, ${COUNT}], agents: [a]}`;

function errorOf(text: string): { readonly code: ErrorCode | 'none'; readonly message: string } {
  try {
    stagesOf(parsePlanFile(text), model.sha256, facts);
    return { code: 'none', message: '' };
  } catch (error) {
    if (!isChairError(error)) throw error;
    return error;
  }
}

describe('a plan file', () => {
  it.each([
    ['auto on uneven devices', auto, problem('devices: [{profile: pi4}, {profile: pi5}]')],
    ['rows in uneven shares', manual, { ...problem(), manual: { kind: 'rows', parts: 3, shares: [1 / 3, 0.1, 2 / 7] } }],
    ['a pipeline', pipeline, problem()],
    ['replicas', replicas, problem()],
    ['a layer in parts, and the others on all that have room', auto, problem('devices: [{profile: pi3-2018, count: 5, memory: 330m}]')],
    ['musical-chair-2018 with a halved layer', musicalChair2018, problem('devices: [{profile: pi3-2018, count: 5, memory: 450m}]')],
  ] as const)('written and read again is the same plan: %s', (_, planner, on) => {
    const plan = planned(planner, on);
    const text = planFileText({ ...head, describe: describeAlexNet }, plan, facts);
    const read = parsePlanFile(text);
    expect(read).toMatchObject({
      objective: 'throughput',
      maxError: 0.01,
      shapes: head.shapes,
      inFlight: plan.inFlight,
      planner: plan.planner,
    });
    const stages = stagesOf(read, model.sha256, facts);
    expect(stages).toEqual(plan.stages);
    const again = planned(filed, { ...on, inFlight: read.inFlight, seated: { by: read.planner, stages } });
    expect(again.cut).toEqual(plan.cut);
    expect(again.estimate).toEqual(plan.estimate);
    expect(again.why).toContain(`made by ${plan.planner}`);
  });

  it('is read as JSON as well, which programs write', () => {
    const { version, ...rest } = parsePlanFile(file(WHOLE));
    expect(parsePlanFile(JSON.stringify({ version, ...rest }))).toEqual({ version, ...rest });
  });

  it('names layers for people, and whatever they are called it stays readable', () => {
    const plan = planned(pipeline, problem());
    const text = planFileText({ ...head, deployment: 'a\nmodel: x', describe: () => 'conv\n# 1: "\u0007ü' }, plan, facts);
    expect(stagesOf(parsePlanFile(text), model.sha256, facts)).toEqual(plan.stages);
    expect(planFileText({ ...head, describe: describeAlexNet }, plan, facts)).toContain('Conv conv1');
  });

  it('keeps names of agents that YAML would take for something else', () => {
    const stages = [
      {
        spec: { nodes: [0, model.nodes.length] as const, cut: 'whole' as const, shares: [1] },
        agents: [['1e3'], ['null'], ['yes'], ['0x10'], ['pi.4']],
      },
    ];
    const { cut, estimate } = planned(pipeline, problem());
    const text = planFileText(head, { planner: 'x', why: '', inFlight: 1, stages, cut, estimate }, facts);
    expect(agentsNamed(parsePlanFile(text))).toEqual(['1e3', 'null', 'yes', '0x10', 'pi.4']);
  });

  it('takes equal shares and one replica where nothing is said', () => {
    const [stage] = stagesOf(parsePlanFile(file(`  - {blocks: [0, ${COUNT}], cut: rows, agents: [a, b]}`)), model.sha256, facts);
    expect(stage).toEqual({ spec: { nodes: [0, model.nodes.length], cut: 'rows', shares: [1, 1] }, agents: [['a', 'b']] });
  });

  it.each([
    ['garbage', '{"stages": [', 'JSON'],
    ['binary garbage', '\u0000\u0001\u0002: - [', 'plan'],
    ['a bare word', 'hello', 'keys with values'],
    ['nothing', '', 'got nothing'],
    ['ten megabytes', 'a'.repeat(10 << 20), `at most ${MAX_PLAN_FILE_BYTES}`],
    ['a bomb of aliases', `a: &a [1]\nb: &b [*a,*a]\n${file(WHOLE)}`, 'YAML or JSON'],
    ['a key that stands twice', `model: x\n${file(WHOLE)}`, 'twice'],
    ['brackets without end', `${file(WHOLE)}\nshapes: ${'['.repeat(100_000)}`, 'deep'],
    ['the same as JSON', `{"version": 1, "stages": ${'['.repeat(100_000)}`, 'deep'],
    ['dashes without end', '- '.repeat(200_000), 'deep'],
    ['another version', file(WHOLE).replace('version: 1', 'version: 2'), 'version'],
    ['a key that is misspelt', file(`  - {blocks: [0, 1], agent: [a]}`), 'agent'],
    ['an unknown cut', file(`  - {blocks: [0, 1], cut: diagonal, agents: [a]}`), 'stages[0].cut'],
    ['a share of nothing', file(`  - {blocks: [0, 1], cut: rows, shares: [1, 0], agents: [a, b]}`), 'stages[0].shares[1]'],
    ['a weight of nothing', file(`  - {blocks: [0, 1], replicas: [[a], [b]], weights: [1, 0]}`), 'stages[0].weights[1]'],
    ['a negative share', file(`  - {blocks: [0, 1], cut: rows, shares: [-1, 2], agents: [a, b]}`), 'stages[0].shares[0]'],
    ['shares that are no numbers', file(`  - {blocks: [0, 1], cut: rows, shares: [.nan, 2], agents: [a, b]}`), 'stages[0].shares[0]'],
    [
      'shares that cannot be meant',
      file(`  - {blocks: [0, 1], cut: rows, shares: [1.0e+12, 1], agents: [a, b]}`),
      'stages[0].shares: numbers above 0, the largest at most 1000000 times the smallest; got [1000000000000,1]',
    ],
    ['a share of next to nothing', file(`  - {blocks: [0, 1], cut: rows, shares: [1.0e-300, 1], agents: [a, b]}`), 'got [1e-300,1]'],
    [
      'shares that are all next to nothing',
      file(`  - {blocks: [0, 1], cut: rows, shares: [5.0e-324, 5.0e-324], agents: [a, b]}`),
      'shares',
    ],
    ['weights that cannot be meant', file(`  - {blocks: [0, 1], replicas: [[a], [b]], weights: [1, 1.0e+12]}`), 'stages[0].weights'],
    ['a negative share, and which', file(`  - {blocks: [0, 1], cut: rows, shares: [-1, 2], agents: [a, b]}`), 'above 0; got -1'],
    ['half a block', file(`  - {blocks: [0.5, 1], agents: [a]}`), 'a whole number; got 0.5'],
    ['a text for blocks', file(`  - {blocks: 0-1, agents: [a]}`), 'a list of two; got a text'],
    ['another version, and which', file(WHOLE).replace('version: 1', 'version: "1"'), 'at version: 1; got "1"'],
    ['a short sha256, and which', file(WHOLE).replace(model.sha256, 'abc'), 'the sha256 of the model; got "abc"'],
    ['an agent that is no name', file(`  - {blocks: [0, 1], agents: ["../x"]}`), 'stages[0].agents[0]'],
    ['no stages', `version: 1\nmodel: "${model.sha256}"\nstages: []`, 'stages'],
    ['no model', `version: 1\nstages:\n${WHOLE}`, 'model'],
  ])('that is none is PLAN_FILE_UNREADABLE: %s', (_, text, said) => {
    expect(errorOf(text)).toMatchObject({ code: 'PLAN_FILE_UNREADABLE', message: expect.stringContaining(said) });
  });

  it('with tens of thousands of keys is refused in time that grows with their number', () => {
    const keys = (count: number): string => Array.from({ length: count }, (_, i) => `k${i}: ${i}`).join('\n');
    const timeOf = (text: string): number => {
      const start = performance.now();
      expect(errorOf(text)).toMatchObject({ code: 'PLAN_FILE_UNREADABLE' });
      return performance.now() - start;
    };
    timeOf(keys(2000));
    // Comparing every key with every other would take a hundred times as long.
    expect(timeOf(keys(40_000)) / Math.max(1, timeOf(keys(4000)))).toBeLessThan(50);
  });

  it('with an error at every character is refused without quoting them all', () => {
    const costMs = (): number => {
      const before = process.cpuUsage();
      expect(errorOf('[]'.repeat(MAX_SENT_YAML / 2))).toMatchObject({ message: expect.stringContaining('at line 1, column 3') });
      const { user, system } = process.cpuUsage(before);
      return (user + system) / 1000;
    };
    // A heartbeat waits for it. With a stack and an excerpt for each of 16,000 errors it takes ten times as long.
    expect(Math.min(...Array.from({ length: 5 }, costMs))).toBeLessThan(120);
  });

  it('may be sent as long JSON, or as short YAML', () => {
    const long = `${file(WHOLE)}\n${'#'.repeat(20_000)}`;
    expect(() => checkSent(long)).toThrow(expect.objectContaining({ code: 'PLAN_FILE_UNREADABLE' }));
    checkSent(file(WHOLE));
    checkSent(JSON.stringify({ ...parsePlanFile(long), planner: 'x'.repeat(20_000) }));
  });

  it.each([
    [
      'weights for other replicas than there are',
      `  - {blocks: [0, ${COUNT}], replicas: [[a], [b]], weights: [1]}`,
      'weights and replicas do not match',
    ],
    ['weights and turns', `  - {blocks: [0, ${COUNT}], replicas: [[a], [b]], weights: [1, 2], inTurn: true}`, 'who takes how many'],
    ['a gap', `  - {blocks: [0, 2], agents: [a]}\n  - {blocks: [3, ${COUNT}], agents: [b]}`, 'in no stage'],
    ['an overlap', `  - {blocks: [0, 3], agents: [a]}\n  - {blocks: [2, ${COUNT}], agents: [b]}`, 'in two stages'],
    [
      'an overlap inside a block',
      `  - {nodes: [0, 7], agents: [a]}\n  - {nodes: [6, ${model.nodes.length}], agents: [b]}`,
      'node 6 would be in two stages',
    ],
    ['a missing end', `  - {blocks: [0, 2], agents: [a]}`, 'in no stage'],
    ['a missing begin', `  - {blocks: [1, ${COUNT}], agents: [a]}`, 'in no stage'],
    ['stages in the wrong order', `  - {blocks: [2, ${COUNT}], agents: [a]}\n  - {blocks: [0, 2], agents: [b]}`, 'in no stage'],
    ['a range that is upside down', `  - {blocks: [3, 1], agents: [a]}`, 'no such blocks'],
    ['a range beyond the model', `  - {blocks: [0, 99], agents: [a]}`, `<= ${COUNT}`],
    ['blocks and nodes', `  - {blocks: [0, 1], nodes: [0, 1], agents: [a]}`, 'both'],
    ['neither blocks nor nodes', `  - {agents: [a]}`, 'neither'],
    ['nobody', `  - {blocks: [0, ${COUNT}]}`, 'neither'],
    ['agents and replicas', `  - {blocks: [0, ${COUNT}], agents: [a], replicas: [[b]]}`, 'both'],
    ['more shares than agents', `  - {blocks: [0, ${COUNT}], cut: rows, shares: [1, 2, 3], agents: [a, b]}`, '3 agents'],
    ['fewer shares than agents', `  - {blocks: [0, ${COUNT}], cut: rows, shares: [1], agents: [a, b]}`, '1 agents'],
    ['replicas of different sizes', `  - {blocks: [0, ${COUNT}], cut: rows, replicas: [[a, b], [c]]}`, 'replica 2'],
    ['an agent twice in a replica', `  - {blocks: [0, ${COUNT}], cut: rows, agents: [a, a]}`, 'a twice'],
    ['an agent in two replicas', `  - {blocks: [0, ${COUNT}], replicas: [[a], [a]]}`, 'a twice'],
    ['a whole stage on two agents', `  - {blocks: [0, ${COUNT}], agents: [a, b]}`, 'not divided'],
  ])('that contradicts itself is PLAN_INVALID: %s', (_, stages, said) => {
    expect(errorOf(file(stages))).toMatchObject({ code: 'PLAN_INVALID', message: expect.stringContaining(said) });
  });

  it('of another model is PLAN_MODEL_MISMATCH', () => {
    expect(errorOf(file(WHOLE, '0'.repeat(64)))).toMatchObject({
      code: 'PLAN_MODEL_MISMATCH',
      message: expect.stringContaining('000000000000...'),
    });
  });

  it('with a slice that does not fit says whose memory is short', () => {
    const on = problem('devices: [{name: a, macsPerSecond: 1.0e9, memory: 128m}]');
    const refused = filed({ ...on, seated: { by: 'hand', stages: stagesOf(parsePlanFile(file(WHOLE)), model.sha256, facts) } });
    expect(refused).toMatchObject({
      refused: true,
      reason: expect.stringMatching(/not enough memory: a has 109 MiB of the \d+ MiB it needs/),
    });
  });

  it('with a cut that the model does not allow says why', () => {
    const stages = stagesOf(parsePlanFile(file(`  - {blocks: [0, ${COUNT}], cut: rows, agents: [pi4-1, pi4-2]}`)), model.sha256, facts);
    expect(filed({ ...problem(), seated: { by: 'hand', stages } })).toMatchObject({ refused: true });
  });
});

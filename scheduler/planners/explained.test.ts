import { describe, expect, it } from 'vitest';
import { ChairError } from '../../broker/errors.js';
import { auto } from './auto.js';
import { chain } from './chain-model.js';
import { draft } from './draft.js';
import { changesOf, explained, type Solve } from './explained.js';
import { PLANNERS } from './planners.js';
import { type Device, isRefusal, type PlanDraft, type Planner, type PlanProblem, type PlanRefusal } from './problem.js';
import { single } from './single.js';

const GMAC = 1e9;
const MIB = 2 ** 20;
const facts = chain([
  { macs: GMAC, weightBytes: 50 * MIB, rows: 100 },
  { macs: 2 * GMAC, weightBytes: 100 * MIB, rows: 10 },
]);
const device = (agent: string, speed = 1, memoryMib = 270): Device => ({
  agent,
  macsPerSecond: speed * GMAC,
  memoryBytes: memoryMib * MIB,
});
const problem: PlanProblem = {
  facts,
  devices: [device('a'), device('b', 2)],
  links: { usual: { bytesPerSecond: 1e6, latencyMs: 20 }, between: new Map() },
  objective: 'throughput',
  inFlight: 0,
};
const here: Solve = async (planner, question) => planner(question);

function drafted(plan: PlanDraft | PlanRefusal): PlanDraft {
  if (isRefusal(plan)) throw new Error(plan.reason);
  return plan;
}

describe('an explanation', () => {
  const chosen = drafted(auto(problem));

  it('has a plan of every planner, or why that has none', async () => {
    const small = { ...problem, devices: [device('a', 1, 250), device('b', 2, 250)] };
    // Planners that come to the same are in one row, and who made the plan itself is said with it.
    const named = async (planner: string) => {
      const { alternatives } = await explained(small, { ...drafted(auto(small)), planner, alternatives: [] }, auto, PLANNERS, here);
      return alternatives.map((row) => ({ ...row, names: row.name.split(', ') }));
    };
    const rows = await named('auto');
    expect(rows.flatMap(({ names }) => names).sort()).toEqual(['manual', 'musical-chair-2018', 'pipeline', 'replicas', 'single']);
    expect(rows.find(({ name }) => name === 'single')?.refused).toContain('not enough memory');
    const pipeline = rows.find(({ names }) => names.includes('pipeline'));
    expect(pipeline).toMatchObject({ planner: 'this plan', refused: '' });
    expect(pipeline?.fps).toBeGreaterThan(0);
    expect((await named('pipeline')).flatMap(({ names }) => names)).not.toContain('pipeline');
  });

  it('plans again for each change: its figures are those of a plan for the changed problem', async () => {
    const { changes } = await explained(problem, chosen, auto, PLANNERS, here);
    const faster = drafted(auto({ ...problem, links: { ...problem.links, usual: { bytesPerSecond: 1e7, latencyMs: 20 } } }));
    expect(changes.find(({ name }) => name === 'links ten times as fast')).toMatchObject({ fps: faster.estimate.fps, refused: '' });
    const larger = drafted(auto({ ...problem, devices: problem.devices.map((one) => ({ ...one, memoryBytes: 2 * one.memoryBytes })) }));
    expect(changes.find(({ name }) => name.includes('memory'))).toMatchObject({ fps: larger.estimate.fps });
    const three = drafted(auto({ ...problem, devices: [...problem.devices, device('c', 2)] }));
    const more = changes.find(({ name }) => name === 'one more agent like b');
    expect(more?.fps).toBeCloseTo(three.estimate.fps, 6);
    expect(more?.agents).toBe(3);
  });

  it('never says that more of something would be worse: the plan of now stays possible', async () => {
    const { estimate } = chosen;
    const slower = { ...chosen, estimate: { ...estimate, fps: estimate.fps / 2, latencyMs: 2 * estimate.latencyMs } };
    const confused: Planner = ({ devices }) => (devices.length > problem.devices.length ? slower : chosen);
    const { changes } = await explained(problem, chosen, confused, new Map(), here);
    expect(changes.find(({ name }) => name === 'one more agent like b')).toMatchObject({
      fps: estimate.fps,
      latencyMs: estimate.usualLatencyMs ?? estimate.latencyMs,
    });
  });

  it('changes only what can be changed', () => {
    const names = (over: Partial<PlanProblem>, kind: 'compute' | 'link' = 'compute') =>
      changesOf({ ...problem, ...over }, { estimate: { ...chosen.estimate, bottleneck: { kind, who: 'b', ms: 1 } } }).map(
        ({ name }) => name,
      );
    expect(names({})).toContain('b twice as fast');
    expect(names({}, 'link')).not.toContain('b twice as fast');
    expect(names({ devices: [{ ...device('a'), memoryBytes: 0 }] }).join()).not.toContain('memory');
    expect(names({})).not.toContain('every agent on a machine of its own');
    const one = [device('a'), device('b')].map((each) => ({ ...each, host: 'box' }));
    expect(names({ devices: one })).toContain('every agent on a machine of its own');
  });

  it('makes every link faster, whoever it belongs to', () => {
    const link = { upBytesPerSecond: 5, downBytesPerSecond: 6, latencyMs: 7 };
    const between = new Map([['a>b', { bytesPerSecond: 8, latencyMs: 9 }]]);
    const on = {
      ...problem,
      devices: [{ ...device('a'), link }],
      links: { ...problem.links, between, gateway: link, sharedBytesPerSecond: 4 },
    };
    const changed = changesOf(on, chosen);
    const rate = changed.find(({ name }) => name === 'links ten times as fast')?.problem;
    expect(rate?.devices[0]?.link).toEqual({ upBytesPerSecond: 50, downBytesPerSecond: 60, latencyMs: 7 });
    expect(rate?.links).toMatchObject({ gateway: { upBytesPerSecond: 50 }, sharedBytesPerSecond: 40, usual: { bytesPerSecond: 1e7 } });
    expect(rate?.links.between.get('a>b')).toEqual({ bytesPerSecond: 80, latencyMs: 9 });
    const latency = changed.find(({ name }) => name.includes('latency'))?.problem;
    expect(latency?.devices[0]?.link?.latencyMs).toBeCloseTo(0.7);
    expect(latency?.links.between.get('a>b')?.latencyMs).toBeCloseTo(0.9);
  });

  it('has what the planner itself compared with, each plan once', async () => {
    const considered = { planner: 'rows:2', agents: 2, latencyMs: 123, fps: 4 };
    const plan = { ...chosen, alternatives: [considered, considered, { ...considered, fps: 5 }] };
    const { alternatives } = await explained(problem, plan, auto, new Map(), here);
    expect(alternatives.map(({ name, fps }) => `${name} ${fps}`)).toEqual(['rows:2 4', 'rows:2 5']);
  });

  it('names a plan once, with all who came to it, whatever the order of its replicas', async () => {
    const turned = drafted(
      draft(
        problem,
        'turned',
        chosen.stages.map((stage) => ({ ...stage, agents: stage.agents.toReversed() })),
      ),
    );
    const other = drafted(single(problem));
    const planners = new Map<string, Planner>([
      ['turned', () => turned],
      ['one', () => other],
      ['other', () => ({ ...other, planner: 'other' })],
    ]);
    expect(new Set(chosen.stages.flatMap(({ agents }) => agents.flat())).size).toBe(2);
    const { alternatives } = await explained(problem, { ...chosen, alternatives: [] }, auto, planners, here);
    expect(alternatives).toMatchObject([
      { name: 'turned', planner: 'this plan', agents: 2 },
      { name: 'one, other', planner: 'single', agents: 1 },
    ]);
    const own = await explained(problem, { ...chosen, planner: 'turned', alternatives: [] }, auto, planners, here);
    expect(own.alternatives.map(({ name }) => name)).toEqual(['one, other']);
  });

  it('does not offer what comes later than was asked for', async () => {
    const bounded = { ...problem, maxLatencyMs: chosen.estimate.latencyMs };
    const late = { ...chosen, estimate: { ...chosen.estimate, latencyMs: chosen.estimate.latencyMs + 1, fps: 1000 } };
    const { alternatives } = await explained(bounded, chosen, auto, new Map([['late', () => late]]), here);
    expect(alternatives.find(({ name }) => name === 'late')?.refused).toContain('more than the');
  });

  it('goes on when a planner fails', async () => {
    const broken: Solve = async (planner, question) => {
      if (planner === PLANNERS.get('replicas')) throw new ChairError('PLANNER_FAILED', 'it crashed');
      return planner(question);
    };
    const { alternatives } = await explained(problem, chosen, auto, PLANNERS, broken);
    expect(alternatives.find(({ name }) => name === 'replicas')).toMatchObject({ refused: 'it crashed' });
    expect(alternatives.find(({ name }) => name === 'single')?.refused).toBe('');
  });
});

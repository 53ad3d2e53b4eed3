import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { SliceRef } from '../broker/plan.js';
import { createRandom } from '../models/random.js';
import { type ChainBlock, chain, randomProblem } from './planners/chain-model.js';
import { draft as draftOf } from './planners/draft.js';
import { estimate } from './planners/estimate.js';
import { type Device, isRefusal, type PlanDraft, type PlanProblem, type PlanRefusal, type SeatedStage } from './planners/problem.js';
import { type RepairQuestion, repair } from './repair.js';
import { likelyFirst, missingBytes, pauseBy, planAhead } from './repair-ahead.js';

const MIB = 2 ** 20;
const LINKS = { usual: { bytesPerSecond: 1e7, latencyMs: 1 }, between: new Map() };
const device = (agent: string, over: Partial<Device> = {}): Device => ({ agent, macsPerSecond: 1e9, memoryBytes: 0, ...over });
const named = (names: string): Device[] => [...names].map((name) => device(name));

/** One slice a part, with a blob of its weights. */
function slicesOf({ cut }: PlanDraft): SliceRef[][] {
  return cut.stages.map(({ parts }, s) =>
    parts.map(({ weightBytes }, p) => ({
      graph: { sha256: `g${s}.${p}`, sizeBytes: 1000 },
      blobs: [{ sha256: `w${s}.${p}`, sizeBytes: weightBytes }],
      macs: 1,
      weightBytes,
      activationBytes: 0,
    })),
  );
}

/** Stages of one to three blocks, whole or in up to three bands, in one to three replicas, on agents as they come. */
function anyPlan(problem: PlanProblem, random: () => number): PlanDraft | PlanRefusal {
  const upTo = (most: number): number => 1 + Math.floor(most * random());
  const agent = (): string => problem.devices[upTo(problem.devices.length) - 1]?.agent ?? '';
  const stages: SeatedStage[] = [];
  for (let from = 0; from < problem.facts.blocks.length; ) {
    const to = Math.min(problem.facts.blocks.length, from + upTo(3));
    const shares = Array.from({ length: upTo(3) }, () => upTo(3));
    const spec = { nodes: [from, to] as const, cut: shares.length > 1 ? ('rows' as const) : ('whole' as const), shares };
    stages.push({ spec, agents: Array.from({ length: upTo(3) }, () => shares.map(agent)) });
    from = to;
  }
  return draftOf(problem, 'any', stages);
}

function seatedPlan(problem: PlanProblem, stages: readonly SeatedStage[]): PlanDraft {
  const plan = draftOf(problem, 'test', stages);
  if (isRefusal(plan)) throw new Error(plan.reason);
  return plan;
}

/** Blocks of 1e8 MACs and 10 MiB, a stage for each, on the agents named; the last one's in parts when several. */
function pipelineOn(devices: readonly Device[], seats: readonly (readonly string[])[], objective: PlanProblem['objective'] = 'throughput') {
  const block: ChainBlock = { macs: 1e8, weightBytes: 10 * MIB, rows: 40 };
  const problem: PlanProblem = {
    facts: chain(
      seats.map(() => block),
      40,
    ),
    devices,
    links: LINKS,
    objective,
    inFlight: 0,
  };
  const stages = seats.map(
    (agents, s): SeatedStage => ({
      spec: { nodes: [s, s + 1], cut: agents.length > 1 ? 'rows' : 'whole', shares: agents.map(() => 1) },
      agents: [agents],
    }),
  );
  return { problem, draft: seatedPlan(problem, stages) };
}

function ask(devices: readonly Device[], draft: PlanDraft, lost: string, over: Partial<RepairQuestion> = {}): RepairQuestion {
  const gone = new Set(lost);
  return {
    draft,
    slices: slicesOf(draft),
    lost: gone,
    devices: devices.filter(({ agent }) => !gone.has(agent)),
    mayTake: (agent) => !gone.has(agent),
    links: LINKS,
    objective: 'throughput',
    inFlight: 0,
    pauseMs: () => 0,
    ...over,
  };
}

function repaired(question: RepairQuestion) {
  const answer = repair(question);
  if (isRefusal(answer)) throw new Error(answer.reason);
  return answer;
}
const agentsOf = ({ stages }: PlanDraft): string[][][] => stages.map(({ agents }) => agents.map((replica) => [...replica]));

describe('a local repair', () => {
  it('seats a spare where one is, with the same slices and wires, and says so', () => {
    const devices = named('abcd');
    const { draft } = pipelineOn(devices, [['a'], ['b'], ['c']]);
    const { draft: now, moves } = repaired(ask(devices, draft, 'b'));
    expect(agentsOf(now)).toEqual([[['a']], [['d']], [['c']]]);
    expect(now.cut).toBe(draft.cut);
    expect(moves).toEqual([{ from: 'b', to: 'd', stage: 1, part: 0, slice: slicesOf(draft)[1]?.[0] }]);
    expect(now.why).toMatch(/local repair after the loss of b: d takes stage 2 part 1 \(10 MiB\)/);
    expect(now.estimate.fps).toBeCloseTo(draft.estimate.fps);
  });

  it('lets replicas that are left take the frames that the plan has for each', () => {
    const devices = named('abcd');
    const { problem } = pipelineOn(devices, [['a'], ['d']]);
    const spec = (s: number) => ({ nodes: [s, s + 1] as const, cut: 'whole' as const, shares: [1] });
    const first = { spec: spec(0), agents: [['a'], ['b'], ['c']], weights: [0.5, 0.4, 0.1] };
    const draft = seatedPlan(problem, [first, { spec: spec(1), agents: [['d']] }]);
    const { draft: now } = repaired(ask(devices, draft, 'b'));
    expect(now.stages[0]).toEqual({ ...first, agents: [['a'], ['c']], weights: [0.5, 0.1] });
    const inTurn = seatedPlan(problem, [
      { ...first, inTurn: true },
      { spec: spec(1), agents: [['d']] },
    ]);
    expect(repaired(ask(devices, inTurn, 'ab')).draft.stages[0]).toEqual({ spec: spec(0), agents: [['c']], weights: [0.1], inTurn: true });
  });

  it('gives the part to the neighbour that is least busy where there is no spare', () => {
    const devices = [device('a'), device('b'), device('c', { macsPerSecond: 4e9 })];
    const { draft } = pipelineOn(devices, [['a'], ['b'], ['c']]);
    expect(agentsOf(repaired(ask(devices, draft, 'b')).draft)).toEqual([[['a']], [['c']], [['c']]]);
  });

  it('goes on with the replicas that are whole, and moves nothing', () => {
    const devices = named('abcd');
    const { problem } = pipelineOn(devices, [['a'], ['b']]);
    const spec = { nodes: [0, 2] as const, cut: 'whole' as const, shares: [1] };
    const draft = seatedPlan(problem, [{ spec, agents: [['a'], ['b'], ['c']] }]);
    const { draft: now, moves, pauseMs } = repaired(ask(devices, draft, 'ac'));
    expect([agentsOf(now), moves, pauseMs]).toEqual([[[['b']]], [], 0]);
  });

  it('of replicas that are all broken keeps the one that lost least', () => {
    const devices = named('abcdef');
    const { problem } = pipelineOn(devices, [['a'], ['b']]);
    const spec = { nodes: [0, 2] as const, cut: 'rows' as const, shares: [1, 1] };
    const draft = seatedPlan(problem, [
      {
        spec,
        agents: [
          ['a', 'b'],
          ['c', 'd'],
        ],
      },
    ]);
    const { draft: now } = repaired(ask(devices, draft, 'abd', { pauseMs: (agent) => (agent === 'f' ? 0 : 1000) }));
    expect(agentsOf(now)).toEqual([[['c', 'f']]]);
  });

  it('moves the fewest bytes, unless that makes the plan much slower', () => {
    const devices = [device('a'), device('b'), device('c'), device('d', { macsPerSecond: 0.95e9 }), device('e')];
    const { draft } = pipelineOn(devices, [['a'], ['b'], ['c']]);
    const has = (agent: string) => ({ stored: (other: string) => other === agent, loaded: (other: string) => other === agent });
    const by = (holder: string, among: readonly Device[]) =>
      repaired(ask(among, draft, 'b', { pauseMs: pauseBy(has(holder), among, LINKS) }));
    // d has it already and is hardly slower; e would have to fetch 10 MiB first: 1 s.
    expect(agentsOf(by('d', devices).draft)[1]).toEqual([['d']]);
    expect(by('d', devices).pauseMs).toBe(0);
    // A tenth of the speed is a bad bargain even so.
    const slow = devices.map((one) => (one.agent === 'd' ? device('d', { macsPerSecond: 1e8 }) : one));
    expect(agentsOf(by('d', slow).draft)[1]).toEqual([['e']]);
    expect(by('d', slow).pauseMs).toBeGreaterThan(1000);
  });

  it('divides the seats of one agent where no single one has the memory for them, and is refused where nobody has', () => {
    const big = (agent: string) => device(agent, { memoryBytes: 260 * MIB });
    const block: ChainBlock = { macs: 1e8, weightBytes: 100 * MIB, rows: 40 };
    const devices = [...[...'bcd'].map(big), device('a', { memoryBytes: 1000 * MIB })];
    const problem: PlanProblem = { facts: chain([block, block, block], 40), devices, links: LINKS, objective: 'latency', inFlight: 1 };
    const stages = ['a', 'a', 'b'].map(
      (agent, s): SeatedStage => ({ spec: { nodes: [s, s + 1], cut: 'whole', shares: [1] }, agents: [[agent]] }),
    );
    const draft = seatedPlan(problem, stages);
    const now = repaired(ask(devices, draft, 'a', { objective: 'latency', inFlight: 1 })).draft;
    expect(agentsOf(now).flat(2).toSorted()).toEqual(['b', 'c', 'd']);
    const few = devices.filter(({ agent }) => agent !== 'd');
    expect(repair(ask(few, draft, 'a', { objective: 'latency', inFlight: 1 }))).toMatchObject({ refused: true });
  });

  it('keeps suspects in their seats and gives them no others', () => {
    const devices = named('abc');
    const { draft } = pipelineOn(devices, [['a'], ['b'], ['c']]);
    const { draft: now } = repaired(ask(devices, draft, 'b', { mayTake: (agent) => agent === 'a' }));
    expect(agentsOf(now)).toEqual([[['a']], [['a']], [['c']]]);
  });

  it('may seat the next process of the lost agent, whose disk has it all', () => {
    const devices = named('abc');
    const { draft } = pipelineOn(devices, [['a'], ['b'], ['c']]);
    const back = ask(devices, draft, 'b', { devices, mayTake: () => true, pauseMs: (agent) => (agent === 'b' ? 100 : 9000) });
    expect(agentsOf(repaired(back).draft)).toEqual(agentsOf(draft));
  });

  it('is refused when nobody is left', () => {
    const devices = named('ab');
    const { draft } = pipelineOn(devices, [['a'], ['b']]);
    expect(repair(ask(devices, draft, 'ab'))).toMatchObject({ refused: true });
  });

  it('of any plan of any model: every seat is on an agent that is there, memory holds it, and what was not lost stays where it was', () => {
    fc.assert(
      fc.property(fc.nat(1e6), fc.array(fc.nat(11), { minLength: 1, maxLength: 4 }), (seed, picks) => {
        const random = createRandom(seed);
        const problem = randomProblem({
          ...{ seed, blocks: 1 + (seed % 4), devices: 2 + (seed % 11) },
          objective: random() < 0.5 ? 'latency' : 'throughput',
          tight: random() < 0.5,
        });
        const plan = anyPlan(problem, random);
        if (isRefusal(plan)) return;
        const lost = new Set(picks.map((pick) => problem.devices[pick % problem.devices.length]?.agent ?? ''));
        const devices = problem.devices.filter(({ agent }) => !lost.has(agent));
        const answer = repair({ ...ask(problem.devices, plan, ''), ...problem, devices, lost, mayTake: (agent) => !lost.has(agent) });
        if (isRefusal(answer)) return;
        const there = new Set(devices.map(({ agent }) => agent));
        for (const [s, stage] of answer.draft.stages.entries()) {
          expect(stage.agents.length).toBeGreaterThan(0);
          for (const replica of stage.agents) {
            expect(replica.every((agent) => there.has(agent))).toBe(true);
            // It is one of those before, but for the seats of the lost.
            const before = plan.stages[s]?.agents ?? [];
            expect(before.some((old) => old.every((agent, share) => agent === replica[share] || lost.has(agent)))).toBe(true);
          }
        }
        const judged = estimate(answer.draft.cut, answer.draft.stages, devices, problem.links, answer.draft.inFlight);
        expect(answer.draft.estimate).toEqual(judged);
        for (const { needBytes, haveBytes } of judged.memory) if (haveBytes > 0) expect(needBytes).toBeLessThanOrEqual(haveBytes);
      }),
      { numRuns: 300 },
    );
  });

  it('of a plan on 200 of 10,000 agents takes a moment', () => {
    const devices = Array.from({ length: 10_000 }, (_, i) => device(`n${i}`, { macsPerSecond: 1e9 + i }));
    const { draft } = pipelineOn(
      devices,
      Array.from({ length: 200 }, (_, s) => [`n${s}`]),
    );
    const lost = new Set(['n3', 'n77']);
    const fromMs = performance.now();
    const { draft: now } = repaired({ ...ask(devices, draft, ''), lost, mayTake: (agent) => !lost.has(agent) });
    expect(performance.now() - fromMs).toBeLessThan(5000);
    expect(
      agentsOf(now)
        .flat(2)
        .some((agent) => lost.has(agent)),
    ).toBe(false);
  });
});

describe('repairs worked out ahead', () => {
  const nothing = { stored: () => false, loaded: () => false };
  function ahead(
    devices: readonly Device[],
    draft: PlanDraft,
    likely: readonly string[],
    over: Partial<Parameters<typeof planAhead>[0]> = {},
  ) {
    const { lost, pauseMs, ...question } = ask(devices, draft, '');
    const work = planAhead({
      ...{ ...question, likely, holdings: nothing, diskBytes: () => 1e9, memoryBytes: () => 1e9 },
      ...over,
    });
    for (let step = work.next(); ; step = work.next()) if (step.done === true) return step.value;
  }

  it('put on a disk what each loss would need, the likely losses first, within the budget', () => {
    const devices = named('abcd');
    const { draft } = pipelineOn(devices, [['a'], ['b'], ['c']]);
    const all = ahead(devices, draft, ['c', 'a', 'b']);
    expect([...all.standby].map(([agent, slices]) => [agent, slices.map(({ graph }) => graph.sha256)])).toEqual([
      ['d', ['g2.0', 'g0.0', 'g1.0']],
    ]);
    // The spare has room for one; the others go to neighbours, who have room for one each.
    const room = ahead(devices, draft, ['c', 'a', 'b'], { diskBytes: () => 11 * MIB });
    expect(room.standby.get('d')?.map(({ graph }) => graph.sha256)).toEqual(['g2.0']);
    for (const slices of room.standby.values()) expect(slices).toHaveLength(1);
    expect(room.repairs.size).toBe(3);
    const none = ahead(devices, draft, ['c', 'a'], { diskBytes: () => MIB });
    expect([...none.open.keys()]).toEqual(['c', 'a']);
    expect(none.standby.size).toBe(0);
  });

  it('count on what is in memory already, and prefer those that have memory left', () => {
    const devices = named('abcd');
    const { draft } = pipelineOn(devices, [['a'], ['b'], ['c']]);
    const neighbour = ahead(devices, draft, ['a'], { memoryBytes: (agent) => (agent === 'd' ? 0 : 1e9), objective: 'latency' });
    expect([...neighbour.standby.keys()]).not.toEqual(['d']);
    const holdings = { stored: (agent: string) => agent === 'c', loaded: (agent: string) => agent === 'c' };
    const had = ahead(devices, draft, ['a'], { holdings, memoryBytes: () => 0, objective: 'latency' });
    expect(had.repairs.get('a')?.moves.map(({ to }) => to)).toEqual(['c']);
    expect(had.standby.size).toBe(0);
  });

  it('are exactly what is done when the loss comes: nothing is left to fetch', () => {
    fc.assert(
      fc.property(fc.nat(1e6), (seed) => {
        const problem = randomProblem({ seed, blocks: 1 + (seed % 5), devices: 3 + (seed % 7), objective: 'throughput', tight: false });
        const plan = anyPlan(problem, createRandom(seed));
        if (isRefusal(plan)) return;
        const { lost: _, pauseMs: __, ...question } = { ...ask(problem.devices, plan, ''), ...problem };
        const names = problem.devices.map(({ agent }) => agent);
        const work = planAhead({ ...question, likely: names, holdings: nothing, diskBytes: () => 1e12, memoryBytes: () => 1e12 });
        let step = work.next();
        while (step.done !== true) step = work.next();
        const there = new Map([...step.value.standby].map(([agent, slices]) => [agent, new Set(slices.map(({ graph }) => graph.sha256))]));
        const blobs = new Map(
          [...step.value.standby].map(([agent, slices]) => [
            agent,
            new Set(slices.flatMap((s) => [s.graph, ...s.blobs].map((b) => b.sha256))),
          ]),
        );
        const holdings = {
          stored: (agent: string, sha256: string) => blobs.get(agent)?.has(sha256) === true,
          loaded: (agent: string, sha256: string) => there.get(agent)?.has(sha256) === true,
        };
        for (const lost of names) {
          const answer = repair({
            ...question,
            lost: new Set([lost]),
            devices: problem.devices.filter(({ agent }) => agent !== lost),
            mayTake: (agent) => agent !== lost,
            pauseMs: pauseBy(holdings, problem.devices, problem.links),
          });
          if (isRefusal(answer)) continue;
          const fetched = answer.moves.filter(({ to, slice }) => missingBytes(holdings, to, [slice]) > 0);
          const slower = step.value.repairs.get(lost)?.draft.estimate.fps ?? 0;
          // Only for a plan that is worth the wait.
          if (fetched.length > 0) expect(answer.draft.estimate.fps).toBeGreaterThan(1.02 * slower);
        }
      }),
      { numRuns: 60 },
    );
  });

  it('begin with those that may be gone already, then those that were lost before, then those whose loss costs most', () => {
    const risk = (agent: string, over: object = {}) => ({ agent, suspect: false, losses: 0, bytes: 1, ...over });
    const risks = [
      risk('a'),
      risk('b', { bytes: 5 }),
      risk('c', { losses: 2 }),
      risk('d', { suspect: true }),
      risk('spared', { bytes: 0, losses: 9 }),
    ];
    expect(likelyFirst(risks)).toEqual(['d', 'c', 'b', 'a']);
  });
});

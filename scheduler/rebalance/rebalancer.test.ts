import { describe, expect, it } from 'vitest';
import { ChairError } from '../../broker/errors.js';
import { DEPLOY_DEFAULTS } from '../deploy-defaults.js';
import { createDeployment, type Deployment, type Placed } from '../deployment.js';
import { LiveCorrection } from '../live/correction.js';
import type { LoadedModel } from '../model-source.js';
import { buildPlan, reportOf } from '../plan-builder.js';
import { auto } from '../planners/auto.js';
import { type ChainBlock, chain } from '../planners/chain-model.js';
import { estimate } from '../planners/estimate.js';
import { type Device, isRefusal, type Links, type ModelFacts, type PlanDraft } from '../planners/problem.js';
import { memoryOf, parseObjective } from '../planning.js';
import { NO_HANDOVER } from './handover.js';
import { agentMoves, planKey, prepareMs } from './moving.js';
import { Rebalancer, type Supposed } from './rebalancer.js';

const MIB = 2 ** 20;

/** Deterministic noise, 0 to 1. */
function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state * 1_664_525 + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

interface World {
  /** Of each agent: how fast it really is at this second, 1 = as predicted. */
  readonly speed?: (agent: string, second: number) => number;
  readonly there?: (agent: string, second: number) => boolean;
  readonly bytesPerSecond?: (agent: string, second: number) => number;
  /** Frames per second that clients send to each deployment. */
  readonly demand?: (deployment: string, second: number) => number;
  readonly memoryMib?: number;
  readonly agents?: number;
  /** A planner takes so long. */
  readonly planningSeconds?: number;
}

interface Wanted {
  readonly name: string;
  readonly objective?: string;
  readonly weight?: number;
  readonly blocks: readonly ChainBlock[];
  readonly agents?: readonly string[];
  /** No block can be cut. */
  readonly whole?: boolean;
}

/** A cluster in simulated seconds: the real planner, live correction and rebalancer; agents and clients are figures. */
class Cluster {
  readonly #world: World;
  readonly #models = new Map<string, ModelFacts>();
  readonly deployments: Deployment[] = [];
  readonly moves: { readonly second: number; readonly deployment: string; readonly why: string; readonly key: string }[] = [];
  readonly #live = new LiveCorrection();
  readonly #rebalancer: Rebalancer;
  readonly #submitted = new Map<string, number>();
  readonly #queued = new Map<string, number>();
  readonly #random = random(7);
  second = 0;
  #epoch = 0;
  /** No agent is ready: nothing can be predicted. */
  deserted = false;

  constructor(world: World, wanted: readonly Wanted[]) {
    this.#world = world;
    for (const { name, objective = 'throughput', weight = 1, blocks, agents = [], whole = false } of wanted) {
      const facts = chain(blocks, 12);
      this.#models.set(name, whole ? uncut(facts) : facts);
      const deployment = createDeployment({ ...DEPLOY_DEFAULTS, name, model: name, objective, weight, agents }, undefined);
      deployment.model = { sha256: name, facts } as LoadedModel;
      this.deployments.push(deployment);
      deployment.serving = this.#placed(deployment, this.#draft(deployment, {}));
    }
    this.#rebalancer = new Rebalancer({
      deployments: () => this.deployments,
      sample: (name) => ({ submitted: this.#submitted.get(name) ?? 0, queued: this.#queued.get(name) ?? 0 }),
      expected: (deployment, supposed) => this.#expected(deployment, supposed),
      draft: async (deployment, supposed) => {
        this.second += world.planningSeconds ?? 0;
        return this.#draft(deployment, supposed);
      },
      cost: (from, to) => {
        const moves = agentMoves({ from, to, cpuOf: () => 1 });
        return { prepareMs: prepareMs(moves, this.#links(), new Map()), pauseMs: 0, bytes: 0 };
      },
      able: ({ yielded }) => this.#there().filter((agent) => !yielded.has(agent)),
      learned: () => {
        if (this.deserted) throw new ChairError('NO_AGENTS', 'no ready agent');
        return '';
      },
      adopt: (deployment, draft, why) => {
        this.moves.push({ second: this.second, deployment: deployment.name, why, key: planKey(draft) });
        deployment.serving = this.#placed(deployment, draft);
      },
      load: async () => undefined,
      pause: async (ms) => {
        this.second += ms / 1000;
      },
      log: (kind, text) => expect(`${kind}: ${text}`).toBe(''),
      now: () => this.second * 1000,
    });
  }

  /** A deployment that is not served yet. */
  add({ name, blocks }: Wanted): Deployment {
    const deployment = createDeployment({ ...DEPLOY_DEFAULTS, name, model: name, objective: 'throughput' }, undefined);
    this.#models.set(name, chain(blocks, 12));
    this.deployments.push(deployment);
    return deployment;
  }

  /** Throws PLAN_NOT_POSSIBLE. */
  draft(deployment: Deployment): PlanDraft {
    return this.#draft(deployment, {});
  }

  makeRoom(deployment: Deployment): Promise<boolean> {
    return this.#rebalancer.makeRoom(deployment);
  }

  async run(seconds: number): Promise<void> {
    for (const end = this.second + seconds; this.second < end; this.second++) {
      for (const deployment of this.deployments) this.#serve(deployment);
      await this.#rebalancer.tick();
    }
  }

  deployment(name: string): Deployment {
    const found = this.deployments.find((each) => each.name === name);
    if (found === undefined) throw new Error(name);
    return found;
  }

  agentsOf(name: string): string[] {
    const stages = this.deployment(name).serving?.draft.stages ?? [];
    return [...new Set(stages.flatMap(({ agents }) => agents.flat()))].sort();
  }

  found(name: string): string {
    return this.#rebalancer.found(name);
  }

  /** What the plan does on the agents as they really are, alone. */
  trueFps(name: string): number {
    const deployment = this.deployment(name);
    const { draft } = deployment.serving as Placed;
    const devices = this.#devices(deployment, {}).map((device) => {
      const all = 1 / this.#speed(device.agent);
      return { ...device, otherDeployments: 0, correction: { all, stages: [] } };
    });
    return estimate(draft.cut, draft.stages, devices, this.#links(), draft.inFlight).fps;
  }

  #speed(agent: string): number {
    return this.#world.speed?.(agent, this.second) ?? 1;
  }

  #serve({ name, serving }: Deployment): void {
    const demand = this.#world.demand?.(name, this.second) ?? 0;
    this.#submitted.set(name, (this.#submitted.get(name) ?? 0) + demand);
    const queued = (this.#queued.get(name) ?? 0) + demand - this.trueFps(name);
    this.#queued.set(name, Math.min(50, Math.max(0, queued)));
    for (const { agent, stage, ms } of serving?.alone ?? []) {
      const spec = serving?.draft.cut.stages[stage]?.spec;
      if (spec === undefined) continue;
      const measuredMs = ms / this.#speed(agent);
      const seen = { agent, nonce: '1', basis: 'b', model: name, nodes: spec.nodes, cut: spec.cut };
      this.#live.observe({ ...seen, predictedMs: ms, measuredMs, frames: 1 + Math.floor(4 * this.#random()) }, this.second * 1000);
    }
  }

  #there(): string[] {
    const names = Array.from({ length: this.#world.agents ?? 6 }, (_, i) => `a${i + 1}`);
    return names.filter((agent) => this.#world.there?.(agent, this.second) ?? true);
  }

  #links(): Links {
    return { usual: { bytesPerSecond: this.#world.bytesPerSecond?.('', this.second) ?? 1e8, latencyMs: 1 }, between: new Map() };
  }

  #devices(deployment: Deployment, { others, only, plans }: Supposed): Device[] {
    const held = this.deployments.flatMap((other) => (other === deployment ? [] : (plans?.get(other.name) ?? other.serving?.draft ?? [])));
    const used = memoryOf(held);
    return this.#there().flatMap((agent) => {
      if (only?.has(agent) === false || deployment.yielded.has(agent)) return [];
      const correction = this.#live.correction(agent, deployment.name, 'b', this.second * 1000);
      const memoryBytes = Math.max(1, (this.#world.memoryMib ?? 2000) * MIB - (used.get(agent) ?? 0));
      const otherDeployments =
        others?.get(agent) ?? held.filter(({ stages }) => stages.some((s) => s.agents.flat().includes(agent))).length;
      const { latencyMs } = this.#links().usual;
      const rate = this.#world.bytesPerSecond?.(agent, this.second) ?? 1e8;
      const link = { upBytesPerSecond: rate, downBytesPerSecond: rate, latencyMs };
      return [{ agent, macsPerSecond: 1e10, memoryBytes, otherDeployments, link, ...(correction === undefined ? {} : { correction }) }];
    });
  }

  #draft(deployment: Deployment, supposed: Supposed): PlanDraft {
    const facts = this.#models.get(deployment.name) as ModelFacts;
    const { request } = deployment;
    const objective = parseObjective(supposed.objective ?? request.objective);
    const devices = this.#devices(deployment, supposed).filter(
      ({ agent }) => request.agents.length === 0 || request.agents.includes(agent),
    );
    const answer = auto({ facts, devices, links: this.#links(), inFlight: 0, ...objective });
    if (isRefusal(answer)) throw Object.assign(new Error(answer.reason), { code: 'PLAN_NOT_POSSIBLE' });
    return answer;
  }

  #expected(deployment: Deployment, supposed: Supposed) {
    const { draft } = deployment.serving as Placed;
    return estimate(draft.cut, draft.stages, this.#devices(deployment, supposed), this.#links(), draft.inFlight);
  }

  #placed(deployment: Deployment, draft: PlanDraft): Placed {
    const { name } = deployment;
    const epoch = ++this.#epoch;
    const slice = { graph: { sha256: 's', sizeBytes: 1 }, blobs: [], macs: 1, weightBytes: 1, activationBytes: 1 };
    const written = { cut: draft.cut, slices: draft.cut.stages.map(({ parts }) => parts.map(() => slice)) };
    const plan = buildPlan({ deployment: name, model: name, term: 1, epoch }, draft, written);
    const agents = [...new Set(draft.stages.flatMap((stage) => stage.agents.flat()))];
    const devices = agents.map((agent) => ({ agent, macsPerSecond: 1e10, memoryBytes: 0 }));
    const { seats } = estimate(draft.cut, draft.stages, devices, this.#links(), draft.inFlight);
    return {
      ...{
        plan,
        draft,
        report: reportOf(name, epoch, draft),
        alone: seats,
        bases: new Map(agents.map((agent) => [agent, 'b'])),
        model: name,
      },
      ...{ nonces: new Map(agents.map((agent) => [agent, '1'])), seats: new Map(agents.map((agent) => [agent, 'committed' as const])) },
      ...{ tight: new Map(), handover: NO_HANDOVER, vacated: new Map(), fetched: new Map(), settled: true },
    };
  }
}

function uncut(facts: ModelFacts): ModelFacts {
  const no = { refused: true as const, reason: 'it cannot be cut' };
  const cut: ModelFacts['cut'] = (stages) => (stages.every((stage) => stage.cut === 'whole') ? facts.cut(stages) : no);
  const stage: ModelFacts['stage'] = (spec) => (spec.cut === 'whole' ? facts.stage(spec) : no);
  return { blocks: facts.blocks, inputBytes: facts.inputBytes, cut, stage, cover: () => no };
}

/** Six blocks of 100 ms on a device; `weightMib` of weights each. */
const blocks = (weightMib: number, n = 6): ChainBlock[] => new Array(n).fill({ macs: 1e9, weightBytes: weightMib * MIB, rows: 12 });

describe('ten minutes of noisy load', { timeout: 120_000 }, () => {
  const noise = random(42);
  // Each second each agent is 0.6 to 1.4 times as fast, and for some 20 to 40 seconds of every two minutes half as fast besides: another program, heat, the air.
  const noisy = (agent: string, second: number): number => {
    const n = agent.charCodeAt(1);
    const other = (second + 37 * n) % (97 + 11 * (n % 5)) < 20 + 7 * (n % 4) ? 0.5 : 1;
    return (0.6 + 0.8 * noise()) * other;
  };

  it.each([
    ['replicas', 2000, 'throughput'],
    ['a pipeline, as no device holds the model', 420, 'throughput'],
    ['latency', 2000, 'latency'],
  ])('move nothing twice: %s', async (_, memoryMib, objective) => {
    const cluster = new Cluster({ speed: noisy, memoryMib }, [{ name: 'm', objective, blocks: blocks(100) }]);
    await cluster.run(600);
    const keys = cluster.moves.map(({ key }) => key);
    expect(keys.length).toBeLessThanOrEqual(2);
    expect(new Set(keys).size).toBe(keys.length);
  });

  it('move nothing twice while two deployments share the agents and their load rises and falls', async () => {
    const demand = (name: string, second: number): number => (name === 'm' ? 12 : 20) * (1 + 0.5 * Math.sin(second / 15)) * (0.5 + noise());
    const cluster = new Cluster({ speed: noisy, demand, memoryMib: 900 }, [
      { name: 'm', blocks: blocks(200, 3) },
      { name: 'n', blocks: blocks(75, 2) },
    ]);
    await cluster.run(600);
    for (const name of ['m', 'n']) {
      const keys = cluster.moves.filter(({ deployment }) => deployment === name).map(({ key }) => key);
      expect(keys.length).toBeLessThanOrEqual(2);
      expect(new Set(keys).size).toBe(keys.length);
    }
  });
});

describe('a deployment', () => {
  it('waits while no agent is ready, and looks on when they are back', async () => {
    const cluster = new Cluster({ memoryMib: 2000 }, [{ name: 'm', blocks: blocks(100) }]);
    cluster.deserted = true;
    await cluster.run(60);
    cluster.deserted = false;
    await cluster.run(60);
    expect(cluster.moves).toEqual([]);
  });

  it('leaves an agent that became four times slower, and does not come back while it is', async () => {
    const world: World = { memoryMib: 420, speed: (agent, second) => (agent === 'a2' && second >= 60 ? 0.25 : 1) };
    const cluster = new Cluster(world, [{ name: 'm', blocks: blocks(100) }]);
    expect(cluster.agentsOf('m')).toContain('a2');
    const unharmed = cluster.trueFps('m');
    await cluster.run(60);
    expect(cluster.moves).toEqual([]);
    await cluster.run(1);
    expect(cluster.trueFps('m')).toBeLessThan(0.8 * unharmed);
    await cluster.run(90);
    // All that the five others can do, of six.
    expect(cluster.trueFps('m')).toBeGreaterThan(0.83 * unharmed);
    expect(cluster.moves[0]?.why).toContain('agent a2 takes');
    const moves = cluster.moves.length;
    await cluster.run(450);
    expect(cluster.moves.length).toBeLessThanOrEqual(moves + 1);
  });

  it('uses agents that join, all at once', async () => {
    const world: World = { there: (agent, second) => agent < 'a4' || second >= 60 + agent.charCodeAt(1) - '4'.charCodeAt(0) };
    const cluster = new Cluster(world, [{ name: 'm', blocks: blocks(100) }]);
    expect(cluster.agentsOf('m')).toEqual(['a1', 'a2', 'a3']);
    await cluster.run(90);
    expect(cluster.agentsOf('m')).toEqual(['a1', 'a2', 'a3', 'a4', 'a5', 'a6']);
    expect(cluster.moves.map(({ why }) => why.split(':')[0])).toEqual(['agent a4, a5, a6 came']);
  });

  it('stays where the move would take longer than it saves', async () => {
    // 600 MiB for each new agent through 1 MB/s.
    const world: World = { bytesPerSecond: () => 1e6, there: (agent, second) => agent < 'a4' || second >= 30 };
    const cluster = new Cluster(world, [{ name: 'm', blocks: blocks(100) }]);
    await cluster.run(120);
    expect(cluster.moves).toEqual([]);
    expect(cluster.found('m')).toContain('too little');
  });

  it('leaves an agent whose link became slow', async () => {
    const wide: ChainBlock[] = new Array(6).fill({ macs: 1e9, weightBytes: MIB, rows: 2000 });
    const world: World = { bytesPerSecond: (agent, second) => (agent === 'a3' && second >= 60 ? 5e5 : 1e8) };
    const cluster = new Cluster(world, [{ name: 'm', objective: 'latency', blocks: wide }]);
    expect(cluster.agentsOf('m')).toContain('a3');
    await cluster.run(120);
    expect(cluster.agentsOf('m')).not.toContain('a3');
    expect(cluster.moves.map(({ why }) => why.split(':')[0])).toEqual(['links carry less than when the plan was made']);
  });

  it('lets an agent with a slow link stay among replicas: it gets the few frames that it has room for, and the others lose nothing', async () => {
    const wide: ChainBlock[] = new Array(6).fill({ macs: 1e9, weightBytes: MIB, rows: 2000 });
    const world: World = { bytesPerSecond: (agent, second) => (agent === 'a3' && second >= 60 ? 5e5 : 1e8) };
    const cluster = new Cluster(world, [{ name: 'm', blocks: wide }]);
    const before = cluster.trueFps('m');
    await cluster.run(120);
    expect(cluster.moves).toEqual([]);
    expect(cluster.trueFps('m') / before).toBeGreaterThan(0.95 * (5 / 6));
  });

  it('planned for latency serves more frames while they wait, and goes back once when they are few again', async () => {
    const demand = (_: string, second: number): number => (second >= 60 && second < 180 ? 5 : 0.5);
    const cluster = new Cluster({ demand }, [{ name: 'm', objective: 'latency', blocks: blocks(1), whole: true }]);
    const quiet = cluster.trueFps('m');
    expect(quiet).toBeLessThan(5);
    await cluster.run(120);
    expect(cluster.trueFps('m')).toBeGreaterThan(5);
    expect(cluster.moves[0]?.why).toContain('frames wait');
    await cluster.run(480);
    expect(cluster.trueFps('m')).toBeGreaterThanOrEqual(quiet);
    expect(cluster.moves.length).toBeLessThanOrEqual(2);
  });
});

describe('two deployments', { timeout: 120_000 }, () => {
  // Each agent has memory for one of them.
  const both: readonly Wanted[] = [
    { name: 'm', blocks: blocks(100), agents: [] },
    { name: 'n', blocks: blocks(100), agents: [] },
  ];
  const shifting = (name: string, second: number): number => ((name === 'm') === second < 120 ? 1 : 9);

  it('get the seats that their demand needs when it moves from 1:9 to 9:1', async () => {
    const cluster = new Cluster({ demand: shifting, memoryMib: 900, agents: 7 }, [
      { ...both[0], agents: ['a1'] } as Wanted,
      both[1] as Wanted,
    ]);
    // From the start on any agent may be used.
    const m = cluster.deployment('m');
    m.request = { ...m.request, agents: [] };
    await cluster.run(120);
    expect(cluster.agentsOf('n').length).toBeGreaterThanOrEqual(5);
    await cluster.run(120);
    expect(cluster.agentsOf('m').length).toBeGreaterThanOrEqual(5);
    expect(cluster.agentsOf('n').length).toBeLessThanOrEqual(2);
    expect(cluster.trueFps('m')).toBeGreaterThanOrEqual(0.9 * 9);
    expect(cluster.trueFps('n')).toBeGreaterThanOrEqual(1);
    const moves = cluster.moves.length;
    await cluster.run(360);
    expect(cluster.moves.length).toBe(moves);
  });

  it('take what another gave up at once, also where planning takes long', async () => {
    const cluster = new Cluster({ demand: shifting, memoryMib: 900, agents: 7, planningSeconds: 1 }, [
      { ...both[0], agents: ['a1'] } as Wanted,
      both[1] as Wanted,
    ]);
    const m = cluster.deployment('m');
    m.request = { ...m.request, agents: [] };
    await cluster.run(360);
    const gave = cluster.moves.findIndex(({ why }) => why.startsWith('m needs'));
    const [given, taken] = cluster.moves.slice(gave);
    expect(given?.deployment).toBe('n');
    expect(taken?.deployment).toBe('m');
    expect((taken?.second ?? Number.NaN) - (given?.second ?? Number.NaN)).toBeLessThanOrEqual(5);
  });

  it('make room for one that has no plan on what they leave, as little as it needs', async () => {
    const cluster = new Cluster({ memoryMib: 740, demand: () => 2 }, [{ name: 'm', blocks: blocks(100) }]);
    await cluster.run(30);
    expect(cluster.agentsOf('m').length).toBe(6);
    const late = cluster.add({ name: 'n', blocks: blocks(100) });
    expect(() => cluster.draft(late)).toThrow();
    expect(await cluster.makeRoom(late)).toBe(true);
    expect(cluster.agentsOf('m').length).toBe(5);
    expect(cluster.draft(late).stages.flatMap(({ agents }) => agents.flat())).not.toContain(cluster.agentsOf('m')[0]);
  });
});

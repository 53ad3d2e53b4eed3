/**
 * Looks whether a better plan than the one in force is worth moving to: when an agent is slower than predicted or a link than measured, when agents joined, when frames
 * wait, when demand moves between deployments. The shell around watch.ts (when), worth.ts (whether), moving.ts (what it costs) and sharing.ts (who gives way); how
 * the move is made is deployments.ts's affair. Plans that somebody made by hand are left alone.
 */
import { toChairError } from '../../broker/errors.js';
import type { Deployment, Placed } from '../deployment.js';
import type { Estimate } from '../planners/estimate.js';
import { FILED } from '../planners/filed.js';
import type { PlanDraft } from '../planners/problem.js';
import { parseObjective } from '../planning.js';
import { DemandMeter, type DemandSample } from './demand.js';
import { planKey } from './moving.js';
import { busyOf, type Demand, HEADROOM, othersOf, type Planning, type Sharer, type Shift, shift } from './sharing.js';
import { type Signal, Watch } from './watch.js';
import { decide, type MoveCost, Moves, type Want, worthOf } from './worth.js';

/** What planning for a deployment takes instead of what it would take by itself. */
export interface Supposed {
  /** Plan for this instead of the request's own objective. */
  readonly objective?: string;
  /** By agent, in place of `Device.otherDeployments`. */
  readonly others?: ReadonlyMap<string, number>;
  /** Only these agents. */
  readonly only?: ReadonlySet<string>;
  /** Other deployments hold what these plans say. */
  readonly plans?: ReadonlyMap<string, PlanDraft>;
}

export interface RebalanceOptions {
  readonly deployments: () => readonly Deployment[];
  readonly sample: (name: string) => DemandSample;
  /** What its plan in force should do by what is known now; undefined = there is none, or one of its agents is away. */
  readonly expected: (deployment: Deployment, supposed: Supposed) => Estimate | undefined;
  /** Throws PLAN_NOT_POSSIBLE, NO_AGENTS, PLANNER_FAILED. */
  readonly draft: (deployment: Deployment, supposed: Supposed) => Promise<PlanDraft>;
  /** A deployment that was restored serves without its model; nothing can be planned without. Throws MODEL_... */
  readonly load: (deployment: Deployment) => Promise<void>;
  readonly cost: (from: PlanDraft, to: PlanDraft) => MoveCost;
  /** Agents that could hold seats of this deployment now. */
  readonly able: (deployment: Deployment) => readonly string[];
  /** What the figures of its agents stand on, where it is other than when the plan was made. */
  readonly learned: (deployment: Deployment) => string;
  /** Moves to the plan, if nothing came between. */
  readonly adopt: (deployment: Deployment, draft: PlanDraft, why: string) => void;
  readonly log: (kind: string, text: string) => void;
  readonly pause: (ms: number) => Promise<unknown>;
  readonly now: () => number;
}

interface State {
  readonly demand: DemandMeter;
  readonly watch: Watch;
  readonly moves: Moves;
  /** The plan that all below is about. */
  placed: Placed;
  /** What it was expected to do when it was new, by the same knowledge that later expectations stand on. */
  promised: Estimate | undefined;
  /** Who could take part when it was made. */
  able: ReadonlySet<string>;
  /** What the others took when a plan was last looked for. */
  others: ReadonlyMap<string, number>;
  /** It was made while frames waited. */
  pressed: boolean;
  /** The next change of its plan was decided here. */
  own: boolean;
  looking: boolean;
  /** Another deployment gives up agents for it: what is decided is carried out as soon as it has let go, however long planning takes. */
  awaits: Awaited | undefined;
  /** Shown by status: what the last look found. */
  found: string;
}

interface Awaited {
  readonly giver: string;
  readonly freed: readonly string[];
  /** The giver's plan that holds them. */
  readonly until: Placed;
  readonly sinceMs: number;
}

const LOOK_MS = 1000;
/** How long a deployment that gives up agents may take to let go of them. */
const ROOM_MS = 60_000;
const ROOM_POLL_MS = 200;
/** No other division is tried after so long: each asks planners twice. */
const SHARING_MS = 15_000;
/** So much less or more than promised is a reason to look. */
const SLOWER = 0.87;
const FASTER = 1.2;
/** So much more of some agent is free than when a plan was last looked for. */
const FREED = 0.5;

export class Rebalancer {
  readonly #o: RebalanceOptions;
  readonly #states = new Map<string, State>();
  #lookedMs = Number.NEGATIVE_INFINITY;
  #busy = false;

  constructor(options: RebalanceOptions) {
    this.#o = options;
  }

  /** Time passes: at least once a second. Resolves when a look that began is done (for tests). */
  async tick(): Promise<void> {
    const nowMs = this.#o.now();
    if (nowMs - this.#lookedMs < LOOK_MS) return;
    this.#lookedMs = nowMs;
    const all = this.#o.deployments();
    for (const name of this.#states.keys()) if (!all.some((each) => each.name === name)) this.#states.delete(name);
    for (const deployment of all) this.#note(deployment, nowMs);
    if (this.#busy) return;
    for (const deployment of all) {
      const state = this.#states.get(deployment.name);
      if (state === undefined || !isFree(deployment, state)) continue;
      const signal = this.#given(state, nowMs) ?? this.#observed(deployment, state, nowMs);
      if (signal === undefined) continue;
      this.#busy = true;
      try {
        await this.#o.load(deployment);
        await this.#look(deployment, state, signal);
      } catch (thrown) {
        const error = toChairError(thrown);
        state.found = `no other plan: ${error.message}`;
        if (!EXPECTED.has(error.code)) this.#o.log('failed', `${deployment.name}: looking for a better plan: ${error.message}`);
      } finally {
        this.#busy = false;
        state.watch.took(this.#o.now() - nowMs, this.#o.now());
      }
      return;
    }
  }

  /** The second half of a shift: the giver has let go of what it gives up. */
  #given(state: State, nowMs: number): Signal | undefined {
    const { awaits } = state;
    if (awaits === undefined) return undefined;
    const giver = this.#o.deployments().find(({ name }) => name === awaits.giver);
    const holds = giver !== undefined && (giver.serving === awaits.until || giver.draining.size > 0);
    if (holds && nowMs - awaits.sinceMs < ROOM_MS) return undefined;
    state.awaits = undefined;
    return holds ? undefined : { kind: 'agents', why: `${awaits.giver} gave up ${awaits.freed.join(', ')}` };
  }

  /** What asks for another plan. While no agent is ready nothing can be predicted, and nothing moved. */
  #observed(deployment: Deployment, state: State, nowMs: number): ReturnType<Watch['observe']> {
    try {
      return state.watch.observe(this.#signals(deployment, state), nowMs);
    } catch (error) {
      if (EXPECTED.has(toChairError(error).code)) return undefined;
      throw error;
    }
  }

  /**
   * A deployment that has no plan on what others leave: one of them, if it can, is moved to fewer agents. Resolves, when it has let go of the others, with whether
   * there is room.
   */
  async makeRoom(taker: Deployment): Promise<boolean> {
    const others = this.#free(taker);
    const byName = new Map(others.map((other) => [other.name, other]));
    const demand = { ratePerSecond: 0, pressed: true, weight: taker.request.weight };
    const found = await shift({ name: taker.name, demand, fps: 0, agents: [] }, this.#sharers(others), this.#planning(byName, taker, {}));
    const giver = byName.get(found?.giver ?? '');
    const state = this.#states.get(giver?.name ?? '');
    if (found === undefined || giver === undefined || state === undefined || !isFree(giver, state)) return false;
    const before = giver.serving;
    for (const agent of found.freed) giver.yielded.set(agent, taker.name);
    this.#move(giver, state, found.giverDraft, `${taker.name} needs ${found.freed.join(', ')}`);
    for (let asked = 0; asked < ROOM_MS / ROOM_POLL_MS; asked++) {
      await this.#o.pause(ROOM_POLL_MS);
      if (giver.serving !== before && giver.draining.size === 0) return true;
      if (giver.serving === before && giver.next === undefined && !giver.planning) return false;
    }
    return false;
  }

  /** Frames per second that clients offer, and whether they wait. */
  demand(deployment: Deployment): Demand {
    const meter = this.#states.get(deployment.name)?.demand;
    const { weight } = deployment.request;
    return { ratePerSecond: meter?.ratePerSecond(this.#o.now()) ?? 0, pressed: meter?.pressed ?? false, weight };
  }

  /** What the last look found; '' = there was none. */
  found(name: string): string {
    return this.#states.get(name)?.found ?? '';
  }

  #note(deployment: Deployment, nowMs: number): void {
    const { name, serving } = deployment;
    if (serving === undefined) return;
    const known = this.#states.get(name);
    const fresh = { placed: serving, promised: undefined, able: new Set(this.#o.able(deployment)), looking: false };
    if (known === undefined) {
      const made = { demand: new DemandMeter(), watch: new Watch(nowMs), moves: new Moves() };
      this.#states.set(name, { ...made, ...fresh, others: new Map(), pressed: false, own: false, awaits: undefined, found: '' });
    } else if (known.placed !== serving) {
      known.moves.add(nowMs, known.own, planKey(known.placed.draft));
      known.watch.changed(nowMs);
      Object.assign(known, fresh, { own: false, others: this.#others(deployment), pressed: known.demand.pressed });
    }
    const state = this.#states.get(name);
    state?.demand.observe(this.#o.sample(name), nowMs);
    if (state !== undefined) state.promised ??= this.#o.expected(deployment, ALONE);
  }

  #signals(deployment: Deployment, state: State): Signal[] {
    const signals: Signal[] = [];
    const say = (kind: Signal['kind'], why: string): void => void signals.push({ kind, why });
    const want = wantOf(deployment, state.demand.pressed);
    const expected = this.#o.expected(deployment, ALONE);
    if (expected !== undefined && state.promised !== undefined) {
      const ratio = worthOf(expected, want) / worthOf(state.promised, want);
      const slow = slowest(expected, state.promised);
      if (ratio < SLOWER && slow.factor > 1.1)
        say('slower', `agent ${slow.agent} takes ${slow.factor.toFixed(1)} times what was predicted`);
      else if (ratio < SLOWER) say('link', 'links carry less than when the plan was made');
      else if (ratio > FASTER) say('faster', 'agents or links are faster than when the plan was made');
    }
    const joined = this.#o.able(deployment).filter((agent) => !state.able.has(agent));
    if (joined.length > 0) say('agents', `agent ${joined.join(', ')} came`);
    const learned = this.#o.learned(deployment);
    if (learned !== '') say('known', learned);
    const { ratePerSecond } = this.demand(deployment);
    if (state.demand.pressed) say('pressed', `frames wait: ${ratePerSecond.toFixed(1)} come per second`);
    else if (state.pressed) say('demand', 'frames do not wait any more');
    if (state.demand.pressed && this.#isFreed(deployment, state)) say('demand', 'others ask for less than before');
    return signals;
  }

  #isFreed(deployment: Deployment, state: State): boolean {
    const now = this.#others(deployment);
    return [...state.others].some(([agent, before]) => before - (now.get(agent) ?? 0) >= FREED);
  }

  async #look(deployment: Deployment, state: State, signal: Signal): Promise<void> {
    const nowMs = this.#o.now();
    const { placed } = state;
    const others = this.#others(deployment);
    state.others = others;
    const want = wantOf(deployment, state.demand.pressed);
    const supposed: Supposed = { others, ...(want.pressed ? { objective: pressedObjective(deployment) } : {}) };
    const current = this.#o.expected(deployment, supposed);
    if (current === undefined) return;
    const draft = await this.#o.draft(deployment, supposed);
    if (!isFree(deployment, state) || deployment.serving !== placed) return;
    const { ratePerSecond } = this.demand(deployment);
    const found = this.#judge(state, want, current, draft, ratePerSecond, nowMs);
    state.found = `${signal.why}: ${found.why}`;
    if (found.move) return this.#move(deployment, state, draft, state.found);
    // What agents joined was looked at now; the next one is news again.
    state.able = new Set(this.#o.able(deployment));
    if (want.pressed) await this.#share(deployment, state, supposed, current, nowMs);
  }

  #judge(
    state: State,
    want: Want,
    current: Estimate,
    draft: PlanDraft,
    ratePerSecond: number,
    nowMs: number,
  ): { readonly move: boolean; readonly why: string } {
    if (planKey(draft) === planKey(state.placed.draft)) return { move: false, why: 'the plan in force is still the best one' };
    if (!want.pressed && draft.estimate.fps < HEADROOM * ratePerSecond && draft.estimate.fps < current.fps) {
      return {
        move: false,
        why: `another plan would serve ${draft.estimate.fps.toFixed(1)} frames/s, and ${ratePerSecond.toFixed(1)} come`,
      };
    }
    return decide({
      current: worthOf(current, want),
      candidate: worthOf(draft.estimate, want),
      cost: this.#o.cost(state.placed.draft, draft),
      horizonMs: state.moves.horizonMs(nowMs),
      recent: state.moves.recent(nowMs, planKey(draft)),
    });
  }

  /** Nothing better where it is: another deployment may have more than it needs. */
  async #share(deployment: Deployment, state: State, supposed: Supposed, current: Estimate, nowMs: number): Promise<void> {
    const others = this.#free(deployment);
    const byName = new Map(others.map((other) => [other.name, other]));
    const found = await shift(this.#sharer(deployment, current), this.#sharers(others), this.#planning(byName, deployment, supposed));
    const giver = byName.get(found?.giver ?? '');
    const theirs = this.#states.get(giver?.name ?? '');
    if (found === undefined || giver === undefined || theirs === undefined || !isFree(giver, theirs) || !isFree(deployment, state)) return;
    const decision = this.#decideShift(found, state, theirs, nowMs);
    state.found = `${found.giver} could give up ${found.freed.join(', ')}: ${decision.why}`;
    if (!decision.move) return;
    for (const agent of found.freed) giver.yielded.set(agent, deployment.name);
    deployment.yielded.clear();
    state.awaits = { giver: giver.name, freed: found.freed, until: theirs.placed, sinceMs: nowMs };
    this.#move(giver, theirs, found.giverDraft, `${deployment.name} needs ${found.freed.join(', ')} more: ${decision.why}`);
    // Should that come to nothing now, its agents are news for the taker when they are free.
    state.able = new Set([...state.able].filter((agent) => !found.freed.includes(agent)));
  }

  /** Others whose plan may be changed now. */
  #free(deployment: Deployment): Deployment[] {
    return this.#o.deployments().filter((other) => {
      const known = this.#states.get(other.name);
      return other !== deployment && known !== undefined && isFree(other, known);
    });
  }

  #sharers(others: readonly Deployment[]): Sharer[] {
    return others.map((other) => this.#sharer(other));
  }

  #planning(byName: ReadonlyMap<string, Deployment>, taker: Deployment, supposed: Supposed): Planning {
    const fromMs = this.#o.now();
    return {
      enough: () => this.#o.now() - fromMs > SHARING_MS,
      give: (giver, keep) => this.#planned(byName.get(giver), { others: new Map(), objective: 'throughput', only: new Set(keep) }),
      take: (giver, plan) => this.#planned(taker, { ...supposed, others: new Map(), plans: new Map([[giver, plan]]) }),
    };
  }

  #decideShift(found: Shift, taker: State, giver: State, nowMs: number) {
    const costs = [this.#o.cost(giver.placed.draft, found.giverDraft), this.#o.cost(taker.placed.draft, found.takerDraft)];
    const cost = {
      prepareMs: costs.reduce((sum, { prepareMs }) => sum + prepareMs, 0),
      pauseMs: costs.reduce((sum, { pauseMs }) => sum + pauseMs, 0),
      bytes: costs.reduce((sum, { bytes }) => sum + bytes, 0),
    };
    const horizonMs = Math.min(taker.moves.horizonMs(nowMs), giver.moves.horizonMs(nowMs));
    // The giver's own moves count: an agent that goes back and forth between two is what must not be.
    const recent = Math.floor(Math.max(taker.moves.recent(nowMs), giver.moves.recent(nowMs)) / 2);
    return decide({ current: found.before, candidate: found.after, cost, horizonMs, recent });
  }

  #sharer(deployment: Deployment, current = this.#o.expected(deployment, {})): Sharer {
    const { name, serving } = deployment;
    const rows = [...(serving?.alone ?? [])].sort((a, b) => a.ms - b.ms || (a.agent < b.agent ? -1 : 1));
    return { name, demand: this.demand(deployment), fps: current?.fps ?? 0, agents: [...new Set(rows.map(({ agent }) => agent))] };
  }

  /** Undefined where there is no plan. */
  async #planned(deployment: Deployment | undefined, supposed: Supposed): Promise<PlanDraft | undefined> {
    if (deployment === undefined) return undefined;
    try {
      return await this.#o.draft(deployment, supposed);
    } catch (error) {
      if (EXPECTED.has(toChairError(error).code)) return undefined;
      throw error;
    }
  }

  #move(deployment: Deployment, state: State, draft: PlanDraft, why: string): void {
    state.own = true;
    this.#o.adopt(deployment, draft, why);
  }

  /** What others take of each agent at the rate at which their frames come. */
  #others(deployment: Deployment): Map<string, number> {
    const busy = this.#o
      .deployments()
      .filter((other) => other !== deployment)
      .flatMap((other) => {
        const placed = other.next ?? other.serving;
        return placed === undefined ? [] : [busyOf(placed.alone, this.demand(other))];
      });
    return othersOf(busy);
  }
}

/** What other deployments take of agents is not the agents' or the links' fault. */
const ALONE: Supposed = { others: new Map() };

const EXPECTED: ReadonlySet<string> = new Set(['PLAN_NOT_POSSIBLE', 'NO_AGENTS', 'AGENT_UNKNOWN', 'STOPPED']);

/** Serves, nothing is under way, and the plan is the planner's. */
function isFree(deployment: Deployment, { placed }: State): boolean {
  const { serving, next, planning, removing, draining, manual, model } = deployment;
  if (serving === undefined || model === undefined || serving !== placed || next !== undefined || planning || removing || draining.size > 0)
    return false;
  return manual === undefined && serving.draft.planner !== FILED && deployment.request.plan === '';
}

function wantOf({ request }: Deployment, pressed: boolean): Want {
  return { ...parseObjective(request.objective), pressed };
}

/** As many frames as possible, within the bound if there is one. */
function pressedObjective({ request }: Deployment): string {
  return request.objective.startsWith('throughput') ? request.objective : 'throughput';
}

/** The seat whose time grew most. */
function slowest(now: Estimate, then: Estimate): { readonly agent: string; readonly factor: number } {
  let worst = { agent: '', factor: 1 };
  for (const [i, { agent, ms }] of now.seats.entries()) {
    const factor = ms / (then.seats[i]?.ms ?? ms);
    if (factor > worst.factor) worst = { agent, factor };
  }
  return worst;
}

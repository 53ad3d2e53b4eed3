/**
 * The deployments of the virtual world: the real reconcile, the real local repair and the real state machine of frames, with agents that do what they are asked as
 * long as they are there. What must hold is looked at wherever something is decided; throws what does not.
 */
import { type Answer, FRAME_LIMITS, type FrameEffect } from '../../scheduler/frame-types.js';
import { FrameTable } from '../../scheduler/frames.js';
import { type DeploymentView, reconcile, type SeatProgress, type Step } from '../../scheduler/reconcile.js';
import type { Registry } from '../../scheduler/registry.js';
import { repair } from '../../scheduler/repair.js';
import { hasRoute } from '../../scheduler/router.js';
import { flawOf, type InForce, type Planning, questionOf, Shelves, slicesOf, stays } from './virtual-plans.js';

/** Time passes in steps of so long. */
export const STEP_MS = 250;
/** A planner takes its time; agents are lost meanwhile. */
const PLANNING_MS = 900;
const PREPARE_MS = 600;
const COMMIT_MS = 50;
const RUN_MS = 120;
/** A command that did not arrive is sent again. */
const AGAIN_MS = 1000;
export const FRAME_DEADLINE_MS = 30_000;

export interface ServiceOptions {
  /** Another one after a restart of the gateway. */
  readonly registry: () => Registry;
  /** Who is suspect, as of now. */
  readonly suspects: ReadonlySet<string>;
  readonly nowMs: () => number;
  readonly random: () => number;
  /** Not when the gateway was killed meanwhile. */
  readonly after: (ms: number, run: () => void) => void;
  /** Whether this process gets what it is sent, and answers. */
  readonly reaches: (agent: string, nonce: string) => boolean;
  readonly plan: Planning;
  /** Of each deployment. */
  readonly framesPerSecond: number;
}

interface Placed extends InForce {
  readonly epoch: number;
  readonly seats: Map<string, SeatProgress>;
  readonly spare: ReadonlySet<string>;
  readonly optional: boolean;
}

/** Of one attempt: who works on each stage, and how many of them it can do without. */
type Way = readonly { readonly agents: readonly string[]; readonly redundancy: number }[];

interface Deployed {
  readonly name: string;
  readonly frames: FrameTable<number, number>;
  planning: boolean;
  optional: boolean;
  stuck: boolean;
  overtaken: boolean;
  afterLoss: boolean;
  recovering: boolean;
  retargeted: boolean;
  repaired: boolean;
  serving: Placed | undefined;
  next: Placed | undefined;
  sequence: number;
  /** Sequences without an outcome, and when they must have one. */
  readonly open: Map<number, number>;
  /** Attempts under way, by frame and attempt. */
  readonly live: Map<string, { readonly placed: Placed; readonly way: Way }>;
}

export class VirtualService {
  readonly #world: ServiceOptions;
  readonly #planning: Planning;
  readonly #framesPerSecond: number;
  readonly #deployed = new Map<string, Deployed>();
  readonly #shelves = new Shelves((agent) => this.#world.registry().get(agent)?.nonce ?? '');
  readonly #codes = new Map<string, number>();
  /** Processes that were told to be gone. */
  readonly #gone = new Set<string>();
  #epoch = 0;
  plans = 0;
  repairs = 0;
  /** Losses for which no local repair was possible. */
  unrepaired = 0;
  results = 0;

  constructor(options: ServiceOptions) {
    this.#world = options;
    this.#planning = options.plan;
    this.#framesPerSecond = options.framesPerSecond;
  }

  /** Frames that failed, by code. */
  get codes(): ReadonlyMap<string, number> {
    return this.#codes;
  }

  /** Time passes. */
  tick(): void {
    for (const deployed of [...this.#deployed.values()]) {
      this.#reconcile(deployed);
      this.#feed(deployed);
    }
  }

  /** Another process: it knows the deployments. Seats of the term before are not its own. */
  restart(): void {
    for (const deployed of this.#deployed.values()) {
      Object.assign(deployed, FRESH);
      deployed.frames.withdraw('the gateway has just started');
    }
  }

  ready(agent: string, nonce: string): void {
    this.#gone.delete(nonce);
    for (const one of this.#deployed.values()) {
      Object.assign(one, { stuck: false, overtaken: true });
      one.recovering = one.afterLoss;
      if (one.serving?.nonces.get(agent) === nonce) this.#outcomes(one, one.frames.agentBack(agent, this.#world.nowMs()));
    }
  }

  /** No attempt waits for somebody who is gone. */
  gone(agent: string, nonce: string): void {
    this.#gone.add(nonce);
    for (const one of this.#deployed.values()) {
      if (one.serving?.nonces.has(agent) === true) Object.assign(one, { stuck: false, overtaken: true });
      this.#outcomes(one, one.frames.agentLost(agent, this.#world.nowMs()));
      // Of several that are lost at once one is told after the other.
      const isThere = ({ nonces }: Placed, other: string): boolean => !this.#gone.has(nonces.get(other) ?? '');
      const waiting = [...one.live.values()].filter(({ placed, way }) => !isOpen(way, (other) => isThere(placed, other)));
      ensure(waiting.length === 0, `${waiting.length} attempts of ${one.name} still wait for ${agent}, which was lost`);
    }
  }

  /** No more frames come. */
  drain(): void {
    for (const one of this.#deployed.values()) one.sequence = Number.POSITIVE_INFINITY;
  }

  /** Each frame has had its one outcome. */
  ended(): void {
    for (const { name, open, frames } of this.#deployed.values()) {
      ensure(open.size === 0, `${open.size} frames of ${name} have no outcome`);
      ensure(frames.inFlight === 0 && frames.queued === 0, `${name} has frames in flight at the end`);
    }
  }

  atRest(): void {
    const registry = this.#world.registry();
    for (const { name, serving, next, planning, recovering, repaired } of this.#deployed.values()) {
      ensure(!recovering, `${name} was not planned again although an agent came after a loss`);
      ensure(!repaired, `${name} was repaired, and no whole plan was made since`);
      ensure(serving !== undefined && next === undefined && !planning, `${name} is not served at rest`);
      for (const [agent, nonce] of serving?.nonces ?? [])
        ensure(registry.serves(agent, nonce), `${name} has a seat on ${agent}, which is gone`);
    }
  }

  deploy(name: string): void {
    this.#deployed.set(name, {
      ...{ name, frames: new FrameTable<number, number>({ ...FRAME_LIMITS, queueFrames: 4096 }, 1, this.#world.suspects), ...FRESH },
      ...{ sequence: 0, open: new Map(), live: new Map() },
    });
  }

  /** Its objective is another one. */
  adjust(name: string): void {
    const deployed = this.#deployed.get(name);
    if (deployed !== undefined) deployed.retargeted = true;
  }

  undeploy(name: string): void {
    const deployed = this.#deployed.get(name);
    if (deployed === undefined) return;
    this.#outcomes(deployed, deployed.frames.remove(this.#world.nowMs()));
    ensure(deployed.open.size === 0, `${deployed.open.size} frames of ${name} have no outcome although it was removed`);
    this.#deployed.delete(name);
  }

  holdsSeats(agent: string, nonce: string): boolean {
    const placed = [...this.#deployed.values()].flatMap(({ serving, next }) => [serving, next]);
    return placed.some((one) => one?.nonces.get(agent) === nonce);
  }

  #reconcile(deployed: Deployed): void {
    const view: DeploymentView = { ...deployed, removing: false };
    const agents = {
      serves: (agent: string, nonce: string) => this.#world.registry().serves(agent, nonce),
      draining: (agent: string) => this.#world.registry().get(agent)?.state === 'draining',
    };
    for (const step of reconcile(view, agents)) this.#take(deployed, step);
  }

  #take(deployed: Deployed, step: Step): void {
    const { next } = deployed;
    if (step.do === 'plan') this.#plan(deployed);
    else if (step.do === 'repair') this.#repair(deployed);
    else if (next === undefined) throw new Error(`${deployed.name}: ${step.do} without a plan to come`);
    else if (step.do === 'abandon') deployed.next = undefined;
    else if (step.do === 'switch') this.#switch(deployed, next);
    else if (step.do === 'prepare' || step.do === 'commit') this.#seat(deployed, next, step.agent, step.do);
    else throw new Error(`${deployed.name}: seats fit, and yet ${step.do} is asked for`);
  }

  /** As plan-making.ts does. */
  #plan(deployed: Deployed): void {
    const { serving, recovering, retargeted, repaired, name } = deployed;
    ensure(!deployed.planning && deployed.next === undefined, `${name} is planned twice at once`);
    this.plans++;
    const forced = !repaired || recovering || retargeted;
    Object.assign(deployed, {
      planning: true,
      overtaken: false,
      optional: this.#isIntact(serving),
      recovering: false,
      retargeted: false,
      repaired: false,
    });
    deployed.afterLoss = serving !== undefined && !recovering && !retargeted;
    // As things are now: when the planner is done, they may be otherwise.
    const ready = this.#world
      .registry()
      .all()
      .flatMap(({ agent, state }) => (state === 'ready' ? [agent] : []));
    const draft = ready.length === 0 ? undefined : this.#planning(ready, name);
    this.#world.after(PLANNING_MS, () => {
      deployed.planning = false;
      // It was repaired while a planner looked for another plan.
      if (deployed.serving !== serving || deployed.next !== undefined) return;
      if (draft === undefined) {
        deployed.stuck = !deployed.overtaken;
        if (serving === undefined || !this.#isPassable(serving)) deployed.frames.withdraw('no agents');
      } else if (serving === undefined || !this.#isIntact(serving) || !stays(serving.draft, draft, forced)) {
        this.#place(deployed, draft, slicesOf(draft, name));
      }
    });
  }

  /** As executing.ts does: at once, and where that is not possible, another plan. */
  #repair(deployed: Deployed): void {
    const { serving, name } = deployed;
    ensure(serving !== undefined && deployed.next === undefined, `${name} is repaired while another plan is on its way`);
    if (serving === undefined) return;
    const question = questionOf(serving, this.#world.registry(), this.#shelves);
    const answer = repair(question);
    if ('refused' in answer) {
      this.unrepaired++;
      deployed.optional = false;
      if (!deployed.planning) this.#plan(deployed);
      return;
    }
    this.repairs++;
    const flaw = flawOf(question, answer);
    ensure(flaw === '', `the repair of ${name} after the loss of ${[...question.lost].join(', ')}: ${flaw}`);
    deployed.afterLoss = true;
    deployed.repaired = true;
    this.#place(deployed, answer.draft, serving.slices);
  }

  #place(deployed: Deployed, draft: InForce['draft'], slices: InForce['slices']): void {
    const seated = new Set(draft.stages.flatMap(({ agents }) => agents.flat()));
    const nonces = new Map([...seated].map((agent) => [agent, this.#world.registry().get(agent)?.nonce ?? '']));
    const whole = new Set(draft.stages.flatMap(({ agents, spec }) => (spec.redundancy === 1 ? [] : agents.flat())));
    const spare = new Set([...seated].filter((agent) => !whole.has(agent)));
    const seats = new Map([...seated].map((agent): [string, SeatProgress] => [agent, 'wanted']));
    deployed.next = { epoch: ++this.#epoch, draft, slices, nonces, seats, spare, optional: this.#isIntact(deployed.serving) };
  }

  #isIntact(placed: Placed | undefined): boolean {
    return placed !== undefined && [...placed.nonces].every(([agent, nonce]) => this.#world.registry().serves(agent, nonce));
  }

  /** Whether frames still find a way through it. */
  #isPassable({ draft, nonces }: Placed): boolean {
    return hasRoute(stagesOf(draft), (agent) => !this.#world.registry().serves(agent, nonces.get(agent) ?? ''));
  }

  #seat(deployed: Deployed, placed: Placed, agent: string, what: 'prepare' | 'commit'): void {
    const nonce = placed.nonces.get(agent) ?? '';
    ensure(this.#world.registry().serves(agent, nonce), `${agent} is asked to ${what} although it is gone`);
    const before = placed.seats.get(agent);
    ensure(before === (what === 'prepare' ? 'wanted' : 'prepared'), `${agent} is asked to ${what} while its seat is ${before}`);
    placed.seats.set(agent, what === 'prepare' ? 'asked' : 'committing');
    const answer = (): void => {
      if (deployed.next !== placed) return;
      // A command that did not arrive is sent again while its process is there.
      if (!this.#world.reaches(agent, nonce)) this.#world.after(AGAIN_MS, answer);
      else if (what === 'commit') placed.seats.set(agent, 'committed');
      else {
        placed.seats.set(agent, 'prepared');
        this.#shelves.add(agent, nonce, placed.draft, placed.slices);
      }
    };
    this.#world.after(what === 'prepare' ? PREPARE_MS * (0.5 + this.#world.random()) : COMMIT_MS, answer);
  }

  #switch(deployed: Deployed, placed: Placed): void {
    ensure(
      [...placed.seats.values()].every((progress) => progress === 'committed'),
      `${deployed.name} is switched before all have committed`,
    );
    deployed.serving = placed;
    deployed.next = undefined;
    const stages = stagesOf(placed.draft);
    this.#outcomes(deployed, deployed.frames.install({ epoch: placed.epoch, stages, budget: 32, expectedMs: RUN_MS }, this.#world.nowMs()));
  }

  #feed(deployed: Deployed): void {
    const { frames, open } = deployed;
    for (let i = 0; i < (this.#framesPerSecond * STEP_MS) / 1000 && Number.isFinite(deployed.sequence); i++) {
      const sequence = ++deployed.sequence;
      open.set(sequence, this.#world.nowMs() + FRAME_DEADLINE_MS + 1000);
      const submission = { client: 'c', sequence, input: sequence, bytes: 1, deadlineMs: FRAME_DEADLINE_MS };
      this.#outcomes(deployed, frames.submit(submission, this.#world.nowMs()));
    }
    this.#outcomes(deployed, frames.tick(this.#world.nowMs()));
    for (const [sequence, dueMs] of open) {
      // In the order they came, so the first is the oldest.
      ensure(this.#world.nowMs() <= dueMs + STEP_MS, `frame ${sequence} of ${deployed.name} has no outcome after its deadline`);
      break;
    }
  }

  #outcomes(deployed: Deployed, effects: readonly FrameEffect<number, number>[]): void {
    for (const effect of effects) {
      if (effect.kind === 'answer') this.#answered(deployed, effect);
      if (effect.kind === 'cancel') deployed.live.delete(`${effect.frame} ${effect.attempt}`);
      if (effect.kind !== 'issue') continue;
      const { frame, attempt, epoch, route, input } = effect;
      const placed = deployed.serving;
      if (placed === undefined || placed.epoch !== epoch)
        throw new Error(`${deployed.name}: a frame is issued in epoch ${epoch}, which is not in force`);
      const key = `${frame} ${attempt}`;
      const way = stagesOf(placed.draft).map(({ agents, redundancy }, s) => ({ agents: agents[route[s] ?? 0] ?? [], redundancy }));
      deployed.live.set(key, { placed, way });
      this.#world.after(RUN_MS * (0.5 + this.#world.random()), () => {
        if (!isOpen(way, (agent) => this.#world.reaches(agent, placed.nonces.get(agent) ?? ''))) return;
        deployed.live.delete(key);
        this.#outcomes(deployed, deployed.frames.complete(frame, attempt, 2 * input, 1, this.#world.nowMs()));
      });
    }
  }

  #answered(deployed: Deployed, { sequence, output, error }: Answer<number>): void {
    ensure(deployed.open.delete(sequence), `frame ${sequence} of ${deployed.name} has two outcomes`);
    deployed.frames.acknowledge('c', sequence);
    if (error !== undefined) this.#codes.set(error.code, (this.#codes.get(error.code) ?? 0) + 1);
    else {
      this.results++;
      ensure(output === 2 * sequence, `frame ${sequence} of ${deployed.name} got the result of another: ${output}`);
    }
  }
}

/** A deployment of which nothing is known but that it is wanted. */
const FRESH = {
  ...{
    planning: false,
    optional: false,
    stuck: false,
    overtaken: false,
    afterLoss: false,
    recovering: false,
    retargeted: false,
    repaired: false,
  },
  ...{ serving: undefined, next: undefined },
};

function stagesOf({ stages }: InForce['draft']): { agents: string[][]; redundancy: number }[] {
  return stages.map(({ spec, agents }) => ({ agents: agents.map((parts) => [...parts]), redundancy: spec.redundancy ?? 0 }));
}

/** Whether a result can come this way, with whom is there. */
function isOpen(way: Way, isThere: (agent: string) => boolean): boolean {
  return way.every(({ agents, redundancy }) => agents.filter((agent) => !isThere(agent)).length <= redundancy);
}

export function ensure(holds: boolean, text: string): void {
  if (!holds) throw new Error(text);
}

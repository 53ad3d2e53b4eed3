/**
 * The scheduler of the simulated cluster: the registry, reconcile, repairs and the planners are the real ones; their shell (scheduler.ts, executing.ts) is
 * written again here, short, with simulated time between its steps. It exists only when something can fail.
 */
import { type Device, isRefusal, type Links, type Objective, type PlanDraft, type PlanRefusal } from '../planners/problem.js';
import { agentMoves, prepareMs } from '../rebalance/moving.js';
import { decide, USUAL_HORIZON_MS, worthOf } from '../rebalance/worth.js';
import { type Placement, reconcile, type SeatProgress, type Step } from '../reconcile.js';
import { followSuspicion, Registry, type RegistryChange, type RegistryEvent } from '../registry.js';
import type { Clock } from './events.js';
import type { Machine, Network } from './network.js';
import { healthOf, helloOf } from './said.js';
import type { Part, Seating } from './seating.js';
import { SETTLE_MS, StandingBy } from './standing-by.js';

const TICK_MS = 250;
const HEALTH_MS = 1000;
/** Slices are fetched a chunk after the other, so that frames pass between. */
const CHUNK_BYTES = 2 ** 20;

type Seated = Pick<Placement, 'nonces'> & { readonly seating: Seating; readonly seats: Map<string, SeatProgress> };

export interface ControlOptions {
  readonly clock: Clock;
  readonly network: Network;
  readonly devices: readonly Device[];
  readonly links: Links;
  readonly objective: Objective;
  readonly first: Seating;
  readonly planningMs: number;
  readonly replan: ((devices: readonly Device[]) => PlanDraft | PlanRefusal) | undefined;
  readonly seat: (draft: PlanDraft, epoch: number) => Seating;
  /** Kept here: agents that have fallen silent. */
  readonly suspects: Set<string>;
  readonly onLost: (agent: string) => void;
  readonly onBack: (agent: string) => void;
  readonly onPlan: (seating: Seating) => void;
  readonly onWithdraw: (why: string) => void;
  readonly log: (text: string) => void;
}

export class Control {
  readonly #o: ControlOptions;
  readonly #registry = new Registry();
  /** What is on each agent's disk, which outlives its process: parts by slice. */
  readonly #stored = new Map<string, Map<string, Part>>();
  readonly #nonces = new Map<string, number>();
  /** Slices in memory besides those of seats, by agent. */
  readonly #warm = new Map<string, Set<string>>();
  readonly #standingBy: StandingBy;
  #serving: Seated;
  #next: Seated | undefined;
  #planning = false;
  #stuck = false;
  #afterLoss = false;
  #recovering = false;
  #repaired = false;
  #epoch = 1;

  constructor(options: ControlOptions) {
    this.#o = options;
    const { network, first, clock } = options;
    let started = 0;
    for (const { agent } of options.devices) {
      this.#registry.apply({ kind: 'hello', hello: helloOf(agent, '0') }, 0);
      this.#registry.apply({ kind: 'health', health: healthOf(agent, '0') }, 0);
      this.#nonces.set(agent, 0);
      // Agents do not speak all at once.
      const machine = network.machine(agent);
      if (machine !== undefined) clock.at((HEALTH_MS * started++) / options.devices.length, () => this.#speak(machine, 0));
    }
    const seats = [...first.agents].map((agent): [string, SeatProgress] => [agent, 'committed']);
    this.#serving = { seating: first, nonces: new Map([...first.agents].map((agent) => [agent, '0'])), seats: new Map(seats) };
    for (const agent of first.agents) this.#store(agent, first);
    this.#standingBy = new StandingBy({
      ...{ links: options.links, objective: options.objective },
      devices: () => options.devices.filter(({ agent }) => this.#isThere(agent)),
      mayTake: (agent) => this.#registry.get(agent)?.state === 'ready',
      missingBytes: (agent, part) => missingBytes(part, this.#stored.get(agent)),
      isLoaded: (agent, slice) => this.#loaded(agent).has(slice),
      bring: (agent, part, done) => this.#bring(agent, part, done),
    });
    this.#settle();
    clock.after(TICK_MS, () => this.#tick());
  }

  /** Its connection to the broker broke, which tells everyone. */
  crashed(machine: Machine): void {
    const gone = { agent: machine.name, nonce: this.#nonce(machine.name), why: 'will', connection: 0 };
    this.#o.clock.after(this.#o.network.latencyMs(machine, this.#o.network.gateway), () => this.#apply({ kind: 'gone', gone }));
  }

  returned(machine: Machine): void {
    const { clock, network } = this.#o;
    const nonce = (this.#nonces.get(machine.name) ?? 0) + 1;
    this.#nonces.set(machine.name, nonce);
    this.#warm.delete(machine.name);
    clock.after(network.latencyMs(machine, network.gateway), () => {
      this.#apply({ kind: 'hello', hello: helloOf(machine.name, String(nonce)) });
      this.#speak(machine, nonce);
    });
  }

  /** A peer could not reach it. */
  unreachable(agent: string, why: string): void {
    this.#apply({ kind: 'unreachable', agent, why });
  }

  #speak(machine: Machine, nonce: number): void {
    if (this.#nonces.get(machine.name) !== nonce || machine.state !== 'up') return;
    this.#apply({ kind: 'health', health: healthOf(machine.name, String(nonce)) });
    this.#o.clock.after(HEALTH_MS, () => this.#speak(machine, nonce));
  }

  #tick(): void {
    this.#apply({ kind: 'tick' });
    this.#kick();
    this.#o.clock.after(TICK_MS, () => this.#tick());
  }

  #apply(event: RegistryEvent): void {
    const changes = this.#registry.apply(event, this.#o.clock.nowMs);
    for (const change of changes) this.#changed(change);
    if (changes.length === 0) return;
    if (changes.some((change) => change.kind === 'ready')) {
      this.#stuck = false;
      this.#recovering = this.#afterLoss;
    }
    this.#kick();
  }

  #changed(change: RegistryChange): void {
    const { kind, agent } = change;
    followSuspicion(this.#o.suspects, change);
    this.#o.log(`agent ${agent} ${kind}${'why' in change ? `: ${change.why}` : ''}`);
    if (kind === 'lost') {
      if (this.#serving.nonces.has(agent)) this.#standingBy.stop();
      this.#o.onLost(agent);
    } else if (kind === 'ready' && this.#serving.nonces.get(agent) === change.nonce) this.#o.onBack(agent);
  }

  #kick(): void {
    const agents = {
      serves: (agent: string, nonce: string) => this.#registry.serves(agent, nonce),
      draining: () => false,
    };
    const view = {
      ...{ removing: false, planning: this.#planning, stuck: this.#stuck, recovering: this.#recovering },
      ...{ serving: this.#serving, next: this.#next, repaired: this.#repaired },
    };
    for (const step of reconcile(view, agents)) this.#take(step);
  }

  #take(step: Step): void {
    const { clock } = this.#o;
    const next = this.#next;
    if (step.do === 'repair' && this.#repair(step.why)) return;
    if (step.do === 'plan' || step.do === 'repair') {
      this.#planning = true;
      clock.after(this.#o.planningMs, () => this.#plan(step.why));
    } else if (next === undefined) return;
    else if (step.do === 'abandon') {
      this.#o.log(step.why);
      this.#next = undefined;
      clock.after(0, () => this.#kick());
    } else if (step.do === 'switch') this.#switch(next);
    else if (step.do === 'prepare') this.#prepare(next, step.agent);
    else this.#commit(next, step.agent);
  }

  /** The same slices on other agents, at once; false when that is not possible. */
  #repair(why: string): boolean {
    if (this.#o.replan === undefined) return false;
    const { seating, nonces } = this.#serving;
    const lost = new Set([...nonces].flatMap(([agent, nonce]) => (this.#registry.serves(agent, nonce) ? [] : [agent])));
    const answer = this.#standingBy.repair(seating, lost);
    if (isRefusal(answer)) {
      this.#o.log(`no local repair: ${answer.reason}`);
      return false;
    }
    this.#afterLoss = true;
    this.#repaired = true;
    this.#place(answer, `${why}: ${answer.why.split('\n')[0]}`);
    this.#kick();
    return true;
  }

  #plan(why: string): void {
    this.#planning = false;
    const repaired = this.#repaired && !this.#recovering;
    this.#afterLoss = !this.#recovering;
    this.#recovering = false;
    this.#repaired = false;
    const ready = this.#o.devices.filter(({ agent }) => this.#registry.get(agent)?.state === 'ready');
    const answer = ready.length === 0 ? { refused: true as const, reason: 'no agent is left' } : this.#o.replan?.(ready);
    if (answer === undefined || isRefusal(answer)) {
      const reason = answer?.reason ?? 'the plan is fixed';
      this.#stuck = true;
      this.#o.log(`no other plan: ${reason}`);
      const intact = [...this.#serving.nonces].every(([agent, nonce]) => this.#registry.serves(agent, nonce));
      // As with a plan that nobody may change: what is left of it goes on.
      if (!intact && this.#o.replan !== undefined) this.#o.onWithdraw(reason);
      return;
    }
    if (repaired && this.#stays(answer)) return;
    this.#place(answer, `planned again (${why}): ${answer.planner}`);
    this.#kick();
  }

  /** A full plan after a repair must pay for the move, as any other. */
  #stays(to: PlanDraft): boolean {
    const { objective, links } = this.#o;
    const from = this.#serving.seating.draft;
    const moves = agentMoves({ from, to, cpuOf: () => 1 });
    const { move, why } = decide({
      current: worthOf(from.estimate, { objective, pressed: false }),
      candidate: worthOf(to.estimate, { objective, pressed: false }),
      cost: { prepareMs: prepareMs(moves, links, new Map()), pauseMs: 0, bytes: moves.reduce((sum, { bytes }) => sum + bytes, 0) },
      ...{ horizonMs: USUAL_HORIZON_MS, recent: 0 },
    });
    if (!move) this.#o.log(`the repaired plan stays: of ${to.planner} ${why}`);
    return !move;
  }

  #place(draft: PlanDraft, what: string): void {
    const seating = this.#o.seat(draft, ++this.#epoch);
    this.#o.log(`${what} on ${[...seating.agents].join(', ')}`);
    const nonces = new Map([...seating.agents].map((agent) => [agent, this.#nonce(agent)]));
    this.#next = { seating, nonces, seats: new Map([...seating.agents].map((agent) => [agent, 'wanted'])) };
  }

  /** Fetches what the agent lacks from the gateway, then runs each of its slices once. */
  #prepare(placed: Seated, agent: string): void {
    const { clock, network } = this.#o;
    const machine = network.machine(agent);
    if (machine === undefined) return;
    placed.seats.set(agent, 'asked');
    const { bytes, warmUpMs } = this.#missing(agent, placed.seating);
    this.#fetch(machine, bytes, () =>
      machine.cpu.add(machine.id, warmUpMs, () => {
        this.#store(agent, placed.seating);
        clock.after(network.latencyMs(machine, network.gateway), () => this.#progress(placed, agent, 'prepared'));
      }),
    );
  }

  /** In chunks, so that frames pass between; `done` is not called when the machine falls meanwhile. */
  #fetch(machine: Machine, bytes: number, done: () => void): void {
    const { clock, network } = this.#o;
    const fetch = (left: number): void => {
      const chunk = Math.min(left, CHUNK_BYTES);
      if (left <= 0) done();
      else
        network.send(
          network.gateway,
          machine,
          chunk,
          () => fetch(left - chunk),
          () => undefined,
        );
    };
    clock.after(network.latencyMs(network.gateway, machine), () => fetch(bytes));
  }

  /** A slice that stands by: on its disk, and in memory. */
  #bring(agent: string, part: Part, done: () => void): void {
    const machine = this.#o.network.machine(agent);
    if (machine === undefined || machine.state !== 'up') return;
    const nonce = this.#nonce(agent);
    this.#fetch(machine, missingBytes(part, this.#stored.get(agent)), () => {
      const stored = this.#stored.get(agent) ?? new Map<string, Part>();
      this.#stored.set(agent, stored.set(part.slice, part));
      machine.cpu.add(machine.id, part.runMs[0] ?? 0, () => {
        if (this.#nonce(agent) === nonce) this.#warm.set(agent, (this.#warm.get(agent) ?? new Set()).add(part.slice));
        done();
      });
    });
  }

  /** Losses of the plan in force are prepared for, once nothing has happened for a while. */
  #settle(): void {
    const { epoch } = this.#serving.seating;
    if (this.#o.replan === undefined) return;
    this.#o.clock.after(SETTLE_MS, () => {
      const { seating, nonces } = this.#serving;
      const intact = [...nonces].every(([agent, nonce]) => this.#registry.serves(agent, nonce));
      if (seating.epoch === epoch && this.#next === undefined && intact) this.#standingBy.prepare(seating);
    });
  }

  #isThere(agent: string): boolean {
    return this.#registry.serves(agent, this.#nonce(agent));
  }

  /** Slices in its memory: of seats that it holds, and what stands by. */
  #loaded(agent: string): ReadonlySet<string> {
    const { nonces, seating } = this.#serving;
    const held = nonces.get(agent) === this.#nonce(agent) ? [...seatsOf(seating, agent)] : [];
    return new Set([...held.map(({ part }) => part.slice), ...(this.#warm.get(agent) ?? [])]);
  }

  #commit(placed: Seated, agent: string): void {
    const { clock, network } = this.#o;
    const machine = network.machine(agent);
    if (machine === undefined) return;
    placed.seats.set(agent, 'committing');
    clock.after(2 * network.latencyMs(network.gateway, machine), () => {
      if (machine.state === 'up') this.#progress(placed, agent, 'committed');
    });
  }

  #progress(placed: Seated, agent: string, progress: SeatProgress): void {
    placed.seats.set(agent, progress);
    if (this.#next === placed) this.#kick();
  }

  #switch(placed: Seated): void {
    this.#serving = placed;
    this.#next = undefined;
    this.#o.log(`epoch ${placed.seating.epoch} serves`);
    this.#o.onPlan(placed.seating);
    this.#settle();
  }

  #missing(agent: string, seating: Seating): { readonly bytes: number; readonly warmUpMs: number } {
    const stored = this.#stored.get(agent);
    // Sessions of slices that do not change are shared by both epochs.
    const loaded = this.#loaded(agent);
    let bytes = 0;
    let warmUpMs = 0;
    const seen = new Set<string>();
    for (const { part, replica } of seatsOf(seating, agent)) {
      if (seen.has(part.slice)) continue;
      seen.add(part.slice);
      bytes += missingBytes(part, stored);
      if (!loaded.has(part.slice)) warmUpMs += part.runMs[replica] ?? 0;
    }
    return { bytes, warmUpMs };
  }

  #store(agent: string, seating: Seating): void {
    const stored = this.#stored.get(agent) ?? new Map<string, Part>();
    for (const { part } of seatsOf(seating, agent)) stored.set(part.slice, part);
    this.#stored.set(agent, stored);
  }

  #nonce(agent: string): string {
    return String(this.#nonces.get(agent) ?? 0);
  }
}

/** Weights are blobs of their own: a longer stage, or a band of another height, uses those of the nodes that are there. */
function missingBytes(part: Part, stored: ReadonlyMap<string, Part> | undefined): number {
  if (stored === undefined) return part.weightBytes;
  if (stored.has(part.slice)) return 0;
  const { holds } = part;
  if (holds === undefined) return part.weightBytes;
  let there = 0;
  let end = holds[0];
  for (const { holds: has, weightBytes } of [...stored.values()].sort((a, b) => (a.holds?.[0] ?? 0) - (b.holds?.[0] ?? 0))) {
    if (has === undefined) continue;
    if (has[0] <= holds[0] && has[1] >= holds[1]) return 0;
    // Ranges that stick out hold something of it, too, but how much is not known here.
    if (has[0] < end || has[1] > holds[1]) continue;
    there += weightBytes;
    end = has[1];
  }
  return Math.max(0, part.weightBytes - there);
}

function* seatsOf(seating: Seating, agent: string) {
  for (const [s, stage] of seating.stages.entries()) {
    for (const [replica, holders] of stage.agents.entries()) {
      for (const [p, name] of holders.entries()) {
        const part = seating.parts[s]?.[p];
        if (name === agent && part !== undefined) yield { part, replica };
      }
    }
  }
}

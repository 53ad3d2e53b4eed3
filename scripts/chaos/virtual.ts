/**
 * The same faults in virtual time, for the parts that decide: the registry, reconcile and the frames' state machine, of thousands of agents that are not there.
 * What must hold is looked at after every event. No I/O, no clock; randomness only from the seed.
 * Long, because it is one simulated world: machines, registry, deployments and frames share one clock and act on each other within a step; parts are marked by lines.
 */
import type { Health, Hello } from '../../broker/messages.js';
import { createRandom, seedFor } from '../../models/random.js';
import { type Answer, FRAME_LIMITS, type FrameEffect } from '../../scheduler/frame-types.js';
import { FrameTable } from '../../scheduler/frames.js';
import { type DeploymentView, reconcile, type SeatProgress, type Step } from '../../scheduler/reconcile.js';
import { type AgentState, followSuspicion, Registry, type RegistryChange, type RegistryEvent } from '../../scheduler/registry.js';
import { healthOf, helloOf } from '../../scheduler/simulate/said.js';
import { CONVERGE_MS } from './run.js';
import { type Act, actsOf, EXTRA_DEPLOYMENT, type Fault, type Round } from './schedule.js';

/** Agents of each stage, replica and part: `seats[stage][replica][part]`. */
export type Seats = readonly (readonly (readonly string[])[])[];

export interface VirtualOptions {
  readonly agents: readonly string[];
  readonly seed: number;
  /** Who is seated where, of those that are ready; undefined = no plan is possible. */
  readonly plan: (ready: readonly string[], deployment: string) => Seats | undefined;
  /** Frames per second of each deployment. */
  readonly framesPerSecond: number;
}

const STEP_MS = 250;
const HEALTH_MS = 1000;
const PLANNING_MS = 300;
const PREPARE_MS = 600;
const COMMIT_MS = 50;
const RUN_MS = 120;
/** A draining agent is given this long. */
const DRAIN_MS = 30_000;
/** Agents reconnect to a broker that is back within this time. */
const RECONNECT_MS = 2000;
/** After so long everybody has noticed: three health messages and a half, and steps of time. */
const TROUBLE_MS = 4500;
/** After an outage of the broker agents are given so much longer, as each comes back in its own time. */
const RETURN_MS = 6000;
/** When a broker gives up a connection that nobody answers on. */
const KEEP_ALIVE_MS = 22_500;
const FRAME_DEADLINE_MS = 30_000;

interface Machine {
  readonly name: string;
  /** Of its health within the interval: agents do not speak all at once. */
  readonly phaseMs: number;
  starts: number;
  /** When something last happened to it. */
  changedMs: number;
  running: boolean;
  hung: boolean;
  linked: boolean;
  /** Says hello not before then; undefined = it has. */
  helloAtMs: number | undefined;
  drainsUntilMs: number | undefined;
  hello: Hello;
  health: Health;
}

interface Placed {
  readonly epoch: number;
  readonly grid: Seats;
  readonly nonces: ReadonlyMap<string, string>;
  readonly seats: Map<string, SeatProgress>;
}

interface Deployed {
  readonly name: string;
  readonly frames: FrameTable<number, number>;
  planning: boolean;
  stuck: boolean;
  afterLoss: boolean;
  recovering: boolean;
  retargeted: boolean;
  serving: Placed | undefined;
  next: Placed | undefined;
  sequence: number;
  /** Sequences without an outcome, and when they must have one. */
  readonly open: Map<number, number>;
  /** Attempts under way, by frame and attempt: on whom. */
  readonly live: Map<string, readonly string[]>;
}

export class Virtual {
  readonly #o: VirtualOptions;
  readonly #random: () => number;
  readonly #machines = new Map<string, Machine>();
  readonly #deployed = new Map<string, Deployed>();
  readonly #later: { readonly atMs: number; readonly run: () => void }[] = [];
  /** As the changes tell it; must be what the registry says. */
  #told = new Map<string, { readonly nonce: string; readonly state: AgentState }>();
  #registry = new Registry({ maxAgents: 20_000 });
  readonly #suspects = new Set<string>();
  #nowMs = 0;
  #epoch = 0;
  #reign = 1;
  #brokerUp = true;
  /** When something last happened to broker or gateway. */
  #middleMs = 0;
  /** When something last happened because of which nobody could be heard. */
  #deafMs = 0;
  /** Of the gateway: `hung` it does nothing, and does it all at once later. */
  #gateway: 'up' | 'down' | 'hung' = 'up';
  readonly #held: RegistryEvent[] = [];
  readonly #codes = new Map<string, number>();
  plans = 0;
  events = 0;
  results = 0;

  constructor(options: VirtualOptions) {
    this.#o = options;
    this.#random = createRandom(seedFor(options.seed, 'virtual'));
    for (const name of options.agents) this.#start(this.#machine(name), 0);
    for (const name of ['a', 'b']) this.#deploy(name);
    this.#run(4000);
  }

  /** Frames that failed, by code. */
  get codes(): ReadonlyMap<string, number> {
    return this.#codes;
  }

  /** Plays a round, waits until it should be at rest, and looks whether it is. Throws what does not hold. */
  play(round: Round): void {
    const startedMs = this.#nowMs;
    for (const act of actsOf(round)) {
      this.#run(startedMs + act.atMs - this.#nowMs);
      this.#act(act);
    }
    // Who leaves may take the time he is given; who is held back is seated from the end of that on.
    for (let leftMs = CONVERGE_MS; leftMs > 0; leftMs = this.#isHeldBack() ? CONVERGE_MS : leftMs - 1000) this.#run(1000);
    this.#atRest(round.present);
  }

  /** Frames under way come to an end; then each has had its one outcome. */
  end(): void {
    for (const one of this.#deployed.values()) one.sequence = Number.POSITIVE_INFINITY;
    this.#run(FRAME_DEADLINE_MS + 1000);
    for (const { name, open, frames } of this.#deployed.values()) {
      ensure(open.size === 0, `${open.size} frames of ${name} have no outcome`);
      ensure(frames.inFlight === 0 && frames.queued === 0, `${name} has frames in flight at the end`);
    }
  }

  // ---- what happens to machines ------------------------------------------------------------------------------------------

  #act({ do: what, fault }: Act): void {
    this.events++;
    const machine = this.#machines.get(fault.target);
    if (machine === undefined) {
      this.#middleMs = this.#nowMs + (fault.kind === 'broker-kill' ? RETURN_MS : 0);
      // That the gateway itself stood still is no reason to give up anybody.
      if (fault.kind !== 'gateway-hang') this.#deafMs = this.#nowMs;
    }
    if (machine !== undefined) machine.changedMs = this.#nowMs;
    if (what === 'begin') this.#begin(fault);
    else this.#undo(fault);
  }

  #begin(fault: Fault): void {
    const { kind, target } = fault;
    if (kind === 'gateway-kill') this.#gatewayFalls();
    else if (kind === 'gateway-hang') this.#gateway = 'hung';
    else if (kind === 'broker-kill') this.#brokerFalls();
    else if (kind === 'deploy') this.#deploy(EXTRA_DEPLOYMENT);
    else if (kind === 'adjust') this.#adjust();
    else {
      const machine = this.#machine(target);
      if (kind === 'kill' || kind === 'rot') this.#kill(machine);
      else if (kind === 'hang') machine.hung = true;
      else if (kind === 'link-down') machine.linked = false;
      else if (kind === 'join') this.#start(machine, 0);
      else if (kind === 'leave') this.#leave(machine);
      else if (kind === 'lie') this.#lie(machine, fault);
      else if (kind === 'new-address') this.#move(machine);
      // A slow link or processor and a full disk change nothing of what is decided here.
    }
  }

  #undo({ kind, target }: Fault): void {
    if (kind === 'gateway-kill') this.#gatewayRises();
    else if (kind === 'gateway-hang') this.#gatewayWakes();
    else if (kind === 'broker-kill') this.#brokerRises();
    else if (kind === 'deploy') this.#undeploy(EXTRA_DEPLOYMENT);
    else if (kind === 'adjust') this.#adjust();
    else {
      const machine = this.#machine(target);
      if (kind === 'kill' || kind === 'rot') this.#start(machine, 0);
      machine.hung = false;
      machine.linked = true;
    }
  }

  #machine(name: string): Machine {
    const known = this.#machines.get(name);
    if (known !== undefined) return known;
    const made: Machine = {
      ...{ name, phaseMs: this.#random() * HEALTH_MS, starts: 0, changedMs: 0, running: false, hung: false, linked: true },
      ...{ helloAtMs: undefined, drainsUntilMs: undefined, hello: sayHello(name, ''), health: healthOf(name, '') },
    };
    this.#machines.set(name, made);
    return made;
  }

  #start(machine: Machine, afterMs: number): void {
    const nonce = `${machine.name}/${++machine.starts}`;
    machine.hello = sayHello(machine.name, nonce);
    machine.health = healthOf(machine.name, nonce);
    machine.running = true;
    machine.changedMs = this.#nowMs;
    machine.helloAtMs = this.#nowMs + afterMs;
    machine.drainsUntilMs = undefined;
  }

  #kill(machine: Machine): void {
    machine.running = false;
    machine.drainsUntilMs = undefined;
    const { agent, nonce, connection } = machine.hello;
    if (this.#brokerUp && machine.linked) this.#tell({ kind: 'gone', gone: { agent, nonce, why: 'will', connection } });
  }

  /** It connects anew from its other address; the broker finds out later that nobody is behind the old connection, and publishes its Will. */
  #move(machine: Machine): void {
    const { agent, nonce, connection } = machine.hello;
    machine.hello = { ...machine.hello, addresses: [`10.0.0.${this.events}`], connection: connection + 1 };
    machine.helloAtMs = this.#nowMs + 1000;
    const will = { kind: 'gone', gone: { agent, nonce, why: 'will', connection } } as const;
    this.#later.push({ atMs: this.#nowMs + KEEP_ALIVE_MS, run: () => this.#tell(will) });
  }

  #leave(machine: Machine): void {
    machine.drainsUntilMs = this.#nowMs + DRAIN_MS;
    const { agent, nonce, connection } = machine.hello;
    this.#tell({ kind: 'gone', gone: { agent, nonce, why: 'draining', connection } });
  }

  /** Nothing of what is said in another's name may change what is known of it. */
  #lie({ name, hello, health }: Machine, { lie }: Fault): void {
    if (this.#gateway !== 'up') return;
    const before = this.#registry.get(name);
    const isThere = before !== undefined && this.#registry.serves(name, before.nonce);
    const nonce = 'forged';
    if (lie === 'other-name') this.#apply({ kind: 'hello', hello: { ...hello, nonce, addresses: ['192.0.2.1'] } });
    else if (lie === 'false-will') this.#apply({ kind: 'gone', gone: { agent: name, nonce, why: 'will', connection: 0 } });
    else this.#apply({ kind: 'health', health: { ...health, nonce } });
    const after = this.#registry.get(name);
    ensure(after?.health?.nonce !== nonce, `${name} is known by the health of another process`);
    if (isThere) ensure(before.nonce === after?.nonce && before.state === after.state, `a lie (${lie}) changed what is known of ${name}`);
  }

  #brokerFalls(): void {
    this.#brokerUp = false;
    this.#tell({ kind: 'offline' });
  }

  #brokerRises(): void {
    this.#brokerUp = true;
    this.#tell({ kind: 'online' });
    this.#introduce();
  }

  #gatewayFalls(): void {
    this.#gateway = 'down';
    this.#held.length = 0;
  }

  /** Another process: it knows the deployments, and nothing of agents. Their seats of the term before are not its own. */
  #gatewayRises(): void {
    this.#gateway = 'up';
    this.#reign++;
    this.#registry = new Registry({ maxAgents: 20_000 });
    this.#told = new Map();
    this.#suspects.clear();
    for (const deployed of this.#deployed.values()) {
      Object.assign(deployed, { planning: false, stuck: false, afterLoss: false, recovering: false, serving: undefined, next: undefined });
      deployed.frames.withdraw('the gateway has just started');
    }
    this.#introduce();
  }

  #gatewayWakes(): void {
    this.#gateway = 'up';
    // Timers are run before sockets are read.
    this.#apply({ kind: 'tick' });
    for (const event of this.#held.splice(0)) this.#apply(event);
  }

  #introduce(): void {
    for (const machine of this.#machines.values()) machine.helloAtMs = this.#nowMs + this.#random() * RECONNECT_MS;
  }

  // ---- time ----------------------------------------------------------------------------------------------------------------

  /** In whole steps: what happens within one happens at its end. */
  #run(forMs: number): void {
    const untilMs = this.#nowMs + forMs;
    while (this.#nowMs + STEP_MS <= untilMs) {
      this.#nowMs += STEP_MS;
      this.#speak();
      if (this.#gateway === 'up') this.#tick();
    }
  }

  #speak(): void {
    for (const machine of this.#machines.values()) {
      if (!machine.running || machine.hung || !machine.linked || !this.#brokerUp) continue;
      const { helloAtMs, drainsUntilMs, phaseMs, hello, health } = machine;
      if (helloAtMs !== undefined) {
        if (this.#nowMs < helloAtMs) continue;
        machine.helloAtMs = undefined;
        this.#tell({ kind: 'hello', hello });
      }
      if (drainsUntilMs !== undefined && (this.#nowMs >= drainsUntilMs || !this.#holdsSeats(hello))) {
        machine.running = false;
        this.#tell({ kind: 'gone', gone: { agent: hello.agent, nonce: hello.nonce, why: 'stopped', connection: hello.connection } });
        continue;
      }
      const before = this.#nowMs - STEP_MS;
      if (Math.floor((this.#nowMs - phaseMs) / HEALTH_MS) > Math.floor((before - phaseMs) / HEALTH_MS))
        this.#tell({ kind: 'health', health });
    }
  }

  /** To the gateway, if it hears. */
  #tell(event: RegistryEvent): void {
    if (this.#gateway === 'hung') this.#held.push(event);
    else if (this.#gateway === 'up') this.#apply(event);
  }

  #tick(): void {
    const due = this.#later.filter(({ atMs }) => atMs <= this.#nowMs);
    for (const one of due) this.#later.splice(this.#later.indexOf(one), 1);
    for (const { run } of due.sort((a, b) => a.atMs - b.atMs)) run();
    this.#apply({ kind: 'tick' });
    this.#missed();
    for (const deployed of [...this.#deployed.values()]) {
      this.#reconcile(deployed);
      this.#feed(deployed);
    }
  }

  #after(ms: number, run: () => void): void {
    const reign = this.#reign;
    // What a process was about to do ends with it.
    this.#later.push({ atMs: this.#nowMs + ms, run: () => reign === this.#reign && run() });
  }

  // ---- the registry --------------------------------------------------------------------------------------------------------

  #apply(event: RegistryEvent): void {
    for (const change of this.#registry.apply(event, this.#nowMs)) this.#changed(change);
  }

  #changed(change: RegistryChange): void {
    const { kind, agent, nonce } = change;
    if (kind === 'unknown') {
      const machine = this.#machines.get(agent);
      if (machine !== undefined) machine.helloAtMs ??= this.#nowMs + this.#random() * RECONNECT_MS;
      return;
    }
    if (kind === 'refuse' || kind === 'impostor') {
      // A process whose predecessor is not given up yet: its supervisor starts it again.
      const machine = this.#machines.get(agent);
      if (kind === 'refuse' && machine?.running === true && machine.hello.nonce === nonce) this.#start(machine, 1000);
      return;
    }
    followSuspicion(this.#suspects, change);
    const before = this.#told.get(agent);
    const next = kind === 'recovered' ? 'ready' : kind === 'joined' || kind === 'held' ? 'joining' : kind;
    ensure(
      FOLLOWS[kind].includes(before === undefined ? 'none' : before.nonce === nonce ? before.state : 'other'),
      `${agent} ${nonce}: ${kind} after ${JSON.stringify(before)}`,
    );
    this.#told.set(agent, { nonce, state: next });
    const record = this.#registry.get(agent);
    const isLast = record?.nonce === nonce;
    if (isLast) ensure(record.state === next || kind === 'lost', `${agent}: the registry says ${record.state}, the change ${kind}`);
    if (kind === 'lost' || kind === 'stopped') this.#gone(agent, nonce);
    if (kind === 'ready') {
      for (const one of this.#deployed.values()) {
        one.stuck = false;
        one.recovering = one.afterLoss;
        if (one.serving?.nonces.get(agent) === nonce) this.#outcomes(one, one.frames.agentBack(agent, this.#nowMs));
      }
    }
  }

  /** No attempt waits for somebody who is gone. Who was heard all the time is not gone. */
  #gone(agent: string, nonce: string): void {
    const machine = this.#machines.get(agent);
    const wasHeard =
      machine?.hello.nonce === nonce && machine.running && this.#nowMs - machine.changedMs > TROUBLE_MS && this.#isHeard(machine);
    ensure(!wasHeard || machine.drainsUntilMs !== undefined, `${agent} was lost although it was heard all the time`);
    for (const one of this.#deployed.values()) {
      this.#outcomes(one, one.frames.agentLost(agent, this.#nowMs));
      const waiting = [...one.live].filter(([, on]) => on.includes(agent));
      ensure(waiting.length === 0, `${waiting.length} attempts of ${one.name} still wait for ${agent}, which was lost`);
    }
  }

  #isHeard({ running, hung, linked, helloAtMs }: Machine): boolean {
    return running && !hung && linked && helloAtMs === undefined && this.#brokerUp && this.#nowMs - this.#deafMs > TROUBLE_MS;
  }

  /** Whoever was not heard for long is not there. */
  #missed(): void {
    if (!this.#brokerUp || this.#nowMs - this.#middleMs < TROUBLE_MS) return;
    for (const { name, running, hung, linked, changedMs } of this.#machines.values()) {
      if ((running && !hung && linked) || this.#nowMs - changedMs < TROUBLE_MS) continue;
      const state = this.#registry.get(name)?.state;
      ensure(state !== 'ready' && state !== 'suspect', `${name} is ${state} although it was not heard for ${this.#nowMs - changedMs} ms`);
    }
  }

  #isHeldBack(): boolean {
    return this.#registry.all().some(({ agent }) => this.#registry.flapping(agent, this.#nowMs).heldMs > 0);
  }

  // ---- deployments ---------------------------------------------------------------------------------------------------------

  #deploy(name: string): void {
    this.#deployed.set(name, {
      ...{ name, planning: false, stuck: false },
      frames: new FrameTable<number, number>({ ...FRAME_LIMITS, queueFrames: 4096 }, 1, this.#suspects),
      ...{
        afterLoss: false,
        recovering: false,
        retargeted: false,
        serving: undefined,
        next: undefined,
        sequence: 0,
        open: new Map(),
        live: new Map(),
      },
    });
  }

  #adjust(): void {
    const deployed = this.#deployed.get('a');
    if (deployed !== undefined) deployed.retargeted = true;
  }

  #undeploy(name: string): void {
    const deployed = this.#deployed.get(name);
    if (deployed === undefined) return;
    this.#outcomes(deployed, deployed.frames.remove(this.#nowMs));
    ensure(deployed.open.size === 0, `${deployed.open.size} frames of ${name} have no outcome although it was removed`);
    this.#deployed.delete(name);
  }

  #holdsSeats({ agent, nonce }: Hello): boolean {
    const placed = [...this.#deployed.values()].flatMap(({ serving, next }) => [serving, next]);
    return placed.some((one) => one?.nonces.get(agent) === nonce);
  }

  #reconcile(deployed: Deployed): void {
    const view: DeploymentView = { ...deployed, removing: false };
    const agents = {
      serves: (agent: string, nonce: string) => this.#registry.serves(agent, nonce),
      draining: (agent: string) => this.#registry.get(agent)?.state === 'draining',
    };
    for (const step of reconcile(view, agents)) this.#take(deployed, step);
  }

  #take(deployed: Deployed, step: Step): void {
    const { next } = deployed;
    // A whole plan does what a repair would.
    if (step.do === 'plan' || step.do === 'repair') {
      ensure(!deployed.planning && next === undefined, `${deployed.name} is planned twice at once`);
      this.#plan(deployed);
    } else if (next === undefined) throw new Error(`${deployed.name}: ${step.do} without a plan to come`);
    else if (step.do === 'abandon') deployed.next = undefined;
    else if (step.do === 'switch') this.#switch(deployed, next);
    else if (step.do === 'prepare' || step.do === 'commit') this.#seat(deployed, next, step.agent, step.do);
    else throw new Error(`${deployed.name}: seats fit, and yet ${step.do} is asked for`);
  }

  #plan(deployed: Deployed): void {
    this.plans++;
    deployed.planning = true;
    deployed.afterLoss = deployed.serving !== undefined && !deployed.recovering;
    deployed.recovering = false;
    deployed.retargeted = false;
    this.#after(PLANNING_MS, () => {
      deployed.planning = false;
      const ready = this.#registry.all().filter(({ state }) => state === 'ready');
      const grid =
        ready.length === 0
          ? undefined
          : this.#o.plan(
              ready.map(({ agent }) => agent),
              deployed.name,
            );
      if (grid === undefined) {
        deployed.stuck = true;
        deployed.frames.withdraw('no agents');
        return;
      }
      const seated = new Set(grid.flat(2));
      const nonces = new Map(ready.flatMap(({ agent, nonce }) => (seated.has(agent) ? [[agent, nonce] as const] : [])));
      ensure(nonces.size === seated.size, `a plan of ${deployed.name} names agents that are not ready`);
      deployed.next = { epoch: ++this.#epoch, grid, nonces, seats: new Map([...seated].map((agent) => [agent, 'wanted'])) };
    });
  }

  #seat(deployed: Deployed, placed: Placed, agent: string, what: 'prepare' | 'commit'): void {
    const nonce = placed.nonces.get(agent) ?? '';
    ensure(this.#registry.serves(agent, nonce), `${agent} is asked to ${what} although it is gone`);
    const before = placed.seats.get(agent);
    ensure(before === (what === 'prepare' ? 'wanted' : 'prepared'), `${agent} is asked to ${what} while its seat is ${before}`);
    placed.seats.set(agent, what === 'prepare' ? 'asked' : 'committing');
    const answer = (): void => {
      if (deployed.next !== placed) return;
      // A command that did not arrive is sent again while its process is there.
      if (!this.#reaches(agent, nonce)) this.#after(HEALTH_MS, answer);
      else placed.seats.set(agent, what === 'prepare' ? 'prepared' : 'committed');
    };
    this.#after(what === 'prepare' ? PREPARE_MS * (0.5 + this.#random()) : COMMIT_MS, answer);
  }

  #switch(deployed: Deployed, placed: Placed): void {
    ensure(
      [...placed.seats.values()].every((progress) => progress === 'committed'),
      `${deployed.name} is switched before all have committed`,
    );
    deployed.serving = placed;
    deployed.next = undefined;
    const stages = placed.grid.map((replicas) => ({ agents: replicas.map((parts) => [...parts]) }));
    this.#outcomes(deployed, deployed.frames.install({ epoch: placed.epoch, stages, budget: 32, expectedMs: RUN_MS }, this.#nowMs));
  }

  #reaches(agent: string, nonce: string): boolean {
    const machine = this.#machines.get(agent);
    return machine?.running === true && !machine.hung && machine.linked && machine.hello.nonce === nonce;
  }

  // ---- frames --------------------------------------------------------------------------------------------------------------

  #feed(deployed: Deployed): void {
    const { frames, open } = deployed;
    for (let i = 0; i < (this.#o.framesPerSecond * STEP_MS) / 1000 && Number.isFinite(deployed.sequence); i++) {
      const sequence = ++deployed.sequence;
      open.set(sequence, this.#nowMs + FRAME_DEADLINE_MS + 1000);
      const submission = { client: 'c', sequence, input: sequence, bytes: 1, deadlineMs: FRAME_DEADLINE_MS };
      this.#outcomes(deployed, frames.submit(submission, this.#nowMs));
    }
    this.#outcomes(deployed, frames.tick(this.#nowMs));
    for (const [sequence, dueMs] of open) {
      // In the order they came, so the first is the oldest.
      ensure(
        this.#nowMs <= dueMs + STEP_MS || this.#gateway !== 'up',
        `frame ${sequence} of ${deployed.name} has no outcome after its deadline`,
      );
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
      const on = route.flatMap((replica, stage) => placed.grid[stage]?.[replica] ?? []);
      deployed.live.set(key, on);
      this.#after(RUN_MS * (0.5 + this.#random()), () => {
        if (!on.every((agent) => this.#reaches(agent, placed.nonces.get(agent) ?? ''))) return;
        deployed.live.delete(key);
        this.#outcomes(deployed, deployed.frames.complete(frame, attempt, 2 * input, 1, this.#nowMs));
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

  // ---- at rest -------------------------------------------------------------------------------------------------------------

  #atRest(present: readonly string[]): void {
    const wanted = new Set(present);
    for (const { agent, state } of this.#registry.all()) {
      if (wanted.has(agent)) ensure(state === 'ready', `${agent} is ${state} at rest`);
      else ensure(state !== 'ready' && state !== 'suspect', `${agent} is gone but ${state}`);
      wanted.delete(agent);
    }
    ensure(wanted.size === 0, `${[...wanted].slice(0, 3).join(', ')} are there but not known`);
    for (const { name, serving, next, planning, recovering } of this.#deployed.values()) {
      ensure(!recovering, `${name} was not planned again although an agent came after a loss`);
      ensure(serving !== undefined && next === undefined && !planning, `${name} is not served at rest`);
      for (const [agent, nonce] of serving?.nonces ?? [])
        ensure(this.#registry.serves(agent, nonce), `${name} has a seat on ${agent}, which is gone`);
    }
    const { plans } = this;
    this.#run(2000);
    ensure(plans === this.plans, 'plans are made at rest');
  }
}

/** What may come before each change: the state of the same process, `other` process of that name, or `none` that was ever known. */
const FOLLOWS: Readonly<
  Record<'joined' | 'ready' | 'recovered' | 'suspect' | 'draining' | 'lost' | 'stopped' | 'held', readonly string[]>
> = {
  joined: ['none', 'other', 'lost', 'stopped'],
  ready: ['joining', 'lost', 'stopped'],
  recovered: ['suspect'],
  suspect: ['ready'],
  draining: ['joining', 'ready', 'suspect'],
  lost: ['joining', 'ready', 'suspect', 'draining'],
  stopped: ['joining', 'ready', 'suspect', 'draining', 'lost'],
  held: ['joining', 'lost', 'stopped'],
};

function ensure(holds: boolean, text: string): void {
  if (!holds) throw new Error(text);
}

function sayHello(agent: string, nonce: string): Hello {
  return helloOf(agent, nonce, { host: agent, healthMs: HEALTH_MS });
}

/**
 * The same faults in virtual time, for the parts that decide: the registry, reconcile, the local repair and the frames' state machine, of thousands of agents that are
 * not there. Machines, broker and gateway are here, with what the registry makes of them; deployments are virtual-service.ts. What must hold is looked at after every
 * event. No I/O, no clock; randomness only from the seed.
 * Long, because machines, broker and gateway act on each other within one step of one clock.
 */
import type { Health, Hello } from '../../broker/messages.js';
import { createRandom, seedFor } from '../../models/random.js';
import { type AgentState, followSuspicion, Registry, type RegistryChange, type RegistryEvent } from '../../scheduler/registry.js';
import { healthOf, helloOf } from '../../scheduler/simulate/said.js';
import { CONVERGE_MS } from './run.js';
import { type Act, actsOf, EXTRA_DEPLOYMENT, type Fault, type Lie, type Round } from './schedule.js';
import type { Planning } from './virtual-plans.js';
import { ensure, FRAME_DEADLINE_MS, STEP_MS, VirtualService } from './virtual-service.js';

export interface VirtualOptions {
  readonly agents: readonly string[];
  readonly seed: number;
  /** Always deployed; `a` is the one whose objective is changed. */
  readonly deployments: readonly string[];
  readonly plan: Planning;
  /** Frames per second of each deployment. */
  readonly framesPerSecond: number;
}

const HEALTH_MS = 1000;
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

export class Virtual {
  readonly #random: () => number;
  readonly #machines = new Map<string, Machine>();
  readonly #later: { readonly atMs: number; readonly run: () => void }[] = [];
  /** As the changes tell it; must be what the registry says. */
  #told = new Map<string, { readonly nonce: string; readonly state: AgentState }>();
  #registry = new Registry({ maxAgents: 20_000 });
  readonly #suspects = new Set<string>();
  #nowMs = 0;
  #reign = 1;
  #brokerUp = true;
  /** When something last happened to broker or gateway. */
  #middleMs = 0;
  /** When something last happened because of which nobody could be heard. */
  #deafMs = 0;
  /** Of the gateway: `hung` it does nothing, and does it all at once later. */
  #gateway: 'up' | 'down' | 'hung' = 'up';
  readonly #held: RegistryEvent[] = [];
  readonly service: VirtualService;
  events = 0;

  constructor(options: VirtualOptions) {
    this.#random = createRandom(seedFor(options.seed, 'virtual'));
    for (const name of options.agents) this.#start(this.#machine(name), 0);
    const { plan, framesPerSecond } = options;
    this.service = new VirtualService({
      ...{ plan, framesPerSecond, random: this.#random },
      registry: () => this.#registry,
      suspects: this.#suspects,
      nowMs: () => this.#nowMs,
      after: (ms, run) => this.#after(ms, run),
      reaches: (agent, nonce) => this.#reaches(agent, nonce),
    });
    for (const name of options.deployments) this.service.deploy(name);
    this.#run(4000);
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
    this.service.drain();
    this.#run(FRAME_DEADLINE_MS + 1000);
    this.service.ended();
  }

  // ---- what happens to machines ------------------------------------------------------------------------------------------

  #act({ do: what, fault }: Act): void {
    this.events++;
    // Nothing that is decided here looks at the date.
    if (fault.kind === 'clock') return;
    const machine = this.#machines.get(fault.target);
    if (machine === undefined) {
      this.#middleMs = Math.max(this.#middleMs, this.#nowMs + (fault.kind === 'broker-kill' ? RETURN_MS : 0));
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
    else if (kind === 'deploy') this.service.deploy(EXTRA_DEPLOYMENT);
    else if (kind === 'adjust') this.service.adjust('a');
    else {
      const machine = this.#machine(target);
      if (kind === 'kill' || kind === 'rot') this.#kill(machine);
      else if (kind === 'hang') machine.hung = true;
      else if (kind === 'link-down') machine.linked = false;
      else if (kind === 'join') this.#start(machine, 0);
      else if (kind === 'leave') this.#leave(machine);
      else if (kind === 'lie') for (const lie of fault.lies ?? []) this.#lie(machine, lie);
      else if (kind === 'new-address') this.#move(machine);
      // A slow link or processor and a full disk change nothing of what is decided here.
    }
  }

  #undo({ kind, target }: Fault): void {
    if (kind === 'gateway-kill') this.#gatewayRises();
    else if (kind === 'gateway-hang') this.#gatewayWakes();
    else if (kind === 'broker-kill') this.#brokerRises();
    else if (kind === 'deploy') this.service.undeploy(EXTRA_DEPLOYMENT);
    else if (kind === 'adjust') this.service.adjust('a');
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
  #lie({ name, hello, health }: Machine, lie: Lie): void {
    // After an outage nobody is known to live until it is heard: then a name is whose hello comes first.
    if (this.#gateway !== 'up' || !this.#brokerUp || this.#nowMs - this.#deafMs <= TROUBLE_MS) return;
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
    this.service.restart();
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
      if (drainsUntilMs !== undefined && (this.#nowMs >= drainsUntilMs || !this.service.holdsSeats(hello.agent, hello.nonce))) {
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
    this.service.tick();
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
    if (kind === 'ready') this.service.ready(agent, nonce);
  }

  /** Who was heard all the time is not gone. */
  #gone(agent: string, nonce: string): void {
    const machine = this.#machines.get(agent);
    const wasHeard =
      machine?.hello.nonce === nonce && machine.running && this.#nowMs - machine.changedMs > TROUBLE_MS && this.#isHeard(machine);
    ensure(!wasHeard || machine.drainsUntilMs !== undefined, `${agent} was lost although it was heard all the time`);
    this.service.gone(agent, nonce);
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

  #reaches(agent: string, nonce: string): boolean {
    const machine = this.#machines.get(agent);
    return machine?.running === true && !machine.hung && machine.linked && machine.hello.nonce === nonce;
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
    this.service.atRest();
    const { plans, repairs } = this.service;
    this.#run(2000);
    ensure(plans === this.service.plans && repairs === this.service.repairs, 'plans are made at rest');
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

function sayHello(agent: string, nonce: string): Hello {
  return helloOf(agent, nonce, { host: agent, healthMs: HEALTH_MS });
}

/**
 * A plan run in simulated time. Admission, routes, deadlines, re-issue (frames.ts, router.ts), who is lost (registry.ts), what to do about it (reconcile.ts),
 * plans and every duration (planners/) are decided by the code that serves; machines, links, queues and the passing of time are simulated. The same
 * options give the same result, bit for bit.
 *
 * What is not simulated: the clients' way to the dispatcher, memory running out, garbage collection, and what else the devices do.
 */
import { ChairError } from '../../broker/errors.js';
import { createRandom } from '../../models/random.js';
import { FRAME_LIMITS, type FrameEffect } from '../frame-types.js';
import { FrameTable } from '../frames.js';
import { Ends } from '../planners/ends.js';
import { estimate } from '../planners/estimate.js';
import { Agents, type Flight } from './agents.js';
import { Control } from './control.js';
import { Clock } from './events.js';
import { Network } from './network.js';
import type { Incident, Load, SimulationOptions, SimulationResult } from './options.js';
import { Recorder } from './recorder.js';
import { type Seating, seat } from './seating.js';

/** As the dispatcher's. */
const TICK_MS = 50;
const DEFAULT_FRAMES = 200;
const DEFAULT_PLANNING_MS = 200;
const CLIENT = 'client';

/** Throws CONFIG_INVALID for a load or an incident that cannot be. */
export function simulatePlan(options: SimulationOptions): SimulationResult {
  check(options);
  return new Simulation(options).run();
}

class Simulation {
  readonly #o: SimulationOptions;
  readonly #total: number;
  readonly #clock = new Clock();
  readonly #network: Network;
  readonly #agents: Agents;
  readonly #frames: FrameTable<null, null>;
  readonly #suspects = new Set<string>();
  readonly #control: Control | undefined;
  readonly #record: Recorder;
  readonly #random: () => number;
  readonly #first: Seating;
  readonly #seatings = new Map<number, Seating>();
  readonly #flights = new Map<number, Flight[]>();
  #sent = 0;
  #answered = 0;

  constructor(options: SimulationOptions) {
    this.#o = options;
    const { draft, devices, links, timesOfDrafts = false, discipline = 'fifo', incidents = [], seed = 1, noise = 0, spans = 0 } = options;
    this.#total = options.frames ?? DEFAULT_FRAMES;
    this.#network = new Network(this.#clock, devices, new Ends(devices, links), discipline);
    this.#random = createRandom(seed);
    this.#first = seat(draft, { devices, links, epoch: 1, budget: options.budget ?? draft.inFlight, timesOfDrafts });
    this.#frames = new FrameTable({ ...FRAME_LIMITS, ...options.limits }, 1, this.#suspects);
    this.#agents = new Agents({
      ...{ clock: this.#clock, network: this.#network, spans },
      noise: noise > 0 ? () => Math.exp(noise * this.#normal() - (noise * noise) / 2) : () => 1,
      onResult: (flight) => this.#do(this.#frames.complete(flight.frame, flight.attempt, null, 0, this.#clock.nowMs)),
      onTrouble: (flight, machine, peer) => this.#trouble(flight, machine.name, peer.name),
    });
    this.#record = new Recorder(this.#clock, this.#network, warmUp(options.load, this.#first.budget));
    this.#control = incidents.some(({ kind }) => kind === 'crash' || kind === 'vanish') ? this.#controlled() : undefined;
  }

  run(): SimulationResult {
    const { incidents = [], untilMs = Number.POSITIVE_INFINITY, draft, devices, links } = this.#o;
    this.#install(this.#first);
    for (const incident of incidents) this.#clock.at(incident.atMs, () => this.#happen(incident));
    this.#start(this.#o.load);
    this.#clock.after(TICK_MS, () => this.#tick());
    this.#clock.run(() => this.#answered >= this.#total, untilMs);
    const { latencyMs, fps, bottleneck } = estimate(draft.cut, draft.stages, devices, links, this.#first.budget);
    return this.#record.result({
      ...{ sent: this.#sent, reissued: this.#frames.reissued, incidents, spans: this.#agents.spans, steps: this.#clock.count },
      predicted: { latencyMs, fps, bottleneck },
    });
  }

  #controlled(): Control {
    const { devices, links, planningMs = DEFAULT_PLANNING_MS, timesOfDrafts = false, objective = 'throughput' } = this.#o;
    return new Control({
      ...{ clock: this.#clock, network: this.#network, devices, first: this.#first, planningMs, replan: this.#o.replan },
      ...{ suspects: this.#suspects, links, objective },
      seat: (next, epoch) => seat(next, { devices, links, epoch, budget: this.#o.budget ?? next.inFlight, timesOfDrafts }),
      onLost: (agent) => {
        this.#record.noticed(agent);
        this.#do(this.#frames.agentLost(agent, this.#clock.nowMs));
      },
      onBack: (agent) => this.#do(this.#frames.agentBack(agent, this.#clock.nowMs)),
      onPlan: (seating) => {
        this.#record.replanned();
        this.#install(seating);
      },
      onWithdraw: (why) => this.#frames.withdraw(why),
      log: (text) => this.#record.log(text),
    });
  }

  #install(seating: Seating): void {
    this.#seatings.set(seating.epoch, seating);
    this.#do(this.#frames.install(seating, this.#clock.nowMs));
  }

  #start(load: Load): void {
    if (load.kind === 'closed') {
      for (let i = 0; i < Math.min(load.inFlight, this.#total); i++) this.#submit();
      return;
    }
    const gapMs = 1000 / load.framesPerSecond;
    const arrive = (): void => {
      this.#submit();
      if (this.#sent < this.#total) this.#clock.after(load.kind === 'rate' ? gapMs : -Math.log(1 - this.#random()) * gapMs, arrive);
    };
    arrive();
  }

  /** Several answers of one moment each ask for another frame. */
  #next(): void {
    if (this.#sent < this.#total) this.#submit();
  }

  #submit(): void {
    const sequence = this.#sent++;
    this.#record.submitted(sequence, this.#sent === this.#total);
    const submission = { client: CLIENT, sequence, input: null, bytes: 0, deadlineMs: 0 };
    const admit = (): void => this.#do(this.#frames.submit(submission, this.#clock.nowMs));
    const { gatewayFrameMs = 0 } = this.#o.links;
    const { gateway } = this.#network;
    if (gatewayFrameMs > 0) gateway.cpu.add(gateway.id, gatewayFrameMs, admit);
    else admit();
  }

  #tick(): void {
    this.#do(this.#frames.tick(this.#clock.nowMs));
    this.#clock.after(TICK_MS, () => this.#tick());
  }

  #do(effects: readonly FrameEffect<null, null>[]): void {
    for (const effect of effects) {
      if (effect.kind === 'issue') {
        const seating = this.#seatings.get(effect.epoch);
        if (seating !== undefined) this.#agents.enter(this.#flight(effect.frame, effect.attempt, effect.route, seating));
      } else if (effect.kind === 'cancel') this.#cancel(effect.frame, effect.attempt);
      else {
        this.#flights.delete(effect.frame);
        this.#frames.acknowledge(CLIENT, effect.sequence);
        this.#answered++;
        this.#record.answered(effect.sequence, effect.error?.code);
        // Not within the loop over effects, of which what follows would be a part.
        if (this.#o.load.kind === 'closed' && this.#sent < this.#total) this.#clock.after(0, () => this.#next());
      }
    }
  }

  #flight(frame: number, attempt: number, route: readonly number[], seating: Seating): Flight {
    const before = this.#flights.get(frame) ?? [];
    const missing = new Int32Array(seating.partCount);
    for (const part of seating.parts.flat()) missing[part.index] = part.wiresIn;
    const flight = {
      frame,
      attempt,
      route,
      seating,
      missing,
      results: seating.results,
      coded: Int32Array.from(seating.coded),
      cancelled: false,
    };
    this.#flights.set(frame, [...before, flight]);
    return flight;
  }

  #cancel(frame: number, attempt: number): void {
    const flight = this.#flights.get(frame)?.find((one) => one.attempt === attempt);
    if (flight === undefined) return;
    this.#clock.after(this.#o.links.usual.latencyMs, () => {
      flight.cancelled = true;
    });
  }

  /** The report goes through the broker. */
  #trouble({ frame, attempt }: Flight, agent: string, peer: string): void {
    this.#clock.after(this.#o.links.usual.latencyMs, () => {
      const message = `${peer} cannot be reached`;
      this.#control?.unreachable(peer, `${agent} cannot reach it`);
      this.#do(this.#frames.trouble({ frame, attempt, agent, peer, code: 'LANE_DOWN', message }, this.#clock.nowMs));
    });
  }

  #happen(incident: Incident): void {
    const machine = this.#network.machine(incident.agent);
    if (machine === undefined) return;
    this.#record.log(describe(incident));
    if (incident.kind === 'speed') this.#network.setSpeed(machine, incident.factor);
    else if (incident.kind === 'link') {
      machine.up.setSpeed(incident.factor);
      machine.down.setSpeed(incident.factor);
    } else if (incident.kind === 'return') {
      if (machine.state === 'up') return;
      machine.state = 'up';
      this.#control?.returned(machine);
    } else if (machine.state === 'up') {
      this.#network.stop(machine, incident.kind === 'crash' ? 'crashed' : 'silent');
      this.#agents.stop(machine);
      if (incident.kind === 'crash') this.#control?.crashed(machine);
    }
  }

  /** Box and Muller. */
  #normal(): number {
    const [u, v] = [1 - this.#random(), this.#random()];
    return Math.sqrt(-2 * Math.log(u)) * Math.cos(2 * Math.PI * v);
  }
}

/** Answers that come while the pipe fills. */
function warmUp(load: Load, budget: number): number {
  return load.kind === 'closed' ? Math.min(load.inFlight, budget) : budget;
}

export function describe(incident: Incident): string {
  const { kind, agent } = incident;
  switch (kind) {
    case 'crash':
      return `${agent} ends`;
    case 'vanish':
      return `${agent} vanishes`;
    case 'return':
      return `${agent} is back`;
    case 'speed':
      return `${agent} computes at ${incident.factor} of its speed`;
    case 'link':
      return `the link of ${agent} has ${incident.factor} of its rate`;
  }
}

/** Heartbeats and deadlines are looked at four times a simulated second: more days than these would take minutes. */
const LONGEST_DAYS = 30;

function check({ load, frames = DEFAULT_FRAMES, incidents = [], devices, draft, noise = 0 }: SimulationOptions): void {
  const wrong = (what: string, expected: string, came: string): ChairError => new ChairError('CONFIG_INVALID', what, { expected, came });
  const rate = load.kind === 'closed' ? load.inFlight : load.framesPerSecond;
  if (!(rate > 0 && Number.isFinite(rate))) throw wrong('the load of a simulation', 'a number above 0', String(rate));
  if (!(Number.isInteger(frames) && frames > 0)) throw wrong('the frames of a simulation', 'a whole number above 0', String(frames));
  const days = load.kind === 'closed' ? 0 : frames / rate / 86_400;
  if (days > LONGEST_DAYS) {
    const came = `${frames} frames at ${rate} a second: ${Number(days.toPrecision(3))} days`;
    throw wrong('a simulation would take too long', `at most ${LONGEST_DAYS} simulated days`, came);
  }
  if (!(noise >= 0 && noise < 10)) throw wrong('the noise of a simulation', 'a number from 0 to 10', String(noise));
  const known = new Set(devices.map(({ agent }) => agent));
  const seated = draft.stages.flatMap((stage) => stage.agents.flat());
  for (const agent of [...seated, ...incidents.map((incident) => incident.agent)]) {
    if (!known.has(agent))
      throw new ChairError('AGENT_UNKNOWN', `no device is called ${agent}`, { todo: `There are: ${[...known].join(', ')}.` });
  }
  for (const incident of incidents) {
    if (!(incident.atMs >= 0)) throw wrong('the time of an incident', 'ms of at least 0', String(incident.atMs));
    if ('factor' in incident && !(incident.factor > 0))
      throw wrong('the factor of an incident', 'a number above 0', String(incident.factor));
  }
}

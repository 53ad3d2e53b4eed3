/**
 * What agents do with frames, as node-agent does it: a part runs when all its wires have come; of ready runs the oldest frame goes first;
 * two are handed to the engine, which runs one at a time; outputs leave one wire after the other, and what stays on the agent costs nothing.
 */
import { SINK } from '../../broker/plan.js';
import type { Route } from '../router.js';
import type { Clock } from './events.js';
import type { Machine, Network } from './network.js';
import type { Span } from './options.js';
import { holder, type Leaving, type Seating } from './seating.js';

/** Runs handed to the engine at once; see node-agent/runner.ts. */
const DEPTH = 2;

/** One attempt of one frame: what has arrived where. */
export interface Flight {
  readonly frame: number;
  readonly attempt: number;
  readonly route: Route;
  readonly seating: Seating;
  /** Wires still to come, by part, and of the results. */
  readonly missing: Int32Array;
  results: number;
  /** Boxes still to come, by coded input. */
  readonly coded: Int32Array;
  cancelled: boolean;
}

interface Run {
  readonly flight: Flight;
  readonly stage: number;
  readonly part: number;
}

export interface AgentsOptions {
  readonly clock: Clock;
  readonly network: Network;
  /** Multiplies the time of a run. */
  readonly noise: () => number;
  /** Spans to note. */
  readonly spans: number;
  readonly onResult: (flight: Flight) => void;
  /** `machine` could not reach `peer`. */
  readonly onTrouble: (flight: Flight, machine: Machine, peer: Machine) => void;
}

export class Agents {
  readonly spans: Span[] = [];
  readonly #o: AgentsOptions;
  readonly #queues = new Map<Machine, { waiting: Run[]; handed: number }>();

  constructor(options: AgentsOptions) {
    this.#o = options;
    for (const machine of options.network.machines.values()) this.#queues.set(machine, { waiting: [], handed: 0 });
  }

  /** The dispatcher sends the inputs of a new attempt. */
  enter(flight: Flight): void {
    flight.results -= flight.seating.passing;
    if (flight.results === 0) this.#o.onResult(flight);
    for (const wire of flight.seating.entering) this.#send(flight, this.#o.network.gateway, -1, wire);
  }

  /** Its queue is lost with it. */
  stop(machine: Machine): void {
    this.#queues.set(machine, { waiting: [], handed: 0 });
  }

  #send(flight: Flight, from: Machine, stage: number, wire: Leaving): void {
    const { network, clock } = this.#o;
    const name = wire.toStage === SINK ? network.gateway.name : holder(flight.seating, flight.route, wire.toStage, wire.toPart);
    const to = network.machine(name);
    if (to === undefined) return;
    if (to === from) {
      this.#arrive(flight, to, wire);
      return;
    }
    let fromMs = clock.nowMs;
    const begun = (): void => {
      fromMs = clock.nowMs;
    };
    const arrived = (): void => {
      this.#note({ who: from.name, what: 'up', frame: flight.frame, stage, fromMs, toMs: clock.nowMs });
      this.#arrive(flight, to, wire);
    };
    network.send(from, to, wire.bytes, arrived, () => this.#o.onTrouble(flight, from, to), begun);
  }

  #arrive(flight: Flight, machine: Machine, { toStage, toPart, coded }: Leaving): void {
    if (flight.cancelled) return;
    if (coded !== undefined) {
      const open = flight.coded[coded] ?? 0;
      // The others were enough.
      if (open === 0) return;
      flight.coded[coded] = open - 1;
    }
    if (toStage === SINK) {
      flight.results--;
      if (flight.results === 0) this.#o.onResult(flight);
      return;
    }
    const part = flight.seating.parts[toStage]?.[toPart];
    if (part === undefined) return;
    const left = (flight.missing[part.index] ?? 0) - 1;
    flight.missing[part.index] = left;
    if (left === 0) this.#ready(machine, { flight, stage: toStage, part: toPart });
  }

  #ready(machine: Machine, run: Run): void {
    const waiting = this.#queues.get(machine)?.waiting ?? [];
    let at = waiting.length;
    while (at > 0 && (waiting[at - 1]?.flight.frame ?? 0) > run.flight.frame) at--;
    waiting.splice(at, 0, run);
    this.#next(machine);
  }

  #next(machine: Machine): void {
    const queue = this.#queues.get(machine);
    while (queue !== undefined && queue.handed < DEPTH) {
      const run = queue.waiting.shift();
      if (run === undefined) return;
      if (run.flight.cancelled) continue;
      queue.handed++;
      const { flight, stage, part } = run;
      const here = flight.seating.parts[stage]?.[part];
      const ms = (here?.runMs[flight.route[stage] ?? 0] ?? 0) * this.#o.noise();
      let fromMs = 0;
      machine.cpu.add(
        machine.id,
        ms,
        () => {
          queue.handed--;
          this.#note({ who: machine.name, what: 'run', frame: flight.frame, stage, fromMs, toMs: this.#o.clock.nowMs });
          if (!flight.cancelled) for (const wire of here?.leaving ?? []) this.#send(flight, machine, stage, wire);
          this.#next(machine);
        },
        () => {
          fromMs = this.#o.clock.nowMs;
        },
      );
    }
  }

  #note(span: Span): void {
    if (this.spans.length < this.#o.spans) this.spans.push(span);
  }
}

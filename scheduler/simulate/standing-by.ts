/**
 * What stands by for repairs in simulated time, as scheduler/repairs.ts has it: worked out ahead a second after things have settled (repair-ahead.ts), then brought to two
 * agents at once beside the frames.
 */
import type { SliceRef } from '../../broker/plan.js';
import { type Device, isRefusal, type Links, type Objective, type PlanDraft, type PlanRefusal } from '../planners/problem.js';
import { type RepairQuestion, repair } from '../repair.js';
import { type Holdings, likelyFirst, pauseBy, planAhead } from '../repair-ahead.js';
import type { Part, Seating } from './seating.js';

/** As in scheduler/repairs.ts. */
export const SETTLE_MS = 1000;
const STANDBY_BYTES = 2 ** 30;
const AT_ONCE = 2;
const WEIGHTS = ' weights';

export interface StandingByOptions {
  readonly links: Links;
  readonly objective: Objective;
  /** Agents that hold seats or could, and which of them take new ones. */
  readonly devices: () => readonly Device[];
  readonly mayTake: (agent: string) => boolean;
  /** Of a part's weights, what is not on the agent's disk. */
  readonly missingBytes: (agent: string, part: Part) => number;
  readonly isLoaded: (agent: string, slice: string) => boolean;
  /** Fetches what is missing, loads it and runs it once; `done` is not called when the agent falls meanwhile. */
  readonly bring: (agent: string, part: Part, done: () => void) => void;
}

export class StandingBy {
  readonly #o: StandingByOptions;
  /** By the name of the slice. */
  readonly #parts = new Map<string, Part>();
  #wanted: { readonly agent: string; readonly part: Part }[] = [];
  #bringing = 0;
  /** Counts plans: what was begun for an earlier one is nobody's turn any more, and may never be done. */
  #turn = 0;

  constructor(options: StandingByOptions) {
    this.#o = options;
  }

  /** A plan is in force: from now on its losses are prepared for. */
  prepare(seating: Seating): void {
    const slices = this.#slicesOf(seating);
    const { draft } = seating;
    const likely = likelyFirst([...seating.agents].map((agent) => ({ agent, suspect: false, losses: 0, bytes: needed(seating, agent) })));
    const taken = new Map(draft.estimate.memory.map(({ agent, needBytes }) => [agent, needBytes]));
    const devices = this.#o.devices();
    const sizes = new Map(devices.map(({ agent, memoryBytes }) => [agent, memoryBytes]));
    const work = planAhead({
      ...this.#ground(devices),
      ...{ draft, slices, likely, holdings: this.#holdings() },
      diskBytes: () => STANDBY_BYTES,
      memoryBytes: (agent) => (sizes.get(agent) || Number.POSITIVE_INFINITY) - (taken.get(agent) ?? 0),
    });
    let step = work.next();
    while (step.done !== true) step = work.next();
    this.#wanted = [...step.value.standby].flatMap(([agent, refs]) =>
      refs.flatMap(({ graph }) => {
        const part = this.#parts.get(graph.sha256);
        return part === undefined ? [] : [{ agent, part }];
      }),
    );
    this.#turn++;
    this.#bringing = 0;
    this.#next();
  }

  /** Somebody was lost: what stands by stays, and nothing more is brought. */
  stop(): void {
    this.#wanted = [];
  }

  /** The plan without the agents that are lost, with others in their seats. */
  repair(seating: Seating, lost: ReadonlySet<string>): PlanDraft | PlanRefusal {
    const devices = this.#o.devices();
    const slices = this.#slicesOf(seating);
    const ground = this.#ground(devices);
    const pauseMs = pauseBy(this.#holdings(), devices, this.#o.links);
    const answer = repair({ ...ground, draft: seating.draft, slices, lost, pauseMs });
    return isRefusal(answer) ? answer : answer.draft;
  }

  #ground(devices: readonly Device[]): Pick<RepairQuestion, 'devices' | 'links' | 'objective' | 'inFlight' | 'mayTake'> {
    const { links, objective, mayTake } = this.#o;
    return { devices, links, objective, inFlight: 0, mayTake };
  }

  #next(): void {
    while (this.#bringing < AT_ONCE) {
      const next = this.#wanted.shift();
      if (next === undefined) return;
      this.#bringing++;
      const turn = this.#turn;
      this.#o.bring(next.agent, next.part, () => {
        if (turn !== this.#turn) return;
        this.#bringing--;
        this.#next();
      });
    }
  }

  #holdings(): Holdings {
    return {
      stored: (agent, sha256) => {
        const part = this.#parts.get(sha256.endsWith(WEIGHTS) ? sha256.slice(0, -WEIGHTS.length) : sha256);
        return part === undefined || this.#o.missingBytes(agent, part) === 0;
      },
      loaded: (agent, sha256) => this.#o.isLoaded(agent, sha256),
    };
  }

  /** Graphs are small: only weights count. `[stage][part]` */
  #slicesOf({ parts }: Seating): SliceRef[][] {
    return parts.map((row) =>
      row.map((part) => {
        this.#parts.set(part.slice, part);
        const { slice, weightBytes } = part;
        const graph = { sha256: slice, sizeBytes: 0 };
        const blobs = [{ sha256: `${slice}${WEIGHTS}`, sizeBytes: weightBytes }];
        return { graph, blobs, macs: 0, weightBytes, activationBytes: 0 };
      }),
    );
  }
}

/** Weights of the seats that nobody else could take at once, and a byte for each of them. */
function needed({ stages, parts }: Seating, agent: string): number {
  let bytes = 0;
  for (const [s, { agents, redundancy = 0 }] of stages.entries()) {
    if (redundancy > 0 || !agents.every((replica) => replica.includes(agent))) continue;
    for (const replica of agents) {
      for (const [p, name] of replica.entries()) if (name === agent) bytes += 1 + (parts[s]?.[p]?.weightBytes ?? 0);
    }
  }
  return bytes;
}

/**
 * What a beginning of a plan has cost so far, for the search in exact.ts: every stage adds to the loads, memory and clocks of a state, as the estimator would
 * count them, and a bound says what is still to come at least.
 */
import { BlockTable } from './block-table.js';
import type { Cell, Cells, Crossing } from './cells.js';
import { busy, computeMs, ENGINE_BYTES, MESSAGE_OVERHEAD_MS, RUN_OVERHEAD_MS, slowdown } from './cost.js';
import type { Device, PlanProblem } from './problem.js';

export interface State {
  /** Loads, then memory held and peak of each device, then the clocks of each route. */
  readonly v: Float64Array;
  readonly value: number;
  readonly cell: Cell | undefined;
  readonly before: State | undefined;
}

/** Where in a state's vector what stands. */
interface Shape {
  readonly loads: number;
  readonly held: number;
  readonly peak: number;
  readonly clocks: number;
  /** One route's clocks: resources, then the finish of each part of the last stage. */
  readonly clock: number;
  readonly routes: number;
  readonly length: number;
}

/** All states of one search. */
export class States {
  readonly #problem: PlanProblem;
  readonly #cells: Cells;
  readonly #shape: Shape;
  /** From each block on: what each device would take for all of it, at least. */
  readonly #aloneMs: readonly (readonly number[])[];
  /** From each block on: weights that must find room. */
  readonly #weightsLeft: readonly number[];
  /** Is the memory of every device known? */
  readonly limited: boolean;
  /** Any further run takes this at least: of a quota, and by the clock. */
  readonly #runMs: number;
  readonly #soonMs: number;
  /** Of each device: how far ahead of its quota a rest may put it, ms. */
  readonly #ahead: readonly number[];
  /** All results take this way after the first part of the last stage is done. */
  readonly #deliveryMs: number;
  readonly #mediumMs: number;
  /** Room for the state that is being made, for one stage's arrivals, and for devices in the order in which they are free. */
  readonly #draft: Float64Array;
  readonly #arrived: Float64Array;
  readonly #rates: Float64Array;
  readonly #free: Float64Array;

  constructor(problem: PlanProblem, cells: Cells) {
    this.#problem = problem;
    this.#cells = cells;
    this.#deliveryMs = cells.deliveryMs();
    this.#mediumMs = cells.ends.mediumMs(cells.resultBytes);
    const { resources } = cells;
    const n = problem.devices.length;
    this.#arrived = new Float64Array(n + 1);
    this.#rates = new Float64Array(n);
    this.#free = new Float64Array(n);
    const latencyOnly = problem.objective === 'latency';
    const routes = latencyOnly ? 1 : problem.maxLatencyMs === undefined ? 0 : n;
    const loads = latencyOnly ? 0 : resources.length;
    const clock = resources.length + n;
    this.#shape = { loads, held: loads, peak: loads + n, clocks: loads + 2 * n, clock, routes, length: loads + 2 * n + routes * clock };
    this.#draft = new Float64Array(this.#shape.length);
    const profiled = problem.devices.some((device) => device.profile !== undefined || device.correction !== undefined);
    this.#runMs = profiled ? 0 : Math.min(...problem.devices.map((device) => device.runMs ?? RUN_OVERHEAD_MS));
    this.#soonMs = this.#runMs * Math.min(...problem.devices.map(({ quota }) => quota?.fullSpeed ?? 1));
    this.#ahead = problem.devices.map(({ quota }) => quota?.periodMs ?? 0);
    const { blocks } = problem.facts;
    this.#aloneMs = [...blocks.keys()].map((end) => problem.devices.map((device) => leastMs(problem, device, end)));
    this.#weightsLeft = [...blocks, undefined].map((_, b) => blocks.slice(b).reduce((sum, block) => sum + block.weightBytes, 0));
    this.limited = problem.devices.every((device) => device.memoryBytes > 0);
  }

  /** Nothing is done yet. */
  first(): State {
    const v = new Float64Array(this.#shape.length);
    const { clocks, clock, routes } = this.#shape;
    // All of them have rested.
    for (let r = 0; r < routes; r++) {
      for (const [d, ms] of this.#ahead.entries()) v[clocks + r * clock + this.#cells.resources.cpu(d)] = -ms;
    }
    return { v, value: 0, cell: undefined, before: undefined };
  }

  /** One stage more; undefined when it does not fit into memory, or can no longer beat `bound`. */
  extend(state: State, cell: Cell, bound: number): State | undefined {
    // Most are dropped: only what is kept gets a vector of its own.
    const v = this.#draft;
    v.set(state.v);
    if (!this.#addMemory(v, cell)) return undefined;
    const crossing = this.#cells.crossing(state.cell, cell);
    if (this.#shape.loads > 0) for (let i = 0; i < crossing.at.length; i++) bump(v, crossing.at[i] ?? 0, crossing.ms[i] ?? 0);
    for (let r = 0; r < this.#shape.routes; r++) this.#advance(v, r, state.cell, cell, crossing);
    const value = this.#lowerBound(v, cell);
    return value >= bound ? undefined : { v: v.slice(), value, cell, before: state };
  }

  /** The way of the results to the dispatcher: what a finished plan costs; undefined when that is no better than `bound`. */
  deliver(state: State, bound: number): State | undefined {
    const crossing = this.#cells.crossing(state.cell, undefined);
    const v = state.v.slice();
    if (this.#shape.loads > 0) for (let i = 0; i < crossing.at.length; i++) bump(v, crossing.at[i] ?? 0, crossing.ms[i] ?? 0);
    let latency = 0;
    for (let r = 0; r < this.#shape.routes; r++) latency = Math.max(latency, this.#advance(v, r, state.cell, undefined, crossing));
    if (latency > (this.#problem.maxLatencyMs ?? Number.POSITIVE_INFINITY)) return undefined;
    const value = this.#problem.objective === 'latency' ? latency : highest(v, this.#shape.loads);
    return value >= bound ? undefined : { ...state, v, value };
  }

  /** Are devices `i` and `j` equal in all that was done so far? */
  alike(state: State, i: number, j: number): boolean {
    if (state.cell === undefined) return true;
    for (const replica of state.cell.seats) if (replica.includes(i) || replica.includes(j)) return false;
    const { v } = state;
    const { resources } = this.#cells;
    const { held, peak, clocks, clock, routes, loads } = this.#shape;
    const same = (a: number, b: number): boolean => (v[a] ?? 0) === (v[b] ?? 0);
    if (!same(held + i, held + j) || !same(peak + i, peak + j)) return false;
    const bases = [...(loads > 0 ? [0] : []), ...Array.from({ length: routes }, (_, r) => clocks + r * clock)];
    return bases.every(
      (base) =>
        same(base + resources.cpu(i), base + resources.cpu(j)) &&
        same(base + resources.up(i), base + resources.up(j)) &&
        same(base + resources.down(i), base + resources.down(j)),
    );
  }

  /** Can the blocks to come be put whole into what memory is left? (Cut by channels they may need less on each device, so this only ranks.) */
  leavesRoom({ v, cell }: State): boolean {
    const { held, peak } = this.#shape;
    const { blocks } = this.#problem.facts;
    const free = this.#problem.devices.map((device, d) => device.memoryBytes - ENGINE_BYTES - (v[held + d] ?? 0) - (v[peak + d] ?? 0));
    const largestFirst = blocks
      .slice(cell?.end ?? 0)
      .map((block) => block.weightBytes)
      .sort((a, b) => b - a);
    return packs(largestFirst, 0, free);
  }

  /** Is `a` at least as good as `b` in everything, or within `slack` ms of it? Memory counts to the byte. */
  dominates(a: State, b: State, slack: number): boolean {
    const { held, clocks } = this.#shape;
    for (let i = 0; i < a.v.length; i++) {
      const more = (a.v[i] ?? 0) - (b.v[i] ?? 0);
      if (more > (i >= held && i < clocks ? 0 : slack + 1e-9)) return false;
    }
    return true;
  }

  #addMemory(v: Float64Array, cell: Cell): boolean {
    const { held, peak } = this.#shape;
    let free = 0;
    for (const [d, device] of this.#problem.devices.entries()) {
      const kept = (v[held + d] ?? 0) + (cell.held[d] ?? 0);
      const most = Math.max(v[peak + d] ?? 0, cell.peak[d] ?? 0);
      v[held + d] = kept;
      v[peak + d] = most;
      const left = device.memoryBytes - ENGINE_BYTES - kept - most;
      if (left >= 0) free += left;
      // Who holds nothing is in nobody's way, however little it has: others may have filled it.
      else if (device.memoryBytes > 0 && kept + most > 0) return false;
    }
    // Every block that is still to come must find room for its weights, wherever.
    return !this.limited || free >= (this.#weightsLeft[cell.end] ?? 0);
  }

  /** One frame alone, on the route of replica `r`, through one more stage: as `Estimator.#latencyMs`. Returns when the last of it is done. */
  #advance(v: Float64Array, r: number, before: Cell | undefined, next: Cell | undefined, crossing: Crossing): number {
    const { resources, ends, names } = this.#cells;
    const base = this.#shape.clocks + r * this.#shape.clock;
    const finish = base + resources.length;
    const seatsBefore = before?.seats[Math.min(r, before.seats.length - 1)] ?? [];
    const gate = resources.devices;
    const seats = next?.seats[Math.min(r, next.seats.length - 1)] ?? [];
    // Not made anew for each: a search comes here a million times.
    const arrived = this.#arrived;
    arrived.fill(0, 0, next === undefined ? 1 : next.parts.length);
    let end = 0;
    for (const { fromPart, toPart, bytes } of crossing.flows) {
      const from = before === undefined ? gate : (seatsBefore[fromPart] ?? 0);
      const to = next === undefined ? gate : (seats[toPart] ?? 0);
      let at = before === undefined ? (this.#problem.links.gatewayFrameMs ?? 0) : (v[finish + fromPart] ?? 0);
      if (from !== to) {
        const [nameFrom = '', nameTo = ''] = [names[from], names[to]];
        const up = ends.linkMs(nameFrom, 'up', nameTo, bytes);
        let left = take(v, base + resources.up(from), this.#handled(v, base, from, at, ends.cpuMs(nameFrom, bytes)), up);
        const medium = ends.mediumMs(bytes);
        if (medium > 0) left = Math.max(left, take(v, base + resources.medium, left - up, medium));
        const latency = ends.latencyMs(nameFrom, nameTo);
        const came = take(v, base + resources.down(to), left - up + latency, ends.linkMs(nameTo, 'down', nameFrom, bytes));
        const pair = resources.pair(from, to);
        const passed = pair < 0 ? 0 : take(v, base + pair, left - up + latency, ends.pairMs(nameFrom, nameTo, bytes));
        at = Math.max(left + latency, came, passed, this.#handled(v, base, to, left - up + latency, ends.cpuMs(nameTo, bytes)));
      }
      arrived[toPart] = Math.max(arrived[toPart] ?? 0, at);
      end = Math.max(end, at);
    }
    if (next === undefined) {
      for (let p = 0; p < (before?.parts.length ?? 0); p++) end = Math.max(end, v[finish + p] ?? 0);
      return end;
    }
    const ms = next.ms[Math.min(r, next.ms.length - 1)] ?? [];
    for (let p = 0; p < this.#problem.devices.length; p++) {
      if (p >= next.parts.length) {
        v[finish + p] = 0;
        continue;
      }
      v[finish + p] = this.#ran(v, base, seats[p] ?? 0, arrived[p] ?? 0, ms[p] ?? 0);
    }
    return end;
  }

  /** As `Estimator.#ran`. */
  #ran(v: Float64Array, base: number, d: number, fromMs: number, ms: number): number {
    const { resources } = this.#cells;
    const device = this.#problem.devices[d];
    const cpu = base + resources.cpu(d);
    const { freeMs, doneMs } = busy(device?.quota, v[cpu] ?? 0, fromMs, ms);
    const host = resources.host(d);
    const hostMs = host < 0 ? Number.NEGATIVE_INFINITY : take(v, base + host, fromMs, ms * (device?.hostShare ?? 1));
    v[cpu] = Math.max(freeMs, hostMs);
    return Math.max(doneMs, hostMs);
  }

  /** As `Estimator.#handled`; `end` may be the dispatcher. */
  #handled(v: Float64Array, base: number, end: number, fromMs: number, ms: number): number {
    return this.#problem.devices[end]?.quota === undefined ? fromMs + ms : this.#ran(v, base, end, fromMs, ms);
  }

  /** No plan that begins so is faster: what is loaded is loaded, and the work left, spread over all devices by speed, fills the rest. */
  #lowerBound(v: Float64Array, cell: Cell): number {
    const { loads, clocks, clock, routes } = this.#shape;
    const { resources } = this.#cells;
    const left = cell.end < this.#aloneMs.length;
    let latency = 0;
    for (let r = 0; r < routes; r++) {
      const base = clocks + r * clock;
      let first = Number.POSITIVE_INFINITY;
      let last = 0;
      for (let p = 0; p < cell.parts.length; p++) {
        const at = v[base + resources.length + p] ?? 0;
        first = Math.min(first, at);
        last = Math.max(last, at);
      }
      const more = left ? first + this.#soonMs : first;
      const from = left ? first + this.#runMs : first;
      const done = this.#filled(cell.end, (d) => Math.max(from - (this.#ahead[d] ?? 0), v[base + resources.cpu(d)] ?? 0));
      latency = Math.max(
        latency,
        (v[base + resources.medium] ?? 0) + this.#mediumMs,
        done + MESSAGE_OVERHEAD_MS,
        more + this.#deliveryMs,
        last + (left ? 0 : MESSAGE_OVERHEAD_MS),
      );
    }
    if (this.#problem.objective === 'latency') return latency;
    if (latency > (this.#problem.maxLatencyMs ?? Number.POSITIVE_INFINITY)) return Number.POSITIVE_INFINITY;
    return Math.max(
      highest(v, loads),
      this.#deliveryMs,
      this.#filled(cell.end, (d) => v[d] ?? 0),
    );
  }

  /** The earliest time at which devices that are busy until `until(d)` can have done all blocks from `end` on, if these could be divided as one likes. */
  #filled(end: number, until: (device: number) => number): number {
    const alone = this.#aloneMs[end];
    if (alone === undefined || alone.includes(0)) return 0;
    const count = alone.length;
    const [rates, free] = [this.#rates, this.#free];
    for (let d = 0; d < count; d++) {
      const at = until(d);
      // By insertion: there are few.
      let i = d;
      for (; i > 0 && (free[i - 1] ?? 0) > at; i--) {
        free[i] = free[i - 1] ?? 0;
        rates[i] = rates[i - 1] ?? 0;
      }
      free[i] = at;
      rates[i] = 1 / (alone[d] ?? 1);
    }
    let rate = 0;
    let begun = 0;
    for (let i = 0; i < count; i++) {
      rate += rates[i] ?? 0;
      begun += (rates[i] ?? 0) * (free[i] ?? 0);
      const time = (1 + begun) / rate;
      if (time <= (i + 1 < count ? (free[i + 1] ?? 0) : Number.POSITIVE_INFINITY)) return time;
    }
    return (1 + begun) / rate;
  }
}

/** Cut blocks may seem to cost so much less than whole ones by the noise of their measurements. */
const NOISE = 0.15;

/** What a device takes at least for all blocks from `end` on: their MACs at its speed, or what was measured, less its noise. */
function leastMs(problem: PlanProblem, device: Device, end: number): number {
  const { facts } = problem;
  if (device.profile === undefined && device.correction === undefined) {
    const macs = facts.blocks.slice(end).reduce((sum, block) => sum + block.macs, 0);
    return (1000 * macs * slowdown(device)) / device.macsPerSecond;
  }
  const table = BlockTable.of(facts);
  const factors = device.correction === undefined ? [1] : [device.correction.all, ...device.correction.stages.map(({ factor }) => factor)];
  const { correction: _, ...asPredicted } = device;
  const ms = computeMs(asPredicted, table.whole(end, table.length), table.spec(end, table.length, 'whole'), 1);
  return ms * Math.min(...factors) * (1 - NOISE);
}

/** Do `sizes` from `from` on fit into `free`, each as a whole? */
function packs(sizes: readonly number[], from: number, free: number[]): boolean {
  const size = sizes[from];
  if (size === undefined) return true;
  for (const [d, room] of free.entries()) {
    // Bins with the same room are the same.
    if (room < size || free.indexOf(room) < d) continue;
    free[d] = room - size;
    const fits = packs(sizes, from + 1, free);
    free[d] = room;
    if (fits) return true;
  }
  return false;
}

function bump(v: Float64Array, at: number, ms: number): void {
  v[at] = (v[at] ?? 0) + ms;
}

/** Keeps a resource for `ms` from `fromMs` on, or from when it is free; returns until when. */
function take(v: Float64Array, at: number, fromMs: number, ms: number): number {
  const until = Math.max(fromMs, v[at] ?? 0) + ms;
  v[at] = until;
  return until;
}

function highest(v: Float64Array, count: number): number {
  let most = 0;
  for (let i = 0; i < count; i++) most = Math.max(most, v[i] ?? 0);
  return most;
}

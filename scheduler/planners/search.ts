/**
 * For throughput. Dynamic programming over blocks done. A state is what matters of the stages so far: the load of every CPU, host and link direction, the memory of every
 * device, the latency, and where the last output lies. A stage takes the next blocks whole on one device, whole on several (frames in turn), or cut into parts by
 * share. States that are no better in anything than another with the same last placement are dropped (dominance), then all but `width` by objective:
 * exact while fewer remain, a beam beyond. Devices may hold seats of several stages. Costs come from the block table; the caller estimates the finalists exactly.
 */
import { DISPATCHER } from '../../broker/topics.js';
import type { CutKind } from '../../models/slicing/partition.js';
import type { BlockTable, TableCut, TablePart } from './block-table.js';
import { ENGINE_BYTES, MESSAGE_OVERHEAD_MS, seatMs, slowdown } from './cost.js';
import { Ends, type Side } from './ends.js';
import { type Option, optionsFor } from './options.js';
import type { Device, PlanProblem, SeatedStage } from './problem.js';

/** Where no profile asks for nodes. */
const NOWHERE = { nodes: [0, 0], cut: 'whole' } as const;
const CUTS: readonly TableCut[] = ['rows', 'channels'];

export interface SearchLimits {
  /** States kept at each number of blocks. */
  readonly width: number;
  /** Finalists wanted. */
  readonly finalists: number;
  /** Ms per frame that must be beaten. */
  readonly bound: number;
}

/** Where the output of a stage lies. */
interface Placement extends Option {
  readonly cut: CutKind;
}

interface State {
  /** Ms per frame: CPU of each device, up of each, down of each, up and down of the dispatcher, each host. */
  readonly loads: Float64Array;
  readonly memory: Float64Array;
  readonly latency: number;
  readonly busiest: number;
  readonly total: number;
  readonly at: Placement | undefined;
  readonly stage: SeatedStage | undefined;
  readonly before: State | undefined;
}

/** The best chains of stages by the table, best first. */
export function search(problem: PlanProblem, table: BlockTable, devices: readonly Device[], limits: SearchLimits): SeatedStage[][] {
  return new Search(problem, table, devices, limits).run();
}

class Search {
  readonly #problem: PlanProblem;
  readonly #table: BlockTable;
  readonly #devices: readonly Device[];
  readonly #ends: Ends;
  readonly #limits: SearchLimits;
  readonly #hosts: readonly string[];
  readonly #hostOf: readonly number[];
  /** Work that remains before each block, ms on all devices together: no plan is faster. */
  readonly #workMs: readonly number[];
  readonly #compute = new Map<number, Float64Array>();

  constructor(problem: PlanProblem, table: BlockTable, devices: readonly Device[], limits: SearchLimits) {
    this.#problem = problem;
    this.#table = table;
    this.#devices = devices;
    this.#ends = new Ends(devices, problem.links);
    this.#limits = limits;
    this.#hosts = [...new Set(devices.flatMap((device) => device.host ?? []))];
    this.#hostOf = devices.map((device) => (device.host === undefined ? -1 : this.#hosts.indexOf(device.host)));
    const speed = devices.reduce((sum, device) => sum + device.macsPerSecond / slowdown(device), 0);
    const profiled = devices.some((device) => device.profile !== undefined);
    const work = problem.facts.blocks.map((block) => (profiled ? 0 : (1000 * block.macs) / speed));
    this.#workMs = work.map((_, b) => work.slice(b).reduce((sum, ms) => sum + ms, 0));
  }

  run(): SeatedStage[][] {
    const states: State[][] = Array.from({ length: this.#table.length + 1 }, () => []);
    const n = this.#devices.length;
    const none = { loads: new Float64Array(3 * n + 2 + this.#hosts.length), memory: new Float64Array(n), latency: 0, busiest: 0, total: 0 };
    states[0]?.push({ ...none, at: undefined, stage: undefined, before: undefined });
    for (let done = 0; done < this.#table.length; done++) {
      for (const state of this.#kept(states[done] ?? [], this.#limits.width)) {
        for (const option of optionsFor(this.#devices, state.loads, state.at)) {
          for (let end = done + 1; end <= this.#table.length; end++) {
            for (const next of this.#extend(state, done, end, option)) states[end]?.push(next);
          }
        }
        // Only what is better than all that came before need be kept while the list grows.
        for (let end = done + 1; end <= this.#table.length; end++) {
          const list = states[end] ?? [];
          if (list.length > 40 * this.#limits.width) states[end] = this.#kept(list, 4 * this.#limits.width);
        }
      }
      states[done] = [];
    }
    const finished = (states.at(-1) ?? []).map((state) => this.#delivered(state)).filter((state) => state !== undefined);
    return this.#kept(finished, this.#limits.finalists).map(stagesOf);
  }

  #value(state: State): number {
    const late = this.#problem.maxLatencyMs !== undefined && state.latency > this.#problem.maxLatencyMs * 1.1;
    return late ? Number.POSITIVE_INFINITY : state.busiest;
  }

  #extend(state: State, from: number, end: number, option: Option): State[] {
    const { devices } = option;
    const found: State[] = [];
    const cuts: readonly CutKind[] = devices.length === 1 || option.replicas ? ['whole'] : CUTS;
    for (const cut of cuts) {
      const next = this.#stage(state, from, end, { ...option, cut });
      if (next !== undefined) found.push(next);
    }
    return found;
  }

  #stage(state: State, from: number, end: number, at: Placement): State | undefined {
    const loads = state.loads.slice();
    const memory = state.memory.slice();
    const parts: TablePart[] = [];
    for (const [i, d] of at.devices.entries()) {
      const part = at.cut === 'whole' ? this.#table.whole(from, end) : this.#table.part(from, end, at.cut as TableCut, at.shares[i] ?? 0);
      const device = this.#devices[d];
      if (part === undefined || device === undefined) return undefined;
      memory[d] = (memory[d] ?? 0) + part.weightBytes + 2 * part.inBytes;
      if (device.memoryBytes > 0 && (memory[d] ?? 0) + part.activationBytes + ENGINE_BYTES > device.memoryBytes) return undefined;
      parts.push(part);
    }
    const arrived = this.#move(loads, state.at, at, parts, this.#table.bytesAt(from));
    const longest = this.#run(loads, from, end, at, parts);
    const latency = state.latency + arrived + longest;
    return this.#bounded({ before: state, loads, memory, latency, at, stage: this.#seated(from, end, at) }, end);
  }

  /** Adds what the parts compute; returns the time of the slowest, as agents of one host keep its cores together. */
  #run(loads: Float64Array, from: number, end: number, at: Placement, parts: readonly TablePart[]): number {
    const together = new Map<number, number>();
    let longest = 0;
    for (const [i, d] of at.devices.entries()) {
      const device = this.#devices[d];
      const part = parts[i];
      if (device === undefined || part === undefined) continue;
      const ms = this.#ms(device, d, part, from, end, at, i);
      const frames = at.replicas ? (at.shares[i] ?? 0) : 1;
      this.#addCpu(loads, d, ms * frames);
      const host = this.#hostOf[d] ?? -1;
      longest = Math.max(longest, ms);
      if (host < 0 || at.replicas) continue;
      const kept = (together.get(host) ?? 0) + ms * (device.hostShare ?? 1);
      together.set(host, kept);
      longest = Math.max(longest, kept);
    }
    return longest;
  }

  /** The same stage of the same share is priced once per device. */
  #ms(device: Device, d: number, part: TablePart, from: number, end: number, at: Placement, i: number): number {
    const share = at.cut === 'whole' ? 1 : (at.shares[i] ?? 0);
    if (device.profile === undefined) return seatMs(device, part, NOWHERE, share);
    if (at.cut !== 'whole') return seatMs(device, part, this.#table.spec(from, end, at.cut), share);
    const key = from * 4096 + end;
    const row = this.#compute.get(key) ?? new Float64Array(this.#devices.length);
    this.#compute.set(key, row);
    if (row[d] === 0) row[d] = seatMs(device, part, this.#table.spec(from, end, at.cut), share);
    return row[d] ?? 0;
  }

  /** Of its device, and of the cores of its host so much as a run here keeps. */
  #addCpu(loads: Float64Array, d: number, ms: number): void {
    loads[d] = (loads[d] ?? 0) + ms;
    const host = this.#hostOf[d] ?? -1;
    if (host < 0) return;
    const at = 3 * this.#devices.length + 2 + host;
    loads[at] = (loads[at] ?? 0) + ms * (this.#devices[d]?.hostShare ?? 1);
  }

  /** Adds what travels from the last placement (undefined: the dispatcher) to the next; returns how long it takes. */
  #move(loads: Float64Array, from: Placement | undefined, to: Placement, parts: readonly TablePart[], fullBytes: number): number {
    const n = this.#devices.length;
    let left = 0;
    let longest = 0;
    let messages = 0;
    for (const [i, d] of to.devices.entries()) {
      const need = parts[i]?.inBytes ?? 0;
      const moved = Math.max(0, need - localBytes(from, to, i, d, need, fullBytes));
      if (moved <= 0) continue;
      const frames = to.replicas ? (to.shares[i] ?? 0) : 1;
      const ms = this.#linkMs(d, 'down', moved) * frames;
      loads[2 * n + d] = (loads[2 * n + d] ?? 0) + ms;
      this.#addCpu(loads, d, this.#cpuMs(d, moved) * frames);
      this.#leave(loads, from, d, moved * frames, frames);
      left += moved * (to.replicas ? frames : 1);
      messages += frames;
      longest = Math.max(longest, ms / frames);
    }
    if (messages === 0) return 0;
    const oneDoor = from === undefined || from.cut === 'whole';
    const door = oneDoor ? this.#linkMs(from?.devices[0] ?? -1, 'up', left) + (messages - 1) * MESSAGE_OVERHEAD_MS : 0;
    const [sender, receiver] = [from?.devices[0] ?? -1, to.devices[0] ?? -1];
    const each = left / Math.max(1, to.devices.length);
    const latency = this.#ends.latencyMs(this.#name(sender), this.#name(receiver));
    return Math.max(longest, door) + latency + this.#cpuMs(sender, each) + this.#cpuMs(receiver, each);
  }

  /** What leaves the holders for device `to`, in proportion to what each holds. */
  #leave(loads: Float64Array, from: Placement | undefined, to: number, bytes: number, messages: number): void {
    const n = this.#devices.length;
    if (from === undefined) {
      loads[3 * n] = (loads[3 * n] ?? 0) + this.#linkMs(-1, 'up', bytes) - MESSAGE_OVERHEAD_MS * (1 - messages);
      return;
    }
    const others = from.devices.reduce((sum, d, i) => sum + (d === to ? 0 : (from.shares[i] ?? 0)), 0);
    for (const [i, d] of from.devices.entries()) {
      if (d === to || others <= 0) continue;
      const share = (from.shares[i] ?? 0) / others;
      const sent = Math.min(1, messages * (from.replicas ? share : 1));
      loads[n + d] = (loads[n + d] ?? 0) + this.#linkMs(d, 'up', bytes * share) - MESSAGE_OVERHEAD_MS * (1 - sent);
      this.#addCpu(loads, d, this.#cpuMs(d, bytes * share));
    }
  }

  /** -1: the dispatcher. */
  #linkMs(d: number, side: Side, bytes: number): number {
    return this.#ends.linkMs(this.#name(d), side, undefined, bytes);
  }

  #cpuMs(d: number, bytes: number): number {
    return this.#ends.cpuMs(this.#name(d), bytes);
  }

  #name(d: number): string {
    return this.#devices[d]?.agent ?? DISPATCHER;
  }

  /** The way of the results to the dispatcher. */
  #delivered(state: State): State | undefined {
    if (state.at === undefined) return undefined;
    const loads = state.loads.slice();
    const n = this.#devices.length;
    const bytes = this.#table.bytesAt(this.#table.length);
    for (const [i, d] of state.at.devices.entries()) {
      const part = bytes * (state.at.shares[i] ?? 0);
      loads[n + d] = (loads[n + d] ?? 0) + this.#linkMs(d, 'up', part);
    }
    loads[3 * n + 1] = (loads[3 * n + 1] ?? 0) + this.#linkMs(-1, 'down', bytes);
    const latency =
      state.latency + this.#linkMs(-1, 'down', bytes) + this.#ends.latencyMs(this.#name(state.at.devices[0] ?? -1), DISPATCHER);
    return this.#bounded({ ...state, loads, latency }, this.#table.length);
  }

  /** The state after `end` blocks, with its sums; undefined when no plan that goes on from it can beat the bound, or fits. */
  #bounded(made: Omit<State, 'busiest' | 'total'>, end: number): State | undefined {
    const { loads, memory } = made;
    let busiest = 0;
    let total = 0;
    for (const load of loads) {
      if (load > busiest) busiest = load;
      total += load;
    }
    const next: State = { ...made, busiest, total };
    if (this.#value(next) >= this.#limits.bound || !this.#restFits(memory, end)) return undefined;
    // Work done and work to come, spread evenly over all: no continuation is faster.
    let cpu = 0;
    let speed = 0;
    for (const [d, device] of this.#devices.entries()) {
      cpu += (loads[d] ?? 0) * (device.macsPerSecond / slowdown(device));
      speed += device.macsPerSecond / slowdown(device);
    }
    return cpu / speed + (this.#workMs[end] ?? 0) >= this.#limits.bound ? undefined : next;
  }

  /** Every block that is still to come must find room for its weights, wherever: replicas made early may have taken it. */
  #restFits(memory: Float64Array, end: number): boolean {
    if (end >= this.#table.length) return true;
    let free = 0;
    for (const [d, device] of this.#devices.entries()) {
      if (device.memoryBytes === 0) return true;
      free += Math.max(0, device.memoryBytes - ENGINE_BYTES - (memory[d] ?? 0));
    }
    return free >= this.#table.whole(end, this.#table.length).weightBytes;
  }

  #seated(from: number, end: number, at: Placement): SeatedStage {
    const names = at.devices.map((d) => this.#devices[d]?.agent ?? '');
    if (at.cut === 'whole') return { spec: this.#table.spec(from, end, 'whole'), agents: names.map((name) => [name]) };
    return { spec: this.#table.spec(from, end, at.cut, at.shares), agents: [names] };
  }

  #kept(states: readonly State[], width: number): State[] {
    const sorted = [...states].sort((a, b) => this.#value(a) - this.#value(b) || a.total - b.total);
    const kept: State[] = [];
    const byPlace = new Map<string, State[]>();
    for (const state of sorted) {
      if (kept.length >= width) break;
      const place = `${state.at?.cut} ${state.at?.replicas} ${state.at?.devices.join()} ${state.at?.shares.join()}`;
      const rivals = byPlace.get(place) ?? [];
      if (rivals.some((rival) => dominates(rival, state))) continue;
      kept.push(state);
      rivals.push(state);
      byPlace.set(place, rivals);
    }
    return kept;
  }
}

function dominates(a: State, b: State): boolean {
  if (a.latency > b.latency + 1e-9) return false;
  for (let i = 0; i < a.loads.length; i++) if ((a.loads[i] ?? 0) > (b.loads[i] ?? 0) + 1e-9) return false;
  for (let i = 0; i < a.memory.length; i++) if ((a.memory[i] ?? 0) > (b.memory[i] ?? 0)) return false;
  return true;
}

/** What of a part's input already lies on its device. */
function localBytes(from: Placement | undefined, to: Placement, i: number, d: number, need: number, fullBytes: number): number {
  if (from === undefined) return 0;
  const j = from.devices.indexOf(d);
  if (j < 0) return 0;
  const held = from.shares[j] ?? 0;
  if (from.cut === 'whole') return from.replicas ? need * held : need;
  if (from.cut !== to.cut || to.cut === 'channels') return need * held;
  const overlap = Math.min(endOf(from, j), endOf(to, i)) - Math.max(endOf(from, j) - held, endOf(to, i) - (to.shares[i] ?? 0));
  return Math.min(need, Math.max(0, overlap) * fullBytes);
}

function endOf(placement: Placement, index: number): number {
  return placement.shares.slice(0, index + 1).reduce((sum, share) => sum + share, 0);
}

function stagesOf(state: State): SeatedStage[] {
  const stages: SeatedStage[] = [];
  for (let at: State | undefined = state; at !== undefined; at = at.before) if (at.stage !== undefined) stages.unshift(at.stage);
  return stages;
}

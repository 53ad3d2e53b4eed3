/**
 * All that a stage may be, with what it costs: a cell is a run of blocks laid out on devices in one way. Cells and the traffic between two of them are worked
 * out once, by the same costs as estimate.ts, so that a search can add up plans by the million. For problems that are small enough to look at all of it.
 */
import { SINK } from '../../broker/plan.js';
import { type Box, boxDims, boxElements, itemBytes, type TensorInfo, tensorBytes } from '../../broker/tensor.js';
import { DISPATCHER } from '../../broker/topics.js';
import type { CutKind, StageSpec } from '../../models/slicing/partition.js';
import { wire } from '../../models/slicing/wiring.js';
import { ENGINE_BYTES, seatBytes, seatMs } from './cost.js';
import { Ends, partBytes } from './ends.js';
import { isRefusal, type PartFacts, type PlanProblem, type SeatedStage } from './problem.js';

/** One way to lay a stage out, before the blocks are known. */
export interface Layout {
  readonly cut: CutKind;
  readonly shares: readonly number[];
  /** `devices[replica][share]`: indices. */
  readonly devices: readonly (readonly number[])[];
}

export interface Cell {
  readonly id: number;
  readonly from: number;
  readonly end: number;
  /** Index of its layout: cells that end at the same block in the same layout hold the same output. */
  readonly layout: number;
  readonly parts: readonly PartFacts[];
  /** Device of each part, by replica. */
  readonly seats: readonly (readonly number[])[];
  readonly ms: readonly (readonly number[])[];
  /** Fraction of the frames that each replica takes. */
  readonly weights: readonly number[];
  /** By device: bytes kept for as long as it serves (weights and one frame's inputs), and the largest activations. */
  readonly held: Float64Array;
  readonly peak: Float64Array;
  readonly stage: SeatedStage;
}

export interface Flow {
  readonly fromPart: number;
  readonly toPart: number;
  readonly bytes: number;
}

/** What crosses between two cells, and the loads of both stages' messages and of the second one's runs. */
export interface Crossing {
  readonly flows: readonly Flow[];
  readonly at: Int32Array;
  readonly ms: Float64Array;
}

/** Where each resource stands in a vector of loads. Ends: devices, then the dispatcher. */
export class Resources {
  readonly devices: number;
  readonly hosts: readonly string[];
  readonly hostOf: readonly number[];
  readonly length: number;
  /** `[from * ends + to]`: the way between two ends that are slower with each other than with others; -1: their links say all. */
  readonly #pairs: Int32Array;

  constructor(problem: PlanProblem, ends: Ends) {
    this.devices = problem.devices.length;
    this.hosts = [...new Set(problem.devices.flatMap((device) => device.host ?? []))];
    this.hostOf = problem.devices.map((device) => (device.host === undefined ? -1 : this.hosts.indexOf(device.host)));
    const names = namesOf(problem);
    this.#pairs = new Int32Array(names.length * names.length).fill(-1);
    let next = 3 * names.length + this.hosts.length;
    for (const [a, name] of names.entries()) {
      for (const far of ends.slowFrom(name)) {
        const b = names.indexOf(far);
        if (b >= 0) this.#pairs[a * names.length + b] = next++;
      }
    }
    this.length = next + 1;
  }

  cpu(end: number): number {
    return end;
  }
  up(end: number): number {
    return this.devices + 1 + end;
  }
  down(end: number): number {
    return 2 * (this.devices + 1) + end;
  }
  /** -1: a host of its own. */
  host(device: number): number {
    const host = this.hostOf[device] ?? -1;
    return host < 0 ? -1 : 3 * (this.devices + 1) + host;
  }
  /** -1: nothing but the links of both. */
  pair(from: number, to: number): number {
    return this.#pairs[from * (this.devices + 1) + to] ?? -1;
  }
  get medium(): number {
    return this.length - 1;
  }
}

function namesOf({ devices }: PlanProblem): string[] {
  return [...devices.map((device) => device.agent), DISPATCHER];
}

export class Cells {
  readonly resources: Resources;
  readonly ends: Ends;
  readonly names: readonly string[];
  readonly #problem: PlanProblem;
  readonly #layouts: readonly Layout[];
  readonly #inputs: readonly TensorInfo[];
  readonly #outputs: readonly TensorInfo[];
  readonly #cells = new Map<number, readonly Cell[]>();
  readonly #ones = new Map<string, Cell | undefined>();
  readonly #crossings = new Map<number, Crossing>();
  readonly #flows = new Map<string, readonly Flow[]>();
  #count = 0;

  constructor(problem: PlanProblem, layouts: readonly Layout[]) {
    this.#problem = problem;
    this.#layouts = layouts;
    this.ends = new Ends(problem.devices, problem.links);
    this.resources = new Resources(problem, this.ends);
    this.names = namesOf(problem);
    const { blocks } = problem.facts;
    const whole = problem.facts.cut([{ nodes: [0, blocks.at(-1)?.nodes[1] ?? 0], cut: 'whole', shares: [1] }]);
    this.#inputs = isRefusal(whole) ? [] : whole.inputs;
    this.#outputs = isRefusal(whole) ? [] : whole.outputs;
  }

  get resultBytes(): number {
    return this.#outputs.reduce((sum, info) => sum + tensorBytes(info.dtype, info.dims), 0);
  }

  /** The least time that the results keep the way to the dispatcher, wherever they come from. */
  deliveryMs(): number {
    const bytes = this.resultBytes;
    const each = this.#problem.devices.map(({ agent }) => this.ends.linkMs(DISPATCHER, 'down', agent, bytes));
    return Math.max(this.ends.mediumMs(bytes), Math.min(...each));
  }

  /** Every layout of blocks [from, end) that can be cut and fits into memory. */
  at(from: number, end: number): readonly Cell[] {
    const key = from * 4096 + end;
    const known = this.#cells.get(key);
    if (known !== undefined) return known;
    const { blocks } = this.#problem.facts;
    const nodes = [blocks[from]?.nodes[0] ?? 0, blocks[end - 1]?.nodes[1] ?? 0] as const;
    const cuts = new Map<string, readonly PartFacts[] | undefined>();
    const cells: Cell[] = [];
    for (const [index, layout] of this.#layouts.entries()) {
      const spec: StageSpec = { nodes, cut: layout.cut, shares: layout.shares };
      const name = `${spec.cut} ${spec.shares.join()}`;
      // Columns cost what rows do: they are for tensors whose rows cannot be cut.
      if (spec.cut === 'columns' && cuts.get(`rows ${spec.shares.join()}`) !== undefined) continue;
      if (!cuts.has(name)) cuts.set(name, this.#cut(spec));
      const parts = cuts.get(name);
      const cell = parts === undefined ? undefined : this.#cell(from, end, index, layout, spec, parts);
      if (cell !== undefined) cells.push(cell);
    }
    this.#cells.set(key, cells);
    return cells;
  }

  /** Of blocks [from, end) one layout by itself; undefined where they cannot be cut so, or do not fit. */
  one(from: number, end: number, index: number): Cell | undefined {
    const key = `${from}-${end} ${index}`;
    const known = this.#ones.get(key);
    const layout = this.#layouts[index];
    if (known !== undefined || layout === undefined || this.#ones.has(key)) return known;
    const { blocks } = this.#problem.facts;
    const nodes = [blocks[from]?.nodes[0] ?? 0, blocks[end - 1]?.nodes[1] ?? 0] as const;
    const spec: StageSpec = { nodes, cut: layout.cut, shares: layout.shares };
    const parts = this.#cut(spec);
    const made = parts === undefined ? undefined : this.#cell(from, end, index, layout, spec, parts);
    this.#ones.set(key, made);
    return made;
  }

  /** From `before` (undefined: the dispatcher) to `next` (undefined: the dispatcher). */
  crossing(before: Cell | undefined, next: Cell | undefined): Crossing {
    const key = ((before?.id ?? -1) + 1) * 4_194_304 + (next?.id ?? -1) + 1;
    const known = this.#crossings.get(key);
    if (known !== undefined) return known;
    const flows = this.#flowsOf(before, next);
    const loads = new Map<number, number>();
    const add = (at: number, ms: number): void => {
      if (at >= 0 && ms > 0) loads.set(at, (loads.get(at) ?? 0) + ms);
    };
    if (next !== undefined) this.#runs(next, add);
    if (before === undefined) add(this.resources.cpu(this.resources.devices), this.#problem.links.gatewayFrameMs ?? 0);
    for (const flow of flows) this.#messages(before, next, flow, add);
    const found = { flows, at: Int32Array.from(loads.keys()), ms: Float64Array.from(loads.values()) };
    this.#crossings.set(key, found);
    return found;
  }

  /** A stage of one share is whole, so that each part is a replica's. Undefined where it cannot be cut so, or a part would be empty. */
  #cut(spec: StageSpec): readonly PartFacts[] | undefined {
    const parts = this.#problem.facts.stage(spec);
    if (isRefusal(parts) || parts.length !== spec.shares.length) return undefined;
    return parts;
  }

  #cell(from: number, end: number, index: number, layout: Layout, spec: StageSpec, parts: readonly PartFacts[]): Cell | undefined {
    const { devices } = this.#problem;
    const total = spec.shares.reduce((sum, share) => sum + share, 0);
    const held = new Float64Array(devices.length);
    const peak = new Float64Array(devices.length);
    const ms = layout.devices.map((replica) =>
      parts.map((part, p) => {
        const d = replica[p] ?? -1;
        const device = devices[d];
        if (device === undefined) return Number.POSITIVE_INFINITY;
        const waiting = part.inputs.reduce((sum, port) => sum + tensorBytes(port.dtype, boxDims(port.box)), 0);
        const share = (spec.shares[p] ?? 0) / total;
        const bytes = seatBytes(device, part, { spec, share }, waiting, 1);
        held[d] = (held[d] ?? 0) + bytes.held;
        peak[d] = Math.max(peak[d] ?? 0, bytes.peak);
        return seatMs(device, part, spec, share);
      }),
    );
    const fits = devices.every(({ memoryBytes }, d) => {
      const taken = (held[d] ?? 0) + (peak[d] ?? 0);
      return memoryBytes === 0 || taken === 0 || taken + ENGINE_BYTES <= memoryBytes;
    });
    if (!fits) return undefined;
    const slowest = ms.length === 1 ? [1] : this.#slowest(from, end, layout, parts, ms);
    const rate = slowest.reduce((sum, t) => sum + 1 / t, 0);
    return {
      ...{ id: this.#count++, from, end, layout: index, parts, seats: layout.devices, ms, held, peak },
      weights: slowest.map((t) => 1 / t / rate),
      stage: { spec, agents: layout.devices.map((replica) => replica.map((d) => devices[d]?.agent ?? '')) },
    };
  }

  /** Of each replica, as the estimator has it: how long a frame keeps its slowest part. */
  #slowest(from: number, end: number, layout: Layout, parts: readonly PartFacts[], ms: readonly (readonly number[])[]): number[] {
    const [isFirst, isLast] = [from === 0, end === this.#problem.facts.blocks.length];
    const bytes = parts.map(partBytes);
    return layout.devices.map((replica, r) =>
      Math.max(...bytes.map((each, p) => this.ends.frameMs(this.names[replica[p] ?? -1] ?? '', ms[r]?.[p] ?? 0, each, isFirst, isLast))),
    );
  }

  #flowsOf(before: Cell | undefined, next: Cell | undefined): readonly Flow[] {
    const name = (cell: Cell): string => `${cell.stage.spec.cut} ${cell.stage.spec.shares.join()}`;
    const key = `${before === undefined ? 'in' : `${before.end} ${name(before)}`} > ${next === undefined ? 'out' : `${next.from}-${next.end} ${name(next)}`}`;
    const known = this.#flows.get(key);
    if (known !== undefined) return known;
    const stages = [before, next].filter((cell) => cell !== undefined).map((cell) => ({ cut: cell.stage.spec.cut, parts: cell.parts }));
    const { wires, missing } = wire(stages, {
      inputs: before === undefined ? this.#inputs : [],
      outputs: next === undefined ? this.#outputs : [],
    });
    const last = before === undefined ? -1 : 0;
    const flows = wires
      .filter((w) => w.fromStage === last && (next === undefined ? w.toStage === SINK : w.toStage === last + 1))
      .map((w): Flow => {
        const dtype = (before === undefined ? this.#inputs[w.output] : before.parts[w.fromPart]?.outputs[w.output])?.dtype ?? 'float32';
        return { fromPart: w.fromPart, toPart: w.toPart, bytes: boxElements(w.box) * itemBytes(dtype) };
      });
    const left = missing.filter((hole) => (next === undefined ? hole.stage === SINK : hole.stage === last + 1));
    const found = [...flows, ...left.flatMap((hole) => this.#assumed(before, next, hole))];
    this.#flows.set(key, found);
    return found;
  }

  /**
   * What the stage before does not hold under this name: sums of partial outputs, which all of its parts send, or a tensor of an earlier stage, which is taken
   * to lie with the first part. `draft` finds out in truth.
   */
  #assumed(before: Cell | undefined, next: Cell | undefined, { part, input, box }: { part: number; input: number; box: Box }): Flow[] {
    if (before === undefined) return [];
    const dtype = (next === undefined ? this.#outputs[input] : next.parts[part]?.inputs[input])?.dtype ?? 'float32';
    const bytes = tensorBytes(dtype, boxDims(box));
    const makers = before.stage.spec.cut === 'inputs' || before.stage.spec.cut === 'pair' ? before.parts.map((_, p) => p) : [0];
    return makers.map((fromPart): Flow => ({ fromPart, toPart: part, bytes }));
  }

  #runs(cell: Cell, add: (at: number, ms: number) => void): void {
    for (const [r, weight] of cell.weights.entries()) {
      for (const [p, ms] of (cell.ms[r] ?? []).entries()) this.#compute(cell.seats[r]?.[p] ?? 0, ms * weight, add);
    }
  }

  #compute(device: number, ms: number, add: (at: number, ms: number) => void): void {
    add(this.resources.cpu(device), ms);
    add(this.resources.host(device), ms * (this.#problem.devices[device]?.hostShare ?? 1));
  }

  /** As `Estimator.loads`: each end's link and CPU, for the frames whose other end is elsewhere. */
  #messages(
    before: Cell | undefined,
    next: Cell | undefined,
    { fromPart, toPart, bytes }: Flow,
    add: (at: number, ms: number) => void,
  ): void {
    const { resources, ends, names } = this;
    const gate = resources.devices;
    const from =
      before === undefined
        ? [{ end: gate, weight: 1 }]
        : before.weights.map((weight, r) => ({ end: before.seats[r]?.[fromPart] ?? 0, weight }));
    const to =
      next === undefined ? [{ end: gate, weight: 1 }] : next.weights.map((weight, r) => ({ end: next.seats[r]?.[toPart] ?? 0, weight }));
    for (const a of from) {
      for (const b of to) {
        if (a.end === b.end) continue;
        const frames = a.weight * b.weight;
        const [nameA = '', nameB = ''] = [names[a.end], names[b.end]];
        add(resources.up(a.end), frames * ends.linkMs(nameA, 'up', nameB, bytes));
        add(resources.down(b.end), frames * ends.linkMs(nameB, 'down', nameA, bytes));
        add(resources.pair(a.end, b.end), frames * ends.pairMs(nameA, nameB, bytes));
        add(resources.medium, frames * ends.mediumMs(bytes));
        for (const [end, name] of [
          [a.end, nameA],
          [b.end, nameB],
        ] as const) {
          const ms = frames * ends.cpuMs(name, bytes);
          if (end === gate) add(resources.cpu(end), ms);
          else this.#compute(end, ms, add);
        }
      }
    }
  }
}

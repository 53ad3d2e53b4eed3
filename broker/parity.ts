/**
 * Coded redundancy: of a stage cut by outputs any one part may be missing. Its last part, the parity, computes with the sum of the others' weights; a linear
 * stage's parity output is therefore the sum of their outputs (each padded with zeros to the longest), and a missing one is the parity less the others
 * (Hadidi et al., "Robustly Executing DNNs in IoT Systems Using Coded Distributed Computing", DAC 2019). A consumer's port lacks nothing
 * when any N of the N + 1 have come. Activations stand in the consumers: sums do not pass through them.
 *
 * Nothing here reads a clock or a message: which wires belong together, and the arithmetic. `models/` uses it, too.
 */
import { ChairError } from './errors.js';
import type { Wire } from './plan.js';
import { type Box, boxDims, boxEquals, type DType } from './tensor.js';

/** The boxes that fill one input port from one coded stage: `parts` fill it, and `parity` stands in for any one of them. Indices into the plan's wires. */
export interface CodedInput {
  /** Index of the consumer's input. */
  readonly input: number;
  readonly fromStage: number;
  /** The axis that the stage is cut along. */
  readonly axis: number;
  readonly parts: readonly number[];
  readonly parity: number;
}

/** A stage as far as redundancy goes. */
export interface CodedStage {
  readonly parts: { readonly length: number };
  /** How many of the last parts are parities; absent = 0. */
  readonly redundancy?: number;
}

/** True for a part that holds a parity. */
export function isParity(stage: CodedStage | undefined, part: number): boolean {
  return stage !== undefined && part >= stage.parts.length - (stage.redundancy ?? 0);
}

/** The coded inputs of a consumer (SINK, part 0: of the model's outputs). Throws PLAN_INVALID when a parity does not fit the parts that it stands in for. */
export function codedInputs(stages: readonly CodedStage[], wires: readonly Wire[], toStage: number, toPart: number): CodedInput[] {
  const groups = new Map<string, { input: number; fromStage: number; parts: number[]; parities: number[] }>();
  for (const [index, wire] of wires.entries()) {
    const stage = stages[wire.fromStage];
    if (wire.toStage !== toStage || wire.toPart !== toPart || (stage?.redundancy ?? 0) === 0) continue;
    const { input, fromStage, output } = wire;
    const key = `${input}/${fromStage}/${output}`;
    const group = groups.get(key) ?? { input, fromStage, parts: [], parities: [] };
    groups.set(key, group);
    (isParity(stage, wire.fromPart) ? group.parities : group.parts).push(index);
  }
  return [...groups.values()].flatMap(({ parities, ...group }) => {
    const [parity, second] = parities;
    // A consumer that nobody sends the parity to waits for every part.
    if (parity === undefined) return [];
    const parts = stages[group.fromStage]?.parts.length ?? 0;
    if (second !== undefined || new Set(group.parts.map((w) => wires[w]?.fromPart)).size !== parts - 1) {
      throw misfit(group.fromStage, `one box of each of ${parts - 1} parts and one parity`, `${group.parts.length} and ${parities.length}`);
    }
    return [{ ...group, parity, axis: axisOf(group.fromStage, boxOf(wires, parity), boxesOf(wires, group.parts)) }];
  });
}

/** Join `all`: every wire of a consumer has brought its box; join `coded` where an input is: any N of its N + 1. `wires`: how many come in, coded or not. */
export function isEnough(wires: number, coded: readonly CodedInput[], arrived: ReadonlySet<number>): boolean {
  if (arrived.size < wires - coded.length) return false;
  let others = wires;
  let came = arrived.size;
  for (const { parts, parity } of coded) {
    const own = parts.reduce((count, wire) => count + (arrived.has(wire) ? 1 : 0), arrived.has(parity) ? 1 : 0);
    if (own < parts.length) return false;
    others -= parts.length + 1;
    came -= own;
  }
  return came === others;
}

/** The axis along which parts differ. Throws PLAN_INVALID unless they follow each other on it and the parity is as long as the longest. */
function axisOf(stage: number, parity: Box, parts: readonly Box[]): number {
  const [first] = parts;
  const differing = first?.start.findIndex((_, axis) => parts.some((box) => box.start[axis] !== first.start[axis])) ?? -1;
  // One part alone: the parity is its double, and every axis will do.
  const axis = Math.max(0, differing);
  const longest = parts.reduce((most, box) => Math.max(most, (box.end[axis] ?? 0) - (box.start[axis] ?? 0)), 0);
  const from = parts.length === 1 ? (first?.start[axis] ?? 0) : 0;
  for (const box of parts) {
    if (boxEquals(onAxis(box, axis, from, from + longest), parity)) continue;
    throw misfit(stage, `a parity of ${longest} on axis ${axis}, and as the parts on the others`, JSON.stringify(parity));
  }
  return axis;
}

function onAxis(box: Box, axis: number, start: number, end: number): Box {
  return { start: box.start.map((s, i) => (i === axis ? start : s)), end: box.end.map((e, i) => (i === axis ? end : e)) };
}

function boxesOf(wires: readonly Wire[], indices: readonly number[]): Box[] {
  return indices.map((w) => boxOf(wires, w));
}

function boxOf(wires: readonly Wire[], index: number): Box {
  return wires[index]?.box ?? { start: [], end: [] };
}

function misfit(stage: number, expected: string, came: string): ChairError {
  return new ChairError('PLAN_INVALID', `the parity of stage ${stage}`, { expected, came, todo: 'This is a defect of the planner' });
}

/** What `recover` works on. */
export interface Recovery {
  /** float32 or float64. */
  readonly dtype: DType;
  readonly axis: number;
  /** The port: dense bytes of `holder`, in which `others` are filled and `missing` is not. */
  readonly target: Uint8Array;
  readonly holder: Box;
  readonly missing: Box;
  readonly others: readonly Box[];
  /** Dense bytes of the parity's box. */
  readonly parity: Uint8Array;
}

/**
 * missing = parity - sum of the others, each element summed in double precision and rounded once. Every box spans the holder on all axes but `axis`. Bytes of
 * both buffers start at a multiple of the element size. Throws TENSOR_INVALID for other types than float32 and float64.
 */
export function recover({ dtype, axis, target, holder, missing, others, parity }: Recovery): void {
  const view = floats(dtype, target);
  const sums = floats(dtype, parity);
  const dims = boxDims(holder);
  const outer = dims.slice(0, axis).reduce((a, b) => a * b, 1);
  const inner = dims.slice(axis + 1).reduce((a, b) => a * b, 1);
  const row = (dims[axis] ?? 1) * inner;
  const origin = holder.start[axis] ?? 0;
  const lengthOf = (box: Box): number => ((box.end[axis] ?? 1) - (box.start[axis] ?? 0)) * inner;
  const offsetOf = (box: Box): number => ((box.start[axis] ?? 0) - origin) * inner;
  const length = lengthOf(missing);
  const parityRow = sums.length / Math.max(1, outer);
  const rows = others.map((box) => ({ offset: offsetOf(box), length: lengthOf(box) }));
  const to = offsetOf(missing);
  for (let o = 0; o < outer; o++) {
    for (let i = 0; i < length; i++) {
      let value = sums[o * parityRow + i] ?? 0;
      // Shorter parts count as padded with zeros.
      for (const other of rows) if (i < other.length) value -= view[o * row + other.offset + i] ?? 0;
      view[o * row + to + i] = value;
    }
  }
}

function floats(dtype: DType, { buffer, byteOffset, byteLength }: Uint8Array): Float32Array | Float64Array {
  if (dtype === 'float32') return new Float32Array(buffer, byteOffset, byteLength / 4);
  if (dtype === 'float64') return new Float64Array(buffer, byteOffset, byteLength / 8);
  throw new ChairError('TENSOR_INVALID', 'a part of this type cannot be recovered', { expected: 'float32 or float64', came: dtype });
}

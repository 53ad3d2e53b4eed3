/** Wires from boxes: every element of every consumer port is brought exactly once, from the same part index where that part has it. */
import { type Plan, type Port, SINK, SOURCE, type Wire } from '../../broker/plan.js';
import { type Box, boxElements, intersectBoxes, itemBytes, wholeBox } from '../../broker/tensor.js';

/** A stage as wiring sees it: its cut and its parts' ports. */
export interface WiredStage {
  readonly cut: string;
  readonly parts: readonly { readonly inputs: readonly Port[]; readonly outputs: readonly Port[] }[];
  /** How many of the last parts are parities; absent = 0. */
  readonly redundancy?: number;
}

interface Producer {
  readonly stage: number;
  readonly part: number;
  readonly output: number;
  readonly box: Box;
}

/** What stands in for any one producer of a tensor. */
interface Parity extends Producer {
  /** On which its parts follow each other; -1: there is only one. */
  readonly axis: number;
  /** Units of the tensor on this axis. */
  readonly extent: number;
}

/** An input that takes only some of a coded tensor's channels. */
export interface PartialTaker {
  readonly stage: number;
  readonly part: number;
  readonly input: number;
  readonly tensor: string;
}

/** `box` without `hole` (which lies in it), as disjoint boxes. */
export function subtractBox(box: Box, hole: Box): Box[] {
  const rest: Box[] = [];
  const [start, end] = [box.start.slice(), box.end.slice()];
  for (let axis = 0; axis < start.length; axis++) {
    const [low, high] = [hole.start[axis] ?? 0, hole.end[axis] ?? 0];
    if (low > (start[axis] ?? 0)) rest.push({ start: start.slice(), end: end.with(axis, low) });
    if (high < (end[axis] ?? 0)) rest.push({ start: start.with(axis, high), end: end.slice() });
    start[axis] = low;
    end[axis] = high;
  }
  return rest;
}

export interface Wiring {
  readonly wires: Wire[];
  /** Elements that no producer holds (a defect, or a tensor that is missing): empty when all is well. */
  readonly missing: { readonly stage: number; readonly part: number; readonly input: number; readonly box: Box }[];
  /** Inputs to which a parity is of no use: empty when all is well. */
  readonly partial: PartialTaker[];
}

/** Wires of a chain of stages between the model's inputs (SOURCE) and outputs (SINK). */
export function wire(stages: readonly WiredStage[], ends: Pick<Plan, 'inputs' | 'outputs'>): Wiring {
  const producers = new Map<string, Producer[]>();
  const add = (tensor: string, producer: Producer) => {
    const list = producers.get(tensor);
    if (list === undefined) producers.set(tensor, [producer]);
    else list.push(producer);
  };
  for (const [output, info] of ends.inputs.entries()) add(info.name, { stage: SOURCE, part: 0, output, box: wholeBox(info.dims) });
  const parities = new Map<string, Parity>();
  const wiring: Wiring = { wires: [], missing: [], partial: [] };
  const bring = (s: number, p: number, input: number, tensor: string, box: Box): void => {
    if (boxElements(box) === 0) return;
    connect(wiring, producers.get(tensor) ?? [], s, p, input, box);
    const parity = parities.get(tensor);
    if (parity !== undefined) bringParity(wiring, parity, { stage: s, part: p, input, tensor }, box);
  };
  stages.forEach((stage, s) => {
    for (const [p, part] of stage.parts.entries()) {
      for (const [input, port] of part.inputs.entries()) bring(s, p, input, port.tensor, port.box);
    }
    const coded = stage.parts.length - (stage.redundancy ?? 0);
    for (const [p, part] of stage.parts.entries()) {
      for (const [output, port] of part.outputs.entries()) {
        if (p < coded) add(port.tensor, { stage: s, part: p, output, box: port.box });
        else parities.set(...parityOf(stage.parts.slice(0, coded), { stage: s, part: p, output, box: port.box }));
      }
    }
  });
  for (const [input, info] of ends.outputs.entries()) bring(SINK, 0, input, info.name, wholeBox(info.dims));
  return wiring;
}

/** The tensor that a parity belongs to, by the place of its output, and the axis of its parts. */
function parityOf(parts: WiredStage['parts'], parity: Producer): [string, Parity] {
  const boxes = parts.flatMap(({ outputs }) => outputs[parity.output]?.box ?? []);
  const [first] = boxes;
  const axis = first?.start.findIndex((start, i) => boxes.some((box) => box.start[i] !== start)) ?? -1;
  const extent = boxes.reduce((most, box) => Math.max(most, box.end[axis] ?? 0), 0);
  return [parts[0]?.outputs[parity.output]?.tensor ?? '', { ...parity, axis, extent }];
}

/** The parity travels in the same rows as the parts do, and on its own axis as long as the longest of them. */
function bringParity(wiring: Wiring, { axis, extent, box: own, ...from }: Parity, to: PartialTaker, box: Box): void {
  if (axis >= 0 && ((box.start[axis] ?? 0) > 0 || (box.end[axis] ?? 0) < extent)) {
    wiring.partial.push(to);
    return;
  }
  const start = box.start.map((s, i) => (i === axis ? 0 : s));
  const end = box.end.map((e, i) => (i === axis ? (own.end[i] ?? 0) : e));
  const { stage: fromStage, part: fromPart, output } = from;
  const { stage: toStage, part: toPart, input } = to;
  wiring.wires.push({ fromStage, fromPart, output, toStage, toPart, input, box: { start, end }, encoding: 'raw' });
}

function connect(wiring: Wiring, producers: readonly Producer[], stage: number, part: number, input: number, box: Box): void {
  let open: Box[] = [box];
  // What the same part index holds is local; after it the others in order, starting behind it so that replicas share the sending.
  const own = producers.findIndex((p) => p.part === part);
  for (let i = 0; i < producers.length; i++) {
    const producer = producers[(Math.max(0, own) + i) % producers.length];
    if (producer === undefined) continue;
    const left: Box[] = [];
    for (const piece of open) {
      const common = intersectBoxes(piece, producer.box);
      if (common === undefined) {
        left.push(piece);
        continue;
      }
      const { stage: fromStage, part: fromPart, output } = producer;
      wiring.wires.push({ fromStage, fromPart, output, toStage: stage, toPart: part, input, box: common, encoding: 'raw' });
      left.push(...subtractBox(piece, common));
    }
    open = left;
    if (open.length === 0) return;
  }
  for (const piece of open) wiring.missing.push({ stage, part, input, box: piece });
}

/**
 * Bytes on all wires, except those between the same part of two cut stages of equally many parts: these sit on one agent.
 * `dtypes[tensor]` of whole tensors; partials have their tensor's.
 */
export function bytesMoved(stages: readonly WiredStage[], ends: Pick<Plan, 'inputs' | 'outputs'>, wires: readonly Wire[]): number {
  let sum = 0;
  for (const w of wires) if (!isLocal(stages, w)) sum += wireBytes(stages, ends, w);
  return sum;
}

export function wireBytes(stages: readonly WiredStage[], ends: Pick<Plan, 'inputs' | 'outputs'>, w: Wire): number {
  const port = w.fromStage === SOURCE ? ends.inputs[w.output] : stages[w.fromStage]?.parts[w.fromPart]?.outputs[w.output];
  return port === undefined ? 0 : boxElements(w.box) * itemBytes(port.dtype);
}

function isLocal(stages: readonly WiredStage[], w: Wire): boolean {
  const from = stages[w.fromStage];
  const to = stages[w.toStage];
  if (from === undefined || to === undefined || w.fromPart !== w.toPart) return false;
  return from.cut !== 'whole' && to.cut !== 'whole' && from.parts.length === to.parts.length;
}

/**
 * Blocks: runs of nodes between cut points, places where few tensors are alive. Planners cut a model into stages there.
 *
 * First every position where one tensor is alive is a cut point (in a residual network: after each addition). A segment between two of them
 * that holds much of the work (a feature pyramid keeps side branches alive) is split where its fewest tensors are alive.
 * Then positions are dropped until every block has work of its own: activations, pools and reshapes stay with the layer before them.
 */
import { elementCount, type TensorInfo, tensorBytes } from '../broker/tensor.js';
import { nodeMacs } from './macs.js';
import type { Block, Model, Weight } from './model.js';
import { namesRead } from './onnx/order.js';

/** A segment with more than this part of the model's MACs is split further. */
const LARGE_PART = 1 / 6;
/** More tensors than this are not worth sending. */
const MOST_ALIVE = 4;
/** A segment with less than this part of the model's MACs does not stand alone, */
const SMALL_PART = 1 / 1000;
/** unless it has this part of the weights: reading them takes time, too (VGG16's last layer: a 4,000th of the MACs, a 33rd of the weights). */
const HEAVY_PART = 1 / 50;

/** Blocks in order; they cover all nodes, and their MACs, params and bytes sum to the model's (a shared weight counts where it is used first). */
export function blocksOf(model: Model): Block[] {
  const count = model.nodes.length;
  if (count === 0) return [];
  const macs = model.nodes.map((node) => nodeMacs(model, node));
  const before = [0];
  for (const m of macs) before.push((before.at(-1) ?? 0) + m);
  const work = (start: number, end: number) => (before[end] ?? 0) - (before[start] ?? 0);
  const alive = aliveAt(model);
  const seen = new Set<string>();
  const weightsOf = model.nodes.map((node) =>
    namesRead(node).flatMap((name) => {
      const weight = model.weights.get(name);
      if (weight === undefined || seen.has(name)) return [];
      seen.add(name);
      return [weight];
    }),
  );
  const bytesBefore = [0];
  for (const weights of weightsOf) bytesBefore.push((bytesBefore.at(-1) ?? 0) + sum(weights.map(bytesOf)));
  const bytes = (start: number, end: number) => (bytesBefore[end] ?? 0) - (bytesBefore[start] ?? 0);
  const cuts = dropIdle(cutPoints(alive, work, count), { work, bytes }, count);
  return [...cuts, count].map((end, index): Block => {
    const start = index === 0 ? 0 : (cuts[index - 1] ?? 0);
    const weights = weightsOf.slice(start, end).flat();
    const out = end === count ? model.outputs : (alive[end] ?? []);
    return {
      index,
      nodes: [start, end],
      out,
      macs: work(start, end),
      // int64 constants are shapes and axes, not parameters.
      params: sum(weights.filter((w) => w.dtype !== 'int64').map((w) => elementCount(w.dims))),
      weightBytes: sum(weights.map(bytesOf)),
      outBytes: sum(out.map((t) => tensorBytes(t.dtype, t.dims))),
    };
  });
}

function bytesOf({ bytes }: Weight): number {
  return bytes.kind === 'inline' ? bytes.bytes.length : bytes.length;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((a, b) => a + b, 0);
}

/**
 * For each position p (before node p) the tensors that nodes before p (or the model's inputs) hand to nodes from p on.
 * Undefined where a value is among them that cannot cross a cut: no tensor, or of a shape that depends on the data.
 */
function aliveAt(model: Model): (TensorInfo[] | undefined)[] {
  const count = model.nodes.length;
  const lastUse = new Map<string, number>();
  for (const [index, node] of model.nodes.entries()) for (const name of namesRead(node)) lastUse.set(name, index);
  const alive: (TensorInfo[] | undefined)[] = [];
  const open = new Set(model.inputs.map((i) => i.name));
  for (let position = 0; position <= count; position++) {
    for (const name of open) if ((lastUse.get(name) ?? -1) < position) open.delete(name);
    const infos = [...open].map((name) => (model.dynamic?.has(name) ? undefined : model.tensors.get(name)));
    const tensors = infos.filter((info) => info !== undefined);
    alive.push(tensors.length === infos.length ? tensors : undefined);
    for (const name of model.nodes[position]?.outputs ?? []) if (name !== '') open.add(name);
  }
  return alive;
}

type Work = (start: number, end: number) => number;

function cutPoints(alive: readonly (readonly TensorInfo[] | undefined)[], work: Work, count: number): number[] {
  const total = work(0, count);
  const aliveCount = (position: number) => alive[position]?.length ?? Number.POSITIVE_INFINITY;
  const split = (start: number, end: number, most: number): number[] => {
    const inside = Array.from({ length: Math.max(0, end - start - 1) }, (_, i) => start + 1 + i);
    const fewest = inside.reduce((least, position) => Math.min(least, aliveCount(position)), Number.POSITIVE_INFINITY);
    if (fewest > most) return [];
    const points = inside.filter((position) => aliveCount(position) === fewest);
    const ends = [start, ...points, end];
    return ends.slice(1).flatMap((to, i) => {
      const from = ends[i] ?? start;
      const finer = work(from, to) > total * LARGE_PART ? split(from, to, MOST_ALIVE) : [];
      return to === end ? finer : [...finer, to];
    });
  };
  const single = split(0, count, 1);
  return single.length > 0 || total === 0 ? single : split(0, count, MOST_ALIVE);
}

/** Leaves only those cut points that have work on both sides: between the cut point before and it, and between it and the next. */
function dropIdle(points: readonly number[], { work, bytes }: { readonly work: Work; readonly bytes: Work }, count: number): number[] {
  const least = work(0, count) * SMALL_PART;
  const heavy = Math.max(1, bytes(0, count) * HEAVY_PART);
  const kept: number[] = [];
  for (const [i, point] of points.entries()) {
    const next = points[i + 1] ?? count;
    const hasWork = (start: number, end: number) => work(start, end) > 0 && (work(start, end) >= least || bytes(start, end) >= heavy);
    if (hasWork(kept.at(-1) ?? 0, point) && hasWork(point, next)) kept.push(point);
  }
  return kept;
}

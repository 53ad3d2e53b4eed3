/**
 * Covering a model with coded stages: each ends with the nodes that are linear in their weights, cut by outputs with a parity beside them, and begins with what
 * has to be computed from the stage before (activations, pools), whole in every part. What cannot be coded stands in stages of its own, which are
 * whole: the merging seats.
 */
import type { Model } from '../model.js';
import { cutStage, isRefusal } from './cut.js';
import { indexOf } from './model-index.js';
import type { StageSpec } from './partition.js';
import { type Held, StageWalk } from './stage.js';

const NOTHING_HELD: Held = new Map();
/** Nodes below this share of the model's MACs and of its weights are not worth an exchange. */
const LEAST = 0.01;
/** What every part of a coded stage repeats may be this share of what is coded in it. */
const MOST_REPEATED = 0.1;

export interface CodedCover {
  /** Tile all nodes, in order. */
  readonly stages: readonly StageSpec[];
  /** Why heavy nodes stay whole. */
  readonly refusals: readonly { readonly node: number; readonly reason: string }[];
}

/** Codes all that can be coded and is worth it, in one part per share and a parity. */
export function coverCoded(model: Model, shares: readonly number[], least = LEAST): CodedCover {
  const stages: StageSpec[] = [];
  const refusals: { node: number; reason: string }[] = [];
  let done = 0;
  for (const node of worthwhile(model, least)) {
    if (node < done) continue;
    const end = codedEnd(model, node);
    const refused: string[] = [];
    for (const start of startsBefore(model, done, node)) {
      const spec: StageSpec = { nodes: [start, end], cut: 'channels', shares, redundancy: 1 };
      const cut = cutStage(model, spec, NOTHING_HELD);
      if (isRefusal(cut)) {
        refused.push(cut.reason);
        continue;
      }
      if (start > done) stages.push(whole(done, start));
      stages.push(spec);
      done = end;
      break;
    }
    if (done < end) refusals.push({ node, reason: refused.at(-1) ?? 'it stands in the middle of what is computed whole' });
  }
  if (done < model.nodes.length) stages.push(whole(done, model.nodes.length));
  return { stages, refusals };
}

function whole(start: number, end: number): StageSpec {
  return { nodes: [start, end], cut: 'whole', shares: [1] };
}

/** Nodes with a good part of the model's work or of its weights. */
function worthwhile(model: Model, least: number): number[] {
  const { macs, macsBefore, weightReads } = indexOf(model);
  const elements = weightReads.map((reads) => reads.reduce((sum, { weight }) => sum + weight.dims.reduce((a, b) => a * b, 1), 0));
  const total = elements.reduce((a, b) => a + b, 0);
  return [...model.nodes.keys()].filter(
    (i) => (macs[i] ?? 0) > 0 && ((macs[i] ?? 0) >= least * (macsBefore.at(-1) ?? 0) || (elements[i] ?? 0) >= least * total),
  );
}

/** Behind the node and what is linear after it: a bias that is added by a node of its own. */
function codedEnd(model: Model, node: number): number {
  const walk = new StageWalk(model, 'channels', node, NOTHING_HELD, 1);
  let end = node + 1;
  walk.step();
  if (walk.obstacle() !== undefined) return end;
  while (walk.end < model.nodes.length && walk.makings.at(-1)?.kind === 'band' && walk.step() === undefined) {
    if (walk.makings.at(-1)?.kind === 'band' && walk.obstacle() === undefined) end = walk.end;
  }
  return end;
}

/** Where a coded stage up to `node` may begin, the earliest first: what it repeats in every part has to be little. */
function startsBefore(model: Model, done: number, node: number): number[] {
  const { macs, macsBefore } = indexOf(model);
  const most = MOST_REPEATED * (macs[node] ?? 0);
  const starts: number[] = [];
  for (let start = done; start <= node; start++) {
    if ((macsBefore[node] ?? 0) - (macsBefore[start] ?? 0) <= most) starts.push(start);
  }
  return starts;
}

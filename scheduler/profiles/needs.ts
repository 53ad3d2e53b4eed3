/**
 * Which measurements a model needs: every block whole and cut in every kind, some longer runs of blocks, and a run that computes next to nothing. Pure.
 *
 * Of the numbers of parts asked for, 1, 2, 4, 8, ... and the largest are measured; what lies between is interpolated in the work share (planners/profile-table.ts),
 * and on the heaviest blocks measured all the same, so that the error of the interpolation is known and not believed.
 * The longer runs tell what a block alone pays that a run of them does not (table.ts), and how well ranges are put together.
 */
import { boxDims, tensorBytes } from '../../broker/tensor.js';
import type { CutKind, StageSpec } from '../../models/slicing/partition.js';
import { isRefusal, type ModelFacts, type PartFacts } from '../planners/problem.js';

export type NeedKind = 'run' | 'block' | 'range' | 'model';

/** One thing to measure: the largest part of nodes `[start, end)` cut so. Of kind `run`, nodes are `[0, 0)`. */
export interface Need {
  readonly what: NeedKind;
  readonly label: string;
  readonly nodes: readonly [number, number];
  readonly cut: CutKind;
  readonly parts: number;
  /** Which part of the cut stage is the largest. */
  readonly part: number;
  readonly macs: number;
  readonly weightBytes: number;
  readonly inBytes: number;
  readonly outBytes: number;
  /** Measured only to know the error of what would stand in its place. */
  readonly check: boolean;
}

export interface Wanted {
  /** Besides `whole`. */
  readonly cuts: readonly CutKind[];
  /** Numbers of parts; 1 is always measured. */
  readonly parts: readonly number[];
}

export interface NeedList {
  readonly needs: readonly Need[];
  /** Not measured: the numbers of parts between those that are. */
  readonly between: readonly Need[];
  /** Cuts that a block cannot be cut by: no error, models are like that. */
  readonly notPossible: number;
}

/** Blocks on which the interpolation is checked. */
const CHECKED_BLOCKS = 3;
/** The model is also measured in halves and thirds. */
const RANGES = [2, 3];

/** 1, 2, 4, 8, ... and the largest of what was asked for. */
export function measuredParts(asked: readonly number[]): number[] {
  const most = Math.max(1, ...asked);
  const powers = [...asked].filter((n) => n > 1 && Number.isInteger(Math.log2(n)));
  return [...new Set([1, ...powers, most])].sort((a, b) => a - b);
}

export function needsOf(facts: ModelFacts, wanted: Wanted, label: (start: number, end: number) => string): NeedList {
  const needs: Need[] = [RUN];
  const between: Need[] = [];
  let notPossible = 0;
  const measured = new Set(measuredParts(wanted.parts));
  const heaviest = new Set(
    [...facts.blocks.keys()].sort((a, b) => (facts.blocks[b]?.macs ?? 0) - (facts.blocks[a]?.macs ?? 0)).slice(0, CHECKED_BLOCKS),
  );
  for (const [b, { nodes }] of facts.blocks.entries()) {
    const named = label(...nodes);
    const whole = needOf(facts, 'block', named, { nodes, cut: 'whole', shares: [1] });
    if (whole === undefined) continue;
    needs.push(whole);
    for (const cut of wanted.cuts) {
      for (const parts of [...new Set(wanted.parts)].filter((n) => n > 1).sort((x, y) => x - y)) {
        const need = needOf(facts, 'block', named, { nodes, cut, shares: new Array<number>(parts).fill(1) });
        if (need === undefined) notPossible++;
        else if (measured.has(parts)) needs.push(need);
        else if (heaviest.has(b)) needs.push({ ...need, check: true });
        else between.push(need);
      }
    }
  }
  return { needs: [...needs, ...longRuns(facts, label)], between, notPossible };
}

const RUN: Need = {
  ...{ what: 'run', label: 'one run of next to nothing', nodes: [0, 0], cut: 'whole', parts: 1, part: 0, macs: 0, weightBytes: 0 },
  ...{ inBytes: 0, outBytes: 0, check: false },
};

/** The whole model, its halves and thirds, by blocks. */
function longRuns(facts: ModelFacts, label: (start: number, end: number) => string): Need[] {
  const { blocks } = facts;
  const count = blocks.length;
  if (count < 2) return [];
  const bounds = new Map<string, readonly [number, number]>([[`0-${count}`, [0, count]]]);
  for (const k of RANGES) {
    for (let i = 0; i < k; i++) {
      const range = [Math.floor((i * count) / k), Math.floor(((i + 1) * count) / k)] as const;
      if (range[1] - range[0] > 1) bounds.set(range.join('-'), range);
    }
  }
  return [...bounds.values()].flatMap(([from, to]) => {
    const nodes: readonly [number, number] = [blocks[from]?.nodes[0] ?? 0, blocks[to - 1]?.nodes[1] ?? 0];
    const all = to - from === count;
    const need = needOf(facts, all ? 'model' : 'range', all ? 'the whole model' : label(...nodes), { nodes, cut: 'whole', shares: [1] });
    return need === undefined ? [] : [need];
  });
}

/** Undefined where the nodes cannot be cut so. */
function needOf(facts: ModelFacts, what: NeedKind, label: string, spec: StageSpec): Need | undefined {
  const parts = facts.stage(spec);
  if (isRefusal(parts) || parts.length !== spec.shares.length) return undefined;
  const part = largest(parts);
  const facts_ = parts[part];
  if (facts_ === undefined) return undefined;
  return {
    ...{ what, label, nodes: spec.nodes, cut: spec.cut, parts: spec.shares.length, part, check: false },
    ...{ macs: Math.round(facts_.macs), weightBytes: Math.round(facts_.weightBytes) },
    ...{ inBytes: portBytes(facts_.inputs), outBytes: portBytes(facts_.outputs) },
  };
}

/** By work, then by what it moves: the part that everyone waits for. */
function largest(parts: readonly PartFacts[]): number {
  const size = ({ macs, inputs, outputs }: PartFacts): number => macs + (portBytes(inputs) + portBytes(outputs)) / 1e9;
  return parts.reduce((best, part, i) => (size(part) > size(parts[best] ?? part) ? i : best), 0);
}

function portBytes(ports: PartFacts['inputs']): number {
  return ports.reduce((sum, port) => sum + tensorBytes(port.dtype, boxDims(port.box)), 0);
}

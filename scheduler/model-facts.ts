/** The planners' view of a model: its blocks, and what its cuts cost. */
import { isChairError } from '../broker/errors.js';
import { tensorBytes } from '../broker/tensor.js';
import { blocksOf } from '../models/blocks.js';
import type { Model } from '../models/model.js';
import { coverCoded } from '../models/slicing/coded.js';
import { coverCut } from '../models/slicing/cover.js';
import { cutStage, partition } from '../models/slicing/cut.js';
import { COVER_KINDS } from '../models/slicing/parse-cut.js';
import type { PartCut, Partition, StageSpec } from '../models/slicing/partition.js';
import type { CutFacts, ModelFacts, PartFacts, PlanRefusal } from './planners/problem.js';

/** Cuts are remembered: planners ask for the same ones again and again. */
export function factsOf(model: Model): ModelFacts {
  const cuts = new Map<string, CutFacts | PlanRefusal>();
  const covers = new Map<string, readonly StageSpec[] | PlanRefusal>();
  const blocks = blocksOf(model);
  const traffic = nodeTraffic(model);
  return {
    blocks,
    inputBytes: model.inputs.reduce((sum, info) => sum + tensorBytes(info.dtype, info.dims), 0),
    cut: (specs) => remembered(cuts, JSON.stringify(specs), () => possible(() => weighed(partition(model, specs), traffic))),
    stage: (spec) => {
      const cut = cutStage(model, spec, new Map());
      return 'refused' in cut ? { refused: true, reason: cut.reason } : cut.parts.map((part) => weighedPart(part, spec, traffic));
    },
    coded: (shares) => remembered(covers, JSON.stringify(['coded', shares]), () => possible(() => coded(model, shares))),
    cover: (kind, shares) => {
      const known = COVER_KINDS.find((one) => one === kind);
      if (known === undefined) return { refused: true, reason: `there is no cut '${kind}'` };
      return remembered(covers, JSON.stringify([kind, shares]), () => possible(() => cover(model, known, shares)));
    },
  };
}

/** Bytes of activations that each node writes and, about as many, reads. */
function nodeTraffic(model: Model): number[] {
  return model.nodes.map((node) => {
    const outputs = node.outputs.map((name) => model.tensors.get(name)).filter((info) => info !== undefined);
    return 2 * outputs.reduce((sum, info) => sum + tensorBytes(info.dtype, info.dims), 0);
  });
}

function weighed(cut: Partition, traffic: readonly number[]): CutFacts {
  return {
    ...cut,
    stages: cut.stages.map((stage) => ({ ...stage, parts: stage.parts.map((part) => weighedPart(part, stage.spec, traffic)) })),
  };
}

/** A cut part moves its even share of the activations: halos and uneven shares are small beside what is not known of a device's memory. */
function weighedPart(part: PartCut, { nodes: [start, end], shares, cut }: StageSpec, traffic: readonly number[]): PartFacts {
  const usual = cut === 'whole' ? 1 : 1 / Math.max(1, shares.length);
  let moved = part.weightBytes;
  let nodes = 0;
  for (let at = start; at < end; at++) {
    moved += (traffic[at] ?? 0) * usual;
    nodes++;
  }
  return { ...part, nodes, movedBytes: moved };
}

function cover(model: Model, kind: (typeof COVER_KINDS)[number], shares: readonly number[]): readonly StageSpec[] | PlanRefusal {
  const { stages, refusals } = coverCut(model, kind, shares);
  if (stages.some((stage) => stage.shares.length > 1)) return stages;
  return { refused: true, reason: `${kind}:${shares.length} cuts nothing of this model: ${refusals[0]?.reason ?? 'no node takes part'}` };
}

function coded(model: Model, shares: readonly number[]): readonly StageSpec[] | PlanRefusal {
  const { stages, refusals } = coverCoded(model, shares);
  if (stages.some((stage) => stage.redundancy === 1)) return stages;
  return {
    refused: true,
    reason: `nothing of this model can be coded: ${refusals[0]?.reason ?? 'no Conv, Gemm or MatMul does a good part of its work'}`,
  };
}

function remembered<T>(answers: Map<string, T>, key: string, make: () => T): T {
  const known = answers.get(key);
  if (known !== undefined) return known;
  const made = make();
  answers.set(key, made);
  return made;
}

function possible<T>(make: () => T): T | PlanRefusal {
  try {
    return make();
  } catch (error) {
    if (isChairError(error, 'CUT_NOT_POSSIBLE')) return { refused: true, reason: error.message };
    throw error;
  }
}

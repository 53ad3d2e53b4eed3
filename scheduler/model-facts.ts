/** The planners' view of a model: its blocks, and what its cuts cost. */
import { isChairError } from '../broker/errors.js';
import { tensorBytes } from '../broker/tensor.js';
import { blocksOf } from '../models/blocks.js';
import { nodeMacs } from '../models/macs.js';
import type { Model } from '../models/model.js';
import { namesRead } from '../models/onnx/order.js';
import { coverCoded } from '../models/slicing/coded.js';
import { coverCut } from '../models/slicing/cover.js';
import { cutStage, partition } from '../models/slicing/cut.js';
import { COVER_KINDS } from '../models/slicing/parse-cut.js';
import type { Partition, StageCut, StageSpec } from '../models/slicing/partition.js';
import type { CutFacts, ModelFacts, PartFacts, PlanRefusal } from './planners/problem.js';
import { addTo, emptyLadder, rungOf } from './planners/roofline.js';

/** Cuts are remembered: planners ask for the same ones again and again. */
export function factsOf(model: Model): ModelFacts {
  const cuts = new Map<string, CutFacts | PlanRefusal>();
  const covers = new Map<string, readonly StageSpec[] | PlanRefusal>();
  const blocks = blocksOf(model);
  const work = nodeWork(model);
  return {
    blocks,
    inputBytes: model.inputs.reduce((sum, info) => sum + tensorBytes(info.dtype, info.dims), 0),
    cut: (specs) => remembered(cuts, JSON.stringify(specs), () => possible(() => weighedCut(partition(model, specs), work))),
    stage: (spec) => {
      const cut = cutStage(model, spec, new Map());
      return 'refused' in cut ? { refused: true, reason: cut.reason } : weighed(cut, work);
    },
    coded: (shares) => remembered(covers, JSON.stringify(['coded', shares]), () => possible(() => coded(model, shares))),
    cover: (kind, shares) => {
      const known = COVER_KINDS.find((one) => one === kind);
      if (known === undefined) return { refused: true, reason: `there is no cut '${kind}'` };
      return remembered(covers, JSON.stringify([kind, shares]), () => possible(() => cover(model, known, shares)));
    },
  };
}

/** What a node does, whole. */
interface NodeWork {
  readonly macs: number;
  readonly weightBytes: number;
  /** Bytes of activations that it writes and, about as many, reads. */
  readonly trafficBytes: number;
  readonly rung: number;
}

/** What engines compute while the output of the node before is still at hand: it moves nothing. */
const RIDES_ALONG = new Set(['Relu', 'LeakyRelu', 'Sigmoid', 'Tanh', 'Clip', 'HardSigmoid', 'HardSwish', 'BatchNormalization']);
const CARRIES = new Set(['Conv', 'Gemm', 'MatMul', 'ConvTranspose']);

function nodeWork(model: Model): NodeWork[] {
  return model.nodes.map((node, at) => {
    const outputs = node.outputs.map((name) => model.tensors.get(name)).filter((info) => info !== undefined);
    const before = model.nodes[at - 1];
    const rides = RIDES_ALONG.has(node.op) && before !== undefined && CARRIES.has(before.op) && before.outputs[0] === node.inputs[0];
    const trafficBytes = rides ? 0 : 2 * outputs.reduce((sum, info) => sum + tensorBytes(info.dtype, info.dims), 0);
    const weights = namesRead(node).flatMap((name) => model.weights.get(name) ?? []);
    const weightBytes = weights.reduce((sum, { bytes }) => sum + (bytes.kind === 'inline' ? bytes.bytes.length : bytes.length), 0);
    const macs = nodeMacs(model, node);
    return { macs, weightBytes, trafficBytes, rung: rungOf(macs, weightBytes + trafficBytes) };
  });
}

function weighedCut(cut: Partition, work: readonly NodeWork[]): CutFacts {
  return { ...cut, stages: cut.stages.map((stage) => ({ ...stage, parts: weighed(stage, work) })) };
}

/**
 * A cut part moves its even share of the activations, and each of its nodes does the part of its MACs and reads the part of its weights that the whole part does and reads: halos and uneven
 * shares are small beside what is not known of a device's memory.
 */
function weighed({ parts, spec }: Pick<StageCut, 'parts' | 'spec'>, work: readonly NodeWork[]): PartFacts[] {
  const [start, end] = spec.nodes;
  const usual = spec.cut === 'whole' ? 1 : 1 / Math.max(1, spec.shares.length);
  const { macs, weightBytes, trafficBytes, rungs } = workOf(work.slice(start, end));
  return parts.map((part) => {
    const [macsPart, weightsPart] = [macs > 0 ? part.macs / macs : 0, weightBytes > 0 ? part.weightBytes / weightBytes : 0];
    const ladder = emptyLadder();
    for (const [rung, own] of rungs) addTo(ladder, rung, own.macs * macsPart, own.weightBytes * weightsPart + own.trafficBytes * usual);
    return { ...part, nodes: end - start, movedBytes: part.weightBytes + trafficBytes * usual, ladder };
  });
}

type Work = Omit<NodeWork, 'rung'>;

/** What nodes do together, and those of each rung. */
function workOf(nodes: readonly NodeWork[]): Work & { readonly rungs: ReadonlyMap<number, Work> } {
  const rungs = new Map<number, Work>();
  for (const node of nodes) rungs.set(node.rung, added(rungs.get(node.rung), node));
  let all: Work = NOTHING;
  for (const own of rungs.values()) all = added(all, own);
  return { ...all, rungs };
}

const NOTHING: Work = { macs: 0, weightBytes: 0, trafficBytes: 0 };

function added(a: Work = NOTHING, b: Work): Work {
  return { macs: a.macs + b.macs, weightBytes: a.weightBytes + b.weightBytes, trafficBytes: a.trafficBytes + b.trafficBytes };
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

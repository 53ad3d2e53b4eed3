/** For tests and benchmarks: a model without a file, whose cuts can be worked out by hand, and random problems made of it. */
import type { Box } from '../../broker/tensor.js';
import { createRandom } from '../../models/random.js';
import type { StageSpec } from '../../models/slicing/partition.js';
import { wire } from '../../models/slicing/wiring.js';
import type { CutFacts, ModelFacts, Objective, PlanProblem, PlanRefusal } from './problem.js';

const MIB = 2 ** 20;

export interface ChainBlock {
  readonly macs: number;
  readonly weightBytes: number;
  /** Rows of its output, each of 256 float32. */
  readonly rows: number;
}

const NO_CHANNELS: PlanRefusal = { refused: true, reason: 'channels: no block can be cut so' };

/** A chain of blocks over tensors of `rows` rows of 1 KiB; a part of a cut stage takes its share of rows, work and weights stay. */
export function chain(blocks: readonly ChainBlock[], inputRows = 100): ModelFacts {
  const rowsAt = (block: number): number => (block < 0 ? inputRows : (blocks[block]?.rows ?? 0));
  const cut = (specs: readonly StageSpec[]): CutFacts => {
    const box = (from: number, to: number): Box => ({ start: [from, 0], end: [to, 256] });
    const name = (tensor: number): string => (tensor < 0 ? 'in' : tensor === blocks.length - 1 ? 'out' : `t${tensor}`);
    const port = (tensor: number, b: Box) => ({ name: name(tensor), tensor: name(tensor), dtype: 'float32' as const, box: b });
    const bounds = specs.map((spec) => {
      const total = spec.shares.reduce((a, b) => a + b, 0);
      return [0, ...spec.shares.map((_, i) => spec.shares.slice(0, i + 1).reduce((a, b) => a + b, 0) / total)];
    });
    const stages = specs.map((spec, s) => {
      const mine = blocks.slice(spec.nodes[0], spec.nodes[1]);
      const parts = spec.shares.map((_, p) => {
        const [from, to] = [bounds[s]?.[p] ?? 0, bounds[s]?.[p + 1] ?? 1];
        const inRows = rowsAt(spec.nodes[0] - 1);
        const outRows = rowsAt(spec.nodes[1] - 1);
        return {
          inputs: [port(spec.nodes[0] - 1, box(Math.floor(from * inRows), Math.ceil(to * inRows)))],
          outputs: [port(spec.nodes[1] - 1, box(Math.round(from * outRows), Math.round(to * outRows)))],
          macs: mine.reduce((sum, b) => sum + b.macs, 0) * (to - from),
          weightBytes: mine.reduce((sum, b) => sum + b.weightBytes, 0),
          activationBytes: 2 * outRows * 1024,
        };
      });
      return { spec, parts, partShares: spec.shares.map((_, i) => i) };
    });
    const info = (name: string, rows: number) => ({ name, dtype: 'float32' as const, dims: [rows, 256] });
    const ends = { inputs: [info(name(-1), inputRows)], outputs: [info(name(blocks.length - 1), rowsAt(blocks.length - 1))] };
    const { wires } = wire(
      stages.map(({ spec, parts }) => ({ cut: spec.cut, parts })),
      ends,
    );
    return { stages, wires, ...ends };
  };
  return {
    blocks: blocks.map((b, i) => ({ nodes: [i, i + 1], macs: b.macs, weightBytes: b.weightBytes, outBytes: b.rows * 1024 })),
    inputBytes: inputRows * 1024,
    cut,
    stage: (spec) => (spec.cut === 'rows' || spec.cut === 'whole' ? (cut([spec]).stages[0]?.parts ?? []) : NO_CHANNELS),
    cover: (kind, shares) => (kind === 'channels' ? NO_CHANNELS : [{ nodes: [0, blocks.length], cut: 'rows', shares: [...shares] }]),
  };
}

export interface RandomProblem {
  readonly seed: number;
  readonly blocks: number;
  readonly devices: number;
  readonly objective: Objective;
  /** Each device holds about 0.7 of the weights; otherwise memory is not limited. */
  readonly tight: boolean;
}

/** Blocks of all sizes on devices of three speeds, at 8 Mbit/s to 0.8 Gbit/s; the same for the same seed. */
export function randomProblem({ seed, blocks, devices, objective, tight }: RandomProblem): PlanProblem {
  const next = createRandom(seed);
  const chainBlocks = Array.from(
    { length: blocks },
    (): ChainBlock => ({
      macs: 1e7 * (1 + Math.floor(20 * next())),
      weightBytes: MIB * Math.ceil(40 * next()),
      rows: 4 * Math.ceil(30 * next()),
    }),
  );
  const total = chainBlocks.reduce((sum, block) => sum + block.weightBytes, 0);
  return {
    facts: chain(chainBlocks, 40),
    devices: Array.from({ length: devices }, (_, i) => ({
      agent: `d${i}`,
      macsPerSecond: 1e9 * 2 ** Math.floor(3 * next()),
      memoryBytes: tight ? 0.7 * total + 116 * MIB : 0,
    })),
    links: { usual: { bytesPerSecond: 1e6 * 10 ** (2 * next()), latencyMs: 1 }, between: new Map() },
    objective,
    inFlight: 0,
  };
}

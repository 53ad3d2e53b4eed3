/** For tests and benchmarks: a model without a file, whose cuts can be worked out by hand, and random problems made of it. */
import { type Box, itemBytes } from '../../broker/tensor.js';
import { createRandom } from '../../models/random.js';
import type { StageSpec } from '../../models/slicing/partition.js';
import { wire } from '../../models/slicing/wiring.js';
import type { Correction, CutFacts, Device, Link, ModelFacts, Objective, PlanProblem, PlanRefusal } from './problem.js';

const MIB = 2 ** 20;

export interface ChainBlock {
  readonly macs: number;
  readonly weightBytes: number;
  /** Rows of its output, each of 256 float32. */
  readonly rows: number;
}

const NO_CHANNELS: PlanRefusal = { refused: true, reason: 'channels: no block can be cut so' };

/** A chain of blocks over tensors of `rows` rows of 1 KiB (256 bytes where the input is a picture); a part of a cut stage takes its share of rows, work and weights stay. */
export function chain(blocks: readonly ChainBlock[], inputRows = 100, inputs: 'float32' | 'uint8' = 'float32'): ModelFacts {
  const rowsAt = (block: number): number => (block < 0 ? inputRows : (blocks[block]?.rows ?? 0));
  const cut = (specs: readonly StageSpec[]): CutFacts => {
    const box = (from: number, to: number): Box => ({ start: [from, 0], end: [to, 256] });
    const name = (tensor: number): string => (tensor < 0 ? 'in' : tensor === blocks.length - 1 ? 'out' : `t${tensor}`);
    const dtypeOf = (tensor: number) => (tensor < 0 ? inputs : 'float32');
    const port = (tensor: number, b: Box) => ({ name: name(tensor), tensor: name(tensor), dtype: dtypeOf(tensor), box: b });
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
    const info = (tensor: number) => ({ name: name(tensor), dtype: dtypeOf(tensor), dims: [rowsAt(tensor), 256] });
    const ends = { inputs: [info(-1)], outputs: [info(blocks.length - 1)] };
    const { wires } = wire(
      stages.map(({ spec, parts }) => ({ cut: spec.cut, parts })),
      ends,
    );
    return { stages, wires, ...ends };
  };
  return {
    blocks: blocks.map((b, i) => ({ nodes: [i, i + 1], macs: b.macs, weightBytes: b.weightBytes, outBytes: b.rows * 1024 })),
    inputBytes: inputRows * 256 * itemBytes(inputs),
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

/**
 * The same with all that makes devices and links unlike: agents on one machine, quotas, links of their own, pairs that differ, a shared medium, a gateway that is busy, what other
 * deployments take, how real frames ran, pictures as uint8, memory that is short on some. The same for the same seed.
 */
export function unevenProblem({ seed, blocks, devices, objective, tight }: RandomProblem): PlanProblem {
  const plain = randomProblem({ seed, blocks, devices, objective, tight });
  const next = createRandom(seed + 77_777);
  const sometimes = (chance: number): boolean => next() < chance;
  const total = plain.facts.blocks.reduce((sum, block) => sum + block.weightBytes, 0);
  const rows = plain.facts.blocks.map(({ macs, weightBytes, outBytes }): ChainBlock => ({ macs, weightBytes, rows: outBytes / 1024 }));
  const access = (): Pick<Device, 'link'> => ({
    link: { upBytesPerSecond: 1e6 * 10 ** (2 * next()), downBytesPerSecond: 1e6 * 10 ** (2 * next()), latencyMs: 3 * next() },
  });
  const uneven = plain.devices.map(
    (device): Device => ({
      ...device,
      ...(sometimes(0.3) ? { macsPerSecond: 1e9 * 10 ** next() } : {}),
      memoryBytes: device.memoryBytes > 0 && sometimes(0.7) ? (0.3 + 1.2 * next()) * total + 116 * MIB : device.memoryBytes,
      ...(sometimes(0.2) ? { loadPeakFactor: 1 + 2 * next() } : {}),
      ...(sometimes(0.3) ? access() : {}),
      ...(sometimes(0.25) ? { host: sometimes(0.5) ? 'box' : 'rack', hostShare: 0.25 + 0.75 * next() } : {}),
      ...(sometimes(0.2) ? { quota: { periodMs: 100 * next(), fullSpeed: 0.1 + 0.9 * next() } } : {}),
      ...(sometimes(0.3) ? { otherDeployments: 1 + Math.floor(2 * next()) } : {}),
      ...(sometimes(0.3) ? { aroundMs: 3 * next(), messageMs: next(), runMs: 2 * next(), copyBytesPerSecond: 1e8 * 10 ** next() } : {}),
      ...(sometimes(0.5) ? { correction: anyCorrection(blocks, next) } : {}),
    }),
  );
  const agents = uneven.map(({ agent }) => agent);
  const pairs = agents.flatMap((a) => agents.flatMap((b) => (a !== b && sometimes(0.1) ? [`${a}>${b}`] : [])));
  const between = new Map(pairs.map((pair): [string, Link] => [pair, { bytesPerSecond: 1e6 * 10 ** (2 * next()), latencyMs: 5 * next() }]));
  return {
    ...plain,
    facts: chain(rows, 40, sometimes(0.3) ? 'uint8' : 'float32'),
    devices: uneven,
    links: {
      usual: plain.links.usual,
      between,
      ...(sometimes(0.3) ? { gateway: { upBytesPerSecond: 1e7, downBytesPerSecond: 3e6, latencyMs: next() } } : {}),
      ...(sometimes(0.3) ? { gatewayFrameMs: 3 * next(), gatewayCopyBytesPerSecond: 1e8 } : {}),
      ...(sometimes(0.15) ? { sharedBytesPerSecond: 3e6 * 10 ** next() } : {}),
    },
  };
}

/** Of the model on this agent, and of some stages that ran: in steps of 5 %, as they are told. */
function anyCorrection(blocks: number, next: () => number): Correction {
  const factor = (): number => Math.round(20 * 4 ** (2 * next() - 1)) / 20;
  const stages = Array.from({ length: Math.floor(4 * next()) }, () => {
    const from = Math.floor(blocks * next());
    return {
      nodes: [from, from + 1 + Math.floor((blocks - from) * next())] as const,
      cut: next() < 0.5 ? ('rows' as const) : ('whole' as const),
      factor: factor(),
    };
  });
  return { all: factor(), stages };
}

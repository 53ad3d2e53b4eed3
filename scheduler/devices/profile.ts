/**
 * From published figures to what planners need of a device. Three steps, in this order, and `notes` says which was taken:
 *   1. the published time itself, where the model (or the layer) is the one that was measured;
 *   2. the curve between published points: fully connected layers by their number of weights;
 *   3. an effective rate: of the published convolution most like this one, or fitted over the published networks.
 * Cuts: a part of a fully connected layer lies on the same curve at its own number of weights; a part of a convolution takes its share of the time.
 */
import type { Model } from '../../models/model.js';
import { CUT_KINDS } from '../../models/slicing/partition.js';
import { computeMs, ENGINE_BYTES } from '../planners/cost.js';
import type { Device, ModelFacts, ProfileRow, ProfileTable } from '../planners/problem.js';
import { type Layer, layersOf, sizeOf } from './layers.js';
import { type DenseFigure, NCNN_4_THREADS, PI3_2018, type PublishedLink } from './published.js';

/** What a device of this class is, for one model. */
export interface Speeds extends Omit<Device, 'agent' | 'memoryBytes' | 'host'> {
  /** For people: how these were derived. */
  readonly note: string;
}

export interface DeviceProfile {
  readonly name: string;
  readonly title: string;
  /** Where the figures come from. */
  readonly source: string;
  readonly cores: number;
  /** Of the board. */
  readonly memoryBytes: number;
  readonly link: PublishedLink;
  /** What a deployment may use of so large a board. */
  usableBytes(memoryBytes: number): number;
  speeds(model: Model, facts: ModelFacts): Speeds;
}

const GIB = 2 ** 30;
/** Two networks are the same if MACs and parameters differ by no more. */
const SAME_NETWORK = 0.03;
/** A convolution is cut linearly: two points are enough. */
const LINEAR_PARTS = [64];
const CURVE_PARTS = [2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 64];

/** ms; linear between points, by weights; beyond the last along the last slope. */
export function denseMs(figures: readonly DenseFigure[], exact: readonly DenseFigure[], inputs: number, outputs: number): number {
  const known = exact.find((figure) => figure.inputs === inputs && figure.outputs === outputs);
  if (known !== undefined) return 1000 * known.seconds;
  const weights = inputs * outputs;
  const last = figures.length - 1;
  const above = figures.findIndex((figure) => figure.inputs * figure.outputs >= weights);
  const at = Math.max(1, above < 0 ? last : above);
  const [low, high] = [figures[at - 1], figures[at]];
  if (low === undefined || high === undefined) throw new RangeError('a curve needs two points');
  const slope = (high.seconds - low.seconds) / (high.inputs * high.outputs - low.inputs * low.outputs);
  return 1000 * Math.max(0, low.seconds + slope * (weights - low.inputs * low.outputs));
}

function convMs(layer: Extract<Layer, { kind: 'conv' }>, isVgg16: boolean): number {
  const { vgg16Convolutions: vgg, convolutions } = PI3_2018;
  const together = { name: vgg.name, kernel: vgg.kernel, macs: vgg.macs / vgg.layers, seconds: vgg.seconds / vgg.layers };
  const unlike = (figure: { kernel: number; macs: number }): number =>
    100 * Math.abs(Math.log(figure.kernel / layer.kernel)) + Math.abs(Math.log(figure.macs / layer.macs));
  const [like = together] = isVgg16 ? [together] : [...convolutions, together].sort((a, b) => unlike(a) - unlike(b));
  return (1000 * like.seconds * layer.macs * layer.groups) / like.macs;
}

/** Per node: whole, and cut in every kind that its operator may be cut. */
export function pi3Table(model: Model): ProfileTable {
  const layers = layersOf(model);
  const convMacs = layers.reduce((sum, layer) => sum + (layer.kind === 'conv' ? layer.macs * layer.groups : 0), 0);
  const isVgg16 = near(convMacs, PI3_2018.vgg16Convolutions.macs);
  const rows: ProfileRow[] = [];
  for (const [at, layer] of layers.entries()) {
    const nodes = [at, at + 1] as const;
    const ms = (parts: number): number => {
      if (layer.kind === 'other') return 0;
      if (layer.kind === 'conv') return convMs(layer, isVgg16) / parts;
      return denseMs(PI3_2018.dense, PI3_2018.denseExact, layer.inputs, layer.outputs / parts);
    };
    rows.push({ nodes, cut: 'whole', parts: 1, ms: ms(1) });
    for (const cut of CUT_KINDS.filter((kind) => kind !== 'whole')) {
      for (const parts of layer.kind === 'dense' ? CURVE_PARTS : LINEAR_PARTS) rows.push({ nodes, cut, parts, ms: ms(parts) });
    }
  }
  return { name: 'pi3-2018', rows };
}

const PI3: DeviceProfile = {
  name: 'pi3-2018',
  title: 'Raspberry Pi 3 as published in 2018',
  source: PI3_2018.source,
  cores: 4,
  memoryBytes: GIB,
  // On 1 GB more weights than this swap: their runtime needs about three times the weights. The engine's constant is ours, and is added again by the estimate.
  usableBytes: (memoryBytes) => Math.round((memoryBytes / GIB) * PI3_2018.largestWeightsBytes) + ENGINE_BYTES,
  link: 'regression-2018',
  speeds: (model) => {
    const { vgg16Convolutions: vgg } = PI3_2018;
    return {
      macsPerSecond: vgg.macs / vgg.seconds,
      profile: pi3Table(model),
      note: 'published layer times; fully connected layers between published sizes by their weights, convolutions at the rate of the most similar published one, other nodes 0',
    };
  },
};

/** Effective figures, fitted over the published networks that this project can build (all but ResNet50): see docs/planning.md for what the fit misses. */
interface Fit {
  readonly macsPerSecond: number;
  readonly memoryBytesPerSecond: number;
  readonly nodeMs: number;
}

export const FITS = {
  pi4: { macsPerSecond: 25.9e9, memoryBytesPerSecond: 7.9e9, nodeMs: 0.3 },
  pi5: { macsPerSecond: 131e9, memoryBytesPerSecond: 18.7e9, nodeMs: 0.02 },
} as const satisfies Record<string, Fit>;

function near(a: number, b: number): boolean {
  return Math.abs(a / b - 1) <= SAME_NETWORK;
}

/** The fitted device; for a published network, as much faster or slower as makes the whole of it take the published time. */
export function fittedSpeeds(name: keyof typeof FITS, model: Model, facts: ModelFacts): Speeds {
  const fit = FITS[name];
  const { macs, params } = sizeOf(model);
  const published = NCNN_4_THREADS.networks.find((network) => near(network.macs, macs) && near(network.params, params));
  if (published === undefined) {
    return { ...fit, note: 'no published time of this model: effective figures fitted over published networks, 0 to 23 % off on those' };
  }
  const ms = wholeMs(fit, facts);
  const factor = published[name] / ms;
  return {
    macsPerSecond: fit.macsPerSecond / factor,
    memoryBytesPerSecond: fit.memoryBytesPerSecond / factor,
    nodeMs: fit.nodeMs * factor,
    runMs: RUN_MS * factor,
    note: `published: ${published.name} ${published[name]} ms`,
  };
}

const RUN_MS = 0.5;

/** The whole model on such a device, ms. */
export function wholeMs(fit: Fit, facts: ModelFacts): number {
  const spec = { nodes: [0, facts.blocks.at(-1)?.nodes[1] ?? 0] as const, cut: 'whole' as const, shares: [1] };
  const cut = facts.cut([spec]);
  const part = 'refused' in cut ? undefined : cut.stages[0]?.parts[0];
  if (part === undefined) throw new RangeError('a model can always be run whole');
  return computeMs({ agent: '', memoryBytes: 0, runMs: RUN_MS, ...fit }, part, spec, 1);
}

function ncnn(name: keyof typeof FITS, title: string, memoryGib: number): DeviceProfile {
  return {
    name,
    title,
    source: NCNN_4_THREADS.source,
    cores: 4,
    memoryBytes: memoryGib * GIB,
    usableBytes: usable,
    link: 'gigabit',
    speeds: (model, facts) => fittedSpeeds(name, model, facts),
  };
}

/** Of a board's memory, what a deployment may use: the same part as of agents that are there. */
export function usable(memoryBytes: number): number {
  return Math.round(memoryBytes * 0.85);
}

export const PROFILES: ReadonlyMap<string, DeviceProfile> = new Map(
  [PI3, ncnn('pi4', 'Raspberry Pi 4, 4 GiB', 4), ncnn('pi5', 'Raspberry Pi 5, 8 GiB', 8)].map((profile) => [profile.name, profile]),
);

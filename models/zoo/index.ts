/**
 * The zoo: well-known networks built in code as ONNX, with seeded random weights, for tests, examples and measurements. Never committed as files.
 * `drawZoo` makes no weights and is cheap for any size; `buildZoo` writes a file, holding one weight at a time.
 */
import { ChairError } from '../../broker/errors.js';
import { drawAlexNet, drawAlexNetFeatures } from './alexnet.js';
import { drawMobileNetV2 } from './mobilenetv2.js';
import { drawResNet18 } from './resnet18.js';
import { Sketch } from './sketch.js';
import { drawVgg16, drawVgg16Features } from './vgg16.js';

interface ZooEntry {
  /** Published input height and width. */
  readonly size: number;
  readonly draw: (net: Sketch, scale: number, classes: number) => void;
}

const ENTRIES = {
  alexnet: { size: 227, draw: drawAlexNet },
  vgg16: { size: 224, draw: drawVgg16 },
  resnet18: { size: 224, draw: drawResNet18 },
  mobilenetv2: { size: 224, draw: drawMobileNetV2 },
  /** The convolutional parts alone. */
  'alexnet-features': { size: 227, draw: drawAlexNetFeatures },
  'vgg16-features': { size: 224, draw: drawVgg16Features },
} as const satisfies Record<string, ZooEntry>;

export type ZooName = keyof typeof ENTRIES;
/** The four networks, and the convolutional parts of two of them. */
export const ZOO = Object.keys(ENTRIES) as readonly ZooName[];

export interface ZooOptions {
  /** Multiplies the channels and neurons of every layer (results are even, at least 4). Default 1. */
  readonly scale?: number;
  /** Height and width of the input. Default as published. */
  readonly size?: number;
  /** Neurons of the last layer. Default 1000. */
  readonly classes?: number;
  /** Of the random weights. Default 1. */
  readonly seed?: number;
}

function isZooName(name: string): name is ZooName {
  return Object.hasOwn(ENTRIES, name);
}

function checkOption(name: string, value: number, ok: boolean, expected: string): void {
  if (!ok) throw new ChairError('CONFIG_INVALID', `zoo option ${name} is out of range`, { expected, came: String(value) });
}

/** Draws a network of the zoo without making weights: nodes, shapes, parameters, MACs. Throws MODEL_NOT_FOUND for an unknown name, CONFIG_INVALID for bad options. */
export function drawZoo(name: string, options: ZooOptions = {}): Sketch {
  if (!isZooName(name)) {
    throw new ChairError('MODEL_NOT_FOUND', 'the zoo has no such network', { expected: `one of ${ZOO.join(', ')}`, came: name });
  }
  const entry = ENTRIES[name];
  const { scale = 1, size = entry.size, classes = 1000, seed = 1 } = options;
  checkOption('scale', scale, scale > 0 && scale <= 8, 'a number above 0, at most 8');
  checkOption('size', size, Number.isInteger(size) && size >= 1 && size <= 4096, 'a whole number from 1 to 4096');
  checkOption('classes', classes, Number.isInteger(classes) && classes >= 1, 'a whole number of at least 1');
  checkOption('seed', seed, Number.isInteger(seed) && seed >= 0, 'a whole number of at least 0');
  const sketch = new Sketch(name, size, seed);
  entry.draw(sketch, scale, classes);
  return sketch;
}

/** Writes a network of the zoo to `path` as one ONNX file, one weight in memory at a time. The same name and options give the same bytes. */
export async function buildZoo(name: string, path: string, options: ZooOptions = {}): Promise<void> {
  await drawZoo(name, options).graph().write(path);
}

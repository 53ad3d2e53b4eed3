/**
 * A network as drawn by the zoo: nodes, shapes and *how to make* each weight, but no weight bytes. Counting parameters and MACs of the full VGG16
 * from it takes no memory; the graph it gives makes one weight at a time while it is written.
 */
import { ChairError } from '../../broker/errors.js';
import type { AttributeValue } from '../onnx/attributes.js';
import { GraphBuilder } from '../onnx/build.js';
import { createRandom, seedFor } from '../random.js';

export interface SketchNode {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly output: string;
  readonly attributes: Readonly<Record<string, AttributeValue>>;
}

export interface SketchWeight {
  readonly name: string;
  readonly dims: readonly number[];
  /** Running statistics of a BatchNormalization are no trainable parameters. */
  readonly trainable: boolean;
  /** Makes the values; the same on every call. */
  readonly values: () => Float32Array;
}

export interface ConvOptions {
  readonly kernel: number;
  readonly stride?: number;
  readonly pad?: number;
  readonly groups?: number;
  readonly bias?: boolean;
  /** Variance gain over 1/fan-in; default RELU_GAIN. */
  readonly gain?: number;
}

/**
 * He's initialisation for centred filters: the variance of relu(x) for x ~ N(0, 1) is 1/2 - 1/(2 pi), and a centred filter does not see the mean.
 * (He et al. 2015, "Delving deep into rectifiers", section 2.2, has 2 because its filters do.)
 */
export const RELU_GAIN = 1 / (0.5 - 0.5 / Math.PI);
/** For an input that no ReLU clipped. */
export const LINEAR_GAIN = 1;

/** Multiplies channel counts; keeps them even (two groups) and at least 4. */
export function scaled(channels: number, scale: number): number {
  return scale === 1 ? channels : Math.max(4, 2 * Math.round((channels * scale) / 2));
}

/**
 * Draws one float32 network with one image input `[1, 3, size, size]` named `image`. Weights are uniform with He-like variance, and each filter is centred (its
 * weights sum to 0): a random network whose filters see the mean of their input forgets which image it was given, and no comparison of outputs means anything.
 */
export class Sketch {
  readonly nodes: SketchNode[] = [];
  readonly weights: SketchWeight[] = [];
  readonly shapes = new Map<string, readonly number[]>();
  output = 'image';
  /** Multiply-accumulates of convolutions and fully connected layers. */
  macs = 0;
  private readonly counts = new Map<string, number>();

  constructor(
    readonly name: string,
    readonly size: number,
    private readonly seed: number,
  ) {
    this.shapes.set('image', [1, 3, size, size]);
  }

  get params(): number {
    let sum = 0;
    for (const w of this.weights) if (w.trainable) sum += w.dims.reduce((a, b) => a * b, 1);
    return sum;
  }

  /** The ONNX graph; its weights are made when they are written. */
  graph(): GraphBuilder {
    const graph = new GraphBuilder({ opset: 13, irVersion: 7, name: this.name });
    graph.input('image', 'float32', this.shapeOf('image'));
    for (const w of this.weights) graph.weight(w.name, 'float32', w.dims, w.values);
    for (const n of this.nodes) graph.node(n.op, n.inputs, n.attributes, { name: n.output, outputs: [n.output] });
    graph.output(this.output, 'float32', this.shapeOf(this.output));
    return graph;
  }

  shapeOf(tensor: string): readonly number[] {
    const shape = this.shapes.get(tensor);
    if (shape === undefined) throw new ChairError('INTERNAL', `the zoo drew ${this.name} wrongly: no tensor ${tensor}`);
    return shape;
  }

  conv(x: string, channels: number, options: ConvOptions): string {
    const { kernel, stride = 1, pad = 0, groups = 1, bias = true, gain = RELU_GAIN } = options;
    const [, inputs = 1, h = 1, w = 1] = this.shapeOf(x);
    const fanIn = (inputs / groups) * kernel * kernel;
    const outH = Math.floor((h + 2 * pad - kernel) / stride) + 1;
    const outW = Math.floor((w + 2 * pad - kernel) / stride) + 1;
    const id = this.next('conv');
    const params = [this.filters(`${id}.weight`, [channels, inputs / groups, kernel, kernel], gain)];
    if (bias) params.push(this.vector(`${id}.bias`, channels, -0.1, 0.1));
    this.macs += channels * outH * outW * fanIn;
    return this.add('Conv', id, [x, ...params], [1, channels, outH, outW], {
      kernel_shape: [kernel, kernel],
      strides: [stride, stride],
      pads: [pad, pad, pad, pad],
      group: groups,
    });
  }

  /** BatchNormalization with statistics like those of a trained network: none of its four vectors is trivial. `gamma` scales the branch. */
  batchNorm(x: string, gamma = 1): string {
    const channels = this.shapeOf(x)[1] ?? 1;
    const id = this.next('bn');
    const params = [
      this.vector(`${id}.scale`, channels, 0.7 * gamma, 1.3 * gamma),
      this.vector(`${id}.bias`, channels, -0.2, 0.2),
      this.vector(`${id}.mean`, channels, -0.2, 0.2, false),
      this.vector(`${id}.var`, channels, 0.7, 1.3, false),
    ];
    return this.add('BatchNormalization', id, [x, ...params], this.shapeOf(x), { epsilon: { float: 1e-5 } });
  }

  relu(x: string): string {
    return this.add('Relu', this.next('relu'), [x], this.shapeOf(x), {});
  }

  relu6(x: string): string {
    return this.add('Clip', this.next('relu6'), [x, this.scalar('zero', 0), this.scalar('six', 6)], this.shapeOf(x), {});
  }

  /** Local response normalisation with the constants of the AlexNet paper, section 3.3 (k = 2, n = 5, alpha = 1e-4 per element, beta = 0.75). */
  lrn(x: string): string {
    const size = 5;
    // ONNX divides alpha by the window's size; the paper does not.
    return this.add('LRN', this.next('lrn'), [x], this.shapeOf(x), {
      size,
      alpha: { float: 1e-4 * size },
      beta: { float: 0.75 },
      bias: { float: 2 },
    });
  }

  maxPool(x: string, kernel: number, stride: number, pad = 0): string {
    const [, channels = 1, h = 1, w = 1] = this.shapeOf(x);
    const out = (n: number) => Math.floor((n + 2 * pad - kernel) / stride) + 1;
    return this.add('MaxPool', this.next('pool'), [x], [1, channels, out(h), out(w)], {
      kernel_shape: [kernel, kernel],
      strides: [stride, stride],
      pads: [pad, pad, pad, pad],
    });
  }

  sum(a: string, b: string): string {
    return this.add('Add', this.next('add'), [a, b], this.shapeOf(a), {});
  }

  globalAveragePool(x: string): string {
    return this.add('GlobalAveragePool', this.next('gap'), [x], [1, this.shapeOf(x)[1] ?? 1, 1, 1], {});
  }

  flatten(x: string): string {
    return this.add('Flatten', this.next('flatten'), [x], [1, this.shapeOf(x).reduce((a, b) => a * b, 1)], { axis: 1 });
  }

  fc(x: string, neurons: number, gain = RELU_GAIN): string {
    const inputs = this.shapeOf(x)[1] ?? 1;
    const id = this.next('fc');
    const params = [this.filters(`${id}.weight`, [neurons, inputs], gain), this.vector(`${id}.bias`, neurons, -0.1, 0.1)];
    this.macs += neurons * inputs;
    return this.add('Gemm', id, [x, ...params], [1, neurons], { transB: 1 });
  }

  softmax(x: string): string {
    return this.add('Softmax', this.next('softmax'), [x], this.shapeOf(x), { axis: 1 });
  }

  private add(op: string, id: string, inputs: string[], dims: readonly number[], attributes: Record<string, AttributeValue>): string {
    for (const n of dims) {
      if (n >= 1) continue;
      throw new ChairError(
        'MODEL_SHAPE_INVALID',
        `${this.name} does not fit an input of ${this.size} x ${this.size}: ${id} would be [${dims.join(',')}]`,
        {
          todo: 'Ask for a larger size.',
        },
      );
    }
    this.nodes.push({ op, inputs, output: id, attributes });
    this.shapes.set(id, dims);
    this.output = id;
    return id;
  }

  private next(kind: string): string {
    const n = (this.counts.get(kind) ?? 0) + 1;
    this.counts.set(kind, n);
    return `${kind}${n}`;
  }

  /** Weights `[out, in...]`: uniform with variance gain / fan-in, centred per output. */
  private filters(name: string, dims: readonly number[], gain: number): string {
    const count = dims.reduce((a, b) => a * b, 1);
    const fanIn = count / (dims[0] ?? 1);
    const values = () => {
      const random = createRandom(seedFor(this.seed, name));
      const out = new Float32Array(count);
      const spread = 2 * Math.sqrt((3 * gain) / fanIn);
      for (let at = 0; at < count; at += fanIn) {
        let sum = 0;
        for (let i = at; i < at + fanIn; i++) sum += out[i] = (random() - 0.5) * spread;
        // A single-input filter has nothing to be centred on.
        if (fanIn > 1) for (let i = at; i < at + fanIn; i++) out[i] = (out[i] ?? 0) - sum / fanIn;
      }
      return out;
    };
    this.weights.push({ name, dims, trainable: true, values });
    return name;
  }

  private vector(name: string, length: number, low: number, high: number, trainable = true): string {
    const values = () => {
      const random = createRandom(seedFor(this.seed, name));
      return Float32Array.from({ length }, () => low + random() * (high - low));
    };
    this.weights.push({ name, dims: [length], trainable, values });
    return name;
  }

  private scalar(name: string, value: number): string {
    if (!this.weights.some((w) => w.name === name)) {
      this.weights.push({ name, dims: [], trainable: false, values: () => Float32Array.of(value) });
    }
    return name;
  }
}

/**
 * Random convolutional graphs for property tests. A program is a list of steps of plain numbers, so that fast-check can shrink it; a step that does not fit
 * where it stands is left out. Weights are centred and scaled, so that outputs neither die nor explode.
 */
import fc from 'fast-check';
import type { AttributeValue } from '../onnx/attributes.js';
import { GraphBuilder } from '../onnx/build.js';
import { createRandom } from '../random.js';

export interface Step {
  readonly op: number;
  /** Free choices of the step; each is taken modulo what is possible. */
  readonly choices: readonly number[];
}

export interface Program {
  readonly channels: number;
  readonly height: number;
  readonly width: number;
  readonly steps: readonly Step[];
  readonly tail: number;
  readonly seed: number;
}

/** Programs of at most `maxSteps` steps. */
export function programs(maxSteps: number): fc.Arbitrary<Program> {
  const step = fc.record({ op: fc.nat({ max: 1000 }), choices: fc.array(fc.nat({ max: 1000 }), { minLength: 8, maxLength: 8 }) });
  return fc.record({
    channels: fc.integer({ min: 1, max: 4 }),
    height: fc.integer({ min: 5, max: 21 }),
    width: fc.integer({ min: 5, max: 21 }),
    steps: fc.array(step, { minLength: 1, maxLength: maxSteps }),
    tail: fc.nat({ max: 5 }),
    seed: fc.nat({ max: 1e6 }),
  });
}

interface Value {
  readonly name: string;
  /** `[1, C, H, W]` */
  readonly dims: readonly [number, number, number, number];
}

type Choose = (count: number) => number;

const ACTIVATIONS: readonly [string, Record<string, AttributeValue>][] = [
  ['Relu', {}],
  ['LeakyRelu', { alpha: { float: 0.1 } }],
  ['Sigmoid', {}],
  ['HardSigmoid', { alpha: { float: 0.2 }, beta: { float: 0.5 } }],
  ['HardSwish', {}],
  ['Tanh', {}],
  ['Elu', { alpha: { float: 0.5 } }],
  ['Softplus', {}],
  ['Abs', {}],
];

/** Builds the graph of a program. */
export function buildProgram(program: Program): GraphBuilder {
  return new Interpreter(program).build();
}

class Interpreter {
  readonly #g = new GraphBuilder({ opset: 17 });
  readonly #random: () => number;
  readonly #program: Program;
  /** All feature maps so far: steps branch off and join. */
  readonly #values: Value[] = [];
  #weights = 0;

  constructor(program: Program) {
    this.#program = program;
    this.#random = createRandom(program.seed);
  }

  build(): GraphBuilder {
    const { channels, height, width, steps, tail } = this.#program;
    const dims = [1, channels, height, width] as const;
    this.#values.push({ name: this.#g.input('x', 'float32', dims), dims });
    for (const step of steps) {
      let next = 0;
      const choose: Choose = (count) => (step.choices[next++ % step.choices.length] ?? 0) % Math.max(1, count);
      const made = this.#step(step.op, choose);
      if (made !== undefined) this.#values.push(made);
    }
    // Something must be computed even when no step fitted.
    this.#tail(tail, this.#conv(this.#last(), 6, { kernel: 3, pads: [1, 1, 1, 1] }));
    return this.#g;
  }

  #last(): Value {
    return this.#values.at(-1) as Value;
  }

  #step(op: number, choose: Choose): Value | undefined {
    const steps = [
      () => this.#anyConv(choose),
      () => this.#anyConv(choose),
      () => this.#depthwise(choose),
      () => this.#pool('MaxPool', choose),
      () => this.#pool('AveragePool', choose),
      () => this.#activation(choose),
      () => this.#batchNorm(),
      () => this.#join(choose),
      () => this.#concat(choose),
      () => this.#squeezeExcite(),
      () => this.#resize(choose),
      () => this.#convTranspose(choose),
      () => this.#prelu(),
      () => this.#pad(choose),
      () => this.#shuffle(choose),
      () => this.#lrn(),
      () => this.#branch(choose),
      () => this.#slice(choose),
    ];
    return steps[op % steps.length]?.();
  }

  #weight(dims: readonly number[], gain: number): string {
    const count = dims.reduce((a, b) => a * b, 1);
    const inner = count / (dims[0] ?? 1);
    const values = Float32Array.from({ length: count }, () => (this.#random() - 0.5) * 2 * Math.sqrt((3 * gain) / inner));
    return this.#g.weight(`w${this.#weights++}`, 'float32', dims, values);
  }

  #vector(length: number, low: number, high: number, dims: readonly number[] = [length]): string {
    return this.#g.weight(
      `w${this.#weights++}`,
      'float32',
      dims,
      Float32Array.from({ length }, () => low + this.#random() * (high - low)),
    );
  }

  #like(name: string, x: Value): Value {
    return { name, dims: x.dims };
  }

  #conv(
    x: Value,
    channels: number,
    o: { kernel: number; kernelW?: number; stride?: number; dilation?: number; pads?: readonly number[]; groups?: number; same?: string },
  ): Value {
    const { kernel, kernelW = kernel, stride = 1, dilation = 1, pads = [0, 0, 0, 0], groups = 1 } = o;
    const [, c, h, w] = x.dims;
    const size = (n: number, k: number, before: number, after: number) =>
      o.same === undefined ? Math.floor((n + before + after - dilation * (k - 1) - 1) / stride) + 1 : Math.ceil(n / stride);
    const out = [1, channels, size(h, kernel, pads[0] ?? 0, pads[2] ?? 0), size(w, kernelW, pads[1] ?? 0, pads[3] ?? 0)] as const;
    if (out[2] < 1 || out[3] < 1) return x;
    const border: Record<string, AttributeValue> = o.same === undefined ? { pads: { ints: pads } } : { auto_pad: o.same };
    const name = this.#g.node1(
      'Conv',
      [x.name, this.#weight([channels, c / groups, kernel, kernelW], 2), this.#vector(channels, -0.3, 0.3)],
      {
        kernel_shape: [kernel, kernelW],
        strides: [stride, stride],
        dilations: [dilation, dilation],
        group: groups,
        ...border,
      },
    );
    return { name, dims: out };
  }

  #anyConv(choose: Choose): Value | undefined {
    const x = this.#last();
    const groups = [1, 2, 3, 4].filter((g) => x.dims[1] % g === 0);
    const group = groups[choose(groups.length)] ?? 1;
    const channels = group * (1 + choose(Math.floor(8 / group)));
    const same = [undefined, undefined, undefined, 'SAME_UPPER', 'SAME_LOWER'][choose(5)];
    const dilation = same === undefined ? 1 + choose(2) : 1;
    const kernel = 1 + choose(4);
    const pads = Array.from({ length: 4 }, () => Math.min(choose(3), kernel - 1));
    const made = this.#conv(x, channels, {
      kernel,
      kernelW: 1 + choose(3),
      stride: 1 + choose(2),
      dilation,
      groups: group,
      ...(same === undefined ? { pads } : { same }),
    });
    return made === x ? undefined : made;
  }

  #depthwise(choose: Choose): Value {
    const x = this.#last();
    const kernel = [3, 5][choose(2)] ?? 3;
    const pad = (kernel - 1) / 2;
    return this.#conv(x, x.dims[1] * (1 + choose(2)), { kernel, stride: 1 + choose(2), pads: [pad, pad, pad, pad], groups: x.dims[1] });
  }

  #pool(op: 'MaxPool' | 'AveragePool', choose: Choose): Value | undefined {
    const x = this.#last();
    const kernel = 2 + choose(2);
    const stride = 1 + choose(3);
    const pads = Array.from({ length: 4 }, () => choose(kernel));
    const ceil = choose(2);
    const size = (n: number, before: number, after: number) => {
      const exact = (n + before + after - kernel) / stride;
      const out = (ceil === 1 ? Math.ceil(exact) : Math.floor(exact)) + 1;
      // Engines and checkers disagree on whether a last window that begins in the end padding is left out: no such windows here.
      return ceil === 1 && (out - 1) * stride >= n + before ? 0 : out;
    };
    const [, c, h, w] = x.dims;
    const out = [1, c, size(h, pads[0] ?? 0, pads[2] ?? 0), size(w, pads[1] ?? 0, pads[3] ?? 0)] as const;
    if (out[2] < 1 || out[3] < 1 || h < kernel || w < kernel) return undefined;
    const name = this.#g.node1(op, [x.name], {
      kernel_shape: [kernel, kernel],
      strides: [stride, stride],
      pads,
      ceil_mode: ceil,
      ...(op === 'AveragePool' ? { count_include_pad: choose(2) } : {}),
    });
    return { name, dims: out };
  }

  #activation(choose: Choose): Value {
    const x = this.#last();
    const kind = choose(ACTIVATIONS.length + 1);
    const [op, attributes] = ACTIVATIONS[kind] ?? ['Clip', {}];
    const bounds = op === 'Clip' ? [this.#vector(1, -1, -0.5, []), this.#vector(1, 0.5, 1, [])] : [];
    return this.#like(this.#g.node1(op, [x.name, ...bounds], attributes), x);
  }

  #batchNorm(): Value {
    const x = this.#last();
    const c = x.dims[1];
    const parameters = [this.#vector(c, 0.5, 1.5), this.#vector(c, -0.3, 0.3), this.#vector(c, -0.3, 0.3), this.#vector(c, 0.5, 1.5)];
    return this.#like(this.#g.node1('BatchNormalization', [x.name, ...parameters]), x);
  }

  /** Residual connections, gates, per-channel and per-column operands. */
  #join(choose: Choose): Value {
    const x = this.#last();
    const op = ['Add', 'Mul', 'Sub', 'Max'][choose(4)] ?? 'Add';
    const [, c, , w] = x.dims;
    const others = this.#values.slice(0, -1).filter((v) => v.dims.join() === x.dims.join());
    const other = [
      others[choose(others.length)]?.name ?? this.#conv(x, c, { kernel: 1 }).name,
      this.#vector(c, -1, 1, [1, c, 1, 1]),
      this.#vector(c, -1, 1, [c, 1, 1]),
      this.#vector(w, -1, 1, [w]),
      this.#vector(1, -1, 1, []),
    ][choose(5)];
    return this.#like(this.#g.node1(op, [x.name, other ?? x.name]), x);
  }

  #concat(choose: Choose): Value | undefined {
    const x = this.#last();
    const others = this.#values.filter((v) => v.dims[2] === x.dims[2] && v.dims[3] === x.dims[3]);
    const other = others[choose(others.length)];
    if (other === undefined || x.dims[1] + other.dims[1] > 24) return undefined;
    return { name: this.#g.node1('Concat', [x.name, other.name], { axis: 1 }), dims: [1, x.dims[1] + other.dims[1], x.dims[2], x.dims[3]] };
  }

  #squeezeExcite(): Value {
    const x = this.#last();
    const [, c] = x.dims;
    const pooled: Value = { name: this.#g.node1('GlobalAveragePool', [x.name]), dims: [1, c, 1, 1] };
    const squeezed = this.#conv(pooled, 2, { kernel: 1 });
    const excited = this.#conv({ ...squeezed, name: this.#g.node1('Relu', [squeezed.name]) }, c, { kernel: 1 });
    return this.#like(this.#g.node1('Mul', [x.name, this.#g.node1('Sigmoid', [excited.name])]), x);
  }

  #resize(choose: Choose): Value | undefined {
    const x = this.#last();
    const [, c, h, w] = x.dims;
    const scale = [2, 3, 0.5][choose(3)] ?? 2;
    const [oh, ow] = [Math.floor(h * scale), Math.floor(w * scale)];
    if (oh < 2 || ow < 2 || oh * ow > 1600) return undefined;
    const linear = choose(2) === 1;
    const mode = ['half_pixel', 'asymmetric', 'align_corners'][choose(3)] ?? 'half_pixel';
    const scales = this.#g.weight(`w${this.#weights++}`, 'float32', [4], Float32Array.of(1, 1, scale, scale));
    const name = this.#g.node1('Resize', [x.name, '', scales], {
      mode: linear ? 'linear' : 'nearest',
      coordinate_transformation_mode: mode,
      ...(linear ? {} : { nearest_mode: ['floor', 'round_prefer_floor', 'ceil'][choose(3)] ?? 'floor' }),
    });
    return { name, dims: [1, c, oh, ow] };
  }

  #convTranspose(choose: Choose): Value | undefined {
    const x = this.#last();
    const [, c, h, w] = x.dims;
    const stride = 1 + choose(2);
    const kernel = 2 + choose(3);
    const pads = Array.from({ length: 4 }, () => choose(2));
    const extra = stride > 1 ? choose(2) : 0;
    const size = (n: number, before: number, after: number) => (n - 1) * stride + kernel - before - after + extra;
    const out = [size(h, pads[0] ?? 0, pads[2] ?? 0), size(w, pads[1] ?? 0, pads[3] ?? 0)] as const;
    if (out[0] < 1 || out[1] < 1 || out[0] * out[1] > 1600) return undefined;
    const groups = c % 2 === 0 ? 1 + choose(2) : 1;
    const perGroup = 1 + choose(4);
    const name = this.#g.node1(
      'ConvTranspose',
      [x.name, this.#weight([c, perGroup, kernel, kernel], 1), this.#vector(perGroup * groups, -0.3, 0.3)],
      {
        kernel_shape: [kernel, kernel],
        strides: [stride, stride],
        pads,
        output_padding: [extra, extra],
        group: groups,
      },
    );
    return { name, dims: [1, perGroup * groups, ...out] };
  }

  #prelu(): Value {
    const x = this.#last();
    return this.#like(this.#g.node1('PRelu', [x.name, this.#vector(x.dims[1], -0.2, 0.5, [x.dims[1], 1, 1])]), x);
  }

  #pad(choose: Choose): Value {
    const x = this.#last();
    const mode = ['constant', 'reflect', 'edge'][choose(3)] ?? 'constant';
    const amounts = Array.from({ length: 4 }, () => choose(mode === 'reflect' ? Math.min(3, x.dims[2], x.dims[3]) : 3));
    const [top = 0, left = 0, bottom = 0, right = 0] = amounts;
    const pads = this.#g.ints(`w${this.#weights++}`, [0, 0, top, left, 0, 0, bottom, right]);
    const name = this.#g.node1('Pad', [x.name, pads], { mode });
    return { name, dims: [1, x.dims[1], x.dims[2] + top + bottom, x.dims[3] + left + right] };
  }

  /** Split on channels and Concat in another order. */
  #shuffle(choose: Choose): Value | undefined {
    const x = this.#last();
    const c = x.dims[1];
    if (c < 2) return undefined;
    const first = 1 + choose(c - 1);
    const sizes = this.#g.ints(`w${this.#weights++}`, [first, c - first]);
    const [a, b = a] = this.#g.node('Split', [x.name, sizes], { axis: 1 }, { outputs: 2 });
    return this.#like(this.#g.node1('Concat', [b, a], { axis: 1 }), x);
  }

  #lrn(): Value {
    const x = this.#last();
    return this.#like(this.#g.node1('LRN', [x.name], { size: 3, alpha: { float: 0.1 }, beta: { float: 0.75 }, bias: { float: 1 } }), x);
  }

  /** Goes on from an earlier tensor: several branches are alive. */
  #branch(choose: Choose): Value | undefined {
    const from = this.#values[choose(this.#values.length)];
    return from === undefined ? undefined : this.#like(this.#g.node1('Relu', [from.name]), from);
  }

  #slice(choose: Choose): Value | undefined {
    const x = this.#last();
    const axis = 1 + choose(3);
    const extent = x.dims[axis] ?? 1;
    if (extent < 3) return undefined;
    const start = choose(2);
    const end = extent - choose(2);
    const constants = [[start], [end], [axis]].map((v) => this.#g.ints(`w${this.#weights++}`, v));
    const dims = x.dims.map((d, i) => (i === axis ? end - start : d)) as [number, number, number, number];
    return { name: this.#g.node1('Slice', [x.name, ...constants]), dims };
  }

  #tail(tail: number, x: Value): void {
    const [, c, h, w] = x.dims;
    if (tail === 5) {
      this.#sequence(x);
      return;
    }
    if (tail <= 1) {
      this.#g.output(x.name);
      if (tail === 1) this.#g.output(this.#g.node1('Sigmoid', [(this.#values[0] ?? x).name]));
      return;
    }
    const pooled = tail === 2 ? this.#g.node1('GlobalAveragePool', [x.name]) : x.name;
    const flat = this.#g.node1('Flatten', [pooled], { axis: 1 });
    const features = tail === 2 ? c : c * h * w;
    const hidden = this.#g.node1('Gemm', [flat, this.#weight([7, features], 2), this.#vector(7, -0.2, 0.2)], { transB: 1 });
    const scores = this.#g.node1('Gemm', [this.#g.node1('Relu', [hidden]), this.#weight([5, 7], 2)], { transB: 1 });
    this.#g.output(tail === 4 ? this.#g.node1('Softmax', [scores], { axis: 1 }) : scores);
  }

  /** As recognisers of text end: columns become a sequence, normalised per step, classified by a MatMul. `[1, C, H, W]` -> `[1, W, 4]` */
  #sequence(x: Value): void {
    const [, c, , w] = x.dims;
    const g = this.#g;
    const flat = g.node1('ReduceMean', [x.name], { axes: { ints: [2] }, keepdims: 1 });
    const steps = g.node1('Transpose', [g.node1('Reshape', [flat, g.ints('sequence', [1, c, w])])], { perm: [0, 2, 1] });
    const centred = g.node1('Sub', [steps, g.node1('ReduceMean', [steps], { axes: { ints: [-1] }, keepdims: 1 })]);
    const variance = g.node1('ReduceMean', [g.node1('Mul', [centred, centred])], { axes: { ints: [-1] }, keepdims: 1 });
    const norm = g.node1('Div', [centred, g.node1('Sqrt', [g.node1('Add', [variance, g.floats('epsilon', [0.01], [])])])]);
    const scores = g.node1('MatMul', [norm, this.#weight([c, 4], 4 / c)]);
    g.output(g.node1('Softmax', [g.node1('Add', [scores, this.#vector(4, -0.2, 0.2)])], { axis: 2 }));
  }
}

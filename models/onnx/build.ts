/**
 * Builds ONNX graphs in code: the model zoo, the engine probe and tests use it.
 *
 *   const g = new GraphBuilder({ opset: 17 });
 *   const x = g.input('x', 'float32', [1, 3, 8, 8]);
 *   const w = g.weight('w', 'float32', [4, 3, 3, 3], data);
 *   const [y] = g.node('Conv', [x, w], { pads: [1, 1, 1, 1] });
 *   g.output(g.node1('Relu', [y]));
 */
import { randomUUID } from 'node:crypto';
import { open, rename, rm } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { ChairError } from '../../broker/errors.js';
import { type DType, tensorBytes } from '../../broker/tensor.js';
import { type AttributeValue, attributeMap } from './attributes.js';
import { writingTo } from './blobs.js';
import { encodeGraph, type GraphInitializer, type GraphNode, type GraphSpec, type GraphValue, graphChunks } from './encode.js';

/** Bytes of a weight: an array, or a function that makes them when they are written (so that a large model is never held whole). */
export type WeightData = ArrayBufferView | (() => ArrayBufferView | Iterable<ArrayBufferView>);

export interface BuilderOptions {
  /** Version of the standard operator set. Default 17. */
  readonly opset?: number;
  /** Default 8 (fits opset 17). */
  readonly irVersion?: number;
  /** Further operator sets. */
  readonly opsets?: readonly { readonly domain: string; readonly version: number }[];
  readonly name?: string;
}

export interface NodeOptions {
  readonly domain?: string;
  readonly name?: string;
  /** Names of the outputs, or how many (default 1). */
  readonly outputs?: readonly string[] | number;
}

export interface WriteOptions {
  /** Weights of at least so many bytes go into `<file>.data` beside the file. Default: none do. */
  readonly externalBytes?: number;
}

function view(data: ArrayBufferView): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

function* views(data: WeightData): Generator<Uint8Array> {
  const made = typeof data === 'function' ? data() : data;
  if (ArrayBuffer.isView(made)) return yield view(made);
  for (const chunk of made) yield view(chunk);
}

export class GraphBuilder {
  readonly #options: BuilderOptions;
  readonly #inputs: GraphValue[] = [];
  readonly #outputs: GraphValue[] = [];
  readonly #nodes: GraphNode[] = [];
  readonly #weights: { readonly init: GraphInitializer; readonly data: WeightData }[] = [];
  #counter = 0;

  constructor(options: BuilderOptions = {}) {
    this.#options = options;
  }

  /** Declares a graph input (a string dim is symbolic) and returns its name. */
  input(name: string, dtype: DType, dims: readonly (number | string)[]): string {
    this.#inputs.push({ name, dtype, dims });
    return name;
  }

  /** Adds an initializer and returns its name. `data` is raw little-endian bytes or a typed array of the dtype. */
  weight(name: string, dtype: DType, dims: readonly number[], data: WeightData): string {
    const bytes = typeof data === 'function' ? () => views(data) : view(data);
    this.#weights.push({ init: { name, dtype, dims, data: { kind: 'inline', bytes } }, data });
    return name;
  }

  /** A small int64 constant: shapes, axes, pads. `dims` default to one axis. */
  ints(name: string, values: readonly number[], dims: readonly number[] = [values.length]): string {
    return this.weight(name, 'int64', dims, BigInt64Array.from(values, BigInt));
  }

  /** A small float32 constant. `dims` default to one axis. */
  floats(name: string, values: readonly number[], dims: readonly number[] = [values.length]): string {
    return this.weight(name, 'float32', dims, Float32Array.from(values));
  }

  /** Adds a node and returns the names of its outputs. */
  node(
    op: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, AttributeValue>> = {},
    options: NodeOptions = {},
  ): [string, ...string[]] {
    const outputs = typeof options.outputs === 'object' ? [...options.outputs] : this.#fresh(op, options.outputs ?? 1);
    const [first, ...rest] = outputs;
    if (first === undefined) throw new ChairError('INTERNAL', `node ${op} needs at least one output`);
    this.#nodes.push({
      op,
      inputs,
      outputs,
      attributes: attributeMap(attributes),
      domain: options.domain ?? '',
      name: options.name ?? `${op}_${this.#nodes.length}`,
    });
    return [first, ...rest];
  }

  /** `node` for the usual case: returns the first output. */
  node1(
    op: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, AttributeValue>> = {},
    options: NodeOptions = {},
  ): string {
    return this.node(op, inputs, attributes, options)[0];
  }

  /** Declares a graph output. Without dtype the engine infers it. */
  output(name: string, dtype?: DType, dims?: readonly (number | string)[]): void {
    this.#outputs.push({ name, ...(dtype === undefined ? {} : { dtype }), ...(dims === undefined ? {} : { dims }) });
  }

  spec(): GraphSpec {
    return {
      nodes: this.#nodes,
      inputs: this.#inputs,
      outputs: this.#outputs,
      initializers: this.#weights.map((w) => w.init),
      opsets: [{ domain: '', version: this.#options.opset ?? 17 }, ...(this.#options.opsets ?? [])],
      irVersion: this.#options.irVersion ?? 8,
      ...(this.#options.name === undefined ? {} : { name: this.#options.name }),
    };
  }

  encode(): Uint8Array {
    return encodeGraph(this.spec());
  }

  /** Writes the file weight by weight (atomically: a half-written file never stands under `path`). Throws WORK_DIRECTORY_UNUSABLE. */
  write(path: string, options: WriteOptions = {}): Promise<void> {
    return writingTo(dirname(path), () => this.#write(path, options));
  }

  async #write(path: string, options: WriteOptions): Promise<void> {
    const threshold = options.externalBytes ?? Number.POSITIVE_INFINITY;
    const dataName = `${basename(path)}.data`;
    const outside: WeightData[] = [];
    let offset = 0;
    const initializers = this.#weights.map(({ init, data }): GraphInitializer => {
      const length = tensorBytes(init.dtype, init.dims);
      if (length < threshold) return init;
      outside.push(data);
      const at = offset;
      offset += length;
      return { ...init, data: { kind: 'external', location: dataName, offset: at, length } };
    });
    if (outside.length > 0) {
      await writeChunks(
        `${path}.data`,
        (function* () {
          for (const data of outside) yield* views(data);
        })(),
      );
    }
    await writeChunks(path, graphChunks({ ...this.spec(), initializers }));
  }

  #fresh(op: string, count: number): string[] {
    return Array.from({ length: count }, () => `${op.toLowerCase()}_${++this.#counter}`);
  }
}

/** Writes chunks to a file that appears under `path` only when complete. */
export async function writeChunks(path: string, chunks: Iterable<Uint8Array>): Promise<void> {
  const temporary = `${path}.${randomUUID()}.part`;
  const file = await open(temporary, 'wx');
  try {
    for (const chunk of chunks) await file.writeFile(chunk);
    await file.close();
    await rename(temporary, path);
  } catch (error) {
    await file.close().catch(() => undefined);
    await rm(temporary, { force: true });
    throw error;
  }
}

/**
 * Folds constants and learns the shape of every tensor, both by asking the engine, which knows every operator:
 *
 *   1. load the graph with every value as an output      -> dtypes (and an unknown operator shows)
 *   2. run it once with a `Shape` node on every value    -> dims; activations are freed as the run goes
 *   3. run the constant part alone                       -> folded values, as weights
 *   4. load the folded graph again                       -> tensors whose dims the engine cannot infer depend on the data
 *
 * A value is constant when all it is made of is constant, or when it is the Shape or Size of a tensor (all dims are fixed): fold.ts decides that.
 */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { ChairError, isChairError } from '../../broker/errors.js';
import { allocTensor, elementCount, itemBytes, type Tensor, type TensorInfo } from '../../broker/tensor.js';
import type { Engine, Session } from '../engine/engine.js';
import type { Model, ModelNode, Weight } from '../model.js';
import { writeChunks } from './build.js';
import { type GraphInitializer, type GraphNode, type GraphSpec, graphChunks } from './encode.js';
import { batches, constantNodes, freeName, shapeRead, shapeWeight, usedWeights, withOutputs } from './fold.js';
import { type ImportedGraph, storeWeight } from './import.js';
import { namesRead, sortNodes } from './order.js';

/** A graph whose inputs have fixed shapes. */
export interface FixedGraph extends Omit<ImportedGraph, 'inputs'> {
  readonly inputs: readonly TensorInfo[];
}

export interface LearnOptions {
  readonly engine: Engine;
  readonly workDirectory: string;
  /** Inputs for the one run; default: a fixed pattern for floats, zeros (then ones) for integers. */
  readonly samples?: Readonly<Record<string, Tensor>>;
}

/** The oldest standard operator set whose `Shape` takes every type; used when the model imports none. */
const DEFAULT_OPSET = 17;

/** Errors: MODEL_UNSUPPORTED (the engine cannot load or run it), MODEL_SHAPE_INVALID (not with these input sizes), MODEL_UNREADABLE (a broken graph). */
export async function learnModel(graph: FixedGraph, options: LearnOptions): Promise<Model> {
  return new Learner(graph, options).learn();
}

class Learner {
  readonly #graph: FixedGraph;
  readonly #options: LearnOptions;
  readonly #nodes: readonly ModelNode[];

  constructor(graph: FixedGraph, options: LearnOptions) {
    this.#graph = graph;
    this.#options = options;
    const given = new Set(graph.inputs.map((i) => i.name));
    this.#nodes = sortNodes(graph.nodes, given, new Set(graph.weights.keys()), graph.outputs);
  }

  async learn(): Promise<Model> {
    const graph = this.#graph;
    const values = [...graph.inputs.map((i) => i.name), ...this.#nodes.flatMap((n) => n.outputs.filter((o) => o !== ''))];
    const declared = await this.#inferred(this.#nodes, graph.weights, values);
    const tensors = await this.#shapes(values, declared);
    const folded = await this.#fold(tensors);
    const nodes = withOutputs(folded.nodes, folded.weights, graph.outputs, tensors);
    const live = new Set(nodes.flatMap((n) => n.outputs));
    const activations = [...tensors].filter(([name]) => live.has(name) || graph.inputs.some((i) => i.name === name));
    const model: Model = {
      sha256: graph.sha256,
      path: graph.path,
      irVersion: graph.irVersion,
      opsets: graph.opsets,
      functions: graph.functions,
      nodes,
      tensors: new Map(activations),
      weights: usedWeights(nodes, folded.weights),
      inputs: graph.inputs,
      outputs: graph.outputs.map((name) => requireTensor(tensors, name)),
    };
    const dynamic = await this.#dynamic(model, declared);
    // A frame would be answered with its nothing before anybody has computed it.
    const empty = model.outputs.find(({ name, dims }) => dynamic.has(name) && dims.includes(0));
    if (empty !== undefined) {
      throw new ChairError('MODEL_UNSUPPORTED', `how much output ${empty.name} holds depends on the data`, {
        expected: 'outputs whose sizes follow from those of the inputs',
        came: `[${empty.dims.join(', ')}] for made-up inputs`,
        todo: 'Cut such operators (NonZero, NonMaxSuppression) off the model, and run them on its outputs.',
      });
    }
    return { ...model, dynamic };
  }

  /** What the engine infers of each value: dtype, and dims with -1 where they are unknown. Values that are no tensors are left out. */
  async #inferred(
    nodes: readonly ModelNode[],
    weights: ReadonlyMap<string, Weight>,
    values: readonly string[],
  ): Promise<Map<string, TensorInfo>> {
    const inputs = new Set(this.#graph.inputs.map((i) => i.name));
    const outputs = values.filter((name) => !inputs.has(name)).map((name) => ({ name }));
    if (outputs.length === 0) return new Map(this.#graph.inputs.map((info) => [info.name, info]));
    return this.#load(this.#spec(nodes, weights, outputs), async (session) => {
      const known = [...this.#graph.inputs, ...session.outputs];
      return new Map(known.map((info) => [info.name, info]));
    });
  }

  async #shapes(values: readonly string[], declared: ReadonlyMap<string, TensorInfo>): Promise<Map<string, TensorInfo>> {
    const wanted = values.filter((name) => declared.has(name));
    if (wanted.length === 0) return new Map();
    const shapeOf = freeName('shape', [...values, ...this.#graph.weights.keys()]);
    const nodes = wanted.map((name, i): GraphNode => ({ op: 'Shape', inputs: [name], outputs: [`${shapeOf}:${i}`] }));
    const outputs = wanted.map((_, i) => ({ name: `${shapeOf}:${i}` }));
    const spec = this.#spec([...this.#nodes, ...nodes], this.#graph.weights, outputs);
    return this.#load(spec, async (session) => {
      const shapes = await this.#runOnce(session);
      const infos = wanted.flatMap((name, i): [string, TensorInfo][] => {
        const dtype = declared.get(name)?.dtype;
        const shape = shapes[`${shapeOf}:${i}`];
        if (dtype === undefined || shape === undefined) return [];
        return [[name, { name, dtype, dims: Array.from(int64s(shape.bytes), Number) }]];
      });
      return new Map(infos);
    });
  }

  async #runOnce(session: Session): Promise<Readonly<Record<string, Tensor>>> {
    const { samples } = this.#options;
    let failure: unknown;
    for (const integer of samples === undefined ? [0, 1] : [0]) {
      const made = Object.fromEntries(
        this.#graph.inputs.map((info) => [info.name, ownSample(samples, info.name) ?? sample(info, integer)]),
      );
      try {
        return (await session.run(made)).outputs;
      } catch (error) {
        if (!isChairError(error, 'ENGINE_RUN_FAILED')) throw error;
        failure = error;
      }
    }
    throw new ChairError('MODEL_UNSUPPORTED', `the engine cannot run ${this.#graph.path} at these shapes`, {
      came: failure instanceof Error ? failure.message : String(failure),
      todo: 'Check the shapes of the inputs.',
      cause: failure,
    });
  }

  /** The nodes that are left, and the weights with the folded values among them. */
  async #fold(tensors: ReadonlyMap<string, TensorInfo>): Promise<{ nodes: ModelNode[]; weights: Map<string, Weight> }> {
    const weights = new Map(this.#graph.weights);
    const constant = constantNodes(this.#nodes, weights, tensors, this.#graph.functions);
    if (constant.size === 0) return { nodes: [...this.#nodes], weights };
    const producer = new Map([...constant].flatMap((node) => node.outputs.map((name) => [name, node] as const)));
    const wanted = new Set<string>();
    const kept = new Set(this.#nodes.filter((node) => !constant.has(node)));
    // A constant that is no fixed-size tensor (a string, a sequence) cannot become a weight: its node stays.
    const reads = [...this.#graph.outputs, ...[...kept].flatMap(namesRead)];
    for (let name = reads.pop(); name !== undefined; name = reads.pop()) {
      const node = producer.get(name);
      if (node === undefined || kept.has(node)) continue;
      if (tensors.has(name)) wanted.add(name);
      else {
        kept.add(node);
        reads.push(...namesRead(node));
      }
    }
    for (const weight of await this.#constants([...constant], [...wanted], tensors)) weights.set(weight.name, weight);
    return { nodes: this.#nodes.filter((node) => kept.has(node)), weights };
  }

  async #constants(nodes: readonly ModelNode[], wanted: readonly string[], tensors: ReadonlyMap<string, TensorInfo>): Promise<Weight[]> {
    const { workDirectory } = this.#options;
    // Shapes of activations are literals by now; the network itself is not needed.
    const literal: Weight[] = [];
    const rest = nodes.filter((node) => {
      const info = shapeRead(node, tensors);
      if (info !== undefined) literal.push(shapeWeight(node, info));
      return info === undefined;
    });
    const made = new Map(literal.map((weight) => [weight.name, weight]));
    const weights = new Map([...this.#graph.weights, ...made]);
    const found = wanted.flatMap((name) => made.get(name) ?? []);
    for (const batch of batches(
      wanted.filter((name) => !made.has(name)),
      tensors,
    )) {
      const outputs = batch.map((name) => ({ name }));
      const needed = sortNodes(rest, new Set(), new Set(weights.keys()), batch);
      const results = await this.#load({ ...this.#spec(needed, weights, outputs), inputs: [] }, (session) => session.run({}));
      for (const name of batch) {
        const value = results.outputs[name];
        if (value !== undefined) found.push(await storeWeight(workDirectory, name, value));
      }
    }
    return found;
  }

  /** Tensors whose dims the engine cannot tell from the folded graph alone: they depend on the data. */
  async #dynamic(model: Model, declared: ReadonlyMap<string, TensorInfo>): Promise<Set<string>> {
    const isOpen = (infos: ReadonlyMap<string, TensorInfo>) => (info: TensorInfo) => {
      const dims = infos.get(info.name)?.dims;
      return dims === undefined || dims.length !== info.dims.length || dims.some((d) => d < 0);
    };
    const doubtful = [...model.tensors.values()].filter(isOpen(declared));
    if (doubtful.length === 0) return new Set();
    const names = doubtful.map((info) => info.name);
    const inferred = await this.#inferred(model.nodes, model.weights, names);
    return new Set(doubtful.filter(isOpen(inferred)).map((info) => info.name));
  }

  #spec(nodes: readonly GraphNode[], weights: ReadonlyMap<string, Weight>, outputs: readonly { readonly name: string }[]): GraphSpec {
    const { inputs, irVersion, functions, opsets } = this.#graph;
    const standard = opsets.some((o) => o.domain === '');
    const used = new Set(nodes.flatMap((node) => [...node.inputs, ...('captured' in node ? (node as ModelNode).captured : [])]));
    return {
      nodes,
      inputs,
      outputs,
      irVersion,
      functions,
      opsets: standard ? opsets : [...opsets, { domain: '', version: DEFAULT_OPSET }],
      initializers: [...weights.values()].filter((w) => used.has(w.name)).map(initializer),
    };
  }

  /** Writes the graph beside the blobs (so that weights are mapped, not copied), loads it, and removes it again. */
  async #load<T>(spec: GraphSpec, use: (session: Session) => Promise<T>): Promise<T> {
    const path = join(this.#options.workDirectory, `.learn-${randomUUID()}.onnx`);
    try {
      await writeChunks(path, graphChunks(spec));
      const session = await this.#options.engine.load(path, { optimize: false });
      try {
        return await use(session);
      } finally {
        await session.dispose();
      }
    } catch (error) {
      if (isChairError(error, 'ENGINE_LOAD_FAILED')) throw unsupported(error, this.#graph);
      throw error;
    } finally {
      await rm(path, { force: true });
    }
  }
}

/** The initializer that stands for a weight in a graph file written beside the weight's blob. */
export function initializer(weight: Weight): GraphInitializer {
  const { name, dtype, dims, bytes } = weight;
  if (bytes.kind === 'inline') return { name, dtype, dims, data: bytes };
  return { name, dtype, dims, data: { kind: 'external', location: basename(bytes.path), offset: bytes.offset, length: bytes.length } };
}

function ownSample(samples: LearnOptions['samples'], name: string): Tensor | undefined {
  return samples !== undefined && Object.hasOwn(samples, name) ? samples[name] : undefined;
}

function requireTensor(tensors: ReadonlyMap<string, TensorInfo>, name: string): TensorInfo {
  const info = tensors.get(name);
  if (info !== undefined) return info;
  throw new ChairError('MODEL_UNSUPPORTED', `output ${name} cannot travel`, {
    expected: 'a tensor of numbers or bools',
    came: 'something else',
  });
}

function int64s(bytes: Uint8Array): BigInt64Array {
  return new BigInt64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 8);
}

/** Floats get a pattern within [0, 1), integers and bools one value. */
function sample(info: TensorInfo, integer: number): Tensor {
  const tensor = allocTensor(info.dtype, info.dims);
  const { buffer } = tensor.bytes;
  const count = elementCount(info.dims);
  if (info.dtype === 'float32' || info.dtype === 'float64') {
    const data = info.dtype === 'float32' ? new Float32Array(buffer) : new Float64Array(buffer);
    for (let i = 0; i < count; i++) data[i] = ((i * 7919) % 1009) / 1009;
  } else if (info.dtype === 'float16') {
    // 0x3800 is 0.5; the low bits vary it within [0.5, 1).
    const data = new Uint16Array(buffer);
    for (let i = 0; i < count; i++) data[i] = 0x3800 + ((i * 7919) % 1009);
  } else if (integer !== 0) {
    const item = itemBytes(info.dtype);
    for (let i = 0; i < count; i++) tensor.bytes[i * item] = integer;
  }
  return tensor;
}

/** Names the node in the way when the engine's message tells the operator. */
function unsupported(error: ChairError, graph: FixedGraph): ChairError {
  const told = error.detail.came ?? error.message;
  if (told.includes('ShapeInferenceError')) {
    const shapes = graph.inputs.map((info) => `${info.name}=${info.dims.join(',')}`).join(' ');
    return new ChairError('MODEL_SHAPE_INVALID', `the sizes inside ${graph.path} do not fit together for the input ${shapes}`, {
      came: told,
      todo: 'Give --shape sizes that the network was made for (often multiples of 32).',
      cause: error,
    });
  }
  const node = graph.nodes.find((n) => new RegExp(`(^|[^\\w])${escapeRegExp(n.op)}\\(-?\\d+\\)`).test(told));
  const where = node === undefined ? '' : `: operator ${node.op} (domain '${node.domain || 'ai.onnx'}', node ${node.name || '?'})`;
  return new ChairError('MODEL_UNSUPPORTED', `the engine cannot load ${graph.path}${where}`, {
    came: told,
    todo: 'Export the model with operators that onnxruntime knows.',
    cause: error,
  });
}

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

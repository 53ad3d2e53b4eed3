/** From an ONNX file to structure and references: large weights go to blobs and are never held. */
import { createHash } from 'node:crypto';
import { mkdir, open, realpath, stat } from 'node:fs/promises';
import { dirname, isAbsolute, join, normalize, sep } from 'node:path';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import {
  type AttributeProto,
  AttributeProto_AttributeType,
  AttributeProtoSchema,
  type FunctionProto,
  type GraphProto,
  type ModelProto,
  ModelProtoSchema,
  type NodeProto,
  type SparseTensorProto,
  type TensorProto,
  TensorProto_DataLocation,
  type ValueInfoProto,
} from 'onnx-buf';
import { ChairError } from '../../broker/errors.js';
import type { BlobRef } from '../../broker/plan.js';
import { type DType, tensorBytes } from '../../broker/tensor.js';
import type { ModelNode, Weight, WeightBytes } from '../model.js';
import { attribute } from './attributes.js';
import { hasBlob, putBlob, putBlobChunks } from './blobs.js';
import { dtypeOfCode, onnxTypeName } from './dtypes.js';
import { nodeProto } from './encode.js';
import { type RawRange, type ScannedFile, scanModel } from './scan.js';
import { capturedNames } from './subgraphs.js';
import { checkLength, type RawTensor, rawTensor } from './tensor-proto.js';

/** An input as declared: unknown dims are symbolic names or '?'; no dims at all when the file does not give the rank. */
export interface DeclaredInput {
  readonly name: string;
  readonly dtype: DType;
  readonly dims: readonly (number | string)[] | undefined;
}

/** The graph as the file has it: not sorted, not folded, shapes unknown. */
export interface ImportedGraph {
  readonly sha256: string;
  readonly path: string;
  readonly irVersion: number;
  readonly opsets: readonly { readonly domain: string; readonly version: number }[];
  readonly functions: readonly FunctionProto[];
  readonly nodes: readonly ModelNode[];
  readonly weights: ReadonlyMap<string, Weight>;
  readonly inputs: readonly DeclaredInput[];
  readonly outputs: readonly string[];
}

/** Weights from this size on become blobs. */
export const BLOB_BYTES = 1024;
const READ_BYTES = 4 << 20;

/** Errors: MODEL_NOT_FOUND, MODEL_UNREADABLE, MODEL_UNSUPPORTED (inputs that are no tensors), MODEL_WEIGHTS_MISSING. */
export async function importGraph(path: string, workDirectory: string): Promise<ImportedGraph> {
  const { model, raw, sha256 } = await readModel(path);
  refuseNames(model.graph, path);
  await mkdir(workDirectory, { recursive: true });
  const constants = new Constants(path, workDirectory);
  for (const [index, tensor] of model.graph.initializer.entries()) await constants.add(tensor.name, tensor, raw[index]);
  for (const tensor of model.graph.sparseInitializer) constants.addSparse(tensor);
  const nodes: NodeProto[] = [];
  for (const node of model.graph.node) if (!(await constants.addNode(node))) nodes.push(node);
  const { graph, functions } = detach(model, [...constants.kept, ...nodes]);
  // Before IR version 4 every initializer was listed as an input too.
  const known = new Set([...constants.weights.keys(), ...constants.kept.flatMap((n) => n.output)]);
  return {
    sha256: constants.modelHash(sha256),
    path,
    irVersion: Number(model.irVersion),
    opsets: model.opsetImport.map((o) => ({ domain: standardDomain(o.domain), version: Number(o.version) })),
    functions,
    nodes: graph.node.map(modelNode),
    weights: constants.weights,
    inputs: graph.input.filter((v) => !known.has(v.name)).map((v) => declaredInput(v, path)),
    outputs: graph.output.map((v) => tensorOutput(v, path)),
  };
}

type WholeModel = ModelProto & { graph: GraphProto };

/** The file without its large weights. Throws MODEL_NOT_FOUND, MODEL_UNREADABLE. */
export async function readModel(path: string): Promise<{ model: WholeModel; raw: ScannedFile['raw']; sha256: string }> {
  const unreadable = (came: string, cause?: unknown) =>
    new ChairError('MODEL_UNREADABLE', `${path} is not a complete ONNX model`, {
      expected: 'an ONNX model (protobuf)',
      came,
      todo: 'If it was downloaded or copied, it may be cut short: get it again.',
      cause,
    });
  let model: ModelProto;
  let file: ScannedFile;
  try {
    file = await scanModel(path, BLOB_BYTES);
    model = fromBinary(ModelProtoSchema, file.model, { readUnknownFields: false });
  } catch (error) {
    if (error instanceof ChairError) throw error;
    throw unreadable(error instanceof Error ? error.message : String(error), error);
  }
  const { graph } = model;
  if (graph === undefined || graph.output.length === 0 || model.opsetImport.length === 0 || model.irVersion < 1n) {
    throw unreadable(file.sizeBytes === 0 ? 'an empty file' : 'no graph with outputs, operator sets and an IR version in it');
  }
  return { model: Object.assign(model, { graph }), raw: file.raw, sha256: file.sha256 };
}

/** The engine's interface keeps values in plain objects, in which this one name cannot be a key. */
function refuseNames(graph: GraphProto, path: string): void {
  const names = [...graph.input.map((v) => v.name), ...graph.initializer.map((t) => t.name), ...graph.node.flatMap((n) => n.output)];
  if (!names.includes('__proto__')) return;
  throw new ChairError('MODEL_UNSUPPORTED', `${path} has a value named __proto__`, { todo: 'Give it another name.' });
}

function declaredInput(value: ValueInfoProto, path: string): DeclaredInput {
  const type = value.type?.value;
  const tensor = type?.case === 'tensorType' ? type.value : undefined;
  const dtype = tensor === undefined ? undefined : dtypeOfCode(tensor.elemType);
  if (tensor === undefined || dtype === undefined) throw notTensor('input', value, path);
  const dims = tensor.shape?.dim.map(({ value: d }): number | string => {
    if (d.case === 'dimValue') return d.value < 0n ? '?' : Number(d.value);
    return d.case === 'dimParam' && d.value !== '' ? d.value : '?';
  });
  return { name: value.name, dtype, dims };
}

function tensorOutput(value: ValueInfoProto, path: string): string {
  const type = value.type?.value;
  const fine = type?.case === undefined || (type.case === 'tensorType' && (type.value.elemType === 0 || dtypeOfCode(type.value.elemType)));
  if (!fine) throw notTensor('output', value, path);
  return value.name;
}

function notTensor(what: string, value: ValueInfoProto, path: string): ChairError {
  const type = value.type?.value;
  const came =
    type?.case === 'tensorType' ? `a tensor of ${onnxTypeName(type.value.elemType)}` : (type?.case ?? 'no type').replace('Type', '');
  return new ChairError('MODEL_UNSUPPORTED', `${what} ${value.name} of ${path} cannot travel`, {
    expected: 'a tensor of numbers or bools',
    came,
    todo: `Use a model whose ${what}s are tensors of fixed-size numbers.`,
  });
}

/** 'ai.onnx' is another spelling of the standard domain ''. */
function standardDomain(domain: string): string {
  return domain === 'ai.onnx' ? '' : domain;
}

function modelNode(node: NodeProto): ModelNode {
  return {
    op: node.opType,
    domain: standardDomain(node.domain),
    name: node.name,
    inputs: node.input,
    outputs: node.output,
    attributes: new Map(node.attribute.map((a) => [a.name, a])),
    captured: capturedNames(node.attribute),
  };
}

/** Decoded bytes fields are views into one buffer that also holds the constants: what is kept is decoded again from bytes of its own. */
function detach(model: WholeModel, nodes: NodeProto[]): { graph: GraphProto; functions: FunctionProto[] } {
  Object.assign(model.graph, { node: nodes, initializer: [], sparseInitializer: [], valueInfo: [] });
  model.trainingInfo = [];
  const own = fromBinary(ModelProtoSchema, toBinary(ModelProtoSchema, model));
  if (own.graph === undefined) throw new ChairError('INTERNAL', 'a graph was lost while it was copied');
  return { graph: own.graph, functions: own.functions };
}

/** Collects initializers and `Constant` nodes. What is no fixed-size tensor (strings, sparse, 4-bit) stays a `Constant` node. */
class Constants {
  readonly weights = new Map<string, Weight>();
  readonly kept: NodeProto[] = [];
  readonly #path: string;
  readonly #workDirectory: string;
  readonly #externalHash = createHash('sha256');
  #hasExternal = false;

  constructor(path: string, workDirectory: string) {
    this.#path = path;
    this.#workDirectory = workDirectory;
  }

  /** The file's own hash, or one over that and all external data, in order of appearance. */
  modelHash(fileSha256: string): string {
    if (!this.#hasExternal) return fileSha256;
    return createHash('sha256').update(fileSha256).update(this.#externalHash.digest()).digest('hex');
  }

  /** `left`: where the raw data is when it was left in the file. */
  async add(name: string, tensor: TensorProto, left?: RawRange): Promise<void> {
    const dtype = dtypeOfCode(tensor.dataType);
    if (left !== undefined) {
      if (dtype === undefined)
        throw new ChairError('MODEL_UNSUPPORTED', `weight ${name} is a large tensor of ${onnxTypeName(tensor.dataType)}`);
      const dims = tensor.dims.map(Number);
      checkLength(`weight ${name} of ${this.#path}`, dtype, dims, left.length);
      this.weights.set(name, { name, dtype, dims, bytes: blobBytes(this.#workDirectory, await this.#leftInFile(name, left)) });
      return;
    }
    if (tensor.dataLocation === TensorProto_DataLocation.EXTERNAL) {
      if (dtype === undefined)
        throw new ChairError('MODEL_UNSUPPORTED', `weight ${name} is of ${onnxTypeName(tensor.dataType)} in external data`);
      const dims = tensor.dims.map(Number);
      const sizeBytes = tensorBytes(dtype, dims);
      checkLength(`weight ${name} of ${this.#path}`, dtype, dims, sizeBytes);
      this.weights.set(name, { name, dtype, dims, bytes: await this.#external(name, tensor, sizeBytes) });
      return;
    }
    const raw = rawTensor(tensor, `weight ${name} of ${this.#path}`);
    if (raw === undefined) this.#keep(name, attribute('value', { tensor }));
    else await this.#addRaw(name, raw);
  }

  addSparse(tensor: SparseTensorProto): void {
    const value = create(AttributeProtoSchema, {
      name: 'sparse_value',
      type: AttributeProto_AttributeType.SPARSE_TENSOR,
      sparseTensor: tensor,
    });
    this.#keep(tensor.values?.name ?? '', value);
  }

  /** True when the node was a `Constant` and is now a weight. */
  async addNode(node: NodeProto): Promise<boolean> {
    if (node.opType !== 'Constant' || standardDomain(node.domain) !== '') return false;
    const [name = ''] = node.output;
    const [value] = node.attribute;
    switch (value?.name) {
      case 'value':
        if (value.t === undefined || dtypeOfCode(value.t.dataType) === undefined) return false;
        await this.add(name, value.t);
        return true;
      case 'value_float':
        await this.#addRaw(name, raw('float32', [], Float32Array.of(value.f)));
        return true;
      case 'value_floats':
        await this.#addRaw(name, raw('float32', [value.floats.length], Float32Array.from(value.floats)));
        return true;
      case 'value_int':
        await this.#addRaw(name, raw('int64', [], BigInt64Array.of(value.i)));
        return true;
      case 'value_ints':
        await this.#addRaw(name, raw('int64', [value.ints.length], BigInt64Array.from(value.ints)));
        return true;
      default:
        return false;
    }
  }

  async #addRaw(name: string, tensor: RawTensor): Promise<void> {
    this.weights.set(name, await storeWeight(this.#workDirectory, name, tensor));
  }

  #keep(name: string, value: AttributeProto): void {
    this.kept.push(nodeProto({ op: 'Constant', name, inputs: [], outputs: [name], attributes: new Map([[value.name, value]]) }));
  }

  async #leftInFile(name: string, { offset, length, sha256 }: RawRange): Promise<BlobRef> {
    const blob = { sha256, sizeBytes: length };
    if (await hasBlob(this.#workDirectory, blob)) return blob;
    const written = await putBlobChunks(this.#workDirectory, fileChunks(name, this.#path, offset, length));
    if (written.sha256 === sha256) return blob;
    throw new ChairError('MODEL_UNREADABLE', `${this.#path} changed while it was read`, {
      todo: 'Try again when it is written completely.',
    });
  }

  async #external(name: string, tensor: TensorProto, sizeBytes: number): Promise<WeightBytes> {
    const entry = (key: string) => tensor.externalData.find((e) => e.key === key)?.value;
    const [offset, length] = [entry('offset') ?? '0', entry('length') ?? String(sizeBytes)];
    if (!/^\d{1,15}$/.test(offset) || length !== String(sizeBytes)) {
      throw new ChairError('MODEL_UNREADABLE', `weight ${name} of ${this.#path} contradicts itself`, {
        expected: `${sizeBytes} bytes at a whole number of bytes`,
        came: `length ${length} at offset ${offset}`,
      });
    }
    this.#hasExternal = true;
    const file = await externalFile(name, this.#path, entry('location') ?? '');
    const chunks = fileChunks(name, file, Number(offset), sizeBytes);
    if (sizeBytes >= BLOB_BYTES)
      return blobBytes(this.#workDirectory, await putBlobChunks(this.#workDirectory, chunks, this.#externalHash));
    const parts: Uint8Array[] = [];
    for await (const chunk of chunks) parts.push(chunk);
    const bytes = new Uint8Array(Buffer.concat(parts));
    this.#externalHash.update(bytes);
    return { kind: 'inline', bytes };
  }
}

/**
 * The path of external data. A model must not reach for files of the machine that reads it: the location, with links followed, lies in the folder of the
 * model, or of the file that the model's own path is a link to (download caches keep both as links into one folder).
 */
export async function externalFile(name: string, model: string, location: string): Promise<string> {
  const outside = () =>
    new ChairError('MODEL_WEIGHTS_MISSING', `weight ${name} names external data outside of the model's folder`, { came: location });
  const relative = normalize(location);
  if (relative === '.' || isAbsolute(relative) || relative.split(sep).includes('..')) throw outside();
  const path = join(dirname(model), relative);
  const real = await realpath(path).catch((error: unknown) => {
    throw missingData(name, path, error instanceof Error ? error.message : String(error), error);
  });
  const folders = [await realpath(dirname(model)), dirname(await realpath(model))];
  if (!folders.some((folder) => real.startsWith(folder.endsWith(sep) ? folder : folder + sep))) throw outside();
  // Opening a pipe would wait for its other end.
  if (!(await stat(real)).isFile()) throw missingData(name, path, 'a folder or a device');
  return path;
}

function missingData(name: string, path: string, came: string, cause?: unknown): ChairError {
  return new ChairError('MODEL_WEIGHTS_MISSING', `the data of weight ${name} cannot be read`, {
    expected: `a file ${path}`,
    came,
    todo: 'Put the data file beside the model, under its original name.',
    cause,
  });
}

function raw(dtype: DType, dims: readonly number[], data: ArrayBufferView): RawTensor {
  return { dtype, dims, bytes: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) };
}

function blobBytes(workDirectory: string, blob: BlobRef): WeightBytes {
  return { kind: 'file', path: join(workDirectory, blob.sha256), sha256: blob.sha256, offset: 0, length: blob.sizeBytes };
}

/** A weight from bytes in memory: a blob when large, else a copy of its own. */
export async function storeWeight(workDirectory: string, name: string, tensor: RawTensor): Promise<Weight> {
  const { dtype, dims, bytes } = tensor;
  if (bytes.length < BLOB_BYTES) return { name, dtype, dims, bytes: { kind: 'inline', bytes: new Uint8Array(bytes) } };
  return { name, dtype, dims, bytes: blobBytes(workDirectory, await putBlob(workDirectory, bytes)) };
}

async function* fileChunks(name: string, path: string, offset: number, sizeBytes: number): AsyncGenerator<Uint8Array> {
  const file = await open(path, 'r').catch((error: unknown) => {
    throw missingData(name, path, error instanceof Error ? error.message : String(error), error);
  });
  try {
    for (let done = 0; done < sizeBytes; ) {
      const length = Math.min(READ_BYTES, sizeBytes - done);
      const { bytesRead, buffer } = await file.read(new Uint8Array(length), 0, length, offset + done);
      if (bytesRead === 0) throw missingData(name, path, `a file that ends after ${offset + done} of ${offset + sizeBytes} bytes`);
      yield buffer.subarray(0, bytesRead);
      done += bytesRead;
    }
  } finally {
    await file.close();
  }
}

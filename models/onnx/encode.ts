/**
 * Writes ONNX graphs, deterministically: the same graph gives the same bytes (no times, no paths, no hash order).
 * `graphChunks` streams: weights pass through, they are never copied into one big buffer. `encodeGraph` joins the chunks.
 */
import { create, toBinary } from '@bufbuild/protobuf';
import {
  type AttributeProto,
  type FunctionProto,
  GraphProtoSchema,
  ModelProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  OperatorSetIdProtoSchema,
  StringStringEntryProtoSchema,
  TensorProto_DataLocation,
  TensorProtoSchema,
  type TensorShapeProto,
  TensorShapeProto_DimensionSchema,
  TensorShapeProtoSchema,
  TypeProto_TensorSchema,
  TypeProtoSchema,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from 'onnx-buf';
import { ChairError } from '../../broker/errors.js';
import { type DType, tensorBytes } from '../../broker/tensor.js';
import { onnxCode } from './dtypes.js';

export const PRODUCER = 'musical-chair';

/** What `ModelNode` is, with the fields that need not be given left out. */
export interface GraphNode {
  readonly op: string;
  readonly domain?: string;
  readonly name?: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes?: ReadonlyMap<string, AttributeProto>;
}

/** A graph input or output. Outputs may leave dtype and dims to the engine's inference; a string dim is symbolic. */
export interface GraphValue {
  readonly name: string;
  readonly dtype?: DType;
  readonly dims?: readonly (number | string)[];
}

/** `inline`: the bytes, or (for streaming) a function that yields them in order. `external`: where they are, beside the file. */
export type InitializerData =
  | { readonly kind: 'inline'; readonly bytes: Uint8Array | (() => Iterable<Uint8Array>) }
  | { readonly kind: 'external'; readonly location: string; readonly offset: number; readonly length: number };

export interface GraphInitializer {
  readonly name: string;
  readonly dtype: DType;
  readonly dims: readonly number[];
  readonly data: InitializerData;
}

export interface GraphSpec {
  readonly nodes: readonly GraphNode[];
  readonly inputs: readonly GraphValue[];
  readonly outputs: readonly GraphValue[];
  readonly initializers: readonly GraphInitializer[];
  readonly opsets: readonly { readonly domain: string; readonly version: number }[];
  readonly irVersion: number;
  readonly functions?: readonly FunctionProto[];
  /** Name of the graph; default `graph`. */
  readonly name?: string;
}

/** protobuf readers refuse messages above this. */
const PROTOBUF_LIMIT_BYTES = 2 ** 31 - 1;

// Field numbers of onnx.proto that are written by hand, so that weights can be streamed.
export const MODEL_GRAPH = 7;
export const GRAPH_INITIALIZER = 5;
export const TENSOR_RAW_DATA = 9;

function varint(value: number): Uint8Array {
  const out: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    out.push((rest % 0x80) | 0x80);
    rest = Math.floor(rest / 0x80);
  }
  out.push(rest);
  return Uint8Array.from(out);
}

/** Key and length of a length-delimited field. */
export function fieldHead(field: number, length: number): Uint8Array {
  const key = varint(field * 8 + 2);
  const size = varint(length);
  const head = new Uint8Array(key.length + size.length);
  head.set(key);
  head.set(size, key.length);
  return head;
}

function shapeProto(dims: readonly (number | string)[]): TensorShapeProto {
  return create(TensorShapeProtoSchema, {
    dim: dims.map((d) =>
      create(TensorShapeProto_DimensionSchema, {
        value: typeof d === 'number' ? { case: 'dimValue', value: BigInt(d) } : { case: 'dimParam', value: d },
      }),
    ),
  });
}

function valueProto(value: GraphValue): ValueInfoProto {
  const info = create(ValueInfoProtoSchema, { name: value.name });
  if (value.dtype === undefined) return info;
  const tensor = create(TypeProto_TensorSchema, { elemType: onnxCode(value.dtype) });
  if (value.dims !== undefined) tensor.shape = shapeProto(value.dims);
  info.type = create(TypeProtoSchema, { value: { case: 'tensorType', value: tensor } });
  return info;
}

export function nodeProto(node: GraphNode): NodeProto {
  return create(NodeProtoSchema, {
    opType: node.op,
    domain: node.domain ?? '',
    name: node.name ?? '',
    input: [...node.inputs],
    output: [...node.outputs],
    attribute: [...(node.attributes?.values() ?? [])],
  });
}

interface EncodedInitializer {
  /** TensorProto without its raw data. */
  readonly head: Uint8Array;
  readonly raw: InitializerData;
  readonly rawLength: number;
}

function encodeInitializer(init: GraphInitializer): EncodedInitializer {
  const want = tensorBytes(init.dtype, init.dims);
  const { data } = init;
  const proto = create(TensorProtoSchema, { name: init.name, dataType: onnxCode(init.dtype), dims: init.dims.map(BigInt) });
  const given = data.kind === 'external' ? data.length : typeof data.bytes === 'function' ? want : data.bytes.length;
  if (given !== want) {
    throw new ChairError('TENSOR_INVALID', `weight ${init.name} contradicts itself`, {
      expected: `${want} bytes for ${init.dtype}[${init.dims.join(',')}]`,
      came: `${given} bytes`,
    });
  }
  if (data.kind === 'inline') return { head: toBinary(TensorProtoSchema, proto), raw: data, rawLength: want };
  proto.dataLocation = TensorProto_DataLocation.EXTERNAL;
  proto.externalData = [
    ['location', data.location],
    ['offset', String(data.offset)],
    ['length', String(data.length)],
  ].map(([key = '', value = '']) => create(StringStringEntryProtoSchema, { key, value }));
  return { head: toBinary(TensorProtoSchema, proto), raw: data, rawLength: 0 };
}

function* rawChunks(init: EncodedInitializer): Generator<Uint8Array> {
  if (init.raw.kind !== 'inline' || init.rawLength === 0) return;
  if (typeof init.raw.bytes !== 'function') return yield init.raw.bytes;
  let sum = 0;
  for (const chunk of init.raw.bytes()) {
    sum += chunk.length;
    yield chunk;
  }
  if (sum !== init.rawLength) {
    throw new ChairError('TENSOR_INVALID', 'a streamed weight has the wrong length', {
      expected: `${init.rawLength} bytes`,
      came: `${sum} bytes`,
    });
  }
}

/** The file's bytes, in order. Throws TENSOR_INVALID (a weight's bytes do not fit its dims) or MODEL_UNSUPPORTED (above protobuf's 2 GB). */
export function* graphChunks(spec: GraphSpec): Generator<Uint8Array> {
  const model = create(ModelProtoSchema, {
    irVersion: BigInt(spec.irVersion),
    producerName: PRODUCER,
    opsetImport: spec.opsets.map((o) => create(OperatorSetIdProtoSchema, { domain: o.domain, version: BigInt(o.version) })),
    functions: [...(spec.functions ?? [])],
  });
  const graph = create(GraphProtoSchema, {
    name: spec.name ?? 'graph',
    node: spec.nodes.map(nodeProto),
    input: spec.inputs.map(valueProto),
    output: spec.outputs.map(valueProto),
  });
  const modelHead = toBinary(ModelProtoSchema, model);
  const graphHead = toBinary(GraphProtoSchema, graph);
  const initializers = spec.initializers.map(encodeInitializer).map((init) => {
    const rawHead = init.rawLength > 0 ? fieldHead(TENSOR_RAW_DATA, init.rawLength) : new Uint8Array(0);
    const length = init.head.length + rawHead.length + init.rawLength;
    return { init, rawHead, tensorHead: fieldHead(GRAPH_INITIALIZER, length), length };
  });
  let graphLength = graphHead.length;
  for (const { tensorHead, length } of initializers) graphLength += tensorHead.length + length;
  if (graphLength + modelHead.length > PROTOBUF_LIMIT_BYTES - 16) {
    throw new ChairError('MODEL_UNSUPPORTED', 'the graph is too large for one ONNX file', {
      expected: `at most ${PROTOBUF_LIMIT_BYTES} bytes (protobuf's limit)`,
      came: `${graphLength} bytes`,
      todo: 'Put the weights into external data.',
    });
  }
  yield modelHead;
  yield fieldHead(MODEL_GRAPH, graphLength);
  yield graphHead;
  for (const { init, rawHead, tensorHead } of initializers) {
    yield tensorHead;
    yield init.head;
    yield rawHead;
    yield* rawChunks(init);
  }
}

/** The ONNX file in memory. Errors as `graphChunks`. */
export function encodeGraph(spec: GraphSpec): Uint8Array {
  return new Uint8Array(Buffer.concat([...graphChunks(spec)]));
}

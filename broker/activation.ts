/**
 * Lane messages: Activation, Submit and Result; and BlobChunk, which goes on a connection beside the lane. On the wire each is the three-byte prologue and one Avro record whose last field is `data: bytes`.
 * Encoding writes the header and the length and leaves the data where it is; decoding reads the header and leaves the data in the socket's own
 * segments, from where `scatter` puts it into its box of the engine's input.
 *
 * These schemas do not change within a major version (a test checks it): agents of different minor versions exchange them.
 */
import { PROLOGUE_BYTES, prologue, readPrologue } from './codec.js';
import {
  type Affine,
  affineOf,
  canEncode,
  checkInside,
  encodedItemBytes,
  fittingEncoding,
  gather,
  scatter,
  type Take,
} from './encoding.js';
import { ChairError, isChairError } from './errors.js';
import type { Segments } from './lanes/lane.js';
import type { ActivationHeader, BlobChunk, Encoding, ResultHeader, SubmitHeader } from './messages.js';
import { type AvroRecord, Walk } from './schema/bounds.js';
import { createReader, type MessageType, SchemaSet, write } from './schema/set.js';
import { CURRENT } from './schema/version.js';
import { headOf, SegmentReader, segmentBytes } from './segments.js';
import { allocTensor, type Box, boxDims, type DType, elementCount, itemBytes, type Tensor } from './tensor.js';

export { type Affine, affineOf, SegmentReader, scatter };

/** Most bytes of data in one message, unless the receiver sets another bound. */
export const MAX_DATA_BYTES = 256 * 1024 * 1024;

export interface DecodeOptions {
  readonly maxDataBytes?: number;
}

/** A decoded message: the header is values, the data is a view. */
export interface LaneRecord<Header> {
  readonly header: Header;
  readonly data: SegmentReader;
}

/** Through the broker it goes whole, as any control message: the same bytes. */
export type BlobChunkHeader = Omit<BlobChunk, 'data'>;

const LANE_RECORDS = ['Activation', 'Submit', 'Result', 'BlobChunk'] as const;

/** The records without their last field. */
function headerSchema(name: (typeof LANE_RECORDS)[number]): AvroRecord {
  const { schema } = CURRENT.message(name);
  return { ...schema, name: `${name}Header`, maxBytes: HEADER_BYTES_MAX, fields: schema.fields.slice(0, -1) };
}

/** Longest header: a route of 4,096 stages, names and one error message. */
const HEADER_BYTES_MAX = 64 * 1024;
/** What a header takes in practice; longer ones are read in a second try. */
const HEADER_BYTES_USUAL = 2 * 1024;

const HEADERS = new SchemaSet([...CURRENT.schemas, ...LANE_RECORDS.map(headerSchema)]);

function headerCodec(name: string): { type: MessageType; read: (bytes: Buffer) => unknown } {
  const type = HEADERS.message(name);
  return { type, read: createReader(type, type) };
}

const ACTIVATION = headerCodec('ActivationHeader');
const SUBMIT = headerCodec('SubmitHeader');
const RESULT = headerCodec('ResultHeader');
const BLOB_CHUNK = headerCodec('BlobChunkHeader');
/** As its schema bounds it. */
export const MAX_BLOB_CHUNK_BYTES = 4 * 2 ** 20;

// ---- encode --------------------------------------------------------------------------------------------------------------

/**
 * One box of a tensor. `holder` is the box that `tensorBytes` covers. Raw data of a box that is contiguous in its holder is not copied: the tensor must
 * not change until the message is sent. Throws TENSOR_INVALID when box, holder, dims and bytes contradict each other, CODEC_INVALID and CODEC_LIMIT.
 */
export function encodeActivation(header: ActivationHeader, tensorBytes: Uint8Array, holder: Box, box: Box, take?: Take): Segments {
  const itemSize = itemBytes(header.dtype);
  checkInside(holder, box, tensorBytes.length, itemSize);
  const dims = boxDims(box);
  if (dims.length !== header.dims.length || dims.some((size, axis) => size !== header.dims[axis])) {
    throw new ChairError('TENSOR_INVALID', "header's dims are not the box's", { expected: `[${dims}]`, came: `[${header.dims}]` });
  }
  checkEncoding(header, 'TENSOR_INVALID');
  return message(ACTIVATION.type, header, gather(tensorBytes, holder, box, itemSize, header.encoding, header, take));
}

/**
 * As encodeActivation, in the encoding `wanted`; where it cannot carry the values of this box, raw, and `fallback` says why ('' otherwise): correct
 * first. Throws as encodeActivation.
 */
export function encodeBox(
  header: Omit<ActivationHeader, 'encoding' | 'scale' | 'zero'>,
  wanted: Encoding,
  tensorBytes: Uint8Array,
  holder: Box,
  box: Box,
  take?: Take,
): { readonly message: Segments; readonly encoding: Encoding; readonly fallback: string } {
  const { why, ...fitting } = fittingEncoding(wanted, header.dtype, tensorBytes, holder, box);
  return {
    message: encodeActivation({ ...header, ...fitting }, tensorBytes, holder, box, take),
    encoding: fitting.encoding,
    fallback: why,
  };
}

/** One input tensor of a frame; the bytes are not copied. */
export function encodeSubmit(header: SubmitHeader, bytes: Uint8Array): Segments {
  checkLength(header, 'raw', bytes.length, 'TENSOR_INVALID');
  return message(SUBMIT.type, header, bytes);
}

/** One output tensor of a frame, or its error (`header.code` set, `bytes` empty); the bytes are not copied. */
export function encodeResult(header: ResultHeader, bytes: Uint8Array): Segments {
  checkResult(header, bytes.length, 'TENSOR_INVALID');
  return message(RESULT.type, header, bytes);
}

/** Bytes of a blob, or why there are none (`header.code`); they are not copied. */
export function encodeBlobChunk(header: BlobChunkHeader, bytes: Uint8Array): Segments {
  return message(BLOB_CHUNK.type, header, bytes);
}

const PROLOGUE = prologue();

function message(type: MessageType, header: unknown, data: Uint8Array): Segments {
  if (data.length > MAX_DATA_BYTES) throw tooLong(data.length, MAX_DATA_BYTES);
  const head = Buffer.concat([write(type, PROLOGUE, header), lengthVarint(data.length)]);
  return data.length === 0 ? [head] : [head, data];
}

/** Avro `long` of a length: zigzag, then seven bits a byte, lowest first. */
function lengthVarint(length: number): Uint8Array {
  const bytes: number[] = [];
  let rest = length * 2;
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) | 0x80);
    rest = Math.floor(rest / 0x80);
  }
  bytes.push(rest);
  return Uint8Array.from(bytes);
}

// ---- decode --------------------------------------------------------------------------------------------------------------

/** Throws CODEC_INVALID, CODEC_LIMIT or SCHEMA_MISMATCH; reads no more than the header. */
export function decodeActivation(segments: Segments, options: DecodeOptions = {}): LaneRecord<ActivationHeader> {
  const record = open<ActivationHeader>(ACTIVATION, segments, options);
  checkEncoding(record.header, 'CODEC_INVALID');
  checkLength(record.header, record.header.encoding, record.data.bytesLeft, 'CODEC_INVALID');
  return record;
}

/** As decodeActivation. */
export function decodeSubmit(segments: Segments, options: DecodeOptions = {}): LaneRecord<SubmitHeader> {
  const record = open<SubmitHeader>(SUBMIT, segments, options);
  checkLength(record.header, 'raw', record.data.bytesLeft, 'CODEC_INVALID');
  return record;
}

/** As decodeActivation; a result with an error code has no data. */
export function decodeResult(segments: Segments, options: DecodeOptions = {}): LaneRecord<ResultHeader> {
  const record = open<ResultHeader>(RESULT, segments, options);
  checkResult(record.header, record.data.bytesLeft, 'CODEC_INVALID');
  return record;
}

/** Throws CODEC_INVALID, CODEC_LIMIT or SCHEMA_MISMATCH; reads no more than the header. */
export function decodeBlobChunk(segments: Segments): LaneRecord<BlobChunkHeader> {
  return open<BlobChunkHeader>(BLOB_CHUNK, segments, { maxDataBytes: MAX_BLOB_CHUNK_BYTES });
}

/** The whole data as a tensor on an aligned buffer of its own: the one copy. For Submit and Result, and raw activations of whole tensors. */
export function readTensor(header: { readonly dtype: DType; readonly dims: readonly number[] }, data: SegmentReader): Tensor {
  const tensor = allocTensor(header.dtype, header.dims);
  if (data.bytesLeft !== tensor.bytes.length) checkLength(header, 'raw', data.bytesLeft, 'CODEC_INVALID');
  data.copyTo(tensor.bytes, 0, tensor.bytes.length);
  return tensor;
}

function open<Header>(codec: ReturnType<typeof headerCodec>, segments: Segments, options: DecodeOptions): LaneRecord<Header> {
  const total = segmentBytes(segments);
  let head = headOf(segments, HEADER_BYTES_USUAL);
  let dataStart: number;
  try {
    dataStart = readHead(codec.type, head, total, options);
  } catch (error) {
    // Perhaps only the head was too short: once more with all that a header may have.
    if (!isChairError(error, 'CODEC_INVALID') || head.length === total) throw error;
    head = headOf(segments, HEADER_BYTES_MAX);
    dataStart = readHead(codec.type, head, total, options);
  }
  const body = Buffer.from(head.buffer, head.byteOffset + PROLOGUE_BYTES, head.length - PROLOGUE_BYTES);
  return { header: codec.read(body) as Header, data: new SegmentReader(segments, dataStart) };
}

/** Walks prologue, header and data length; returns where the data starts. */
function readHead(type: MessageType, head: Uint8Array, total: number, options: DecodeOptions): number {
  readPrologue(head);
  const walk = new Walk(head);
  walk.pos = PROLOGUE_BYTES;
  type.check(walk);
  walk.at = `${type.schema.name} data length`;
  const length = walk.long();
  const limit = options.maxDataBytes ?? MAX_DATA_BYTES;
  if (length > limit) throw tooLong(length, limit);
  if (length !== total - walk.pos) walk.invalid(`${length} bytes of data`, `${total - walk.pos}`);
  return walk.pos;
}

// ---- checks that the schema cannot express -----------------------------------------------------------------------------------

type Fault = 'TENSOR_INVALID' | 'CODEC_INVALID';

function tooLong(length: number, limit: number): ChairError {
  return new ChairError('CODEC_LIMIT', 'data is too large for one message', { expected: `at most ${limit} bytes`, came: `${length}` });
}

/** Products of dims up to 2^52 are inexact when they are large, but then they are no length either. */
function checkLength(
  shape: { readonly dtype: DType; readonly dims: readonly number[] },
  encoding: Encoding,
  length: number,
  code: Fault,
): void {
  const want = elementCount(shape.dims) * encodedItemBytes(encoding, itemBytes(shape.dtype));
  if (want === length) return;
  throw new ChairError(code, 'dims and data contradict each other', {
    expected: `${want} bytes for ${shape.dtype}[${shape.dims.join(',')}] as ${encoding}`,
    came: `${length}`,
  });
}

function checkResult(header: ResultHeader, length: number, code: Fault): void {
  if (header.code === '') checkLength(header, 'raw', length, code);
  else if (length > 0) throw new ChairError(code, 'a result that reports an error has data', { expected: '0 bytes', came: `${length}` });
}

function checkEncoding(header: ActivationHeader, code: Fault): void {
  const { encoding, dtype, scale, zero } = header;
  if (!canEncode(encoding, dtype)) {
    throw new ChairError(code, `encoding ${encoding} is not for this dtype`, { expected: 'raw', came: `${encoding} of ${dtype}` });
  }
  if (encoding === 'uint8' && !(Number.isFinite(scale) && scale !== 0 && Number.isFinite(zero))) {
    throw new ChairError(code, 'uint8 encoding needs a finite scale and zero', { came: `scale ${scale}, zero ${zero}` });
  }
}

import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import {
  affineOf,
  decodeActivation,
  decodeBlobChunk,
  decodeResult,
  decodeSubmit,
  encodeActivation,
  encodeBlobChunk,
  encodeResult,
  encodeSubmit,
  MAX_BLOB_CHUNK_BYTES,
  readTensor,
  scatter,
} from './activation.js';
import { decode, encode, prologue } from './codec.js';
import { fromHalf, toHalf } from './encoding.js';
import { isChairError } from './errors.js';
import type { Segments } from './lanes/lane.js';
import type { ActivationHeader, Encoding, ResultHeader, SubmitHeader } from './messages.js';
import { write } from './schema/set.js';
import { CURRENT } from './schema/version.js';
import { joinSegments, SegmentReader } from './segments.js';
import { allocTensor, type Box, boxDims, copyBox, DTYPES, itemBytes, tensorBytes, wholeBox } from './tensor.js';

const HEADER: ActivationHeader = {
  deployment: 'ocr',
  term: 3,
  epoch: 7,
  frame: 123_456,
  attempt: 1,
  route: [0, 2, 1],
  wire: 5,
  lowWater: 123_400,
  remainingMs: 812.5,
  dtype: 'float32',
  dims: [],
  encoding: 'raw',
  scale: 1,
  zero: 0,
};
const SUBMIT: SubmitHeader = {
  client: 'c1',
  sequence: 4,
  deployment: 'ocr',
  deadlineMs: 0,
  input: 'x',
  inputCount: 1,
  dtype: 'uint8',
  dims: [2, 2, 3],
};
const RESULT: ResultHeader = {
  client: 'c1',
  sequence: 4,
  code: '',
  message: '',
  output: 'y',
  outputCount: 1,
  attempts: 1,
  latencyMs: 3.25,
  dtype: 'float32',
  dims: [3],
};

function floats(count: number, value: (i: number) => number): Uint8Array {
  return new Uint8Array(Float32Array.from({ length: count }, (_, i) => value(i)).buffer);
}

/** Cuts bytes into segments as a socket might. */
function split(bytes: Uint8Array, sizes: readonly number[]): Segments {
  const segments: Uint8Array[] = [];
  let at = 0;
  for (const size of sizes) {
    segments.push(bytes.subarray(at, at + size));
    at += size;
  }
  segments.push(bytes.subarray(at));
  return segments;
}

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (isChairError(error)) return error.code;
    throw error;
  }
  return 'none';
}

/** A holder, a box inside it, and a target that contains the box. */
const nestedBoxes = fc
  .array(fc.tuple(fc.nat(3), fc.nat(3), fc.integer({ min: 1, max: 4 }), fc.nat(3), fc.nat(2), fc.nat(2)), { maxLength: 5 })
  .map((axes) => {
    const box: Box = { start: axes.map(([a]) => a + 2), end: axes.map(([a, , size]) => a + 2 + size) };
    const holder: Box = {
      start: axes.map(([a, before]) => Math.max(0, a + 2 - before)),
      end: axes.map(([a, , size, after]) => a + 2 + size + after),
    };
    const target: Box = {
      start: axes.map(([a, , , , before]) => a + 2 - before),
      end: axes.map(([a, , size, , , after]) => a + 2 + size + after),
    };
    return { box, holder, target };
  });

describe('activation', () => {
  it('is the prologue and the Avro encoding of the whole record', () => {
    const bytes = floats(24, (i) => i / 3);
    const dims = [1, 2, 3, 4];
    const segments = encodeActivation({ ...HEADER, dims }, bytes, wholeBox(dims), wholeBox(dims));
    const whole = write(CURRENT.message('Activation'), prologue(), { ...HEADER, dims, data: Buffer.from(bytes) });
    expect(Buffer.from(joinSegments(segments)).equals(whole)).toBe(true);
  });

  it('gathers a box that is not contiguous into memory it is given, also when that lies in a larger buffer', () => {
    const holder = wholeBox([2, 6, 4]);
    const tensor = allocTensor('float32', [2, 6, 4]);
    tensor.bytes.forEach((_, i) => {
      tensor.bytes[i] = i;
    });
    for (const box of [
      { start: [0, 2, 0], end: [2, 5, 4] },
      { start: [0, 0, 1], end: [2, 6, 3] },
    ]) {
      const header = { ...HEADER, dims: boxDims(box) };
      const given: Uint8Array[] = [];
      const take = (sizeBytes: number): Uint8Array => {
        const bytes = new Uint8Array(new ArrayBuffer(4096), 0, sizeBytes).fill(0xee);
        given.push(bytes);
        return bytes;
      };
      const message = encodeActivation(header, tensor.bytes, holder, box, take);
      expect(given.map(({ buffer }) => buffer)).toEqual([message.at(-1)?.buffer]);
      expect(joinSegments(message)).toEqual(joinSegments(encodeActivation(header, tensor.bytes, holder, box)));
    }
    encodeActivation({ ...HEADER, dims: [1, 6, 4] }, tensor.bytes, holder, { start: [1, 0, 0], end: [2, 6, 4] }, () => {
      throw new Error('a contiguous box needs no memory');
    });
  });

  it('does not copy a box that is contiguous in its holder', () => {
    const bytes = floats(24, (i) => i);
    const box = { start: [0, 1, 0], end: [1, 3, 4] };
    const [, data] = encodeActivation({ ...HEADER, dims: [1, 2, 4] }, bytes, wholeBox([2, 3, 4]), box);
    expect(data?.buffer).toBe(bytes.buffer);
    expect(data?.byteOffset).toBe(16);
  });

  test('any box of any dtype arrives in its place however the socket cuts the bytes', () => {
    fc.assert(
      fc.property(
        nestedBoxes,
        fc.constantFrom(...DTYPES),
        fc.array(fc.nat(40), { maxLength: 8 }),
        ({ box, holder, target }, dtype, cuts) => {
          const item = itemBytes(dtype);
          const source = Uint8Array.from({ length: tensorBytes(dtype, boxDims(holder)) }, (_, i) => (i * 37 + 11) & 0xff);
          const sent = joinSegments(encodeActivation({ ...HEADER, dtype, dims: boxDims(box) }, source, holder, box));
          const { header, data } = decodeActivation(split(sent, cuts));
          expect({ ...header }).toEqual({ ...HEADER, dtype, dims: boxDims(box) });
          const got = new Uint8Array(tensorBytes(dtype, boxDims(target)));
          scatter(data, header, item, got, target, box);
          const want = new Uint8Array(got.length);
          copyBox(source, holder, want, target, box, item);
          expect(Buffer.from(got).equals(Buffer.from(want))).toBe(true);
          expect(data.bytesLeft).toBe(0);
        },
      ),
      { numRuns: 300 },
    );
  });

  test.each<[Encoding, number]>([
    ['float16', 2],
    ['uint8', 1],
  ])('%s halves or quarters the bytes and stays within its step', (encoding, itemSize) => {
    const dims = [3, 50, 41];
    const box = { start: [0, 3, 1], end: [3, 47, 40] };
    const bytes = floats(3 * 50 * 41, (i) => Math.sin(i) * 5 - 1);
    const affine = affineOf(bytes, wholeBox(dims), box);
    const sent = joinSegments(encodeActivation({ ...HEADER, dims: boxDims(box), encoding, ...affine }, bytes, wholeBox(dims), box));
    const { header, data } = decodeActivation(split(sent, [1, 500, 333]));
    expect(data.bytesLeft).toBe(3 * 44 * 39 * itemSize);
    const target = allocTensor('float32', dims);
    scatter(data, header, 4, target.bytes, wholeBox(dims), box);
    const want = allocTensor('float32', dims);
    copyBox(bytes, wholeBox(dims), want.bytes, wholeBox(dims), box, 4);
    const got = new Float32Array(target.bytes.buffer);
    const step = encoding === 'uint8' ? affine.scale * 0.51 : 6 / 2048;
    let worst = 0;
    new Float32Array(want.bytes.buffer).forEach((value, i) => {
      worst = Math.max(worst, Math.abs(value - (got[i] ?? Number.NaN)));
    });
    expect(worst).toBeLessThan(step);
    expect(worst).toBeGreaterThan(0);
  });

  test('uint8 meets zero exactly and refuses what is not finite', () => {
    const bytes = floats(5, (i) => [0, -3.7, 11.2, 0, 1][i] ?? 0);
    const affine = affineOf(bytes, wholeBox([5]), wholeBox([5]));
    const { header, data } = decodeActivation(
      encodeActivation({ ...HEADER, dims: [5], encoding: 'uint8', ...affine }, bytes, wholeBox([5]), wholeBox([5])),
    );
    const target = allocTensor('float32', [5]);
    scatter(data, header, 4, target.bytes, wholeBox([5]), wholeBox([5]));
    const got = new Float32Array(target.bytes.buffer);
    expect(Math.abs(got[0] ?? 1)).toBe(0);
    expect(Math.abs(got[3] ?? 1)).toBe(0);
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(
        codeOf(() =>
          affineOf(
            floats(3, () => bad),
            wholeBox([3]),
            wholeBox([3]),
          ),
        ),
      ).toBe('TENSOR_INVALID');
    }
  });

  test('every float16 survives the way to float32 and back', () => {
    for (let half = 0; half < 65536; half++) {
      const isNaN16 = (half & 0x7c00) === 0x7c00 && (half & 0x3ff) !== 0;
      if (!isNaN16) expect(toHalf(fromHalf(half))).toBe(half);
    }
    const round = (value: number) => toHalf(new Uint32Array(Float32Array.of(value).buffer)[0] ?? 0);
    // Ties to even, overflow to infinity, underflow to zero (IEEE 754-2019, 4.3.1).
    expect([1 + 1 / 2048, 1 + 3 / 2048, 65519, 65520, 2 ** -25, 2 ** -25 * 1.01].map(round)).toEqual([
      0x3c00, 0x3c02, 0x7bff, 0x7c00, 0, 1,
    ]);
  });

  test('contradictions are refused before anything is sent', () => {
    const bytes = floats(6, (i) => i);
    const whole = wholeBox([2, 3]);
    expect(codeOf(() => encodeActivation({ ...HEADER, dims: [3, 2] }, bytes, whole, whole))).toBe('TENSOR_INVALID');
    expect(codeOf(() => encodeActivation({ ...HEADER, dims: [2, 4] }, bytes, whole, wholeBox([2, 4])))).toBe('TENSOR_INVALID');
    expect(codeOf(() => encodeActivation({ ...HEADER, dims: [2, 3] }, bytes.subarray(4), whole, whole))).toBe('TENSOR_INVALID');
    expect(codeOf(() => encodeActivation({ ...HEADER, dtype: 'int32', encoding: 'float16', dims: [2, 3] }, bytes, whole, whole))).toBe(
      'TENSOR_INVALID',
    );
    expect(codeOf(() => encodeSubmit(SUBMIT, bytes))).toBe('TENSOR_INVALID');
    expect(codeOf(() => encodeResult({ ...RESULT, code: 'FRAME_FAILED' }, bytes))).toBe('TENSOR_INVALID');
  });
});

describe('submit and result', () => {
  it('carry a tensor each', () => {
    const pixels = Uint8Array.from({ length: 12 }, (_, i) => i * 20);
    const submit = decodeSubmit(split(joinSegments(encodeSubmit(SUBMIT, pixels)), [3, 4]));
    expect({ ...submit.header }).toEqual(SUBMIT);
    expect([...readTensor(submit.header, submit.data).bytes]).toEqual([...pixels]);
    const result = decodeResult(
      encodeResult(
        RESULT,
        floats(3, (i) => i),
      ),
    );
    expect({ ...result.header }).toEqual(RESULT);
    expect(readTensor(result.header, result.data).bytes.byteOffset).toBe(0);
  });

  it('carry an error without data', () => {
    const { header, data } = decodeResult(
      encodeResult({ ...RESULT, code: 'FRAME_DEADLINE', message: 'late', dims: [] }, new Uint8Array(0)),
    );
    expect(header.code).toBe('FRAME_DEADLINE');
    expect(data.bytesLeft).toBe(0);
  });
});

describe('a chunk of a blob', () => {
  const header = { id: 'pi-7', sha256: 'a'.repeat(64), offset: 3_000_000_000, totalBytes: 5_000_000_000, code: '' };
  const bytes = Uint8Array.from({ length: 5000 }, (_, i) => (i * 7) & 0xff);

  it('has the same bytes beside the lane, where it is not copied, as through the broker', () => {
    const beside = encodeBlobChunk(header, bytes);
    expect(beside[1]).toBe(bytes);
    const through = encode('BlobChunk', { ...header, data: bytes });
    expect(through.equals(joinSegments(beside))).toBe(true);
    expect(decode('BlobChunk', joinSegments(beside))).toMatchObject(header);
    for (const message of [beside, [through], split(through, [2, 90, 1000, 1])]) {
      const chunk = decodeBlobChunk(message);
      expect({ ...chunk.header }).toEqual(header);
      expect(Buffer.concat(chunk.data.rest).equals(bytes)).toBe(true);
      // Reading goes on behind what was read.
      chunk.data.copyTo(new Uint8Array(1234), 0, 1234);
      expect(Buffer.concat(chunk.data.rest).equals(bytes.subarray(1234))).toBe(true);
      chunk.data.discard();
      expect(chunk.data.rest).toEqual([]);
    }
  });

  it('may be empty, and is refused when it is longer than its schema has it', () => {
    const refused = decodeBlobChunk(encodeBlobChunk({ ...header, code: 'BLOB_NOT_FOUND' }, new Uint8Array(0)));
    expect([refused.header.code, refused.data.bytesLeft]).toEqual(['BLOB_NOT_FOUND', 0]);
    expect(codeOf(() => decodeBlobChunk(encodeBlobChunk(header, new Uint8Array(MAX_BLOB_CHUNK_BYTES))))).toBe('none');
    expect(codeOf(() => decodeBlobChunk(encodeBlobChunk(header, new Uint8Array(MAX_BLOB_CHUNK_BYTES + 1))))).toBe('CODEC_LIMIT');
  });
});

describe('hostile bytes', () => {
  const dims = [2, 3, 4];
  const good = joinSegments(
    encodeActivation(
      { ...HEADER, dims },
      floats(24, (i) => i),
      wholeBox(dims),
      wholeBox(dims),
    ),
  );
  const decoders = [decodeActivation, decodeSubmit, decodeResult, decodeBlobChunk];
  const known = ['none', 'CODEC_INVALID', 'CODEC_LIMIT', 'SCHEMA_MISMATCH'];

  test('mutated messages give a value or a coded error', () => {
    const seen = new Set<string>();
    const change = fc.tuple(fc.nat(good.length - 1), fc.nat(255));
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), fc.nat(good.length), fc.boolean(), (changes, length, cut) => {
        const bytes = Uint8Array.from(cut ? good.subarray(0, length) : good);
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
        for (const decode of decoders) {
          const code = codeOf(() => decode(split(bytes, [5])));
          seen.add(code);
          expect(known).toContain(code);
        }
      }),
      { numRuns: 2000 },
    );
    expect([...seen].sort()).toEqual(expect.arrayContaining(['CODEC_INVALID', 'SCHEMA_MISMATCH', 'none']));
  });

  test('random bytes behind a right prologue give a coded error', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (noise) => {
        for (const decode of decoders) expect(known).toContain(codeOf(() => decode([prologue(), noise])));
      }),
      { numRuns: 2000 },
    );
  });

  test('a length that is not there, a rank of nine and too many bytes are refused', () => {
    const codes = (header: ActivationHeader, data: Buffer) => {
      const bytes = write({ ...CURRENT.message('Activation'), check: () => undefined }, prologue(), { ...header, data });
      return codeOf(() => decodeActivation([bytes], { maxDataBytes: 1000 }));
    };
    expect(codes({ ...HEADER, dims: [2 ** 40, 2 ** 40] }, Buffer.alloc(4))).toBe('CODEC_INVALID');
    expect(codes({ ...HEADER, dims: new Array(9).fill(1) }, Buffer.alloc(4))).toBe('CODEC_LIMIT');
    expect(codes({ ...HEADER, dims: [-1, -1] }, Buffer.alloc(4))).toBe('CODEC_INVALID');
    expect(codes({ ...HEADER, dims: [300] }, Buffer.alloc(1200))).toBe('CODEC_LIMIT');
    expect(codes({ ...HEADER, dims: [1], encoding: 'uint8', scale: Number.NaN }, Buffer.alloc(1))).toBe('CODEC_INVALID');
    expect(codes({ ...HEADER, dims: [1] }, Buffer.alloc(4))).toBe('none');
    expect(codeOf(() => decodeActivation([good.subarray(0, 40)]))).toBe('CODEC_INVALID');
    expect(codeOf(() => decodeActivation([]))).toBe('CODEC_INVALID');
  });

  test('data that is longer or shorter than its box is not written', () => {
    const target = allocTensor('float32', [4]);
    for (const size of [12, 20]) {
      const data = new SegmentReader([new Uint8Array(size)]);
      expect(codeOf(() => scatter(data, { encoding: 'raw', scale: 1, zero: 0 }, 4, target.bytes, wholeBox([4]), wholeBox([4])))).toBe(
        'CODEC_INVALID',
      );
    }
  });
});

/** What putting an activation into a message costs, and taking it out, against copying its bytes once. */
import { decodeActivation, encodeActivation, encodeBox, scatter } from '../../broker/activation.js';
import { BufferPool } from '../../broker/buffers.js';
import type { ActivationHeader } from '../../broker/messages.js';
import { allocTensor, type Box, boxDims, elementCount } from '../../broker/tensor.js';
import type { Bench, BenchContext } from './bench.js';
import { atMost, type Figure, figure, interleaved } from './figures.js';

/** 1.2 MB of float32: [1, 96, 56, 56]. */
const WHOLE: Box = { start: [0, 0, 0, 0], end: [1, 96, 56, 56] };
const WHOLE_ITEMS = elementCount(boxDims(WHOLE));
/** Its lower half: one run per channel. */
const BAND: Box = { start: [0, 0, 28, 0], end: [1, 96, 56, 56] };
/** A halo: two rows of each channel. */
const HALO: Box = { start: [0, 0, 26, 0], end: [1, 96, 28, 56] };
/** What one socket read gives. */
const SEGMENT_BYTES = 65_536;

function headerOf(box: Box): ActivationHeader {
  const frame = { deployment: 'net', term: 1, epoch: 3, frame: 1234, attempt: 1, route: [0, 0, 1, 0], wire: 17, lowWater: 1200 };
  return { ...frame, remainingMs: 812.5, dtype: 'float32', dims: boxDims(box), encoding: 'raw', scale: 1, zero: 0 };
}

/** Microseconds of one call, over enough calls for the clock. */
function microseconds(work: () => void, calls: number): number {
  const from = performance.now();
  for (let i = 0; i < calls; i++) work();
  return ((performance.now() - from) * 1000) / calls;
}

/** Cut as a socket would: data is viewed, so this costs nothing that is measured. */
function asReceived(message: Uint8Array): Uint8Array[] {
  return Array.from({ length: Math.ceil(message.length / SEGMENT_BYTES) }, (_, i) =>
    message.subarray(i * SEGMENT_BYTES, (i + 1) * SEGMENT_BYTES),
  );
}

async function pairsOf(pairs: number, a: () => void, b: () => void, calls: number): Promise<{ a: number; b: number }[]> {
  microseconds(a, calls);
  microseconds(b, calls);
  return interleaved(
    pairs,
    async () => microseconds(a, calls),
    async () => microseconds(b, calls),
  );
}

async function measure(quick: boolean): Promise<Figure[]> {
  const [pairs, calls] = quick ? [7, 50] : [51, 200];
  const { bytes } = allocTensor('float32', boxDims(WHOLE));
  for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 31) & 0xff;
  const target = new Uint8Array(bytes.length);
  const copy = (): void => target.set(bytes);
  const figures: Figure[] = [];
  for (const [name, box] of [
    ['1.2 MB, whole', WHOLE],
    ['0.6 MB, lower half of each channel', BAND],
    ['43 KB, two rows of each channel', HALO],
  ] as const) {
    const header = headerOf(box);
    const part = bytes.subarray(
      0,
      boxDims(box).reduce((a, b) => a * b, 4),
    );
    // As agents do it: the memory of a gathered box is used again once it is sent.
    const pool = new BufferPool(2 ** 24);
    const encode = (): void => {
      const taken: Uint8Array[] = [];
      encodeActivation(header, bytes, WHOLE, box, (sizeBytes) => {
        const one = pool.take(sizeBytes);
        taken.push(one);
        return one;
      });
      for (const one of taken) pool.give(one);
    };
    const samples = await pairsOf(pairs, encode, () => void Buffer.allocUnsafeSlow(part.length).set(part), calls);
    const bound = box === HALO ? undefined : atMost(1.2);
    figures.push(
      figure(
        `encode ${name}: over one copy into a new buffer`,
        'x',
        samples.map(({ a, b }) => a / b),
        bound,
      ),
    );
    figures.push(
      figure(
        `encode ${name}`,
        'µs',
        samples.map(({ a }) => a),
      ),
    );
  }
  const message = Buffer.concat(encodeActivation(headerOf(WHOLE), bytes, WHOLE, WHOLE));
  const received = asReceived(message);
  const { header, data } = decodeActivation(received);
  const copied = data.segments.filter((s) => s.buffer !== message.buffer).reduce((sum, s) => sum + s.length, 0);
  figures.push(figure('decode 1.2 MB: bytes of data copied', 'bytes', [copied], atMost(0)));
  const decode = await pairsOf(pairs, () => void decodeActivation(received), copy, calls);
  figures.push(
    figure(
      'decode 1.2 MB',
      'µs',
      decode.map(({ a }) => a),
    ),
  );
  const fill = await pairsOf(pairs, () => scatter(decodeActivation(received).data, header, 4, target, WHOLE, WHOLE), copy, calls);
  figures.push(
    figure(
      "decode 1.2 MB into the engine's input: over one copy into a warm buffer",
      'x',
      fill.map(({ a, b }) => a / b),
    ),
  );
  figures.push(
    figure(
      'one copy of 1.2 MB into a warm buffer',
      'µs',
      fill.map(({ b }) => b),
    ),
  );
  figures.push(...(await shortened(pairs, calls, copy)));
  return figures;
}

/** The two encodings of wire precision, of values as they come out of layers: about half of them zeros. */
async function shortened(pairs: number, calls: number, copy: () => void): Promise<Figure[]> {
  const floats = Float32Array.from({ length: WHOLE_ITEMS }, (_, i) => Math.max(0, 3 * Math.sin(i * 1.7) + Math.cos(i * 0.37)));
  const bytes = new Uint8Array(floats.buffer);
  const target = new Uint8Array(bytes.length);
  const { encoding: _, scale: __, zero: ___, ...header } = headerOf(WHOLE);
  const figures: Figure[] = [];
  for (const encoding of ['float16', 'uint8'] as const) {
    const send = () => encodeBox(header, encoding, bytes, WHOLE, WHOLE);
    const received = asReceived(Buffer.concat(send().message));
    const place = (): void => {
      const record = decodeActivation(received);
      scatter(record.data, record.header, 4, target, WHOLE, WHOLE);
    };
    const few = Math.ceil(calls / 4);
    const sent = await pairsOf(pairs, () => void send(), copy, few);
    const placed = await pairsOf(pairs, place, copy, few);
    const name = `1.2 MB as ${encoding}`;
    figures.push(
      figure(
        `encode ${name}: over one copy of its raw bytes into a warm buffer`,
        'x',
        sent.map(({ a, b }) => a / b),
      ),
      figure(
        `encode ${name}`,
        'µs',
        sent.map(({ a }) => a),
      ),
      figure(
        `decode ${name} into the engine's input: over one copy of its raw bytes into a warm buffer`,
        'x',
        placed.map(({ a, b }) => a / b),
      ),
      figure(
        `decode ${name} into the engine's input`,
        'µs',
        placed.map(({ a }) => a),
      ),
    );
  }
  return figures;
}

async function run({ quick, cases }: BenchContext): Promise<object> {
  await cases([{ name: 'codec', run: () => measure(quick) }]);
  return { processes: 1, dtype: 'float32', segments: `${SEGMENT_BYTES} bytes` };
}

export const codec: Bench = {
  name: 'codec',
  summary: 'encode and decode of activations against one copy of their bytes',
  seconds: 15,
  run,
};

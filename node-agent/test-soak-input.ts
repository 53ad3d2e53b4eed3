/** For the soak of the data path: memory that tells who uses it wrongly, and what neighbours send. */
import { BufferPool, type Buffers } from '../broker/buffers.js';
import type { Prepare } from '../broker/messages.js';
import type { Encoding, PlanStage, Wire } from '../broker/plan.js';
import { type Box, type DType, itemBytes } from '../broker/tensor.js';

export const AGENT = 'r';
export const NEXT = 'z';
export const SENDERS = 8;
export const MIB = 2 ** 20;
export const IDLE_BYTES = 24 * MIB;
const POISONED = new Uint8Array(IDLE_BYTES).fill(0xdd);

// ---- memory that tells ------------------------------------------------------------------------------------------------------

/** A pool that overwrites what is given back, and sees when it is given twice, or written to afterwards. */
export class TellingPool implements Buffers {
  readonly wrong: string[] = [];
  readonly #pool: BufferPool;
  readonly #idle = new WeakSet<ArrayBuffer>();

  constructor(maxIdleBytes: number) {
    this.#pool = new BufferPool(maxIdleBytes);
  }

  get made(): number {
    return this.#pool.made;
  }

  take(sizeBytes: number): Uint8Array {
    const bytes = this.#pool.take(sizeBytes);
    const buffer = bytes.buffer as ArrayBuffer;
    const isWritten = this.#idle.delete(buffer) && !same(new Uint8Array(buffer), POISONED.subarray(0, buffer.byteLength));
    if (isWritten) this.wrong.push('written to after it was given back');
    return bytes;
  }

  give(bytes: Uint8Array): void {
    const buffer = bytes.buffer as ArrayBuffer;
    if (this.#idle.has(buffer)) {
      this.wrong.push('given back twice');
      return;
    }
    if (buffer.byteLength >= 4096 && buffer.byteLength <= POISONED.length) {
      new Uint8Array(buffer).set(POISONED.subarray(0, buffer.byteLength));
      this.#idle.add(buffer);
    }
    this.#pool.give(bytes);
  }
}

// ---- what is sent -----------------------------------------------------------------------------------------------------------

export interface Kind {
  readonly name: string;
  readonly dtype: DType;
  readonly rows: number;
  readonly width: number;
  /** Of its input, each from a neighbour of its own. */
  readonly parts: number;
  readonly encoding: Encoding;
  readonly coded?: boolean;
}

export const KINDS: readonly Kind[] = [
  { name: 'whole', dtype: 'float32', rows: 150, width: 1024, parts: 1, encoding: 'raw' },
  { name: 'small', dtype: 'float32', rows: 1, width: 16, parts: 1, encoding: 'raw' },
  { name: 'some', dtype: 'float32', rows: 1, width: 4096, parts: 1, encoding: 'raw' },
  { name: 'odd', dtype: 'uint8', rows: 1, width: 100_003, parts: 1, encoding: 'raw' },
  { name: 'halves', dtype: 'float16', rows: 1, width: 70_001, parts: 1, encoding: 'raw' },
  { name: 'wide', dtype: 'int64', rows: 3, width: 5001, parts: 1, encoding: 'raw' },
  { name: 'none', dtype: 'float32', rows: 0, width: 8, parts: 1, encoding: 'raw' },
  { name: 'large', dtype: 'float32', rows: 700, width: 1000, parts: 1, encoding: 'raw' },
  { name: 'cut', dtype: 'float32', rows: 96, width: 1000, parts: 3, encoding: 'raw' },
  { name: 'coded', dtype: 'float32', rows: 64, width: 900, parts: 2, encoding: 'raw', coded: true },
  { name: 'doubled', dtype: 'float32', rows: 40, width: 900, parts: 1, encoding: 'raw', coded: true },
  { name: 'float16', dtype: 'float32', rows: 64, width: 1000, parts: 2, encoding: 'float16' },
  { name: 'uint8', dtype: 'float32', rows: 64, width: 3000, parts: 2, encoding: 'uint8' },
];

function rowsBox(from: number, to: number, width: number): Box {
  return { start: [from, 0], end: [to, width] };
}

export function planOf(kind: Kind, first: number, deployment: string, epoch: number): Prepare {
  const { name, rows, width, dtype, parts, encoding, coded = false } = kind;
  const whole = rowsBox(0, rows, width);
  const boxes = Array.from({ length: parts }, (_, p) =>
    rowsBox(Math.floor((rows * p) / parts), Math.floor((rows * (p + 1)) / parts), width),
  );
  if (coded) boxes.push(rowsBox(0, Math.ceil(rows / parts), width));
  const stage = (agents: readonly string[], outputs: readonly Box[], redundancy = 0): PlanStage => ({
    ...{ cut: 'rows', agents: [agents], redundancy },
    parts: outputs.map((box) => ({
      slice: name,
      inputs: [{ name: 'x', tensor: 'x', dtype, box: whole }],
      outputs: [{ name: 'y', tensor: 'y', dtype, box }],
    })),
  });
  const wire = (fromStage: number, fromPart: number, box: Box, along: Encoding): Wire => ({
    ...{ fromStage, fromPart, output: 0, toStage: fromStage + 1, toPart: 0, input: 0, box, encoding: along },
  });
  const info = { name: 'x', dtype, dims: [rows, width] };
  return {
    ...{ deployment, epoch, inputs: [info], outputs: [info], slices: [], peers: [] },
    stages: [
      stage(
        boxes.map((_, p) => `s${(first + p) % SENDERS}`),
        boxes,
        coded ? 1 : 0,
      ),
      stage([AGENT], [whole]),
      stage([NEXT], [whole]),
    ],
    wires: [...boxes.map((box, p) => wire(0, p, box, encoding)), wire(1, 0, whole, 'raw')],
  };
}

/** What the input of an attempt holds: other bytes at each place, in each frame and attempt; of a kind that is encoded or summed, numbers that survive it exactly. */
export function contents(kind: Kind, frame: number, attempt: number): Uint8Array {
  const count = kind.rows * kind.width;
  const seed = Math.imul(frame * 31 + attempt * 7 + kind.width, 0x9e3779b1) >>> 0;
  if (kind.encoding === 'raw' && kind.coded !== true) {
    const sizeBytes = count * itemBytes(kind.dtype);
    const words = new Uint32Array(Math.ceil(sizeBytes / 4));
    for (let i = 0; i < words.length; i++) words[i] = seed + Math.imul(i, 0x01000193);
    return new Uint8Array(words.buffer, 0, sizeBytes);
  }
  const values = new Float32Array(count);
  for (let i = 0; i < count; i++) values[i] = ((seed + Math.imul(i, 0x01000193)) >>> 13) & 0xff;
  // Both ends of the range in each row, so that uint8 meets all of it.
  for (let row = 0; row < kind.rows; row++) values.set([0, 255], row * kind.width);
  return new Uint8Array(values.buffer);
}

/** What one neighbour sends of it. */
export function boxOf(whole: Uint8Array, kind: Kind, box: Box, isParity: boolean): Uint8Array {
  const rowBytes = kind.width * itemBytes(kind.dtype);
  const [from = 0, to = 0] = [box.start[0], box.end[0]];
  // The parity of one part alone is its double.
  if (!isParity || kind.parts === 1) return whole.subarray(from * rowBytes, to * rowBytes);
  const values = new Float32Array(whole.buffer);
  const half = (to - from) * kind.width;
  return new Uint8Array(Float32Array.from({ length: half }, (_, i) => (values[i] ?? 0) + (values[half + i] ?? 0)).buffer);
}

export function same(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

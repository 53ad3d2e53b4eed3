/** Bytes in consecutive pieces as a socket delivered them, read without joining. */
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import type { Buffers } from './buffers.js';
import { ChairError } from './errors.js';
import type { Segments } from './lanes/lane.js';
import { copyRows } from './tensor.js';

export function segmentBytes(segments: Segments): number {
  let total = 0;
  for (const segment of segments) total += segment.length;
  return total;
}

/** The first `length` bytes (fewer when there are not so many) in one piece: a view when they lie in one segment, else a copy. */
export function headOf(segments: Segments, length: number): Uint8Array {
  const first = segments[0];
  if (first !== undefined && (first.length >= length || segments.length === 1)) return first.subarray(0, length);
  const size = Math.min(length, segmentBytes(segments));
  const head = new Uint8Array(size);
  new SegmentReader(segments).copyTo(head, 0, size);
  return head;
}

/** All bytes in one piece: the segment itself when there is one. */
export function joinSegments(segments: Segments): Uint8Array {
  return headOf(segments, Number.MAX_SAFE_INTEGER);
}

/**
 * Memory that a socket was read into and that messages look at. When nothing more is read into it and each of those messages was read to its end, it goes back to its
 * pool, or to the system where it has none. A message that is never discarded keeps it: then the garbage collector sees to it, which costs time and is never wrong.
 */
export class Memory {
  /** Of `bytes`, also when who took them over has handed them on. */
  readonly sizeBytes: number;
  #looks = 0;
  #isOpen = true;

  /**
   * `leadBytes`: so many in front are free, for what its message began with elsewhere (see `SegmentReader.adopt`); of memory that is read into for one message alone. 0 = it is not, and
   * cannot be taken over: more is read into it.
   */
  constructor(
    readonly bytes: Uint8Array,
    readonly pool?: Pick<Buffers, 'give'>,
    readonly leadBytes = 0,
  ) {
    this.sizeBytes = bytes.length;
  }

  /** A message looks at it. */
  look(): void {
    this.#looks++;
  }

  /** One of them does not any more. True when that was the last reason to keep it: it is to be given back. */
  leave(): boolean {
    return --this.#looks === 0 && !this.#isOpen;
  }

  /** Nothing more is read into it. As `leave`. */
  close(): boolean {
    const wasOpen = this.#isOpen;
    this.#isOpen = false;
    return wasOpen && this.#looks === 0;
  }

  /** The one message that looks at it takes it over: it is not given back from here. False when others look at it, too, or may yet, or it is nobody's to give. */
  adopt(): boolean {
    if (this.#looks !== 1 || this.pool === undefined || this.leadBytes === 0) return false;
    this.#isOpen = false;
    this.#looks = Number.POSITIVE_INFINITY;
    return true;
  }

  /** No message looks at it: what it holds may be written over. */
  get isUnused(): boolean {
    return this.#looks === 0;
  }
}

/** What a message looks at, by its payload. */
const looks = new WeakMap<Segments, readonly Memory[]>();
/** Small ones cost less where they are. */
const SMALLEST_DROP_BYTES = 4096;
/** A message to a closed port takes its transferred buffers along and is dropped. */
let nowhere: MessagePort | undefined;

/** Says what the message with this payload looks at. For whoever reads the socket. */
export function holdFor(payload: Segments, memories: readonly Memory[]): void {
  if (memories.length > 0) looks.set(payload, memories);
}

/** The memory of a chunk that Node made for it alone; undefined where that is not worth giving back. */
export function memoryOf(chunk: Uint8Array): Memory | undefined {
  const { buffer, byteOffset, length } = chunk;
  return byteOffset === 0 && length === buffer.byteLength && length >= SMALLEST_DROP_BYTES ? new Memory(chunk) : undefined;
}

/** The message with this payload was read, and nobody will look at it again: what it was the last to look at goes back at once. See `SegmentReader.discard`. */
export function discard(payload: Segments): void {
  const memories = looks.get(payload);
  if (memories === undefined) return;
  looks.delete(payload);
  giveBack(memories.filter((memory) => memory.leave()));
}

/** To be called once for each, when it said that it is to be given back. */
export function giveBack(memories: readonly Memory[]): void {
  const dropped: ArrayBuffer[] = [];
  for (const { bytes, pool } of memories) {
    if (pool !== undefined) pool.give(bytes);
    else if (bytes.buffer instanceof ArrayBuffer) dropped.push(bytes.buffer);
  }
  if (dropped.length === 0) return;
  nowhere ??= closedPort();
  nowhere.postMessage(null, dropped);
}

/** A reader's position in segments. Copies into the caller's memory and never makes buffers of its own. */
export class SegmentReader {
  #index = 0;
  #offset = 0;
  #left: number;

  /** Starts `skip` bytes in. */
  constructor(
    readonly segments: Segments,
    skip = 0,
  ) {
    this.#left = segmentBytes(segments) - skip;
    this.#offset = skip;
    this.#settle();
  }

  /** Bytes not read yet. */
  get bytesLeft(): number {
    return this.#left;
  }

  /** What was not read yet, as views. */
  get rest(): Uint8Array[] {
    if (this.#left === 0) return [];
    const [first, ...others] = this.segments.slice(this.#index);
    return first === undefined ? [] : [first.subarray(this.#offset), ...others];
  }

  /** Copies the next `count` rows to `target`, the first to `at`, `stride` bytes apart. Throws CODEC_INVALID when there are not so many. */
  copyRowsTo(target: Uint8Array, at: number, stride: number, count: number, rowBytes: number): void {
    this.#checkLeft(count * rowBytes);
    for (let row = 0; row < count; ) {
      const segment = this.segments[this.#index];
      const here = segment === undefined ? 0 : Math.min(count - row, Math.floor((segment.length - this.#offset) / rowBytes));
      const to = at + row * stride;
      if (segment === undefined || here === 0) {
        // Its end lies in another segment.
        this.copyTo(target, to, rowBytes);
        row++;
        continue;
      }
      copyRows(segment, this.#offset, rowBytes, target, to, stride, here, rowBytes);
      row += here;
      this.#left -= here * rowBytes;
      this.#offset += here * rowBytes;
      this.#settle();
    }
  }

  #checkLeft(length: number): void {
    if (length <= this.#left) return;
    throw new ChairError('CODEC_INVALID', 'message data ends early', { expected: `${length} bytes`, came: `${this.#left}` });
  }

  /** Copies the next `length` bytes to `target` at `at`. Throws CODEC_INVALID when there are not so many. */
  copyTo(target: Uint8Array, at: number, length: number): void {
    this.#checkLeft(length);
    this.#left -= length;
    let done = 0;
    while (done < length) {
      const segment = this.segments[this.#index];
      if (segment === undefined) return;
      const take = Math.min(length - done, segment.length - this.#offset);
      target.set(segment.subarray(this.#offset, this.#offset + take), at + done);
      done += take;
      this.#offset += take;
      this.#settle();
    }
  }

  /**
   * The message was read and nobody will look at it again: memory that it was the last to look at goes back at once. Left to the garbage collector, the
   * chunks of a stream of frames make V8 collect everything every 30 MB or so, which costs more time than receiving them.
   */
  discard(): void {
    this.#left = 0;
    discard(this.segments);
  }

  /**
   * What is left, as one piece in memory of its own that is the caller's from now on, where it was read that way: at most the beginning is copied, to its place in front of the
   * rest. It ends at a multiple of eight bytes, so that whole elements of any size are aligned. Undefined = it is to be copied; nothing was changed.
   */
  adopt(): Uint8Array | undefined {
    const [first, second] = this.segments;
    const memories = looks.get(this.segments) ?? [];
    const memory = memories.find(({ bytes }) => bytes.buffer === second?.buffer);
    if (first === undefined || second === undefined || memory === undefined || this.segments.length > 2) return undefined;
    const { bytes, leadBytes } = memory;
    const early = this.#index === 0 ? first.subarray(this.#offset) : first.subarray(first.length);
    if (early.length > leadBytes || second.byteOffset !== bytes.byteOffset + leadBytes || !memory.adopt()) return undefined;
    const from = this.#index === 0 ? leadBytes - early.length : leadBytes + this.#offset;
    bytes.set(early, from);
    const whole = bytes.subarray(from, from + this.#left);
    looks.delete(this.segments);
    giveBack(memories.filter((other) => other !== memory && other.leave()));
    this.#left = 0;
    return whole;
  }

  /** Moves on to the segment that holds the next byte. */
  #settle(): void {
    for (;;) {
      const length = this.segments[this.#index]?.length;
      if (length === undefined || this.#offset < length) return;
      this.#offset -= length;
      this.#index++;
    }
  }
}

function closedPort(): MessagePort {
  const { port1 } = new MessageChannel();
  port1.close();
  return port1;
}

/** Bytes in consecutive pieces as a socket delivered them, read without joining. */
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { ChairError } from './errors.js';
import type { Segments } from './lanes/lane.js';

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

/** Memory of a socket's chunk that one message alone looks at: its reader may drop it. */
const lone = new WeakSet<ArrayBufferLike>();
/** Small ones cost less where they are. */
const SMALLEST_DROP_BYTES = 4096;
/** A message to a closed port takes its transferred buffers along and is dropped. */
let nowhere: MessagePort | undefined;

/** Says that nothing but the one message whose payload lies in `chunk` looks at this memory. For whoever reads the socket. */
export function markLone({ buffer, byteOffset, length }: Uint8Array): void {
  if (byteOffset === 0 && length === buffer.byteLength && length >= SMALLEST_DROP_BYTES) lone.add(buffer);
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

  /** Copies the next `length` bytes to `target` at `at`. Throws CODEC_INVALID when there are not so many. */
  copyTo(target: Uint8Array, at: number, length: number): void {
    if (length > this.#left) {
      throw new ChairError('CODEC_INVALID', 'message data ends early', { expected: `${length} bytes`, came: `${this.#left}` });
    }
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
   * The message was read and nobody will look at it again: memory that it alone used goes back to the system at once. Left to the garbage collector, the
   * chunks of a stream of frames make V8 collect everything every 30 MB or so, which costs more time than receiving them.
   */
  discard(): void {
    this.#left = 0;
    const dropped: ArrayBuffer[] = [];
    for (const { buffer } of this.segments) if (buffer instanceof ArrayBuffer && lone.delete(buffer)) dropped.push(buffer);
    if (dropped.length === 0) return;
    nowhere ??= closedPort();
    nowhere.postMessage(null, dropped);
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

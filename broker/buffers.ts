/**
 * Buffers that are used again and again, so that a frame makes no garbage: a tensor's bytes live outside of V8's heap, and V8 answers tens of megabytes of
 * them per frame with a full collection per frame, which on a small device costs as much time as a third of the inference.
 *
 * Who may give a buffer back: its one owner, once nothing reads it any more (no socket either). An owner that is not sure keeps its hands off: the
 * garbage collector frees the buffer later, which costs time and is never wrong. Giving the same buffer twice would hand it to two owners.
 */

export interface Buffers {
  /** Bytes of exactly this length on an ArrayBuffer that nothing else uses. Their content is arbitrary. */
  take(sizeBytes: number): Uint8Array;
  /** Takes over the buffer under `bytes`. It must have come from `take`, or be a whole ArrayBuffer of its own. */
  give(bytes: Uint8Array): void;
}

/** A buffer serves requests down to this part of its size: few buffers serve many shapes, and little of them lies idle. */
const SMALLEST_PART = 0.5;
/** Below this V8 manages buffers well by itself, and bookkeeping costs more than it saves. */
const SMALL_BYTES = 4096;

/** More would only be searched. */
const MAX_IDLE = 256;

export class BufferPool implements Buffers {
  /** Oldest first. */
  private idle: ArrayBuffer[] = [];
  idleBytes = 0;
  /** Buffers made since the start: stands still while frames of known plans run. */
  made = 0;

  /** Keeps at most `maxIdleBytes`; what was not used for longest is left to the garbage collector. */
  constructor(private readonly maxIdleBytes: number) {}

  take(sizeBytes: number): Uint8Array {
    let best = -1;
    let bestBytes = sizeBytes < SMALL_BYTES ? 0 : sizeBytes / SMALLEST_PART + 1;
    for (let i = this.idle.length - 1; i >= 0; i--) {
      const bytes = this.idle[i]?.byteLength ?? 0;
      if (bytes >= sizeBytes && bytes < bestBytes) [best, bestBytes] = [i, bytes];
    }
    const [found] = best < 0 ? [] : this.idle.splice(best, 1);
    if (found === undefined) {
      this.made++;
      // Not zeroed, and never of Node's shared slab.
      const buffer = Buffer.allocUnsafeSlow(sizeBytes);
      return new Uint8Array(buffer.buffer, buffer.byteOffset, sizeBytes);
    }
    this.idleBytes -= found.byteLength;
    return new Uint8Array(found, 0, sizeBytes);
  }

  give({ buffer }: Uint8Array): void {
    if (!(buffer instanceof ArrayBuffer) || buffer.byteLength < SMALL_BYTES || buffer.byteLength > this.maxIdleBytes) return;
    this.idle.push(buffer);
    this.idleBytes += buffer.byteLength;
    while (this.idleBytes > this.maxIdleBytes || this.idle.length > MAX_IDLE) this.idleBytes -= this.idle.shift()?.byteLength ?? 0;
  }

  /** Leaves everything to the garbage collector. */
  clear(): void {
    this.idle = [];
    this.idleBytes = 0;
  }
}

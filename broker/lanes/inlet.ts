/**
 * Reads a connection into memory that is used again. Node makes a buffer of 64 KiB for each read, which a stream of frames turns into garbage outside of V8's heap, and
 * reads a large tensor in as many turns as it takes. Here what is left of a message is read into one piece, in one turn when it is there.
 */
import { type OnReadOpts, Socket, type SocketConstructorOpts } from 'node:net';
import type { Buffers } from '../buffers.js';
import { giveBack, Memory } from '../segments.js';

/** What is known of the message that is being read: how much of it is still to come, and all its bytes; 0 = not known. */
export interface UnderWay {
  readonly payloadLeft: number;
  readonly payloadBytes: number;
}

/** Takes what came. Must not throw. `chunk` lies in `memory`. */
export type Push = (chunk: Uint8Array, memory: Memory) => void;

/** What begins a message, and small ones, are read into pieces of this size. */
const IDLE_BYTES = 64 * 1024;
/** With less room in it, another one. */
const LEAST_BYTES = 4 * 1024;
/** What is left of a message gets a piece of its own above this, and below that several: whoever only announces must not cost memory. */
const LARGE_BYTES = { least: 16 * 1024, most: 2 * 1024 * 1024 };
/** Elements of no size are larger. */
const ALIGNMENT = 8;

export class Inlet {
  /** For the socket's constructor, or `net.connect`. */
  readonly onread: OnReadOpts = {
    buffer: () => this.#next(),
    callback: (bytes) => {
      this.#came(bytes);
      return true;
    },
  };
  readonly #buffers: Buffers;
  #message: UnderWay = { payloadLeft: 0, payloadBytes: 0 };
  #push: Push = () => undefined;
  #idle: Memory | undefined;
  #large: Memory | undefined;
  /** Where the next bytes go, in the one and in the other. */
  #idleAt = 0;
  #largeAt = 0;

  constructor(buffers: Buffers) {
    this.#buffers = buffers;
  }

  /** Before anything can come. */
  open(message: UnderWay, push: Push): void {
    this.#message = message;
    this.#push = push;
  }

  /** The socket has closed: nothing more is read. */
  close(): void {
    giveBack([this.#idle, this.#large].filter((memory) => memory !== undefined).filter((memory) => memory.close()));
    this.#idle = undefined;
    this.#large = undefined;
    this.#push = () => undefined;
  }

  /** Where the next read goes; never empty. */
  #next(): Uint8Array {
    const left = this.#message.payloadLeft;
    if (this.#large !== undefined && this.#largeAt === this.#large.sizeBytes) {
      if (this.#large.close()) giveBack([this.#large]);
      this.#large = undefined;
    }
    if (this.#large === undefined && left > LARGE_BYTES.least) {
      this.#largeAt = this.#leadBytes;
      this.#large = this.#take(this.#largeAt + Math.min(left, LARGE_BYTES.most), this.#largeAt);
    }
    if (this.#large !== undefined) return this.#large.bytes.subarray(this.#largeAt);
    return this.#nextIdle();
  }

  #nextIdle(): Uint8Array {
    if (this.#idle?.isUnused === true) this.#idleAt = 0;
    if (this.#idle !== undefined && this.#idle.bytes.length - this.#idleAt < LEAST_BYTES) {
      if (this.#idle.close()) giveBack([this.#idle]);
      this.#idle = undefined;
    }
    if (this.#idle === undefined) {
      this.#idle = this.#take(IDLE_BYTES);
      this.#idleAt = 0;
    }
    return this.#idle.bytes.subarray(this.#idleAt);
  }

  /** Room for what came of the message already, where the rest of it goes into one piece: so that it can be made whole there. It ends where elements are aligned. 0 = it does not. */
  get #leadBytes(): number {
    const { payloadLeft, payloadBytes } = this.#message;
    const came = payloadBytes - payloadLeft;
    if (came < 0 || came > IDLE_BYTES || payloadLeft > LARGE_BYTES.most) return 0;
    return came + ALIGNMENT - (payloadBytes % ALIGNMENT);
  }

  #take(sizeBytes: number, leadBytes = 0): Memory {
    return new Memory(this.#buffers.take(sizeBytes), this.#buffers, leadBytes);
  }

  #came(bytes: number): void {
    const memory = this.#large ?? this.#idle;
    if (memory === undefined) return;
    const at = memory === this.#large ? this.#largeAt : this.#idleAt;
    if (memory === this.#large) this.#largeAt += bytes;
    else this.#idleAt += bytes;
    this.#push(memory.bytes.subarray(at, at + bytes), memory);
  }
}

/**
 * An accepted connection, read through an inlet. Node has words for that only for those who dial, so its handle goes to a socket made as Node's own server makes them.
 * Where there is no such handle the connection is left as it is: undefined.
 */
export function readThrough(accepted: Socket, { onread }: Inlet): Socket | undefined {
  const inner = accepted as unknown as { _handle?: { readonly useUserBuffer?: unknown } | null };
  const handle = inner._handle;
  if (typeof handle?.useUserBuffer !== 'function') return undefined;
  inner._handle = null;
  const options: SocketConstructorOpts & { readonly handle: unknown; readonly onread: OnReadOpts } = { handle, onread };
  const socket = new Socket(options);
  // The one that its server counts, and that whoever watches the server's door may end.
  socket.once('close', () => accepted.destroy());
  accepted.once('close', () => socket.destroy());
  return socket;
}

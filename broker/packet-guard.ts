/**
 * Stands between a socket and the broker. aedes buffers a whole packet before it looks at it, and knows no limit: here the fixed header's remaining
 * length is read first (MQTT 3.1.1, 2.2), and a connection that announces too much is ended before a byte of the body is kept. Until the broker has
 * let the client in, nothing but its CONNECT packet is passed on.
 *
 * In the other direction aedes waits for each subscriber that does not read, and with it whoever sent the message: one hung agent would keep a scheduler, and with it
 * everybody, for as long as the broker is patient. Here what is said to a client waits within a bound, nobody waits for it, and who exceeds the bound, or takes
 * nothing at all for too long, is disconnected.
 */
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { ChairError } from './errors.js';

/** CONNECT carries an id, credentials and a will: small. */
export const MAX_CONNECT_BYTES = 64 * 1024;
const CONNECT = 1;

/** Follows packet boundaries in a byte stream, looking at fixed headers only. */
export class PacketMeter {
  /** Bytes of the current packet's body still to come; undefined while its header is read. */
  #body: number | undefined;
  #length = 0;
  #scale = 0;
  #first = true;

  constructor(readonly maxPacketBytes: number) {}

  /**
   * Advances over `chunk` and returns the position after the first packet that ends in it, or -1 when none does.
   * Throws PACKET_TOO_LARGE, or CODEC_INVALID when this is no MQTT.
   */
  packetEnd(chunk: Uint8Array, from: number): number {
    let at = from;
    while (at < chunk.length) {
      if (this.#body === undefined) {
        this.#header(chunk[at++] ?? 0);
      } else {
        const take = Math.min(this.#body, chunk.length - at);
        this.#body -= take;
        at += take;
      }
      if (this.#body === 0) {
        this.#body = undefined;
        this.#first = false;
        return at;
      }
    }
    return -1;
  }

  #header(byte: number): void {
    if (this.#scale === 0) {
      // [MQTT-3.1.0-1]: the first packet must be a CONNECT.
      if (this.#first && byte >> 4 !== CONNECT)
        throw new ChairError('CODEC_INVALID', 'this is not an MQTT client', { expected: 'CONNECT first' });
      this.#scale = 1;
      this.#length = 0;
      return;
    }
    this.#length += (byte & 0x7f) * this.#scale;
    if (byte < 0x80) {
      const limit = this.#first ? Math.min(MAX_CONNECT_BYTES, this.maxPacketBytes) : this.maxPacketBytes;
      if (this.#length > limit) {
        throw new ChairError('PACKET_TOO_LARGE', 'MQTT packet refused', {
          expected: `at most ${limit} bytes`,
          came: `${this.#length} announced`,
        });
      }
      this.#body = this.#length;
      this.#scale = 0;
      return;
    }
    this.#scale *= 128;
    if (this.#scale > 128 ** 3) throw new ChairError('CODEC_INVALID', 'malformed MQTT packet length', { expected: 'at most 4 bytes' });
  }
}

export interface Patience {
  /** Bytes that may wait for a client with what keeping them costs, beside one packet; default 64 MiB: twice the largest packet. */
  readonly waitingBytes?: number;
  /** While some wait, it must take some in this time; default 20,000 ms. */
  readonly stalledMs?: number;
}

/** What a write that waits costs beside its bytes. Answers to pings have two. */
const WRITE_BYTES = 128;
/** What is given to the kernel at once: how finely it is seen whether a slow reader reads at all. */
const PIECE_BYTES = 64 * 1024;

type Done = (error?: Error | null) => void;

export class PacketGuard extends Duplex {
  readonly #meter: PacketMeter;
  readonly #waitingBytes: number;
  readonly #stalledMs: number;
  /** Runs while something waits for the client. */
  #stall: NodeJS.Timeout | undefined;
  /** Of what is being written, the kernel has taken so many bytes. */
  #taken = 0;
  /** Writes that are not done. */
  #writes = 0;
  /** `first`: CONNECT is on its way in; `waiting`: the broker is deciding about it; `open`: let in. */
  #gate: 'first' | 'waiting' | 'open' = 'first';
  /** What came behind CONNECT before the client was let in. Little: reading stops there. */
  readonly #held: Uint8Array[] = [];

  constructor(
    readonly socket: Socket,
    maxPacketBytes: number,
    { waitingBytes = 64 * 1024 * 1024, stalledMs = 20_000 }: Patience = {},
  ) {
    // The broker sees no back-pressure: it would hand it on to the senders.
    super({ allowHalfOpen: false, writableHighWaterMark: 2 * waitingBytes });
    this.#waitingBytes = waitingBytes;
    this.#stalledMs = stalledMs;
    this.#meter = new PacketMeter(maxPacketBytes);
    socket.on('data', (chunk) => this.#receive(chunk));
    socket.on('end', () => this.push(null));
    socket.on('error', (error) => this.destroy(error));
    socket.on('close', () => this.destroy());
  }

  /** The broker has let the client in: pass on whatever it sends. */
  release(): void {
    this.#gate = 'open';
    for (const chunk of this.#held.splice(0)) this.#receive(chunk);
    this.socket.resume();
  }

  #receive(chunk: Uint8Array): void {
    if (this.destroyed) return;
    if (this.#gate === 'waiting') {
      this.#held.push(chunk);
      this.socket.pause();
      return;
    }
    try {
      if (this.#gate === 'first') this.#receiveFirst(chunk);
      else this.#pass(chunk);
    } catch (error) {
      this.destroy(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #receiveFirst(chunk: Uint8Array): void {
    const end = this.#meter.packetEnd(chunk, 0);
    if (end < 0) {
      this.push(chunk);
      return;
    }
    this.#gate = 'waiting';
    this.socket.pause();
    if (end < chunk.length) this.#held.push(chunk.subarray(end));
    this.push(chunk.subarray(0, end));
  }

  #pass(chunk: Uint8Array): void {
    for (let end = 0; end >= 0 && end < chunk.length; ) end = this.#meter.packetEnd(chunk, end);
    if (!this.push(chunk)) this.socket.pause();
  }

  override _read(): void {
    if (this.#gate !== 'waiting') this.socket.resume();
  }

  override write(chunk: unknown, encoding?: BufferEncoding | Done, done?: Done): boolean {
    const waited = this.writableLength - this.#taken + this.#writes * WRITE_BYTES;
    this.#writes++;
    const more = typeof encoding === 'function' ? super.write(chunk, encoding) : super.write(chunk, encoding ?? 'utf8', done);
    // One packet may be longer than the bound: it is given up for what came before it.
    if (waited > this.#waitingBytes && !this.destroyed) {
      this.destroy(
        new ChairError('QUEUE_FULL', 'the client does not read as fast as others write to it', {
          expected: `at most ${this.#waitingBytes} bytes that wait`,
          came: `${waited}`,
        }),
      );
    }
    return more;
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, done: Done): void {
    this.#send([chunk], done);
  }

  override _writev(chunks: { chunk: Uint8Array; encoding: BufferEncoding }[], done: Done): void {
    this.#send(
      chunks.map(({ chunk }) => chunk),
      done,
    );
  }

  /** A piece at a time. A client that takes any of them is slow; one that takes none is gone. */
  #send(chunks: readonly Uint8Array[], done: Done): void {
    this.#stall = setTimeout(() => {
      const seconds = this.#stalledMs / 1000;
      this.destroy(
        new ChairError('QUEUE_FULL', `the client has read nothing for ${seconds} s, and ${this.writableLength} bytes wait for it`),
      );
    }, this.#stalledMs).unref();
    let [at, from, given] = [0, 0, 0];
    const next = (error?: Error | null): void => {
      if (error || at === chunks.length) {
        clearTimeout(this.#stall);
        this.#taken = 0;
        this.#writes -= chunks.length;
        done(error);
        return;
      }
      this.#taken = given;
      this.#stall?.refresh();
      this.socket.cork();
      for (let room = PIECE_BYTES; room > 0 && at < chunks.length; ) {
        const chunk = chunks[at] ?? new Uint8Array();
        const piece = chunk.subarray(from, from + room);
        from += piece.length;
        given += piece.length;
        room -= piece.length;
        if (from === chunk.length) [at, from] = [at + 1, 0];
        this.socket.write(piece, room === 0 || at === chunks.length ? next : undefined);
      }
      this.socket.uncork();
    };
    next();
  }

  override _final(done: (error?: Error | null) => void): void {
    this.socket.end(done);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#held.length = 0;
    clearTimeout(this.#stall);
    this.socket.destroy();
    done(error);
  }
}

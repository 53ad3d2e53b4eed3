/** One end of one lane connection: frames in, a bounded queue out. Knows nothing of peers and routing. */
import type { Socket } from 'node:net';
import { generate, type Packet } from 'mqtt-packet';
import { ChairError, isChairError } from '../errors.js';
import { Framer, type FramerOptions, type PublishFrame, publishHeader } from './framing.js';
import type { Segments } from './lane.js';

export interface LaneSocketOptions extends Pick<FramerOptions, 'maxPacketBytes' | 'first'> {
  /** Bytes handed to `publish` and not yet taken by the kernel. One message may exceed it when nothing else waits. */
  readonly maxQueuedBytes: number;
  readonly onPublish: (frame: PublishFrame) => void;
  readonly onPacket: (packet: Packet) => void;
  /** Once. `error` is what ended it, or undefined for an orderly end. */
  readonly onClose: (error: Error | undefined) => void;
}

/** Up to this size a message is joined into one buffer: cheaper than a gathered write. */
const JOIN_BYTES = 4096;
const SLOW_WRITE_MS = 50;

export class LaneSocket {
  readonly #options: LaneSocketOptions;
  readonly #pending = new Set<(error: Error) => void>();
  #queuedBytes = 0;
  #error: Error | undefined;
  #closed = false;
  /** When bytes last came in, or went out after the kernel had been full: signs of a living peer (performance.now()). */
  activeAt = performance.now();

  constructor(
    readonly socket: Socket,
    options: LaneSocketOptions,
  ) {
    this.#options = options;
    const framer = new Framer(options);
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 30_000);
    socket.on('data', (chunk) => {
      this.activeAt = performance.now();
      if (this.#closed) return;
      try {
        framer.push(chunk, this.activeAt);
      } catch (error) {
        this.end(error instanceof Error ? error : new Error(String(error)));
      }
    });
    socket.on('error', (error) => {
      this.#error ??= error;
    });
    socket.on('close', () => this.#close());
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /**
   * Queues a QoS 0 PUBLISH in this call; resolves when the kernel has all of it. The segments must not change until then.
   * Throws PACKET_TOO_LARGE, QUEUE_FULL, LANE_DOWN when the connection ends before.
   */
  publish(topic: string, payload: Segments, payloadBytes: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const header = publishHeader(topic, payloadBytes, this.#options.maxPacketBytes);
      if (this.#closed || this.socket.destroyed) throw this.#down();
      const total = header.length + payloadBytes;
      if (this.#queuedBytes > 0 && this.#queuedBytes + total > this.#options.maxQueuedBytes) {
        throw new ChairError('QUEUE_FULL', 'the peer does not take messages as fast as they are sent', {
          expected: `at most ${this.#options.maxQueuedBytes} bytes on their way`,
          came: `${this.#queuedBytes} and ${total} more`,
        });
      }
      this.#queuedBytes += total;
      this.#pending.add(reject);
      const startedAt = performance.now();
      this.#write(header, payload, payloadBytes, (error) => {
        this.#queuedBytes -= total;
        this.#pending.delete(reject);
        // What fits into the kernel's buffer says nothing about the peer.
        const now = performance.now();
        if (now - startedAt > SLOW_WRITE_MS) this.activeAt = now;
        // Node calls back without an error for the write that was under way when the socket was destroyed.
        if (error || this.socket.destroyed) reject(this.#down(error ?? undefined));
        else resolve();
      });
    });
  }

  #write(header: Buffer, payload: Segments, payloadBytes: number, done: (error?: Error | null) => void): void {
    if (payloadBytes <= JOIN_BYTES) {
      this.socket.write(Buffer.concat([header, ...payload]), done);
      return;
    }
    this.socket.cork();
    this.socket.write(header);
    const last = payload.length - 1;
    payload.forEach((segment, i) => {
      this.socket.write(segment, i === last ? done : undefined);
    });
    this.socket.uncork();
  }

  /** Sends any other packet. */
  control(packet: Packet): void {
    if (!this.#closed && !this.socket.destroyed) this.socket.write(generate(packet));
  }

  /** Ends the connection now; what is on its way is rejected. */
  end(error?: Error): void {
    this.#error ??= error;
    this.socket.destroy();
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const down = this.#down();
    for (const reject of this.#pending) reject(down);
    this.#pending.clear();
    this.#options.onClose(this.#error);
  }

  #down(cause: Error | undefined = this.#error): ChairError {
    if (isChairError(this.#error, 'STOPPED')) return this.#error;
    return new ChairError(
      'LANE_DOWN',
      `the lane broke (${this.#error?.message ?? cause?.message ?? 'closed'})`,
      cause === undefined ? {} : { cause },
    );
  }
}

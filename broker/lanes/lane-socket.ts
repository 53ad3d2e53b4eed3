/**
 * One end of one lane connection: frames in, a bounded queue out. Knows nothing of peers and routing.
 *
 * What waits stays here as long as possible, where it can still be dropped, instead of in the kernel's buffer, which takes megabytes: with an end of ours, pings go
 * between the messages as marks, and what is not answered is bounded by a window: what the link carries in a quarter of a second, where it is known to be the link
 * that holds things up (an answer may also be late because the other process is busy). Large messages go in parts (see framing.ts).
 *
 * Long, because queue, marks and window count the same bytes and every write moves all three; framing, answers, reading and measuring are files of their own.
 */
import type { Socket } from 'node:net';
import { generate, type Packet } from 'mqtt-packet';
import { ChairError, isChairError } from '../errors.js';
import type { Memory } from '../segments.js';
import { Answers, StallMeter } from './answers.js';
import { type Draining, DrainMeter } from './drain-meter.js';
import { Framer, type FramerOptions, type PublishFrame, partHeader, publishBytes, publishHeader } from './framing.js';
import type { Inlet } from './inlet.js';
import type { Segments } from './lane.js';
import type { LaneWatch } from './lane-watch.js';

export interface LaneSocketOptions extends Pick<FramerOptions, 'maxPacketBytes' | 'first'> {
  /** Bytes handed to `publish` and not yet taken by the kernel. One message may exceed it when nothing else waits. */
  readonly maxQueuedBytes: number;
  readonly watch: LaneWatch;
  /** While something waits for the other end, it takes some in this time, or what large writes take on a slow link, or is ended; default 30,000 ms. */
  readonly stalledMs?: number | undefined;
  /** What the socket is read through; default: its own buffers. */
  readonly inlet?: Inlet | undefined;
  readonly onPublish: (frame: PublishFrame) => void;
  readonly onPacket: (packet: Packet) => void;
  /** Once. `error` is what ended it, or undefined for an orderly end. */
  readonly onClose: (error: Error | undefined) => void;
}

export interface PublishOptions {
  /** See `SendOptions`. */
  readonly wanted?: (() => boolean) | undefined;
  readonly urgent?: boolean | undefined;
}

/** Up to this size a message is joined into one buffer: cheaper than a gathered write. */
const JOIN_BYTES = 4096;
const SLOW_WRITE_MS = 50;
/** Answers that wait, and what makes them necessary comes from the other end. */
const MOST_ANSWER_BYTES = 64 * 1024;
const STALLED_MS = 30_000;
/** The smallest part of a message: half a second on 2 Mbit/s. Parts are a quarter of the window (each write costs time), and messages up to twice as long go whole. */
const PART_BYTES = 128 * 1024;
const WINDOW_PARTS = 4;
const SPLIT_PARTS = 2;
/** Not answered yet: never held back below the least, never more than the most; between them what goes in so long. */
const WINDOW_BYTES = { least: 64 * 1024, most: 4 * 1024 * 1024 };
const WINDOW_MS = 250;
/** Marks so much apart, as a part of the window; and one after a message that comes so long after the last mark, when so much has gone since: an answer costs both ends a turn. */
const MARK_PART = 1 / 4;
const MARK_MS = 100;
const MARK_BYTES = 16 * 1024;
/** With answers as quick as this a window is too small, if it holds anything up. */
const QUICK_MS = 125;
/** What is not answered for so long waits. A process under a CPU quota may not run for 80 ms. */
const WAITS_MS = 150;

/** Bytes that are not acknowledged after so many of the quickest round trips wait; after so long where none is known. */
const ROUND_TRIPS = 2;
const UNKNOWN_APART_MS = 240;

const PING = generate({ cmd: 'pingreq' });
const PONG = generate({ cmd: 'pingresp' });
/** What the other end alone decides how much there is of. */
const ANSWERS: ReadonlySet<string> = new Set(['pingresp', 'puback', 'suback', 'unsuback']);

/** A message on its way out. */
interface Outgoing {
  readonly topic: string;
  readonly payload: Segments;
  readonly payloadBytes: number;
  /** With its header. */
  readonly totalBytes: number;
  readonly wanted: (() => boolean) | undefined;
  readonly resolve: (sent: boolean) => void;
  readonly reject: (error: Error) => void;
  /** Bytes of the payload that were written; the segment, and the place in it, that comes next. */
  written: number;
  segment: number;
  offset: number;
  /** Writes that the kernel has not taken. */
  writing: number;
  dropped: boolean;
}

/** A ping: when it is answered, everything before it has been received. */
interface Mark {
  /** Bytes written before it. */
  readonly upTo: number;
  readonly atMs: number;
  /** Nothing was on its way: its answer tells the round trip. */
  readonly alone: boolean;
}

export class LaneSocket {
  readonly #options: LaneSocketOptions;
  readonly #queue: Outgoing[] = [];
  readonly #unsettled = new Set<Outgoing>();
  readonly #marks: Mark[] = [];
  readonly #drain = new DrainMeter();
  /** Of pings that nothing was before; undefined = none was answered yet. */
  #leastRoundTripMs: number | undefined;
  readonly #answers: Answers;
  readonly #stall: StallMeter;
  #queuedBytes = 0;
  /** All that was written, what of it the kernel has not taken, and what was answered. */
  #written = 0;
  #inNode = 0;
  /** Writes that the kernel has taken. */
  #taken = 0;
  #answered = 0;
  #marked = 0;
  #markedMs = Number.NEGATIVE_INFINITY;
  #window = WINDOW_BYTES.most;
  #error: Error | undefined;
  #closed = false;
  /** The other end is one of ours: it answers pings, and takes messages in parts. */
  isOurs = false;
  /** When bytes last came in, or went out after the kernel had been full: signs of a living peer (performance.now()). */
  activeAt = performance.now();

  constructor(
    readonly socket: Socket,
    options: LaneSocketOptions,
  ) {
    this.#options = options;
    this.#stall = new StallMeter(options.stalledMs ?? STALLED_MS);
    this.#answers = new Answers({
      mostBytes: MOST_ANSWER_BYTES,
      write: (bytes, done) => {
        socket.write(bytes, () => {
          this.#taken++;
          if (!this.hasEnded) done();
        });
      },
    });
    const framer = new Framer(options);
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 30_000);
    const push = (chunk: Uint8Array, memory?: Memory): void => {
      this.activeAt = performance.now();
      if (this.#closed) return;
      try {
        framer.push(chunk, this.activeAt, memory);
      } catch (error) {
        this.end(error instanceof Error ? error : new Error(String(error)));
      }
    };
    const { inlet } = options;
    if (inlet === undefined) socket.on('data', (chunk) => push(chunk));
    else inlet.open(framer, push);
    socket.on('error', (error) => {
      this.#error ??= error;
    });
    socket.on('close', () => this.#close());
  }

  /** Not yet taken by the kernel. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** Not yet received, as far as the other end says. */
  get waitingBytes(): number {
    const queued = this.#queue.reduce((sum, { payloadBytes, written }) => sum + payloadBytes - written, 0);
    return queued + (this.#marks.length === 0 ? this.#inNode : this.#marked - this.#answered);
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Nothing can be sent any more, though it may not have closed yet. */
  get hasEnded(): boolean {
    return this.#closed || this.socket.destroyed;
  }

  /** Nothing waits to be sent or to be answered. */
  get isIdle(): boolean {
    const isEmpty = this.#queue.length === 0 && this.#inNode === 0 && this.#answers.waitingBytes === 0;
    return this.#closed || (isEmpty && this.#marks.length === 0);
  }

  /** As `isIdle`, at the end of a call that wrote: what the kernel has taken at once is called back for only later. */
  get #isHeldUp(): boolean {
    return this.#queue.length > 0 || this.#marks.length > 0 || this.socket.writableLength > 0;
  }

  /** How fast it carries what waits. */
  draining(nowMs: number): Draining {
    return this.#drain.read(nowMs);
  }

  /**
   * Queues a QoS 0 PUBLISH in this call; resolves when the kernel has all of it, or with false when it was not wanted any more. The segments must not change until
   * then. Throws PACKET_TOO_LARGE, QUEUE_FULL, LANE_DOWN when the connection ends before.
   */
  publish(topic: string, payload: Segments, payloadBytes: number, { wanted, urgent = false }: PublishOptions = {}): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const totalBytes = publishBytes(topic, payloadBytes, this.#options.maxPacketBytes);
      if (this.#closed || this.socket.destroyed) throw this.#down();
      if (this.#queuedBytes > 0 && this.#queuedBytes + totalBytes > this.#options.maxQueuedBytes) {
        throw new ChairError('QUEUE_FULL', 'the peer does not take messages as fast as they are sent', {
          expected: `at most ${this.#options.maxQueuedBytes} bytes on their way`,
          came: `${this.#queuedBytes} and ${totalBytes} more`,
        });
      }
      const progress = { written: 0, segment: 0, offset: 0, writing: 0, dropped: false };
      const out = { topic, payload, payloadBytes, totalBytes, wanted, resolve, reject, ...progress };
      this.#queuedBytes += totalBytes;
      this.#unsettled.add(out);
      // A message in parts has only whole ones between them.
      if (urgent && payloadBytes <= SPLIT_PARTS * PART_BYTES) this.#queue.unshift(out);
      else this.#queue.push(out);
      this.#pump();
      if (this.#isHeldUp) this.#options.watch.add(this);
    });
  }

  /** Drops what waits and is not wanted any more. */
  purge(): void {
    if (this.#queue.every(({ wanted }) => wanted === undefined || wanted())) return;
    for (const out of this.#queue.filter(({ wanted }) => wanted?.() === false)) this.#drop(out);
    this.#pump();
  }

  /** Asks for an answer; it comes when everything written before has been received. */
  ping(): void {
    if (this.#closed || this.socket.destroyed) return;
    this.#mark();
    this.socket.write(PING);
  }

  /** The oldest ping is answered: how long it took where that is the round trip of the connection, else undefined. */
  pong(): number | undefined {
    const mark = this.#marks.shift();
    if (mark === undefined) return undefined;
    const ms = performance.now() - mark.atMs;
    const bytes = mark.upTo - this.#answered;
    this.#answered = mark.upTo;
    if (ms < QUICK_MS && this.#queue.length > 0) this.#resize(this.#window + bytes);
    this.#pump();
    if (!mark.alone) return undefined;
    this.#leastRoundTripMs = Math.min(this.#leastRoundTripMs ?? ms, ms);
    return ms;
  }

  /** Bytes wait to be sent, or to be answered for longer than usual. */
  waits(nowMs: number): boolean {
    return this.#queue.length > 0 || nowMs - (this.#marks[0]?.atMs ?? nowMs) > WAITS_MS;
  }

  /**
   * A look at it, a few times a second, at least `sinceMs` after the last one. `unacknowledged`: bytes that the kernel has and the other machine does not; undefined =
   * not known.
   */
  look(unacknowledged: number | undefined, nowMs: number, sinceMs: number): void {
    if (this.#stall.look(this.socket.writableLength, this.#taken, sinceMs)) {
      this.end(new ChairError('QUEUE_FULL', `the peer has read nothing for long, and ${this.socket.writableLength} bytes wait for it`));
      return;
    }
    // What the other machine has and its process does not read is not the link's fault.
    const waits = this.waits(nowMs);
    if (unacknowledged) {
      const given = this.#written - this.#inNode;
      const leastMs = this.#leastRoundTripMs === undefined ? UNKNOWN_APART_MS : ROUND_TRIPS * this.#leastRoundTripMs;
      const oldest = this.#marks[0];
      if (!this.#drain.isGoing && oldest !== undefined) this.#drain.look(oldest.upTo, this.#answered, oldest.atMs, leastMs);
      this.#drain.look(given, given - unacknowledged, nowMs, leastMs);
      const { busyMs, bytesPerSecond } = this.#drain.read(nowMs);
      if (waits && busyMs > 0) this.#resize((bytesPerSecond * WINDOW_MS) / 1000);
    } else this.#drain.rest();
    if (!unacknowledged || !waits) this.#resize(2 * this.#window);
    this.#pump();
  }

  get #partBytes(): number {
    return Math.max(PART_BYTES, Math.floor(this.#window / WINDOW_PARTS));
  }

  #resize(bytes: number): void {
    this.#window = Math.min(WINDOW_BYTES.most, Math.max(WINDOW_BYTES.least, bytes));
  }

  #pump(): void {
    while (!this.#closed && !this.socket.destroyed) {
      const next = this.#queue[0];
      if (next === undefined) return;
      if (next.wanted?.() === false) this.#drop(next);
      else if (this.#mayWrite()) this.#writeNext(next);
      else return;
    }
  }

  #mayWrite(): boolean {
    // The next write must be there when the kernel has taken one.
    if (this.#inNode >= WINDOW_PARTS * this.#partBytes) return false;
    const onWay = this.#written - this.#answered;
    if (!this.isOurs || onWay < WINDOW_BYTES.least) return true;
    if (onWay < this.#window) return true;
    // Without a mark behind it no answer would say that it has arrived.
    if (this.#written > this.#marked) this.ping();
    return false;
  }

  /** The whole message, or its next part. */
  #writeNext(out: Outgoing): void {
    const { topic, payloadBytes } = out;
    const inParts = this.isOurs && (out.written > 0 || payloadBytes > SPLIT_PARTS * this.#partBytes);
    const left = payloadBytes - out.written;
    const bytes = inParts ? Math.min(this.#partBytes, left) : left;
    const isLast = bytes === left;
    const header = inParts ? partHeader(topic, bytes, isLast) : publishHeader(topic, bytes, this.#options.maxPacketBytes);
    if (isLast) this.#queue.shift();
    const total = header.length + bytes;
    const fromMs = performance.now();
    out.writing++;
    this.#written += total;
    this.#inNode += total;
    this.#write(header, take(out, bytes), bytes, (error) => {
      this.#taken++;
      out.writing--;
      this.#inNode -= total;
      // What fits into the kernel's buffer says nothing about the peer.
      const now = performance.now();
      if (now - fromMs > SLOW_WRITE_MS) this.activeAt = now;
      // Node calls back without an error for the write that was under way when the socket was destroyed.
      if (error || this.socket.destroyed) this.#settle(out, this.#down(error ?? undefined));
      else if (out.writing === 0 && (out.dropped || out.written === payloadBytes)) this.#settle(out);
      this.#pump();
    });
  }

  #write(header: Buffer, payload: readonly Uint8Array[], payloadBytes: number, done: (error?: Error | null) => void): void {
    const marks = this.#isMarkDue();
    if (payloadBytes <= JOIN_BYTES) {
      const parts = marks ? [header, ...payload, PING] : [header, ...payload];
      if (marks) this.#mark();
      this.socket.write(Buffer.concat(parts), done);
      return;
    }
    this.socket.cork();
    this.socket.write(header);
    const last = payload.length - 1;
    payload.forEach((segment, i) => {
      this.socket.write(segment, i === last ? done : undefined);
    });
    if (marks) this.ping();
    this.socket.uncork();
  }

  #isMarkDue(): boolean {
    if (!this.isOurs) return false;
    const bytes = this.#written - this.#marked;
    return bytes >= this.#window * MARK_PART || (bytes >= MARK_BYTES && performance.now() - this.#markedMs >= MARK_MS);
  }

  #mark(): void {
    const alone = this.#queuedBytes === 0 && this.#marks.length === 0;
    this.#markedMs = performance.now();
    this.#marked = this.#written;
    this.#marks.push({ upTo: this.#written, atMs: this.#markedMs, alone });
  }

  /** What of it is with Node and the kernel goes; the rest does not. */
  #drop(out: Outgoing): void {
    this.#queue.splice(this.#queue.indexOf(out), 1);
    out.dropped = true;
    if (out.written > 0) this.socket.write(partHeader(out.topic, 0, true));
    if (out.writing === 0) this.#settle(out);
  }

  #settle(out: Outgoing, error?: Error): void {
    if (!this.#unsettled.delete(out)) return;
    this.#queuedBytes -= out.totalBytes;
    if (error === undefined) out.resolve(!out.dropped);
    else out.reject(error);
  }

  /** Sends any other packet. */
  control(packet: Packet): void {
    if (this.hasEnded) return;
    if (!ANSWERS.has(packet.cmd)) {
      this.socket.write(generate(packet));
      return;
    }
    if (this.#answers.give(packet.cmd === 'pingresp' ? PONG : generate(packet))) {
      // One write that is called back for later is nothing yet.
      if (this.#answers.isGathering) this.#options.watch.add(this);
      return;
    }
    this.end(
      new ChairError('QUEUE_FULL', 'the peer asks, and does not read the answers', {
        expected: `at most ${MOST_ANSWER_BYTES} bytes of answers on their way`,
      }),
    );
  }

  /** Ends the connection now; what is on its way is rejected. */
  end(error?: Error): void {
    this.#error ??= error;
    this.socket.destroy();
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#options.inlet?.close();
    const down = this.#down();
    for (const out of [...this.#unsettled]) this.#settle(out, down);
    this.#queue.length = 0;
    this.#answers.clear();
    this.#marks.length = 0;
    this.#drain.rest();
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

/** The next bytes of a message's payload. */
function take(out: Outgoing, bytes: number): Uint8Array[] {
  const taken: Uint8Array[] = [];
  for (let left = bytes; left > 0; ) {
    const segment = out.payload[out.segment];
    if (segment === undefined) break;
    const size = Math.min(left, segment.length - out.offset);
    if (size > 0) taken.push(size === segment.length ? segment : segment.subarray(out.offset, out.offset + size));
    left -= size;
    out.offset += size;
    if (out.offset === segment.length) {
      out.segment++;
      out.offset = 0;
    }
  }
  out.written += bytes;
  return taken;
}

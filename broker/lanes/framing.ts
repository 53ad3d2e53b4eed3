/**
 * MQTT 3.1.1 packets out of a byte stream, written for large PUBLISH packets: their payload stays in the socket's own segments. All other packets are
 * small and go through mqtt-packet's parser. Sizes are checked on the fixed header, before anything is kept.
 *
 * Between two ends of ours a large message may come in parts, so that its sender can stop in the middle of it: PUBLISH packets of QoS 0 with the DUP flag, which
 * MQTT forbids there (3.3.1-2), so that no stock client's packet is taken for one. The last part has the RETAIN flag, too; an empty one with it says that the rest
 * will not come. One message at a time comes in parts; whole ones may come between them.
 * Long, because what is written and how it is read back stand side by side.
 */
import { type Packet, type Parser, parser } from 'mqtt-packet';
import { ChairError } from '../errors.js';
import { giveBack, holdFor, type Memory, memoryOf } from '../segments.js';
import type { Segments } from './lane.js';

export interface PublishFrame {
  readonly topic: string;
  readonly qos: 0 | 1;
  /** For QoS 1; 0 otherwise. */
  readonly messageId: number;
  readonly payload: Segments;
  readonly payloadBytes: number;
  /** When its first bytes came, on the clock of `push`. */
  readonly startedMs: number;
}

export interface FramerOptions {
  /** Of a whole PUBLISH packet without its fixed header, in bytes. */
  readonly maxPacketBytes: number;
  /** What the first packet must be: a listener wants `connect`, a dialler `connack`. */
  readonly first: 'connect' | 'connack';
  readonly onPublish: (frame: PublishFrame) => void;
  readonly onPacket: (packet: Packet) => void;
}

/** Flags of a PUBLISH packet (3.3.1). */
const DUP = 0x08;
const RETAIN = 0x01;
/** Who begins a message and does not go on with it for so long, while he says other things, will not. */
const PART_AGE_MS = 60_000;

/** A message of which not all parts have come. */
interface Gathered {
  readonly topic: string;
  readonly segments: Uint8Array[];
  /** What the segments lie in. */
  readonly looks: Memory[];
  readonly startedMs: number;
  bytes: number;
  grownMs: number;
  crumbs: Uint8Array | undefined;
}

/** MQTT 3.1.1, 2.2.1. */
const TYPE = { connect: 1, connack: 2, publish: 3 } as const;
/** Largest packet that is not PUBLISH: CONNECT with a will, SUBSCRIBE with many topics. */
const MAX_SMALL_PACKET_BYTES = 64 * 1024;
/** The largest remaining length MQTT can express (2.2.3). */
export const MQTT_MAX_PACKET_BYTES = 268_435_455;

type State = 'type' | 'length' | 'publish-header' | 'payload' | 'small';

export class Framer {
  readonly #options: FramerOptions;
  readonly #parser: Parser;
  #state: State = 'type';
  #first = true;
  /** First byte of the packet: type and flags. */
  #byte = 0;
  #scale = 1;
  /** Bytes of the packet still to come. */
  #left = 0;
  /** Variable header of a PUBLISH that did not come in one piece. */
  #partial: Uint8Array = EMPTY;
  #frame: Omit<PublishFrame, 'payload' | 'payloadBytes' | 'startedMs'> = { topic: '', qos: 0, messageId: 0 };
  #nowMs = 0;
  #startedMs = 0;
  #segments: Uint8Array[] = [];
  #looks: Memory[] = [];
  #payloadBytes = 0;
  #crumbs: Uint8Array | undefined;
  #gathered: Gathered | undefined;
  /** The packet that is being read is a part. */
  #isPart = false;
  /** Of the chunk that is being read; `#own` where nobody else looks after it. */
  #memory: Memory | undefined;
  #own: Memory | undefined;

  constructor(options: FramerOptions) {
    this.#options = options;
    this.#parser = parser({ protocolVersion: 4 });
    this.#parser.on('packet', options.onPacket);
    this.#parser.on('error', (cause: unknown) => {
      throw new ChairError('CODEC_INVALID', 'malformed MQTT packet', { cause });
    });
  }

  /** Of the message that is being read, bytes that are still to come; 0 = it is not known yet that there is one. */
  get payloadLeft(): number {
    return this.#state === 'payload' ? this.#left : 0;
  }

  /** All bytes of that message; 0 = it is a part of one, or there is none. */
  get payloadBytes(): number {
    return this.#state === 'payload' && !this.#isPart ? this.#payloadBytes : 0;
  }

  /**
   * Takes the next bytes, read at `nowMs`, and keeps views of them. `memory`: what they lie in, when it is used again; else they are alone in theirs. Throws CODEC_INVALID
   * or PACKET_TOO_LARGE; then the connection must be ended.
   */
  push(chunk: Uint8Array, nowMs = 0, memory?: Memory): void {
    this.#nowMs = nowMs;
    this.#own = memory === undefined ? memoryOf(chunk) : undefined;
    this.#memory = memory ?? this.#own;
    let at = 0;
    while (at < chunk.length || (this.#left === 0 && this.#state === 'payload')) {
      switch (this.#state) {
        case 'type':
          this.#startPacket(chunk[at++] ?? 0);
          break;
        case 'length':
          this.#lengthByte(chunk[at++] ?? 0);
          break;
        case 'publish-header':
          at = this.#publishHeader(chunk, at);
          break;
        case 'payload':
          at = this.#payload(chunk, at);
          break;
        case 'small':
          at = this.#small(chunk, at);
          break;
      }
    }
    this.#endChunk();
  }

  /** Nothing more is read of it. */
  #endChunk(): void {
    const own = this.#own;
    this.#own = undefined;
    if (own?.close() === true) giveBack([own]);
  }

  #startPacket(byte: number): void {
    const type = byte >> 4;
    if (this.#first && type !== TYPE[this.#options.first]) {
      throw new ChairError('CODEC_INVALID', 'this is not an MQTT 3.1.1 peer', {
        expected: this.#options.first,
        came: `packet type ${type}`,
      });
    }
    this.#first = false;
    if (this.#gathered !== undefined && type !== TYPE.publish && this.#nowMs - this.#gathered.grownMs > PART_AGE_MS) {
      const came = `${this.#gathered.bytes} bytes, and nothing for ${Math.round(this.#nowMs - this.#gathered.grownMs)} ms`;
      throw new ChairError('CODEC_INVALID', `a message on ${this.#gathered.topic} was begun and not ended`, { came });
    }
    this.#startedMs = this.#nowMs;
    this.#byte = byte;
    this.#left = 0;
    this.#scale = 1;
    this.#state = 'length';
  }

  #lengthByte(byte: number): void {
    this.#left += (byte & 0x7f) * this.#scale;
    this.#scale *= 128;
    if (byte >= 0x80) {
      if (this.#scale > 128 ** 3) throw new ChairError('CODEC_INVALID', 'malformed MQTT packet length', { expected: 'at most 4 bytes' });
      return;
    }
    const isPublish = this.#byte >> 4 === TYPE.publish;
    const limit = isPublish ? this.#options.maxPacketBytes : Math.min(MAX_SMALL_PACKET_BYTES, this.#options.maxPacketBytes);
    if (this.#left > limit) {
      throw new ChairError('PACKET_TOO_LARGE', 'MQTT packet refused', {
        expected: `at most ${limit} bytes`,
        came: `${this.#left} announced`,
      });
    }
    if (isPublish) this.#startPublish();
    else this.#startSmall();
  }

  #startPublish(): void {
    const qos = (this.#byte >> 1) & 3;
    if (qos > 1) throw new ChairError('CODEC_INVALID', 'a lane takes QoS 0 and 1 only', { came: `QoS ${qos}` });
    this.#partial = EMPTY;
    this.#state = 'publish-header';
    // Too short for topic length and packet id: refused when the topic is read.
    if (this.#left < 2) throw malformed();
  }

  /** Topic and packet id (MQTT 3.1.1, 3.3.2); from the chunk where they lie in it whole. */
  #publishHeader(chunk: Uint8Array, at: number): number {
    const before = this.#partial.length;
    const have = before === 0 ? chunk.subarray(at) : Buffer.concat([this.#partial, chunk.subarray(at, at + MAX_TOPIC_BYTES + 4)]);
    const idBytes = (this.#byte & 6) === 0 ? 0 : 2;
    const topicBytes = have.length < 2 ? undefined : ((have[0] ?? 0) << 8) | (have[1] ?? 0);
    if (topicBytes !== undefined && topicBytes > MAX_TOPIC_BYTES) {
      throw new ChairError('PACKET_TOO_LARGE', 'topic refused', { expected: `at most ${MAX_TOPIC_BYTES} bytes`, came: `${topicBytes}` });
    }
    const headerBytes = topicBytes === undefined ? 2 : 2 + topicBytes + idBytes;
    if (headerBytes > this.#left) throw malformed();
    if (topicBytes === undefined || have.length < headerBytes) {
      this.#partial = Uint8Array.from(have);
      return chunk.length;
    }
    const topic = Buffer.from(have.buffer, have.byteOffset + 2, topicBytes).toString('utf8');
    if (topic === '' || /[+#\0]/.test(topic)) throw new ChairError('CODEC_INVALID', 'malformed topic', { came: JSON.stringify(topic) });
    const messageId = idBytes === 0 ? 0 : ((have[headerBytes - 2] ?? 0) << 8) | (have[headerBytes - 1] ?? 0);
    this.#frame = { topic, qos: idBytes === 0 ? 0 : 1, messageId };
    this.#left -= headerBytes;
    this.#payloadBytes = this.#left;
    this.#isPart = (this.#byte & DUP) !== 0 && idBytes === 0;
    this.#segments = this.#isPart ? this.#partOf(topic).segments : [];
    this.#state = 'payload';
    return at + headerBytes - before;
  }

  /** The message that this part continues, or begins. All parts together are bounded as one packet is. */
  #partOf(topic: string): Gathered {
    this.#gathered ??= { topic, segments: [], looks: [], startedMs: this.#startedMs, bytes: 0, grownMs: this.#nowMs, crumbs: undefined };
    if (this.#gathered.topic !== topic) {
      throw new ChairError('CODEC_INVALID', 'parts of two messages at once', { expected: this.#gathered.topic, came: topic });
    }
    const { maxPacketBytes } = this.#options;
    if (this.#gathered.bytes + this.#left > maxPacketBytes) {
      const came = `${this.#gathered.bytes} and ${this.#left} more`;
      throw new ChairError('PACKET_TOO_LARGE', 'MQTT message refused', { expected: `at most ${maxPacketBytes} bytes in all parts`, came });
    }
    return this.#gathered;
  }

  #payload(chunk: Uint8Array, at: number): number {
    const take = Math.min(this.#left, chunk.length - at);
    this.#left -= take;
    if (take > 0) this.#keep(chunk.subarray(at, at + take));
    if (this.#isPart && this.#gathered !== undefined) this.#gathered.grownMs = this.#nowMs;
    if (this.#left === 0) {
      // Before the payload is handed on: whoever takes it may drop it at once.
      if (at + take === chunk.length) this.#endChunk();
      const [payload, looks] = [this.#segments, this.#looks];
      this.#segments = [];
      this.#state = 'type';
      if (this.#isPart) {
        this.#endPart();
        return at + take;
      }
      this.#crumbs = undefined;
      this.#looks = [];
      holdFor(payload, looks);
      this.#options.onPublish({ ...this.#frame, payload, payloadBytes: this.#payloadBytes, startedMs: this.#startedMs });
    }
    return at + take;
  }

  #endPart(): void {
    const whole = this.#gathered;
    if (whole === undefined) return;
    whole.bytes += this.#payloadBytes;
    if ((this.#byte & RETAIN) === 0) return;
    this.#gathered = undefined;
    const { segments: payload, looks, bytes: payloadBytes, startedMs } = whole;
    if (this.#payloadBytes === 0) {
      giveBack(looks.filter((memory) => memory.leave()));
      return;
    }
    holdFor(payload, looks);
    this.#options.onPublish({ ...this.#frame, payload, payloadBytes, startedMs });
  }

  /** One more piece of the payload. What follows the last one in the same memory makes that longer. */
  #keep(piece: Uint8Array): void {
    const segments = this.#segments;
    const last = segments.at(-1);
    const follows = last !== undefined && last.buffer === piece.buffer && last.byteOffset + last.length === piece.byteOffset;
    // The end of a message may be one segment more; the ends of its parts may be any number.
    const isCrumb = !follows && piece.length < CRUMB_BYTES && (this.#left > 0 || this.#isPart);
    if (isCrumb) {
      this.#keepCrumb(piece);
      return;
    }
    if (follows) segments[segments.length - 1] = new Uint8Array(last.buffer, last.byteOffset, last.length + piece.length);
    else segments.push(piece);
    const memory = this.#memory;
    const looks = this.#isPart && this.#gathered !== undefined ? this.#gathered.looks : this.#looks;
    if (memory === undefined || looks.at(-1) === memory || looks.includes(memory)) return;
    memory.look();
    looks.push(memory);
  }

  /** Crumbs are gathered: a peer that sends byte by byte must not cost a hundred bytes of bookkeeping for each. */
  #keepCrumb(crumb: Uint8Array): void {
    const last = this.#segments.at(-1);
    // A message in parts keeps its own: whole ones come between them.
    const gathered = this.#isPart ? this.#gathered : undefined;
    const crumbs = gathered === undefined ? this.#crumbs : gathered.crumbs;
    if (crumbs === undefined || last?.buffer !== crumbs.buffer || last.length + crumb.length > crumbs.length) {
      const fresh = Buffer.allocUnsafeSlow(CRUMBS_BYTES);
      if (gathered === undefined) this.#crumbs = fresh;
      else gathered.crumbs = fresh;
      fresh.set(crumb, 0);
      this.#segments.push(fresh.subarray(0, crumb.length));
      return;
    }
    crumbs.set(crumb, last.length);
    this.#segments[this.#segments.length - 1] = crumbs.subarray(0, last.length + crumb.length);
  }

  #startSmall(): void {
    const ping = this.#left === 0 ? PINGS.get(this.#byte) : undefined;
    if (ping !== undefined) {
      // Several of them for each megabyte: cheaper than a parser.
      this.#state = 'type';
      this.#options.onPacket(ping);
      return;
    }
    this.#parser.parse(Buffer.concat([Uint8Array.of(this.#byte), lengthBytes(this.#left)]));
    this.#state = this.#left === 0 ? 'type' : 'small';
  }

  #small(chunk: Uint8Array, at: number): number {
    const take = Math.min(this.#left, chunk.length - at);
    this.#left -= take;
    if (this.#left === 0) this.#state = 'type';
    // A copy: mqtt-packet's parser may keep what it is given.
    this.#parser.parse(Buffer.from(chunk.subarray(at, at + take)));
    return at + take;
  }
}

/** By their first byte, their second is 0 (3.12, 3.13). */
const PINGS: ReadonlyMap<number, Packet> = new Map([
  [0xc0, { cmd: 'pingreq' }],
  [0xd0, { cmd: 'pingresp' }],
]);
/** Segments shorter than this are gathered, unless they end a message. */
const CRUMB_BYTES = 1024;
const CRUMBS_BYTES = 16 * 1024;
const EMPTY = new Uint8Array(0);
/** Our topics are short; MQTT would allow 65,535 bytes. */
const MAX_TOPIC_BYTES = 1024;

function malformed(): ChairError {
  return new ChairError('CODEC_INVALID', 'malformed PUBLISH packet', { expected: 'a topic inside the packet' });
}

/** MQTT's remaining length: seven bits a byte, lowest first (2.2.3). */
export function lengthBytes(length: number): Uint8Array {
  return writeLength(new Uint8Array(lengthSize(length)), 0, length);
}

/** The same in place. */
function writeLength<T extends Uint8Array>(bytes: T, at: number, length: number): T {
  let rest = length;
  for (let i = at; i < at + lengthSize(length); i++) {
    bytes[i] = (rest & 0x7f) | (rest > 0x7f ? 0x80 : 0);
    rest >>= 7;
  }
  return bytes;
}

/** Fixed and variable header of a QoS 0 PUBLISH. Throws PACKET_TOO_LARGE beyond `maxPacketBytes`. */
export function publishHeader(topic: string, payloadBytes: number, maxPacketBytes: number): Buffer {
  return header(0, topic, payloadBytes, maxPacketBytes);
}

/** Header of a part of a message, `isLast` or not; of the last one with 0 bytes: the rest of the message will not come. */
export function partHeader(topic: string, partBytes: number, isLast: boolean): Buffer {
  return header(isLast ? DUP | RETAIN : DUP, topic, partBytes, MQTT_MAX_PACKET_BYTES);
}

/** Bytes of a message with its header when it goes whole. Throws PACKET_TOO_LARGE. */
export function publishBytes(topic: string, payloadBytes: number, maxPacketBytes: number): number {
  const length = packetLength(Buffer.byteLength(topic), topic, payloadBytes, maxPacketBytes);
  return 1 + lengthSize(length) + length;
}

function packetLength(nameBytes: number, topic: string, payloadBytes: number, maxPacketBytes: number): number {
  const length = 2 + nameBytes + payloadBytes;
  if (length <= maxPacketBytes) return length;
  throw new ChairError('PACKET_TOO_LARGE', `a message on ${topic} is too large for a lane`, {
    expected: `a packet of at most ${maxPacketBytes} bytes`,
    came: `${length}`,
  });
}

/** How many bytes `lengthBytes` takes. */
function lengthSize(length: number): number {
  return length < 2 ** 7 ? 1 : length < 2 ** 14 ? 2 : length < 2 ** 21 ? 3 : 4;
}

/** One for each message: written in place, as many small arrays take longer than the message. */
function header(flags: number, topic: string, payloadBytes: number, maxPacketBytes: number): Buffer {
  const nameBytes = Buffer.byteLength(topic);
  const length = packetLength(nameBytes, topic, payloadBytes, maxPacketBytes);
  const nameAt = 1 + lengthSize(length) + 2;
  const bytes = Buffer.allocUnsafe(nameAt + nameBytes);
  bytes[0] = (TYPE.publish << 4) | flags;
  writeLength(bytes, 1, length);
  bytes[nameAt - 2] = nameBytes >> 8;
  bytes[nameAt - 1] = nameBytes & 0xff;
  bytes.write(topic, nameAt);
  return bytes;
}

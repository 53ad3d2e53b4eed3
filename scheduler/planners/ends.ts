/**
 * What messages cost where they begin and end: the link of each end, its latency, and the CPU of encoding and placing; and between two ends that are slower with each other
 * than with others. Ends are agents or the dispatcher.
 *
 * A message to an end that can only be reached slowly keeps the sender's own link for its bytes at that link's rate: while they trickle, others pass. What it keeps all the time
 * is the way between the two, a resource of its own.
 */
import type { Port } from '../../broker/plan.js';
import { boxDims, tensorBytes } from '../../broker/tensor.js';
import { DISPATCHER } from '../../broker/topics.js';
import { linkMs, MESSAGE_CPU_MS, MESSAGE_OVERHEAD_MS, SERIALISE_BYTES_PER_SECOND, slowdown } from './cost.js';
import type { AccessLink, Device, Link, Links, PartFacts } from './problem.js';

export type Side = 'up' | 'down';

interface End {
  readonly link: AccessLink;
  readonly copyBytesPerMs: number;
  readonly messageMs: number;
  /** Other deployments take their part of CPU and link. */
  readonly sharing: number;
}

/** Of one message: bytes on the link, and those that the CPU of each end handles. */
export interface MessageBytes {
  readonly bytes: number;
  readonly handledBytes: number;
}

/** What a part takes in and puts out for a frame, a message for each port, as if nothing of it stayed where it is. */
export interface PartBytes {
  readonly into: readonly MessageBytes[];
  readonly outOf: readonly MessageBytes[];
}

/** As nothing is encoded. */
export function partBytes({ inputs, outputs }: Pick<PartFacts, 'inputs' | 'outputs'>): PartBytes {
  const of = (ports: readonly Port[]): MessageBytes[] =>
    ports.map(({ dtype, box }) => {
      const bytes = tensorBytes(dtype, boxDims(box));
      return { bytes, handledBytes: bytes };
    });
  return { into: of(inputs), outOf: of(outputs) };
}

function cpuOf({ copyBytesPerMs, messageMs, sharing }: End, bytes: number): number {
  return (messageMs + bytes / copyBytesPerMs) * sharing;
}

export class Ends {
  readonly #ends = new Map<string, End>();
  readonly #links: Links;
  readonly #usual: End;
  /** By sender and receiver: pairs that are slower than the own link of one of them. */
  readonly #slow = new Map<string, Map<string, Link>>();
  /** Ends that have a pair quicker than their own link, as agents of one machine are. */
  readonly #quick = new Set<string>();

  constructor(devices: readonly Device[], links: Links) {
    this.#links = links;
    const { bytesPerSecond, latencyMs } = links.usual;
    const link: AccessLink = { upBytesPerSecond: bytesPerSecond, downBytesPerSecond: bytesPerSecond, latencyMs: latencyMs / 2 };
    const copy = SERIALISE_BYTES_PER_SECOND / 1000;
    this.#usual = { link, copyBytesPerMs: copy, messageMs: MESSAGE_CPU_MS, sharing: 1 };
    const gatewayCopy = (links.gatewayCopyBytesPerSecond ?? SERIALISE_BYTES_PER_SECOND) / 1000;
    this.#ends.set(DISPATCHER, { ...this.#usual, link: links.gateway ?? link, copyBytesPerMs: gatewayCopy });
    for (const device of devices) {
      this.#ends.set(device.agent, {
        link: device.link ?? link,
        copyBytesPerMs: (device.copyBytesPerSecond ?? SERIALISE_BYTES_PER_SECOND) / 1000,
        messageMs: device.messageMs ?? MESSAGE_CPU_MS,
        sharing: slowdown(device),
      });
    }
    for (const [key, pair] of links.between) {
      const [from = '', to = ''] = key.split('>');
      const [up, down] = [this.#end(from).link.upBytesPerSecond, this.#end(to).link.downBytesPerSecond];
      if (pair.bytesPerSecond > up) this.#quick.add(from);
      if (pair.bytesPerSecond > down) this.#quick.add(to);
      if (pair.bytesPerSecond < Math.max(up, down)) this.#slow.set(from, (this.#slow.get(from) ?? new Map()).set(to, pair));
    }
  }

  /** Some pair that this end belongs to is quicker than its own link. */
  isQuick(end: string): boolean {
    return this.#quick.has(end);
  }

  get hasSlow(): boolean {
    return this.#slow.size > 0;
  }

  /** Of this sender the receivers that it reaches more slowly than its link or theirs allows. */
  slowFrom(end: string): Iterable<string> {
    return this.#slow.get(end)?.keys() ?? [];
  }

  /**
   * How long a message keeps one direction of the link of `end`, whose message goes to or comes from `far` (undefined: from any usual end): its bytes at the link's own rate, or
   * at the pair's where that is quicker.
   */
  linkMs(end: string, side: Side, far: string | undefined, bytes: number): number {
    return this.#linkMs(this.#end(end), end, side, far, bytes);
  }

  /** How long a message keeps the way between two ends, ms; 0 where their own links say all. Others' part of either end may well go the same way. */
  pairMs(from: string, to: string, bytes: number): number {
    const pair = this.#slow.size === 0 ? undefined : this.#slow.get(from)?.get(to);
    return pair === undefined ? 0 : linkMs(pair, bytes) * Math.max(this.#end(from).sharing, this.#end(to).sharing);
  }

  latencyMs(from: string, to: string): number {
    const pair = this.#links.between.size === 0 ? undefined : this.#between(from, 'up', to);
    return pair?.latencyMs ?? this.#end(from).link.latencyMs + this.#end(to).link.latencyMs;
  }

  /** CPU of one message at one end. */
  cpuMs(end: string, bytes: number): number {
    return cpuOf(this.#end(end), bytes);
  }

  /** How long the one medium that all share is kept, ms; 0 where each end has a link of its own only. */
  mediumMs(bytes: number): number {
    const { sharedBytesPerSecond } = this.#links;
    return sharedBytesPerSecond === undefined ? 0 : MESSAGE_OVERHEAD_MS + (bytes / sharedBytesPerSecond) * 1000;
  }

  /**
   * How long one frame keeps the busiest of what belongs to an agent: its CPU for the run and both kinds of messages, its link, or the way between it and the dispatcher, which
   * the first stage hears from and the last one tells. So many frames a replica takes, as who has one fewer waiting gets the next.
   */
  frameMs(end: string, seatMs: number, { into, outOf }: PartBytes, isFirst: boolean, isLast: boolean): number {
    // Looked up once: planners ask this of every replica of every plan.
    const known = this.#end(end);
    const near = isFirst ? DISPATCHER : undefined;
    const far = isLast ? DISPATCHER : undefined;
    let ms = seatMs;
    let link = 0;
    let way = 0;
    for (const { bytes, handledBytes } of into) {
      ms += cpuOf(known, handledBytes);
      link += this.#linkMs(known, end, 'down', near, bytes);
      if (isFirst) way += this.pairMs(DISPATCHER, end, bytes);
    }
    const longest = Math.max(link, way);
    link = 0;
    way = 0;
    for (const { bytes, handledBytes } of outOf) {
      ms += cpuOf(known, handledBytes);
      link += this.#linkMs(known, end, 'up', far, bytes);
      if (isLast) way += this.pairMs(end, DISPATCHER, bytes);
    }
    return Math.max(longest, link, way, ms);
  }

  #linkMs({ link, sharing }: End, end: string, side: Side, far: string | undefined, bytes: number): number {
    const own = side === 'up' ? link.upBytesPerSecond : link.downBytesPerSecond;
    const pair = far === undefined || !this.#quick.has(end) ? undefined : this.#between(end, side, far);
    return (MESSAGE_OVERHEAD_MS + (bytes / Math.max(own, pair?.bytesPerSecond ?? 0)) * 1000) * sharing;
  }

  #between(end: string, side: Side, far: string) {
    return this.#links.between.get(side === 'up' ? `${end}>${far}` : `${far}>${end}`);
  }

  #end(end: string): End {
    return this.#ends.get(end) ?? this.#usual;
  }
}

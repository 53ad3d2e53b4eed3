/**
 * What messages cost where they begin and end: the link of each end, its latency, and the CPU of encoding and placing; and between two ends that are slower with each other
 * than with others. Ends are agents or the dispatcher.
 *
 * A message to an end that can only be reached slowly keeps the sender's own link for its bytes at that link's rate: while they trickle, others pass. What it keeps all the time
 * is the way between the two, a resource of its own.
 */
import { DISPATCHER } from '../../broker/topics.js';
import { linkMs, MESSAGE_CPU_MS, MESSAGE_OVERHEAD_MS, SERIALISE_BYTES_PER_SECOND, slowdown } from './cost.js';
import type { AccessLink, Device, Link, Links } from './problem.js';

export type Side = 'up' | 'down';

interface End {
  readonly link: AccessLink;
  readonly copyBytesPerMs: number;
  readonly messageMs: number;
  /** Other deployments take their part of CPU and link. */
  readonly sharing: number;
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
    const { link, sharing } = this.#end(end);
    const own = side === 'up' ? link.upBytesPerSecond : link.downBytesPerSecond;
    const pair = far === undefined || !this.#quick.has(end) ? undefined : this.#between(end, side, far);
    return (MESSAGE_OVERHEAD_MS + (bytes / Math.max(own, pair?.bytesPerSecond ?? 0)) * 1000) * sharing;
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
    const { copyBytesPerMs, messageMs, sharing } = this.#end(end);
    return (messageMs + bytes / copyBytesPerMs) * sharing;
  }

  /** How long the one medium that all share is kept, ms; 0 where each end has a link of its own only. */
  mediumMs(bytes: number): number {
    const { sharedBytesPerSecond } = this.#links;
    return sharedBytesPerSecond === undefined ? 0 : MESSAGE_OVERHEAD_MS + (bytes / sharedBytesPerSecond) * 1000;
  }

  #between(end: string, side: Side, far: string) {
    return this.#links.between.get(side === 'up' ? `${end}>${far}` : `${far}>${end}`);
  }

  #end(end: string): End {
    return this.#ends.get(end) ?? this.#usual;
  }
}

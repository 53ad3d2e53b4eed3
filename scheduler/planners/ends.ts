/** What messages cost where they begin and end: the link of each end, its latency, and the CPU of encoding and placing. Ends are agents or the dispatcher. */
import { DISPATCHER } from '../../broker/topics.js';
import { linkMs, MESSAGE_CPU_MS, MESSAGE_OVERHEAD_MS, SERIALISE_BYTES_PER_SECOND, slowdown } from './cost.js';
import type { AccessLink, Device, Links } from './problem.js';

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
  readonly #named: ReadonlySet<string>;

  constructor(devices: readonly Device[], links: Links) {
    this.#links = links;
    const { bytesPerSecond, latencyMs } = links.usual;
    const link: AccessLink = { upBytesPerSecond: bytesPerSecond, downBytesPerSecond: bytesPerSecond, latencyMs: latencyMs / 2 };
    const copy = SERIALISE_BYTES_PER_SECOND / 1000;
    this.#usual = { link, copyBytesPerMs: copy, messageMs: MESSAGE_CPU_MS, sharing: 1 };
    this.#named = new Set([...links.between.keys()].flatMap((pair) => pair.split('>')));
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
  }

  /** Some pair that this end belongs to has a link of its own. */
  isNamed(end: string): boolean {
    return this.#named.has(end);
  }

  /** How long a message keeps one direction of the link of `end`, whose message goes to or comes from `far` (undefined: from any usual end). */
  linkMs(end: string, side: Side, far: string | undefined, bytes: number): number {
    const { link, sharing } = this.#end(end);
    const pair = far === undefined || this.#named.size === 0 ? undefined : this.#between(end, side, far);
    if (pair !== undefined) return linkMs(pair, bytes) * sharing;
    const rate = side === 'up' ? link.upBytesPerSecond : link.downBytesPerSecond;
    return (MESSAGE_OVERHEAD_MS + (bytes / rate) * 1000) * sharing;
  }

  latencyMs(from: string, to: string): number {
    const pair = this.#named.size === 0 ? undefined : this.#between(from, 'up', to);
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

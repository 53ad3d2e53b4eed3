/**
 * Messages of an epoch that is not prepared here yet: a peer was faster. Kept for a short while, bounded; pure but for the clock it is given.
 */
import type { ActivationHeader } from '../broker/messages.js';

export interface EarlyMessage<D> {
  readonly header: ActivationHeader;
  readonly data: D;
  readonly bytes: number;
  readonly untilMs: number;
}

export class EarlyBuffer<D> {
  private messages: EarlyMessage<D>[] = [];
  bytes = 0;

  constructor(
    readonly maxBytes: number,
    readonly keepMs: number,
  ) {}

  /** False when there is no room. */
  add(header: ActivationHeader, data: D, bytes: number, nowMs: number): boolean {
    if (this.bytes + bytes > this.maxBytes) return false;
    this.messages.push({ header, data, bytes, untilMs: nowMs + this.keepMs });
    this.bytes += bytes;
    return true;
  }

  /** Takes out what belongs to an epoch, in the order of arrival. */
  take(deployment: string, term: number, epoch: number): EarlyMessage<D>[] {
    return this.split((m) => m.header.deployment === deployment && m.header.term === term && m.header.epoch === epoch);
  }

  /** Takes out what waited too long. */
  expire(nowMs: number): EarlyMessage<D>[] {
    return this.split((m) => m.untilMs <= nowMs);
  }

  get size(): number {
    return this.messages.length;
  }

  private split(out: (m: EarlyMessage<D>) => boolean): EarlyMessage<D>[] {
    const taken = this.messages.filter(out);
    if (taken.length > 0) this.messages = this.messages.filter((m) => !out(m));
    for (const m of taken) this.bytes -= m.bytes;
    return taken;
  }
}

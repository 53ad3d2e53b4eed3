/**
 * Notes what becomes of frames, while somebody asked for it: when their boxes came, when they waited, ran, were encoded and sent. Off, it costs one comparison a
 * hook. Bounded in frames, spans and time; the clock is an argument.
 */
import type { Trace, TraceSpan, TraceSpans } from '../broker/messages.js';
import type { Wire } from '../broker/plan.js';
import type { Job, RunSpan } from './runner.js';
import type { Seat } from './seats.js';

/** Spans of one trace: about a megabyte as a message. */
const MOST_SPANS = 20_000;
/** Frames under way when it begins are noted besides those that were asked for: which of them are whole, only the dispatcher knows. */
const MORE_FRAMES = 64;

/** A frame as headers name it. */
type Frame = { readonly frame: number; readonly attempt: number };

/** Where a box goes: an agent or the dispatcher, and the wire that says which seat there. */
interface Target {
  readonly peer: string;
  readonly wire: Pick<Wire, 'toStage' | 'toPart'>;
}
const NOWHERE: Target = { peer: '', wire: { toStage: -1, toPart: 0 } };

export class Tracer {
  #wanted: Trace | undefined;
  #untilMs = 0;
  #spans: TraceSpan[] = [];
  #dropped = 0;
  readonly #frames = new Set<number>();
  /** When the first box came, by frame, attempt and seat. */
  readonly #first = new Map<string, number>();
  readonly #bytes = new Map<string, number>();

  constructor(
    private readonly agent: string,
    private readonly nowMs: () => number,
  ) {}

  /** What was noted before is forgotten. */
  start(wanted: Trace): void {
    this.#wanted = wanted;
    this.#untilMs = this.nowMs() + wanted.forMs;
    this.#spans = [];
    this.#dropped = 0;
    this.#frames.clear();
    this.#first.clear();
    this.#bytes.clear();
  }

  /** What was noted since `start`, of that deployment; it goes on. */
  read(deployment: string): TraceSpans {
    const none = this.#wanted?.deployment !== deployment;
    return {
      agent: this.agent,
      offsetUs: 0,
      errorUs: 0,
      frames: none ? 0 : this.#frames.size,
      dropped: this.#dropped,
      why: none ? 'it was not asked to note anything of this deployment, or was started anew since' : '',
      spans: none ? [] : this.#spans,
    };
  }

  /** A box of a frame is here. */
  arrived(deployment: string, frame: Frame, seat: Seat, bytes: number): void {
    if (this.#wanted === undefined || !this.#notes(deployment, frame.frame)) return;
    const key = keyOf(frame, seat);
    if (!this.#first.has(key)) this.#first.set(key, this.nowMs());
    this.#bytes.set(key, (this.#bytes.get(key) ?? 0) + bytes);
  }

  ran({ epoch, frame }: Job, { readyMs, startMs, endMs }: RunSpan): void {
    if (this.#wanted === undefined || !this.#notes(epoch.deployment, frame.frame)) return;
    const key = keyOf(frame, frame.seat);
    const firstMs = this.#first.get(key);
    if (firstMs !== undefined) this.#note('receive', frame, frame.seat, firstMs, readyMs, NOWHERE, this.#bytes.get(key) ?? 0);
    this.#first.delete(key);
    this.#bytes.delete(key);
    this.#note('wait', frame, frame.seat, readyMs, startMs);
    this.#note('compute', frame, frame.seat, startMs, endMs);
  }

  /** A box was encoded for a peer, or went to it. */
  left(kind: 'serialise' | 'send', deployment: string, frame: Frame, seat: Seat, startMs: number, target: Target, bytes: number): void {
    if (this.#wanted === undefined || !this.#notes(deployment, frame.frame)) return;
    this.#note(kind, frame, seat, startMs, this.nowMs(), target, bytes);
  }

  #notes(deployment: string, frame: number): boolean {
    const wanted = this.#wanted;
    if (wanted === undefined || wanted.deployment !== deployment) return false;
    if (this.#frames.has(frame)) return true;
    if (this.nowMs() > this.#untilMs || this.#frames.size >= wanted.frames + MORE_FRAMES) return false;
    this.#frames.add(frame);
    return true;
  }

  #note(kind: string, { frame, attempt }: Frame, seat: Seat, fromMs: number, toMs: number, target = NOWHERE, bytes = 0): void {
    if (this.#spans.length >= MOST_SPANS) {
      this.#dropped++;
      return;
    }
    const { stage, replica, part } = seat;
    const startUs = Math.round(1000 * fromMs);
    const { toStage, toPart } = target.wire;
    this.#spans.push({
      ...{ kind, frame, attempt, stage, replica, part, peer: target.peer, toStage, toPart, startUs, bytes },
      durationUs: Math.max(0, Math.round(1000 * toMs) - startUs),
    });
  }
}

function keyOf({ frame, attempt }: Frame, { index }: Seat): string {
  return `${frame} ${attempt} ${index}`;
}

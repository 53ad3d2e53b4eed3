/** What the dispatcher notes of frames while somebody asked for it: taken to answered, and each box on its way out. Bounded; the clock is an argument. */
import type { TraceSpan, TraceSpans } from '../broker/messages.js';
import type { Wire } from '../broker/plan.js';
import { DISPATCHER } from '../broker/topics.js';

const MOST_SPANS = 20_000;

export interface TraceWish {
  readonly deployment: string;
  readonly frames: number;
  readonly forMs: number;
}

/** Where a box goes, and along which wire. */
interface Target {
  readonly agent: string;
  readonly wire: Pick<Wire, 'toStage' | 'toPart'>;
}
const NOWHERE: Target = { agent: '', wire: { toStage: -1, toPart: 0 } };

export class FrameTrace {
  #wish: TraceWish | undefined;
  #untilMs = 0;
  #spans: TraceSpan[] = [];
  #dropped = 0;
  /** Issued since the beginning: of others only the end would be seen. */
  readonly #begun = new Set<number>();
  #answered = 0;

  constructor(private readonly nowMs: () => number) {}

  start(wish: TraceWish): void {
    this.#wish = wish;
    this.#untilMs = this.nowMs() + wish.forMs;
    this.#spans = [];
    this.#dropped = 0;
    this.#begun.clear();
    this.#answered = 0;
  }

  read(deployment: string): TraceSpans {
    const none = this.#wish?.deployment !== deployment;
    return {
      agent: DISPATCHER,
      offsetUs: 0,
      errorUs: 0,
      frames: none ? 0 : this.#answered,
      dropped: this.#dropped,
      why: none ? 'nobody asked for a trace of this deployment' : '',
      spans: none ? [] : this.#spans,
    };
  }

  /** An attempt goes out. False: it is not noted. */
  issued(deployment: string, frame: number, attempt: number): boolean {
    const wish = this.#wish;
    if (wish === undefined || wish.deployment !== deployment) return false;
    if (this.#begun.has(frame)) return true;
    if (attempt > 1 || this.#begun.size >= wish.frames || this.nowMs() > this.#untilMs) return false;
    this.#begun.add(frame);
    return true;
  }

  /** A box was encoded for an agent, or went to it. */
  left(kind: 'serialise' | 'send', frame: number, attempt: number, startMs: number, target: Target, bytes: number): void {
    this.#note(kind, frame, attempt, startMs, this.nowMs(), target, bytes);
  }

  /** A frame is answered, `latencyMs` after it was taken. */
  answered(deployment: string, frame: number, attempts: number, latencyMs: number): void {
    if (this.#wish?.deployment !== deployment || !this.#begun.has(frame)) return;
    const now = this.nowMs();
    this.#answered++;
    this.#note('frame', frame, attempts, now - latencyMs, now, NOWHERE, 0);
  }

  #note(kind: string, frame: number, attempt: number, fromMs: number, toMs: number, target: Target, bytes: number): void {
    if (this.#spans.length >= MOST_SPANS) {
      this.#dropped++;
      return;
    }
    const startUs = Math.round(1000 * fromMs);
    const durationUs = Math.max(0, Math.round(1000 * toMs) - startUs);
    const { toStage, toPart } = target.wire;
    const of = { kind, frame, attempt, stage: -1, replica: 0, part: 0, peer: target.agent, toStage, toPart };
    this.#spans.push({ ...of, startUs, durationUs, bytes });
  }
}

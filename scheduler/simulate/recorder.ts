/** What is written down while a simulation runs, and the figures made of it. */
import type { Clock } from './events.js';
import type { Network } from './network.js';
import type { Incident, Interruption, Quantiles, ResourceUse, SimulationResult } from './options.js';

interface Noticed {
  readonly agent: string;
  readonly atMs: number;
}

type Rest = Pick<SimulationResult, 'predicted' | 'spans' | 'steps'> & {
  readonly sent: number;
  readonly reissued: number;
  readonly incidents: readonly Incident[];
};

export class Recorder {
  readonly #clock: Clock;
  readonly #network: Network;
  readonly #warmUp: number;
  readonly #submittedMs = new Map<number, number>();
  readonly #endedAtMs: number[] = [];
  readonly #latenciesMs: number[] = [];
  readonly #errors: { [code: string]: number } = {};
  readonly #events: { atMs: number; text: string }[] = [];
  readonly #noticed: Noticed[] = [];
  readonly #replannedMs: number[] = [];
  #failed = 0;
  #lastSubmittedMs = 0;
  /** Busy times of all resources when the pipe was full, and when the last frame was submitted. */
  #from: ReadonlyMap<string, number> | undefined;
  #fromMs = 0;
  #to: ReadonlyMap<string, number> | undefined;
  #toMs = 0;

  constructor(clock: Clock, network: Network, warmUp: number) {
    this.#clock = clock;
    this.#network = network;
    this.#warmUp = warmUp;
  }

  log(text: string): void {
    this.#events.push({ atMs: this.#clock.nowMs, text });
  }

  submitted(sequence: number, last: boolean): void {
    this.#submittedMs.set(sequence, this.#clock.nowMs);
    if (!last) return;
    this.#lastSubmittedMs = this.#clock.nowMs;
    this.#to = this.#busy();
    this.#toMs = this.#clock.nowMs;
  }

  answered(sequence: number, error: string | undefined): void {
    const nowMs = this.#clock.nowMs;
    const sinceMs = this.#submittedMs.get(sequence) ?? nowMs;
    this.#submittedMs.delete(sequence);
    if (error !== undefined) {
      this.#failed++;
      this.#errors[error] = (this.#errors[error] ?? 0) + 1;
      return;
    }
    this.#endedAtMs.push(nowMs);
    this.#latenciesMs.push(nowMs - sinceMs);
    if (this.#endedAtMs.length !== this.#warmUp) return;
    this.#from = this.#busy();
    this.#fromMs = nowMs;
  }

  noticed(agent: string): void {
    this.#noticed.push({ agent, atMs: this.#clock.nowMs });
  }

  replanned(): void {
    this.#replannedMs.push(this.#clock.nowMs);
  }

  result({ sent, reissued, incidents, ...rest }: Rest): SimulationResult {
    const [endedAtMs, latenciesMs] = [this.#endedAtMs, this.#latenciesMs];
    return {
      ...rest,
      fps: this.#fps(),
      latencyMs: quantiles(latenciesMs),
      frames: { sent, completed: endedAtMs.length, failed: this.#failed, reissued },
      errors: this.#errors,
      durationMs: this.#clock.nowMs,
      resources: this.#resources(),
      interruptions: incidents.map((incident) => this.#interruption(incident, incidents)),
      events: this.#events,
      endedAtMs,
      latenciesMs,
      traffic: { messages: this.#network.messages, bytes: this.#network.bytes },
    };
  }

  /** Between the answer that filled the pipe and the last submission; where that is no time at all, over everything. */
  #fps(): number {
    const ended = this.#endedAtMs;
    const from = Math.min(this.#warmUp, ended.length) - 1;
    let to = ended.length - 1;
    while (to > from && (ended[to] ?? 0) > this.#lastSubmittedMs) to--;
    const ms = (ended[to] ?? 0) - (ended[from] ?? 0);
    if (to - from >= 2 && ms > 0) return ((to - from) * 1000) / ms;
    const all = ended.at(-1) ?? 0;
    return all > 0 ? (ended.length * 1000) / all : 0;
  }

  #busy(): Map<string, number> {
    const busy = new Map<string, number>();
    for (const { name, cpu, up, down } of this.#network.machines.values()) {
      busy.set(`compute ${name}`, cpu.busyMs);
      busy.set(`up ${name}`, up.busyMs);
      busy.set(`down ${name}`, down.busyMs);
    }
    for (const [pair, { busyMs }] of this.#network.pairs) busy.set(`pair ${pair}`, busyMs);
    if (this.#network.medium !== undefined) busy.set('medium all', this.#network.medium.busyMs);
    return busy;
  }

  #resources(): ResourceUse[] {
    const steady = this.#from !== undefined && this.#to !== undefined && this.#toMs > this.#fromMs;
    const from = steady ? this.#from : undefined;
    const to = steady && this.#to !== undefined ? this.#to : this.#busy();
    const ms = steady ? this.#toMs - this.#fromMs : this.#clock.nowMs;
    const rows = [...to].map(([key, busyMs]): ResourceUse => {
      const space = key.indexOf(' ');
      const busy = ms > 0 ? (busyMs - (from?.get(key) ?? 0)) / ms : 0;
      return { who: key.slice(space + 1), kind: key.slice(0, space) as ResourceUse['kind'], busy };
    });
    return rows.sort((a, b) => b.busy - a.busy || (a.who < b.who ? -1 : 1));
  }

  #interruption(incident: Incident, all: readonly Incident[]): Interruption {
    const { atMs, agent } = incident;
    const nextMs = Math.min(...all.filter((other) => other.atMs > atMs).map((other) => other.atMs), Number.POSITIVE_INFINITY);
    const between = this.#endedAtMs.slice(1).map((at, i) => ({ at, ms: at - (this.#endedAtMs[i] ?? at) }));
    const after = between.filter(({ at, ms }) => at >= atMs && at - ms < nextMs);
    const before = between.flatMap(({ at, ms }) => (at < atMs ? [ms] : []));
    const noticed = this.#noticed.find((one) => one.agent === agent && one.atMs >= atMs && one.atMs < nextMs);
    const replanned = this.#replannedMs.find((at) => at >= atMs && at < nextMs);
    return {
      incident,
      gapMs: after.reduce((most, { ms }) => Math.max(most, ms), 0),
      usualMs: quantiles(before).p50,
      ...(noticed === undefined ? {} : { noticedMs: noticed.atMs - atMs }),
      ...(replanned === undefined ? {} : { replannedMs: replanned - atMs }),
    };
  }
}

/** Of nothing: zeros. */
export function quantiles(values: readonly number[]): Quantiles {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (q: number): number => sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)] ?? 0;
  const mean = sorted.length === 0 ? 0 : sorted.reduce((sum, value) => sum + value, 0) / sorted.length;
  return { mean, p50: at(0.5), p95: at(0.95), p99: at(0.99), most: sorted.at(-1) ?? 0 };
}

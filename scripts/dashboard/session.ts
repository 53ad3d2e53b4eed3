/**
 * The running dashboard: asks the gateway again and again, keeps what it needs of the past, and draws when something changed. The only part with timers; a gateway
 * that goes away is asked until it is back. It changes nothing in the cluster unless somebody says yes to a question.
 */
import { type ErrorCode, toChairError } from '../../broker/errors.js';
import type { StatusReport } from '../../broker/messages.js';
import { type History, NO_HISTORY, observe } from '../../scheduler/dashboard/history.js';
import { byName } from '../../scheduler/dashboard/lanes.js';
import { type DashboardView, viewOf } from '../../scheduler/dashboard/view.js';
import { explained } from './explained.js';
import type { Glyphs } from './glyphs.js';
import { screenLines } from './screen.js';
import type { Line } from './text.js';
import { type Effect, press, START, type Ui } from './ui.js';

/** The part of `ChairClient` that the dashboard uses. */
export interface Source {
  status(): Promise<StatusReport>;
  drain(agent: string, options: { readonly undo: boolean }): Promise<void>;
  close(): Promise<void>;
}

/** The part of `Terminal` that the session uses. */
export interface Canvas {
  readonly columns: number;
  readonly rows: number;
  enter(): void;
  leave(): void;
  redraw(): void;
  draw(lines: readonly Line[]): boolean;
}

export interface SessionOptions {
  /** Throws while the gateway cannot be reached: then it is tried again. */
  readonly connect: () => Promise<Source>;
  readonly canvas: Canvas;
  readonly glyphs: Glyphs;
  /** Where the gateway is looked for, for people. */
  readonly where: string;
  readonly insecure?: boolean;
  /** Between two questions. */
  readonly everyMs: number;
  /** Monotonic. */
  readonly nowMs: () => number;
  /** Of the wall. */
  readonly clock: () => string;
  /** Stops this process as Ctrl-Z does, and returns when it goes on. */
  readonly suspend: () => void;
}

/** A status, and what led to it. */
interface Seen {
  readonly report: StatusReport;
  readonly history: History;
}

/** What may be another time, when the gateway was not heard yet. Anything else (certificates, settings) asking again does not mend. */
const PASSING: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'BROKER_UNREACHABLE',
  'BROKER_LOST',
  'GATEWAY_NOT_FOUND',
  'DISCOVERY_UNAVAILABLE',
  'REQUEST_TIMEOUT',
  'STOPPED',
  'TLS_FAILED',
]);
const TICK_MS = 1000;
/** A question that is just late is not said to be unanswered. */
const LATE_MS = 2500;
const CONNECT_AGAIN_MS = 1000;

export class Session {
  readonly #o: SessionOptions;
  readonly #startedMs: number;
  #source: Source | undefined;
  #ui: Ui = START;
  #history: History = NO_HISTORY;
  #seen: Seen | undefined;
  /** What a pause holds. */
  #held: Seen | undefined;
  /** The view drawn last, and of what it was made. */
  #made: { readonly seen: Seen; readonly wanted: string; readonly view: DashboardView } | undefined;
  #drawnMs = Number.NEGATIVE_INFINITY;
  #answeredMs: number;
  #problem = '';
  #timer: NodeJS.Timeout | undefined;
  #ticker: NodeJS.Timeout | undefined;
  #stopped = false;
  #settle: () => void = () => undefined;
  #fail: (error: unknown) => void = () => undefined;
  readonly #done: Promise<void>;

  constructor(options: SessionOptions) {
    this.#o = options;
    this.#startedMs = options.nowMs();
    this.#answeredMs = this.#startedMs;
    this.#done = new Promise((resolve, reject) => {
      this.#settle = resolve;
      this.#fail = reject;
    });
  }

  /** Resolves when somebody quit, or `stop` was called. Throws what the gateway cannot be reached for, however often it is tried. */
  async run(): Promise<void> {
    const { canvas } = this.#o;
    canvas.enter();
    try {
      this.draw();
      // The clock goes on, and the time since the last answer, when nothing else happens.
      this.#ticker = setInterval(() => {
        if (this.#o.nowMs() - this.#drawnMs >= TICK_MS) this.draw();
      }, TICK_MS);
      void this.#ask();
      await this.#done;
    } finally {
      this.#stopped = true;
      clearTimeout(this.#timer);
      clearInterval(this.#ticker);
      canvas.leave();
      await this.#source?.close().catch(() => undefined);
    }
  }

  /** Idempotent. */
  stop(): void {
    this.#stopped = true;
    this.#settle();
  }

  key(key: string): void {
    const { ui, effect } = press(this.#ui, key, this.#shown, Math.max(1, this.#o.canvas.rows - 5));
    if (ui.paused && !this.#ui.paused) this.#held = this.#seen;
    this.#ui = ui;
    if (effect !== undefined) this.#do(effect);
    if (effect !== 'quit') this.draw();
  }

  draw(): void {
    if (this.#stopped) return;
    const { canvas, glyphs, where, clock, insecure = false } = this.#o;
    const { columns, rows } = canvas;
    this.#drawnMs = this.#o.nowMs();
    const silentMs = this.#drawnMs - this.#answeredMs;
    const contact = {
      silentMs,
      live: this.#seen !== undefined && silentMs < this.#o.everyMs + LATE_MS,
      problem: this.#problem,
      where,
      insecure,
    };
    const explain = (deployment: string, width: number): readonly string[] => explained(this.#shownSeen?.report, deployment, width);
    canvas.draw(screenLines({ view: this.#shown, ui: this.#ui, contact, columns, rows, clock: clock(), glyphs, explain }));
  }

  get #shownSeen(): Seen | undefined {
    return this.#ui.paused ? this.#held : this.#seen;
  }

  /** Made when it is drawn, and of a large cluster only what the page shows. */
  get #shown(): DashboardView | undefined {
    const seen = this.#shownSeen;
    if (seen === undefined) return undefined;
    const { page, deployment } = this.#ui;
    const inspects = page === 'inspect';
    const names = seen.report.deployments.map(({ name }) => name).sort(byName);
    const chosen = names.includes(deployment) ? deployment : names[0];
    const wanted = `${page} ${chosen}`;
    if (this.#made?.seen !== seen || this.#made.wanted !== wanted) {
      const topology = (name: string): boolean => inspects || name === chosen;
      const view = viewOf(seen.report, seen.history, { topology, lanes: inspects || page === 'lanes' });
      this.#made = { seen, wanted, view };
    }
    return this.#made.view;
  }

  async #ask(): Promise<void> {
    const askedMs = this.#o.nowMs();
    let waitMs = this.#o.everyMs;
    try {
      this.#source ??= await this.#connected();
      const report = await this.#source.status();
      this.#answered(report);
    } catch (error) {
      const { code, message } = toChairError(error);
      if (this.#source === undefined && !PASSING.has(code)) {
        this.#fail(error);
        return;
      }
      this.#problem = `${code}: ${message}`;
      waitMs = CONNECT_AGAIN_MS;
    }
    if (this.#stopped) return;
    this.draw();
    this.#timer = setTimeout(() => void this.#ask(), Math.max(0, waitMs - (this.#o.nowMs() - askedMs)));
  }

  async #connected(): Promise<Source> {
    const source = await this.#o.connect();
    // Somebody quit while it connected.
    if (this.#stopped) await source.close();
    return source;
  }

  #answered(report: StatusReport): void {
    const { nowMs } = this.#o;
    this.#problem = '';
    this.#answeredMs = nowMs();
    this.#history = observe(this.#history, report, this.#answeredMs);
    this.#seen = { report, history: this.#history };
  }

  #do(effect: Effect): void {
    const { canvas, suspend } = this.#o;
    if (effect === 'quit') this.stop();
    else if (effect === 'redraw') canvas.redraw();
    else if (effect === 'suspend') {
      canvas.leave();
      suspend();
      canvas.enter();
    } else void this.#drain(effect.drain, effect.undo);
  }

  async #drain(agent: string, undo: boolean): Promise<void> {
    this.#say(undo ? `${agent} may have seats again: asking ...` : `Draining ${agent}: its seats move to others ...`);
    try {
      if (this.#source === undefined) throw new Error('the gateway does not answer');
      await this.#source.drain(agent, { undo });
      this.#say(
        undo
          ? `${agent} may have seats again.`
          : `${agent} holds no seats any more and may be stopped. Press d on it to give it seats again.`,
      );
    } catch (error) {
      const { code, message } = toChairError(error);
      this.#say(`${code}: ${message}`);
    }
  }

  #say(note: string): void {
    this.#ui = { ...this.#ui, note };
    this.draw();
  }
}

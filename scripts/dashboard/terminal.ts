/**
 * The terminal: its own screen while the dashboard runs, rows written only when they changed, and everything put back however the process ends. Control
 * sequences: ECMA-48 and xterm's private modes.
 */
import { Keys } from './keys.js';
import { ansi, type Line } from './text.js';

const CSI = '\u001b[';
/** Alternate screen, no cursor, no wrapping at the right edge, pasted text marked as such. */
const ENTER = `${CSI}?1049h${CSI}?25l${CSI}?7l${CSI}?2004h${CSI}2J`;
const LEAVE = `${CSI}?2004l${CSI}?7h${CSI}?25h${CSI}?1049l`;
/** An escape that nothing follows for so long is the key; over a slow line its sequence may come in pieces. */
const ESCAPE_MS = 60;
/** A line that is slower than the screen changes: frames are left out while so much waits to be sent. */
const MOST_WAITING_BYTES = 32 * 1024;

export interface TerminalInput {
  setRawMode?(mode: boolean): unknown;
  setEncoding(encoding: 'utf8'): unknown;
  on(event: 'data', listener: (text: string) => void): unknown;
  off(event: 'data', listener: (text: string) => void): unknown;
  resume(): unknown;
  pause(): unknown;
}

export interface TerminalOutput {
  readonly columns: number;
  readonly rows: number;
  readonly writableLength: number;
  write(text: string): unknown;
  on(event: 'resize', listener: () => void): unknown;
  off(event: 'resize', listener: () => void): unknown;
}

export interface TerminalOptions {
  readonly input: TerminalInput;
  readonly output: TerminalOutput;
  readonly colours: boolean;
  /** It shows more than ASCII. */
  readonly unicode: boolean;
  readonly onKey: (key: string) => void;
  readonly onResize: () => void;
}

export class Terminal {
  readonly #o: TerminalOptions;
  readonly #keys = new Keys();
  #shown: string[] = [];
  #size = '';
  #timer: NodeJS.Timeout | undefined;
  #entered = false;
  readonly #onData = (text: string): void => this.#data(text);
  readonly #onResize = (): void => {
    this.#shown = [];
    this.#o.onResize();
  };

  constructor(options: TerminalOptions) {
    this.#o = options;
  }

  /** A terminal of unknown size says 0. */
  get columns(): number {
    return this.#o.output.columns || 80;
  }

  get rows(): number {
    return this.#o.output.rows || 24;
  }

  enter(): void {
    if (this.#entered) return;
    this.#entered = true;
    const { input, output } = this.#o;
    this.#shown = [];
    output.write(ENTER);
    input.setRawMode?.(true);
    input.setEncoding('utf8');
    input.on('data', this.#onData);
    input.resume();
    output.on('resize', this.#onResize);
  }

  /** Idempotent; written at once, so that it may be called while the process ends. */
  leave(): void {
    if (!this.#entered) return;
    this.#entered = false;
    const { input, output } = this.#o;
    clearTimeout(this.#timer);
    input.off('data', this.#onData);
    output.off('resize', this.#onResize);
    input.setRawMode?.(false);
    input.pause();
    output.write(LEAVE);
  }

  /** Everything is written at the next `draw`. */
  redraw(): void {
    this.#shown = [];
  }

  /** Writes the rows that changed, as one write. False: the terminal has not taken the last ones yet, and nothing was written. */
  draw(lines: readonly Line[]): boolean {
    const { output, colours, unicode } = this.#o;
    if (!this.#entered) return false;
    if (output.writableLength > MOST_WAITING_BYTES) return false;
    const size = `${this.columns}x${this.rows}`;
    const fresh = this.#shown.length === 0 || size !== this.#size;
    this.#size = size;
    const rows = lines.slice(0, this.rows).map((one) => ansi(one, colours, unicode));
    const before = fresh ? [] : this.#shown;
    const changed = rows.flatMap((row, i) => (row === before[i] ? [] : [`${CSI}${i + 1};1H${row}`]));
    this.#shown = rows;
    const text = (fresh ? `${CSI}2J` : '') + changed.join('');
    if (text !== '') output.write(text);
    return true;
  }

  #data(text: string): void {
    clearTimeout(this.#timer);
    for (const key of this.#keys.feed(text)) this.#o.onKey(key);
    if (!this.#keys.waits) return;
    this.#timer = setTimeout(() => {
      for (const key of this.#keys.flush()) this.#o.onKey(key);
    }, ESCAPE_MS);
  }
}

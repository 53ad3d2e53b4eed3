/**
 * What a command prints: results on stdout (text, or one JSON document with --json), progress and errors on stderr.
 * A reader that goes away (`| head`) ends the program quietly.
 */
import { ChairError, isChairError } from '../broker/errors.js';
import { printable, printableJson, printableLines } from './printable.js';

export interface OutputStreams {
  readonly stdout: NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number };
  readonly stderr: NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number };
}

/** Errors that are the writer's fault: exit status 2, as `getopt` programs do; everything else is 1. */
const USAGE_CODES: ReadonlySet<string> = new Set(['USAGE', 'CONFIG_INVALID']);

export class Output {
  readonly json: boolean;
  readonly #streams: OutputStreams;
  /** Length of the live line on the terminal, 0 when there is none. */
  #live = 0;
  #lastPlain = '';
  #lastPlainAt = Number.NEGATIVE_INFINITY;

  constructor(json: boolean, streams: OutputStreams = process) {
    this.json = json;
    this.#streams = streams;
  }

  /** Columns to write tables in. */
  get columns(): number {
    return Math.max(60, this.#streams.stdout.columns || 80);
  }

  get isTerminal(): boolean {
    return this.#streams.stdout.isTTY === true;
  }

  /** Text for people; nothing with --json. */
  text(lines: string): void {
    this.#clearLive();
    if (!this.json) this.#streams.stdout.write(`${printableLines(lines)}\n`);
  }

  /** An empty screen to write on, where there is one. */
  clear(): void {
    if (this.isTerminal && !this.json) this.#streams.stdout.write('\u001b[2J\u001b[H');
  }

  /**
   * The command's report: `value` with --json, else the lines. `lines` is made only when it is wanted. What others sent cannot act on the terminal; `styled` lines
   * were made safe before they got their colours.
   */
  report(value: unknown, lines: () => string, styled = false): void {
    this.#clearLive();
    const { stdout } = this.#streams;
    if (this.json) stdout.write(`${printableJson(JSON.stringify(value, null, 2))}\n`);
    else stdout.write(`${styled ? lines() : printableLines(lines())}\n`);
  }

  /** How far something is: one live line on a terminal, else plain lines, at most one in two seconds. Always on stderr. */
  progress(line: string): void {
    const { stderr } = this.#streams;
    if (stderr.isTTY === true) {
      // A terminal of unknown size says 0.
      const cut = printable(line).slice(0, (stderr.columns || 80) - 1);
      stderr.write(`\r${cut.padEnd(this.#live)}`);
      this.#live = cut.length;
      return;
    }
    const now = performance.now();
    if (line === this.#lastPlain || now - this.#lastPlainAt < 2_000) return;
    this.#lastPlain = line;
    this.#lastPlainAt = now;
    stderr.write(`${printable(line)}\n`);
  }

  /** A line that stays, on stderr: what a server is doing. One line, whatever is in it: nobody else can begin another one in a log. */
  note(line: string): void {
    this.#clearLive();
    this.#streams.stderr.write(`${printable(line)}\n`);
  }

  #clearLive(): void {
    if (this.#live === 0) return;
    this.#streams.stderr.write(`\r${' '.repeat(this.#live)}\r`);
    this.#live = 0;
  }
}

/** One line: `CODE: message`. */
export function errorLine(error: unknown): string {
  const code = isChairError(error) ? error.code : 'INTERNAL';
  const message = error instanceof Error ? error.message : String(error);
  const hint = code === 'INTERNAL' && !message.includes('--verbose') ? ' (run again with --verbose for the stack)' : '';
  return printable(`${code}: ${message.replaceAll(/\s*\n\s*/g, ' ').trim()}${hint}`);
}

/** The document of a command that failed with --json. */
export function errorJson(error: unknown): string {
  const code = isChairError(error) ? error.code : 'INTERNAL';
  return printableJson(JSON.stringify({ error: { code, message: error instanceof Error ? error.message : String(error) } }, null, 2));
}

/** 0 is never returned: an error is an error. */
export function exitStatus(error: unknown): number {
  return isChairError(error) && USAGE_CODES.has(error.code) ? 2 : 1;
}

/** Like `parseInt`, but nothing is guessed. Throws USAGE. */
export function wholeNumber(text: string, what: string, minimum: number, maximum: number): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= minimum && value <= maximum) return value;
  throw new ChairError('USAGE', `${what} is wrong`, { expected: `a whole number from ${minimum} to ${maximum}`, came: `"${text}"` });
}

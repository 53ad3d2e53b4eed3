/**
 * What a command prints: results on stdout (text, or one JSON document with --json), progress and errors on stderr.
 * A reader that goes away (`| head`) ends the program quietly.
 */
import { ChairError, isChairError } from '../broker/errors.js';
import { INTERRUPTED } from './lifetime.js';
import { PROGRAM } from './package-root.js';
import { printable, printableJson, printableLines } from './printable.js';

export interface OutputStreams {
  readonly stdout: NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number };
  readonly stderr: NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number };
}

/** Columns of the live line that stands on a stream; whoever writes there next has to wipe it first. */
const LIVE = new WeakMap<object, number>();

/** Wipes the live line of a stream, so that what is written next does not stand behind it. */
export function endLiveLine(stream: { write(text: string): unknown }): void {
  const columns = LIVE.get(stream) ?? 0;
  if (columns === 0) return;
  stream.write(`\r${' '.repeat(columns)}\r`);
  LIVE.delete(stream);
}

/** A line may be written over: a terminal that knows the carriage return. Editors' shells (TERM=dumb) show both lines. */
function isLive(stream: { readonly isTTY?: boolean }): boolean {
  return stream.isTTY === true && process.env.TERM !== 'dumb';
}

/** Columns for a plain line of progress: it goes into a file or a log. */
const PLAIN_COLUMNS = 100;

/**
 * Commands in sentences of ours stand between back quotes and begin with `musical-chair`, wherever they are written. Whoever reads them here gets what can be typed
 * here: in a checkout there is no program of that name.
 */
export function asTyped(text: string): string {
  return text.replaceAll('`musical-chair ', `\`${PROGRAM} `).replaceAll(ALONE, `\`${PROGRAM} `);
}

/** Commands that sentences name without the program, as two words or as one that means nothing else. */
const ALONE = /`(?=(?:(?:token|agents|config) (?:create|list|revoke|approve|init|check)|enrol|doctor|audit)\b)/g;

/** Errors that are the writer's fault: exit status 2, as `getopt` programs do; everything else is 1. */
const USAGE_CODES: ReadonlySet<string> = new Set(['USAGE', 'CONFIG_INVALID']);

export class Output {
  readonly json: boolean;
  readonly #streams: OutputStreams;
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
    if (!this.json) this.#streams.stdout.write(`${asTyped(printableLines(lines))}\n`);
  }

  /** An empty screen to write on, where there is one. */
  clear(): void {
    if (isLive(this.#streams.stdout) && !this.json) this.#streams.stdout.write('\u001b[2J\u001b[H');
  }

  /**
   * The command's report: `value` with --json, else the lines. `lines` is made only when it is wanted. What others sent cannot act on the terminal; `styled` lines
   * were made safe before they got their colours.
   */
  report(value: unknown, lines: () => string, styled = false): void {
    this.#clearLive();
    const { stdout } = this.#streams;
    if (this.json) stdout.write(`${printableJson(JSON.stringify(value, null, 2))}\n`);
    else stdout.write(`${asTyped(styled ? lines() : printableLines(lines()))}\n`);
  }

  /**
   * How far something is: one live line on a terminal, else plain lines, at most one in two seconds. Always on stderr. What leaves things out where there is little
   * room is a function of the columns there are.
   */
  progress(said: string | ((columns: number) => string)): void {
    const { stderr } = this.#streams;
    const text = (columns: number): string => (typeof said === 'string' ? said : said(columns));
    if (isLive(stderr)) {
      // A terminal of unknown size says 0.
      const columns = (stderr.columns || 80) - 1;
      const cut = printable(text(columns)).slice(0, columns);
      stderr.write(`\r${cut.padEnd(LIVE.get(stderr) ?? 0)}`);
      LIVE.set(stderr, cut.length);
      return;
    }
    const now = performance.now();
    const line = text(PLAIN_COLUMNS);
    if (line === this.#lastPlain || now - this.#lastPlainAt < 2_000) return;
    this.#lastPlain = line;
    this.#lastPlainAt = now;
    stderr.write(`${printable(line)}\n`);
  }

  /** A line that stays, on stderr: what a server is doing. One line, whatever is in it: nobody else can begin another one in a log. */
  note(line: string): void {
    this.#clearLive();
    this.#streams.stderr.write(`${asTyped(printable(line))}\n`);
  }

  #clearLive(): void {
    endLiveLine(this.#streams.stderr);
  }
}

/** One line: `CODE: message`. */
export function errorLine(error: unknown): string {
  const code = isChairError(error) ? error.code : 'INTERNAL';
  const message = error instanceof Error ? error.message : String(error);
  const hint = code === 'INTERNAL' && !message.includes('--verbose') ? ' (run again with --verbose for the stack)' : '';
  return asTyped(printable(`${code}: ${message.replaceAll(/\s*\n\s*/g, ' ').trim()}${hint}`));
}

/** The document of a command that failed with --json. */
export function errorJson(error: unknown): string {
  const code = isChairError(error) ? error.code : 'INTERNAL';
  return printableJson(JSON.stringify({ error: { code, message: error instanceof Error ? error.message : String(error) } }, null, 2));
}

/** 0 is never returned: an error is an error. Of what Ctrl-C ended in order, the status that shells give it. */
export function exitStatus(error: unknown): number {
  if (isChairError(error, 'PROFILE_CANCELLED')) return INTERRUPTED;
  return isChairError(error) && USAGE_CODES.has(error.code) ? 2 : 1;
}

/** Like `parseInt`, but nothing is guessed. Throws USAGE. */
export function wholeNumber(text: string, what: string, minimum: number, maximum: number): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= minimum && value <= maximum) return value;
  throw new ChairError('USAGE', `${what} is wrong`, { expected: `a whole number from ${minimum} to ${maximum}`, came: `"${text}"` });
}

/** Rows that are learned while the gateway runs, kept over restarts: a sealed file, written soon after what matters and now and then besides. */
import { ChairError, toChairError } from '../broker/errors.js';
import { putAside, readSealed, writeSealed } from '../broker/sealed-file.js';
import type { Problems } from './problems.js';

export interface KeptRowsOptions {
  readonly file: string;
  /** Of the file's form: another one is put aside. */
  readonly format: number;
  /** What they are, such as `links`. */
  readonly what: string;
  /** What is said when the file cannot be used, and when it cannot be written; the reason follows. */
  readonly lost: string;
  readonly unsaved: string;
  /** After something that matters; after anything else (memory cards wear out). */
  readonly soonMs: number;
  readonly laterMs: number;
  readonly problems: Problems;
  readonly log: (kind: string, text: string) => void;
}

export class KeptRows<Row> {
  readonly #o: KeptRowsOptions;
  #timer: NodeJS.Timeout | undefined;
  #dueMs = Number.POSITIVE_INFINITY;
  #rows: (() => readonly Row[]) | undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(options: KeptRowsOptions) {
    this.#o = options;
  }

  /** A file that cannot be used is put aside and stays a problem that is shown. Never throws. */
  async load(): Promise<Row[]> {
    const { file, problems, what, lost } = this.#o;
    try {
      const text = await readSealed(file);
      return text === undefined ? [] : this.#parsed(text);
    } catch (thrown) {
      await putAside(file);
      problems.set(`${what} file`, `${lost}: ${toChairError(thrown).message}`);
      return [];
    }
  }

  /** Something was learned: `rows` is asked when it is written. */
  changed(rows: () => readonly Row[], matters: boolean): void {
    this.#rows = rows;
    const inMs = matters ? this.#o.soonMs : this.#o.laterMs;
    const dueMs = performance.now() + inMs;
    if (dueMs >= this.#dueMs) return;
    this.#dueMs = dueMs;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.flush(), inMs).unref();
  }

  /** Resolves when what is known is on the disk, or was reported not to be. */
  flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#dueMs = Number.POSITIVE_INFINITY;
    const rows = this.#rows;
    this.#rows = undefined;
    if (rows !== undefined) this.#writing = this.#writing.then(() => this.#write(rows));
    return this.#writing;
  }

  /** What could not be written is tried again later. */
  async #write(rows: () => readonly Row[]): Promise<void> {
    const { file, format, what, unsaved, problems, log } = this.#o;
    try {
      await writeSealed(file, JSON.stringify({ format, rows: rows() }), 'GATEWAY_STORE_FULL');
      problems.clear(`save ${what}`);
    } catch (thrown) {
      const text = `${unsaved}: ${toChairError(thrown).message}`;
      if (problems.set(`save ${what}`, text)) log('failed', text);
      if (this.#rows === undefined) this.changed(rows, false);
    }
  }

  #parsed(text: string): Row[] {
    const value: unknown = JSON.parse(text);
    const { format, what } = this.#o;
    if (typeof value === 'object' && value !== null && 'format' in value && value.format === format && 'rows' in value) {
      // It is sealed, so it is what this version wrote.
      return value.rows as Row[];
    }
    throw new ChairError('STATE_DAMAGED', `not a file of ${what}`, { expected: `format ${format}`, came: text.slice(0, 40) });
  }
}

/** What is known of links, on disk: a sealed file, written soon after a measurement and now and then besides. */

import { ChairError, toChairError } from '../../broker/errors.js';
import { putAside, readSealed, writeSealed } from '../../broker/sealed-file.js';
import type { Problems } from '../problems.js';
import type { LinkEntry } from './table.js';

/** Of the file's form. */
const FORMAT = 1;
const AFTER_MEASURING_MS = 2000;
/** Live traffic changes rows all the time, and memory cards wear out. */
const AFTER_TRAFFIC_MS = 10 * 60_000;

/** A row of the table; no clock outlives its process, so its age stands in the place of its time. */
export type SavedLink = Pick<LinkEntry, 'from' | 'to' | 'lane' | 'bytesPerSecond' | 'latencyMs' | 'spread' | 'source'> & {
  readonly ageMs: number;
};

export interface LinkFileOptions {
  readonly file: string;
  readonly problems: Problems;
  readonly log: (kind: string, text: string) => void;
}

export class LinkFile {
  readonly #o: LinkFileOptions;
  #timer: NodeJS.Timeout | undefined;
  #dueMs = Number.POSITIVE_INFINITY;
  #rows: (() => readonly SavedLink[]) | undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(options: LinkFileOptions) {
    this.#o = options;
  }

  /** A file that cannot be used is put aside and stays a problem that is shown: links are measured again. Never throws. */
  async load(): Promise<SavedLink[]> {
    const { file, problems } = this.#o;
    try {
      const text = await readSealed(file);
      return text === undefined ? [] : parsed(text);
    } catch (thrown) {
      await putAside(file);
      problems.set('links file', `links that were known are measured again: ${toChairError(thrown).message}`);
      return [];
    }
  }

  /** Something was learned: `rows` is asked when it is written. */
  changed(rows: () => readonly SavedLink[], measured: boolean): void {
    this.#rows = rows;
    const inMs = measured ? AFTER_MEASURING_MS : AFTER_TRAFFIC_MS;
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
    if (rows !== undefined) this.#writing = this.#writing.then(() => this.#write(rows()));
    return this.#writing;
  }

  async #write(rows: readonly SavedLink[]): Promise<void> {
    const { file, problems, log } = this.#o;
    try {
      await writeSealed(file, JSON.stringify({ format: FORMAT, rows }), 'GATEWAY_STORE_FULL');
      problems.clear('save links');
    } catch (thrown) {
      const text = `links that are measured are not kept over a restart: ${toChairError(thrown).message}`;
      if (problems.set('save links', text)) log('failed', text);
    }
  }
}

function parsed(text: string): SavedLink[] {
  const value: unknown = JSON.parse(text);
  if (typeof value === 'object' && value !== null && 'format' in value && value.format === FORMAT && 'rows' in value) {
    // It is sealed, so it is what this version wrote.
    return value.rows as SavedLink[];
  }
  throw new ChairError('STATE_DAMAGED', 'not a file of links', { expected: `format ${FORMAT}`, came: text.slice(0, 40) });
}

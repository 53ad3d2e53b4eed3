/** Counts what is not acted on, by code, so that an operator sees it in `status`: a message of another epoch, cluster, schema or sender, or one that makes no sense. */
import type { ErrorCode } from './errors.js';
import type { RefusalRow } from './messages.js';
import { printable } from './printable.js';

/** Of the latest message's fault: a row of a table, not a log. */
const MOST_CHARACTERS = 300;
/** What a message can carry. */
const MOST_ROWS = 64;

export class Refusals {
  readonly #rows = new Map<ErrorCode, { count: number; latest: string }>();

  count(code: ErrorCode, latest: string): void {
    const row = this.#rows.get(code) ?? { count: 0, latest: '' };
    row.count++;
    row.latest = printable(latest.slice(0, MOST_CHARACTERS)).slice(0, MOST_CHARACTERS);
    this.#rows.set(code, row);
  }

  of(code: ErrorCode): number {
    return this.#rows.get(code)?.count ?? 0;
  }

  /** Most frequent first. */
  rows(): RefusalRow[] {
    const rows = [...this.#rows].map(([code, row]) => ({ code, ...row }));
    return rows.sort((a, b) => b.count - a.count).slice(0, MOST_ROWS);
  }
}

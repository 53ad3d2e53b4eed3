/**
 * Who was let in, refused and thrown out, and what was deployed: one JSON document a line, in files of a bounded size, only ever appended to, of which the oldest goes.
 * Much of what stands there was said by strangers: control characters, line ends and anything else that is not printable ASCII is escaped, so that looking at it on a
 * terminal does nothing but show it.
 *
 * Strangers cannot push out what matters. What was done stands in files of its own, and so does what was refused to those who showed a secret or a certificate; what
 * anybody can cause from the network is in a third set of files. Equal refusals are counted, and so are renewals of one name from one address.
 */
import { toChairError } from '../errors.js';
import { type AuditEntry, type AuditRow, auditLine, auditRows, brief, isStrangers } from './audit-entry.js';
import { LogFiles } from './log-files.js';
import { RefusalCounts } from './refusal-counts.js';

export { printable } from '../printable.js';
export type { AuditEntry, AuditEvent, AuditRow } from './audit-entry.js';

export interface AuditOptions {
  readonly directory: string;
  readonly nowMs?: () => number;
  /** Default 1 MiB. */
  readonly fileBytes?: number;
  /** Files of what was done, beside the one that is written; default 8. */
  readonly files?: number;
  readonly log?: (line: string) => void;
}

/** Of refusals, beside the one that is written. */
const REFUSED_FILES = 3;
const STRANGERS_FILES = 2;

export class AuditLog {
  readonly #o: AuditOptions;
  readonly #counts = new RefusalCounts({ isRated: true });
  /** A whole fleet may renew at once; one of them without end. */
  readonly #renewals = new RefusalCounts({ isRated: false });
  readonly #done: LogFiles;
  readonly #refused: LogFiles;
  readonly #strangers: LogFiles;
  #broken = false;

  /** Nothing is opened before the first entry. */
  constructor(options: AuditOptions) {
    this.#o = options;
    const { directory, fileBytes = 2 ** 20, files = 8 } = options;
    const onWritten = (error: unknown): void => this.#written(error);
    this.#done = new LogFiles({ directory, name: 'audit', fileBytes, files, onWritten });
    this.#refused = new LogFiles({ directory, name: 'refused', fileBytes, files: REFUSED_FILES, onWritten });
    this.#strangers = new LogFiles({ directory, name: 'strangers', fileBytes, files: STRANGERS_FILES, onWritten });
  }

  /**
   * Resolves when the entry is on the disk, or could not be written, which is said once in the log: what it tells of has been decided, and a full disk must
   * not keep anybody from revoking. Refusals beyond a rate, and what is repeated, are only counted.
   */
  write(entry: AuditEntry): Promise<void> {
    const nowMs = (this.#o.nowMs ?? Date.now)();
    const short = brief(entry);
    const counts = entry.event === 'refused' ? this.#counts : entry.event === 'renewed' ? this.#renewals : undefined;
    const counted = counts === undefined ? short : counts.take(short, nowMs);
    return counted === undefined ? Promise.resolve() : this.#append({ at: new Date(nowMs).toISOString(), ...counted });
  }

  /**
   * The latest entries, oldest first; what was only counted is among them. `only`: what was done, or what was refused. Of both, at most half are refusals
   * when there is as much of the other: whoever looks sees what was done, whatever knocks.
   */
  async read(count: number, only?: 'done' | 'refused'): Promise<AuditRow[]> {
    const done = only === 'refused' ? [] : latest(merged(await this.#done.read(count, auditRows), this.#renewals.pending()), count);
    const refused = only === 'done' ? [] : await this.#refusals(count);
    const most = only === undefined ? Math.max(count - done.length, Math.floor(count / 2)) : count;
    const shown = latest(refused, most);
    return merged(latest(done, count - shown.length), shown);
  }

  /** What was counted is written. Idempotent. */
  async stop(): Promise<void> {
    const pending = merged(this.#renewals.pending(), this.#counts.pending());
    for (const counts of [this.#renewals, this.#counts]) counts.clear();
    await Promise.all(pending.map((row) => this.#append(row)));
    for (const files of [this.#done, this.#refused, this.#strangers]) await files.stop();
  }

  async #refusals(count: number): Promise<AuditRow[]> {
    const [known, strangers] = await Promise.all([this.#refused.read(count, auditRows), this.#strangers.read(count, auditRows)]);
    return latest(merged(merged(known, strangers), this.#counts.pending()), count);
  }

  #append(row: AuditRow): Promise<void> {
    const line = auditLine(row);
    if (row.event !== 'refused') return this.#done.append(line, true);
    return (isStrangers(row.code ?? '') ? this.#strangers : this.#refused).append(line, false);
  }

  #written(error: unknown): void {
    if (error !== undefined && !this.#broken) this.#o.log?.(`the audit log cannot be written: ${toChairError(error).message}`);
    this.#broken = error !== undefined;
  }
}

function latest(rows: readonly AuditRow[], count: number): AuditRow[] {
  return count <= 0 ? [] : rows.slice(-count);
}

/** By time; each keeps its own order, also where a clock was put back. Of one moment: `a` first, what was done before what it led to. */
function merged(a: readonly AuditRow[], b: readonly AuditRow[]): AuditRow[] {
  const rows: AuditRow[] = [];
  for (let [i, j] = [0, 0]; i < a.length || j < b.length; ) {
    const [left, right] = [a[i], b[j]];
    const takeLeft = left !== undefined && (right === undefined || left.at <= right.at);
    const next = takeLeft ? left : right;
    if (next !== undefined) rows.push(next);
    if (takeLeft) i++;
    else j++;
  }
  return rows;
}

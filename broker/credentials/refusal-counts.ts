/**
 * Which refusals are written down, and which are only counted: whoever knocks without end must neither fill a disk nor push out what others did. Also of what somebody with
 * a certificate may do again and again. Pure: the time is an argument.
 */
import { type AuditEntry, type AuditRow, isStrangers } from './audit-entry.js';
import { Bucket } from './bucket.js';

/** The same refusal once more within this is only counted. */
const REPEAT_MS = 600_000;
const MOST_REPEATED = 1_000;
/** Refusals of one code in a row, and one more each so many ms. */
const REFUSALS = { burst: 50, everyMs: 10_000 };

/** Of one kind: written when it first came, and what came after that and was not. */
interface Counted {
  readonly writtenMs: number;
  unsaid: number;
  latest: AuditEntry;
  latestMs: number;
}

interface Code {
  readonly bucket: Bucket;
  unsaid: number;
  latestMs: number;
  readonly event: AuditEntry['event'];
}

export class RefusalCounts {
  readonly #isRated: boolean;
  readonly #kinds = new Map<string, Counted>();
  /** Each code has a rate of its own: what strangers can do without end hides nothing that takes a secret or a key. */
  readonly #codes = new Map<string, Code>();

  /** `isRated`: false = only the same again is counted, and what comes once is written, however many there are. */
  constructor({ isRated }: { readonly isRated: boolean }) {
    this.#isRated = isRated;
  }

  /** What is to be written; undefined: it was counted. */
  take(entry: AuditEntry, nowMs: number): AuditEntry | undefined {
    const [key, code] = [kindOf(entry), this.#codeOf(entry)];
    const before = this.#kinds.get(key);
    // Who was thrown out knocks on for ever.
    if (before !== undefined && Math.abs(nowMs - before.writtenMs) < REPEAT_MS) {
      before.unsaid++;
      [before.latest, before.latestMs] = [entry, nowMs];
      return undefined;
    }
    if (this.#isRated && !code.bucket.take(nowMs)) {
      code.unsaid++;
      code.latestMs = nowMs;
      return undefined;
    }
    const unsaid = code.unsaid + (before?.unsaid ?? 0);
    code.unsaid = 0;
    this.#kinds.delete(key);
    this.#kinds.set(key, { writtenMs: nowMs, unsaid: 0, latest: entry, latestMs: nowMs });
    this.#forgetOldest();
    return unsaid === 0 ? entry : { ...entry, unsaid };
  }

  /** What was counted and is not written yet, as it would be written now: the latest of each kind, with how many came before it. Oldest first. */
  pending(): AuditRow[] {
    const kinds = [...this.#kinds.values()].filter(({ unsaid }) => unsaid > 0);
    const codes = [...this.#codes].filter(([, { unsaid }]) => unsaid > 0);
    const rows = [
      ...kinds.map(({ latest, latestMs, unsaid }) => ({ atMs: latestMs, entry: { ...latest, unsaid: unsaid - 1 } })),
      ...codes.map(([code, { latestMs, unsaid, event }]) => ({ atMs: latestMs, entry: { event, detail: MANY, code, unsaid: unsaid - 1 } })),
    ].sort((a, b) => a.atMs - b.atMs);
    return rows.map(({ atMs, entry }) => ({ at: new Date(atMs).toISOString(), ...entry }));
  }

  /** After what is pending was written. */
  clear(): void {
    this.#kinds.clear();
    this.#codes.clear();
  }

  #codeOf({ code = '', event }: AuditEntry): Code {
    const known = this.#codes.get(code) ?? { bucket: new Bucket(REFUSALS), unsaid: 0, latestMs: 0, event };
    this.#codes.set(code, known);
    return known;
  }

  #forgetOldest(): void {
    const [oldest] = this.#kinds;
    if (oldest === undefined || this.#kinds.size <= MOST_REPEATED) return;
    const [key, { unsaid, latest, latestMs }] = oldest;
    this.#kinds.delete(key);
    if (unsaid === 0) return;
    const code = this.#codeOf(latest);
    code.unsaid += unsaid;
    code.latestMs = Math.max(code.latestMs, latestMs);
  }
}

const MANY = 'of more kinds, or from more addresses, than are told apart';

/** What counts as the same. What a stranger says is his choice: one address, one kind of refusal. */
function kindOf({ event, code = '', about, from, detail }: AuditEntry): string {
  // Each has another serial.
  if (event === 'renewed') return JSON.stringify([event, about, from]);
  return JSON.stringify(isStrangers(code) ? [code, from] : [code, about, from, detail]);
}

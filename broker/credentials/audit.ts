/**
 * Who was let in, refused and thrown out, and what was deployed: one JSON document a line, only ever appended to. Files of a bounded size, of which the oldest goes.
 * Much of what stands in it was said by strangers: control characters, line ends and anything else that is not printable ASCII is escaped, so that looking at it on a
 * terminal does nothing but show it. And strangers cannot push out what matters: their refusals are counted instead, when there are too many.
 */
import { type FileHandle, open, readFile, rename, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { toChairError } from '../errors.js';
import { Bucket } from './bucket.js';

export const AUDIT_EVENTS = [
  'authority made',
  'token created',
  'token revoked',
  'token locked',
  'joined',
  'held',
  'approved',
  'renewed',
  'revoked',
  'refused',
  'deployed',
  'undeployed',
  'adjusted',
  'drained',
  'drain undone',
  'update ordered',
  'updated',
  'update failed',
  'backed up',
  'restored',
] as const;
export type AuditEvent = (typeof AUDIT_EVENTS)[number];

export interface AuditEntry {
  readonly event: AuditEvent;
  /** Who did it: `operator alice`, `agent pi-1`; '' = unknown. */
  readonly by?: string;
  /** To what or whom. */
  readonly about?: string;
  /** Address of the machine, when there is one. */
  readonly from?: string;
  /** Of a refusal: an error code. */
  readonly code?: string;
  readonly detail?: string;
  /** Refusals of this code before this one that are not in the log. */
  readonly unsaid?: number;
}

export interface AuditRow extends AuditEntry {
  readonly at: string;
}

export interface AuditOptions {
  readonly directory: string;
  readonly nowMs?: () => number;
  /** Default 1 MiB. */
  readonly fileBytes?: number;
  /** Files beside the one that is written; default 8. */
  readonly files?: number;
  readonly log?: (line: string) => void;
}

const NAME = 'audit';
const FIELD_CHARACTERS = 300;
/** The same refusal once more within this is only counted. */
const REPEAT_MS = 600_000;
const MOST_REPEATED = 1_000;
/** Refusals of one code in a row, and one more each so many ms. */
const REFUSALS = { burst: 50, everyMs: 10_000 };

export class AuditLog {
  readonly #o: AuditOptions;
  readonly #refusals = new Map<string, { readonly bucket: Bucket; unsaid: number }>();
  /** Latest refusals that were written: when, and how often they came again. */
  readonly #repeated = new Map<string, { readonly atMs: number; unsaid: number }>();
  #file: FileHandle | undefined;
  #bytes = 0;
  #writing: Promise<void> = Promise.resolve();
  #broken = false;

  /** Nothing is opened before the first entry. */
  constructor(options: AuditOptions) {
    this.#o = options;
  }

  /**
   * Resolves when the entry is on the disk, or could not be written, which is said once in the log: what it tells of has been decided, and a full disk must
   * not keep anybody from revoking. Refusals beyond a rate are only counted.
   */
  write(entry: AuditEntry): Promise<void> {
    const nowMs = this.#now();
    const counted = entry.event === 'refused' ? this.#counted(entry, nowMs) : entry;
    if (counted === undefined) return Promise.resolve();
    const line = auditLine(new Date(nowMs).toISOString(), counted);
    this.#writing = this.#writing.then(() => this.#append(line, entry.event !== 'refused'));
    return this.#writing;
  }

  /** The latest entries, oldest first. Lines that a power cut has left half are passed over. */
  async read(count: number): Promise<AuditRow[]> {
    await this.#writing;
    const rows: AuditRow[] = [];
    for (let number = 0; number <= this.#files && rows.length < count; number++) {
      const text = await readFile(this.#path(number), 'utf8').catch(() => '');
      rows.unshift(
        ...text
          .split('\n')
          .flatMap(parsed)
          .slice(rows.length - count),
      );
    }
    return rows;
  }

  /** Idempotent. */
  async stop(): Promise<void> {
    await this.#writing;
    await this.#file?.close();
    this.#file = undefined;
  }

  /** Undefined when there are too many of its code. Each code has a rate of its own: what strangers can do without end hides nothing that takes a secret or a key. */
  #counted(entry: AuditEntry, nowMs: number): AuditEntry | undefined {
    const { code = '', about, from, detail } = entry;
    const key = JSON.stringify([code, about, from, detail]);
    const before = this.#repeated.get(key);
    // Who was thrown out knocks on for ever.
    if (before !== undefined && Math.abs(nowMs - before.atMs) < REPEAT_MS) {
      before.unsaid++;
      return undefined;
    }
    const known = this.#refusals.get(code) ?? { bucket: new Bucket(REFUSALS), unsaid: 0 };
    this.#refusals.set(code, known);
    if (!known.bucket.take(nowMs)) {
      known.unsaid++;
      return undefined;
    }
    const unsaid = known.unsaid + (before?.unsaid ?? 0);
    known.unsaid = 0;
    this.#repeated.delete(key);
    this.#repeated.set(key, { atMs: nowMs, unsaid: 0 });
    if (this.#repeated.size > MOST_REPEATED) this.#repeated.delete(this.#repeated.keys().next().value ?? '');
    return unsaid === 0 ? entry : { ...entry, unsaid };
  }

  get #files(): number {
    return this.#o.files ?? 8;
  }

  #now(): number {
    return (this.#o.nowMs ?? Date.now)();
  }

  #path(number: number): string {
    return join(this.#o.directory, number === 0 ? `${NAME}.log` : `${NAME}.${number}.log`);
  }

  async #append(line: string, flush: boolean): Promise<void> {
    try {
      const file = await this.#opened();
      await file.write(line);
      this.#bytes += line.length;
      if (flush) await file.datasync();
      if (this.#bytes >= (this.#o.fileBytes ?? 2 ** 20)) await this.#rotate();
      this.#broken = false;
    } catch (error) {
      if (!this.#broken) this.#o.log?.(`the audit log cannot be written: ${toChairError(error).message}`);
      this.#broken = true;
    }
  }

  async #opened(): Promise<FileHandle> {
    if (this.#file !== undefined) return this.#file;
    const path = this.#path(0);
    const before = await readFile(path, 'utf8').catch(() => '');
    this.#file = await open(path, 'a', 0o600);
    this.#bytes = (await stat(path)).size;
    // A power cut in the middle of a line must not spoil the next one.
    if (before !== '' && !before.endsWith('\n')) await this.#file.write('\n');
    return this.#file;
  }

  async #rotate(): Promise<void> {
    await this.#file?.close();
    this.#file = undefined;
    for (let number = this.#files - 1; number >= 0; number--) {
      await rename(this.#path(number), this.#path(number + 1)).catch(() => undefined);
    }
  }
}

/** One line of the log. */
export function auditLine(at: string, entry: AuditEntry): string {
  const said = Object.entries(entry).filter(([, value]) => value !== undefined && value !== '');
  const short = said.map(([key, value]) => [key, typeof value === 'string' ? value.slice(0, FIELD_CHARACTERS) : value]);
  return `${printable(JSON.stringify({ at, ...Object.fromEntries(short) }))}\n`;
}

/** As printable ASCII, the rest escaped as JSON does it: safe to show on a terminal, whoever said it. */
export function printable(text: string): string {
  return text.replaceAll(/[^ -~]/g, (odd) => `\\u${odd.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

function parsed(line: string): AuditRow[] {
  try {
    const row: unknown = JSON.parse(line);
    const known =
      typeof row === 'object' && row !== null && 'at' in row && 'event' in row && AUDIT_EVENTS.some((event) => event === row.event);
    return known ? [row as AuditRow] : [];
  } catch {
    return [];
  }
}

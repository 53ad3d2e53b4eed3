/**
 * What the CA has signed and what of it is void: pure. A serial number begins with a stamp that grows with each signature (the time, as a rule), and revoking a name is
 * a stamp, too: everything of that name with a stamp up to it is void. So certificates that nobody remembers are covered as well: those signed after the backup that a
 * gateway was restored from, those whose record was damaged, those that expired long ago and could still be renewed.
 */
import type { Identity, Role } from './credentials.js';

/** One signature. */
export interface IssuedRecord {
  readonly serial: string;
  readonly role: Role;
  readonly name: string;
  /** sha256 of the public key, hex. */
  readonly key: string;
  readonly issuedMs: number;
  readonly notAfterMs: number;
  /** `token 1f3a…`, `renewal`, `this gateway`. */
  readonly by: string;
}

export interface RevokedRecord {
  readonly role: Role;
  readonly name: string;
  readonly stamp: number;
  readonly atMs: number;
  readonly why: string;
}

/** 'M': makes serials positive numbers of one length (RFC 5280, 4.1.2.2: at most 20 bytes). */
const MARK = '4D';
const STAMP_DIGITS = 12;
const RANDOM_DIGITS = 16;
const SERIAL = /^4D[0-9A-F]{28}$/;
/** Of one identity, so many signatures are remembered. */
const KEPT = 3;
const FORGET_MS = 365 * 86_400_000;

export class Ledger {
  #issued: IssuedRecord[];
  readonly #revoked: Map<string, RevokedRecord>;
  #stamp: number;

  constructor(issued: readonly IssuedRecord[] = [], revoked: readonly RevokedRecord[] = []) {
    this.#issued = [...issued];
    this.#revoked = new Map(revoked.map((record) => [keyOf(record), record]));
    this.#stamp = Math.max(0, ...issued.map(({ serial }) => stampOf(serial)), ...revoked.map(({ stamp }) => stamp));
  }

  /** A serial above all before it. `random`: 8 bytes, hex. */
  nextSerial(nowMs: number, random: string): string {
    return `${MARK}${this.#next(nowMs).toString(16).padStart(STAMP_DIGITS, '0')}${random.padStart(RANDOM_DIGITS, '0')}`.toUpperCase();
  }

  /** Remembers a signature, and forgets old ones of the same identity. */
  add(record: IssuedRecord, nowMs: number): void {
    const same = this.#issued.filter((known) => keyOf(known) === keyOf(record)).slice(1 - KEPT);
    const others = this.#issued.filter((known) => keyOf(known) !== keyOf(record) && nowMs - known.notAfterMs < FORGET_MS);
    this.#issued = [...others, ...same, record];
    this.#stamp = Math.max(this.#stamp, stampOf(record.serial));
  }

  /** Everything signed for this identity up to now is void from here on, for ever. */
  revoke({ role, name }: Pick<Identity, 'role' | 'name'>, why: string, nowMs: number): RevokedRecord {
    const record = { role, name, stamp: this.#next(nowMs), atMs: nowMs, why };
    this.#revoked.set(keyOf(record), record);
    return record;
  }

  isRevoked(identity: Pick<Identity, 'role' | 'name'>, serial: string): boolean {
    const mark = this.#revoked.get(keyOf(identity));
    // A serial that is not of this form has no stamp: a name that was ever revoked is void with it.
    return mark !== undefined && stampOf(serial) <= mark.stamp;
  }

  /** The latest signature for this name, whatever its role: names are unique over all roles. */
  latest(name: string): IssuedRecord | undefined {
    return this.#issued.findLast((record) => record.name === name);
  }

  /** The latest signature for this name, when it is good now. */
  valid(name: string, nowMs: number): IssuedRecord | undefined {
    const record = this.latest(name);
    return record !== undefined && record.notAfterMs > nowMs && !this.isRevoked(record, record.serial) ? record : undefined;
  }

  /** Whether the CA has ever signed for this name as another role. */
  otherRole(name: string, role: Role): Role | undefined {
    return [...this.#issued, ...this.#revoked.values()].find((record) => record.name === name && record.role !== role)?.role;
  }

  revocation(identity: Pick<Identity, 'role' | 'name'>): RevokedRecord | undefined {
    return this.#revoked.get(keyOf(identity));
  }

  /** Of each identity its latest signature, by name. */
  all(): IssuedRecord[] {
    const latest = new Map(this.#issued.map((record) => [keyOf(record), record]));
    return [...latest.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  get issued(): readonly IssuedRecord[] {
    return this.#issued;
  }

  get revoked(): readonly RevokedRecord[] {
    return [...this.#revoked.values()];
  }

  #next(nowMs: number): number {
    // Also when the clock went back.
    this.#stamp = Math.max(this.#stamp + 1, Math.floor(nowMs));
    return this.#stamp;
  }
}

/** 0 for serials that are not of our form. */
export function stampOf(serial: string): number {
  return SERIAL.test(serial) ? Number.parseInt(serial.slice(MARK.length, MARK.length + STAMP_DIGITS), 16) : 0;
}

function keyOf({ role, name }: Pick<Identity, 'role' | 'name'>): string {
  return `${role}/${name}`;
}

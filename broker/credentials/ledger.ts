/**
 * What the CA has signed and what of it is void: pure.
 *
 * Revoking a name leaves a mark with a tag of its own, a random number, and whatever is signed for that name from then on carries this tag in its serial number. What
 * carries another one was signed by somebody who did not know of the mark, and is void. So nothing hangs on a clock, or on what is remembered: certificates are covered
 * that were signed after the backup that a gateway was restored from, those whose record was damaged, those that expired long ago and could still be renewed.
 *
 *     4E | 6 bytes stamp | 4 life | 4 tag | 5 random         a serial number: positive, at most 20 bytes (RFC 5280, 4.1.2.2)
 *
 * The stamp grows with each signature; it is the time, as a rule. A life is what one memory has signed without a gap: the next one begins when a backup is restored, or
 * the memory was lost. A certificate with the life of its name's mark, a later stamp and a tag that is not known here is of one who joined anew after the backup, in the
 * time that is forgotten: he stays in, unless the name was revoked since.
 */
import { type Identity, ROLES, type Role } from './credentials.js';

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

/** The latest mark of a name; it counts for the name in every role. Left when the name is revoked, and when a machine joins under it. */
export interface RevokedRecord {
  /** As far as it was known; '' = it was not. */
  readonly role: Role | '';
  readonly name: string;
  readonly stamp: number;
  readonly life: string;
  /** 8 hex digits. */
  readonly tag: string;
  /** Tags of marks that this one came after, the latest first. */
  readonly earlier: readonly string[];
  /** Nobody is to have the name. False: it was given to who joined then. */
  readonly isOut: boolean;
  readonly atMs: number;
  readonly why: string;
}

export interface LedgerState {
  readonly issued: readonly IssuedRecord[];
  /** Those that an earlier version wrote have neither life nor tags. */
  readonly revoked: readonly (Pick<RevokedRecord, 'role' | 'name' | 'stamp' | 'atMs' | 'why'> & Partial<RevokedRecord>)[];
  /** 8 hex digits. */
  readonly life: string;
}

/** Of an earlier version: why a mark is there that a machine left by joining. */
const FORMERLY_JOINED = 'joined anew';

/** Makes serials positive numbers of one length. */
const MARK = '4E';
const STAMP_DIGITS = 12;
export const LIFE_BYTES = 4;
export const TAG_BYTES = 4;
export const SERIAL_RANDOM_BYTES = 5;
const SERIAL = /^4E([0-9A-F]{12})([0-9A-F]{8})([0-9A-F]{8})[0-9A-F]{10}$/;
/** Of an earlier version: a stamp, and random digits. */
const FORMER_SERIAL = /^4D([0-9A-F]{12})[0-9A-F]{16}$/;
/** The life or tag of what has none. */
export const NONE = '00000000';
/** Of one identity, so many signatures are remembered. */
const KEPT = 3;
/** So many identities are remembered. What goes beyond is forgotten by when it was over, compared with others: never by a clock, which may be wrong for a moment. */
export const MOST_NAMES = 5_000;
const MOST_EARLIER = 32;

export class Ledger {
  /** By role and name, the latest signature last; who was signed for last comes last. */
  readonly #issued = new Map<string, readonly IssuedRecord[]>();
  readonly #revoked = new Map<string, RevokedRecord>();
  #life: string;
  #stamp = 0;

  constructor({ issued, revoked, life }: LedgerState) {
    this.#life = life;
    for (const record of issued) this.#put(record);
    for (const record of revoked) {
      const known = this.#revoked.get(record.name);
      const former = { life: NONE, tag: NONE, earlier: [], isOut: record.why !== FORMERLY_JOINED };
      if (known === undefined || known.stamp < record.stamp) this.#revoked.set(record.name, { ...former, ...record });
    }
    this.#stamp = Math.max(this.#stamp, ...revoked.map(({ stamp }) => stamp));
  }

  /** Whose life it is; 8 hex digits. */
  get life(): string {
    return this.#life;
  }

  /** The highest stamp there is: about the time of the latest signature, by whatever clock there was. */
  get stamp(): number {
    return this.#stamp;
  }

  /** A serial above all before it. `random`: 5 bytes, hex. */
  nextSerial(name: string, nowMs: number, random: string): string {
    const tag = this.#revoked.get(name)?.tag ?? NONE;
    return `${MARK}${this.#next(nowMs).toString(16).padStart(STAMP_DIGITS, '0')}${this.#life}${tag}${random}`.toUpperCase();
  }

  /** Remembers a signature, and forgets old ones of the same identity. */
  add(record: IssuedRecord): void {
    this.#put(record);
    while (this.#issued.size > MOST_NAMES) this.#forget(keyOf(record));
  }

  /** Whether nothing is known of this certificate of ours, and of no later one of its holder. */
  isNews({ role, name, serial }: Pick<IssuedRecord, 'role' | 'name' | 'serial'>): boolean {
    const known = this.#issued.get(keyOf({ role, name })) ?? [];
    return known.every((record) => record.serial !== serial && stampOf(record.serial) <= stampOf(serial));
  }

  /**
   * Everything signed for this name up to now, in whatever role and by whomever has the CA's key, is void from here on, for ever. `tag`: 4 bytes, hex, new. `isOut`:
   * false when somebody joins under the name now.
   */
  revoke({ role, name }: Pick<RevokedRecord, 'role' | 'name'>, why: string, nowMs: number, tag: string, isOut = true): RevokedRecord {
    const former = this.#revoked.get(name);
    // Also marks that are known only by the certificates that were signed after them.
    const shown = this.#signed(name)
      .flat()
      .map(({ serial }) => partsOf(serial).tag);
    const before = [...(former === undefined ? [] : [former.tag]), ...shown.filter((one) => one !== NONE), ...(former?.earlier ?? [])];
    const earlier = [...new Set(before)].slice(0, MOST_EARLIER);
    const record = { role, name, stamp: this.#next(nowMs), life: this.#life, tag, earlier, isOut, atMs: nowMs, why };
    this.#revoked.set(name, record);
    return record;
  }

  isRevoked({ name }: Pick<Identity, 'name'>, serial: string): boolean {
    const mark = this.#revoked.get(name);
    if (mark === undefined) return false;
    const { stamp, life, tag } = partsOf(serial);
    // A mark of an earlier version: it has nothing but its stamp. So a serial that is not of our form is void, too.
    if (mark.tag === NONE) return stamp <= mark.stamp;
    if (tag === mark.tag) return false;
    const isLater = life === mark.life && life !== this.#life && stamp > mark.stamp && tag !== NONE && !mark.earlier.includes(tag);
    return !isLater;
  }

  /**
   * A certificate that is good was signed after a later mark of its name than is known here, or there is none here: that one is taken over, and whom it threw out is out
   * here, too. True when it was so.
   */
  learnMark({ role, name, serial }: Pick<IssuedRecord, 'role' | 'name' | 'serial'>): boolean {
    const mark = this.#revoked.get(name);
    const { stamp, life, tag } = partsOf(serial);
    if (tag === NONE || this.isRevoked({ name }, serial)) return false;
    // What this very life signed has lost its mark: which one came last is not to be known by a certificate.
    if (mark === undefined ? life === this.#life : mark.tag === NONE || mark.tag === tag) return false;
    const earlier = mark === undefined ? [] : [mark.tag, ...mark.earlier].slice(0, MOST_EARLIER);
    // The mark itself is of a little before; nothing of this life lies between that could be taken for later.
    this.#revoked.set(name, {
      name,
      role,
      stamp: stamp - 1,
      life,
      tag,
      earlier,
      isOut: false,
      atMs: stamp,
      why: 'joined anew, as its certificate shows',
    });
    return true;
  }

  /** The name was revoked, and nobody has joined under it since, as far as is known. */
  isOut(name: string): boolean {
    const latest = this.#latest(name);
    if (latest.length === 0) return this.#revoked.get(name)?.isOut === true;
    return latest.every((record) => this.isRevoked(record, record.serial));
  }

  /** Whether a signature for this name is known, in whatever role. */
  hasSigned(name: string): boolean {
    return this.#latest(name).length > 0;
  }

  /** Names whose certificates were signed here after a mark that is not there: marks were lost. */
  unmarked(): string[] {
    const isLost = ({ name, serial }: IssuedRecord): boolean => {
      const { life, tag } = partsOf(serial);
      return life === this.#life && tag !== NONE && !this.#revoked.has(name);
    };
    const names = this.all().filter(isLost);
    return [...new Set(names.map(({ name }) => name))];
  }

  /** In which roles this name is known. */
  rolesOf(name: string): Role[] {
    return this.#latest(name).map(({ role }) => role);
  }

  /** The latest signature for this name, when it is good now. */
  valid(name: string, nowMs: number): IssuedRecord | undefined {
    return this.#latest(name).find((record) => record.notAfterMs > nowMs && !this.isRevoked(record, record.serial));
  }

  /** Whether the name is known in another role. */
  otherRole(name: string, role: Role): Role | undefined {
    const marked = this.#revoked.get(name)?.role ?? '';
    return [...this.rolesOf(name), ...(marked === '' ? [] : [marked])].find((known) => known !== role);
  }

  revocation({ name }: Pick<Identity, 'name'>): RevokedRecord | undefined {
    return this.#revoked.get(name);
  }

  /** Of each identity its latest signature, by name. */
  all(): IssuedRecord[] {
    return [...this.#issued.values()].flatMap((records) => records.at(-1) ?? []).sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  get issued(): readonly IssuedRecord[] {
    return [...this.#issued.values()].flat();
  }

  get revoked(): readonly RevokedRecord[] {
    return [...this.#revoked.values()];
  }

  /** What comes after may not know everything that came before: a backup was restored. `life`: 4 bytes, hex, new. */
  beginLife(life: string): void {
    this.#life = life;
  }

  /** Takes over what another memory of the same CA knows: nobody is let in whom either keeps out. `tag`: of new marks, 4 bytes, hex. */
  adopt(other: Ledger, tag: () => string): void {
    for (const [key, theirs] of other.#issued) {
      const all = new Map([...(this.#issued.get(key) ?? []), ...theirs].map((record) => [record.serial, record]));
      this.#issued.set(key, [...all.values()].sort((a, b) => stampOf(a.serial) - stampOf(b.serial)).slice(-KEPT));
    }
    this.#stamp = Math.max(this.#stamp, other.#stamp);
    for (const theirs of other.#revoked.values()) {
      const ours = this.#revoked.get(theirs.name);
      this.#revoked.set(theirs.name, ours === undefined ? theirs : (laterOf(ours, theirs) ?? this.#both(ours, theirs, tag())));
    }
  }

  /** Neither knew of the other: whoever was let in by one may be the one whom the other threw out. */
  #both(a: RevokedRecord, b: RevokedRecord, tag: string): RevokedRecord {
    const earlier = [...new Set([a.tag, b.tag, ...a.earlier, ...b.earlier])].slice(0, MOST_EARLIER);
    const [atMs, role] = [Math.max(a.atMs, b.atMs), a.role === b.role ? a.role : ''] as const;
    const why = 'joined anew or revoked in two states of this gateway, of which neither knew the other';
    return { role, name: a.name, stamp: this.#next(atMs), life: this.#life, tag, earlier, isOut: true, atMs, why };
  }

  #signed(name: string): readonly (readonly IssuedRecord[])[] {
    return ROLES.map((role) => this.#issued.get(keyOf({ role, name })) ?? []);
  }

  #latest(name: string): IssuedRecord[] {
    return this.#signed(name).flatMap((records) => records.at(-1) ?? []);
  }

  #put(record: IssuedRecord): void {
    const key = keyOf(record);
    const known = this.#issued.get(key) ?? [];
    this.#issued.delete(key);
    this.#issued.set(key, [...known, record].slice(-KEPT));
    this.#stamp = Math.max(this.#stamp, stampOf(record.serial));
  }

  #forget(except: string): void {
    let [first, firstMs] = ['', Number.POSITIVE_INFINITY];
    for (const [key, records] of this.#issued) {
      const { notAfterMs = 0 } = records.at(-1) ?? {};
      if (key !== except && notAfterMs < firstMs) [first, firstMs] = [key, notAfterMs];
    }
    this.#issued.delete(first);
  }

  #next(nowMs: number): number {
    // Also when the clock went back.
    this.#stamp = Math.max(this.#stamp + 1, Math.floor(nowMs));
    return this.#stamp;
  }
}

/** 0 for serials that are not of our form. */
export function stampOf(serial: string): number {
  return partsOf(serial).stamp;
}

function partsOf(serial: string): { readonly stamp: number; readonly life: string; readonly tag: string } {
  const [, stamp = '0', life = NONE, tag = NONE] = SERIAL.exec(serial) ?? FORMER_SERIAL.exec(serial) ?? [];
  return { stamp: Number.parseInt(stamp, 16), life: life.toLowerCase(), tag: tag.toLowerCase() };
}

/** Undefined: neither came after the other. */
function laterOf(a: RevokedRecord, b: RevokedRecord): RevokedRecord | undefined {
  // One that was learned from a certificate knows less of what came before.
  if (a.tag === b.tag)
    return { ...(a.stamp >= b.stamp ? a : b), earlier: [...new Set([...a.earlier, ...b.earlier])].slice(0, MOST_EARLIER) };
  if (b.earlier.includes(a.tag)) return b;
  return a.earlier.includes(b.tag) ? a : undefined;
}

function keyOf({ role, name }: Pick<Identity, 'role' | 'name'>): string {
  return `${role}/${name}`;
}

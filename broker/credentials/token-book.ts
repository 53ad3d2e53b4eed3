/**
 * Tokens: what may happen to one, as a pure state machine. A token lets one key in, once:
 *
 *     open -> used                    the first key that shows the secret has it for good
 *     open -> held -> used            of a token that holds: an operator approves the key first
 *     open, held, used -> revoked     by an operator; by a newer token for the same name
 *     open -> locked                  too many wrong secrets
 *     open -> expired                 it was shown after its time, or was over for a while: for good, also when the clock goes back
 *
 * The key that has a used token may come back with it for a while: its answer may have been lost on the way, or the power with it. That is no second use: whoever has
 * that private key was let in already.
 */
import { timingSafeEqual } from 'node:crypto';
import { ChairError } from '../errors.js';
import type { Role } from './credentials.js';

export type TokenState = 'open' | 'held' | 'used' | 'revoked' | 'locked' | 'expired';

export interface TokenRecord {
  readonly id: string;
  /** Hex; the secret itself is kept nowhere. */
  readonly secretSha256: string;
  readonly role: Role;
  readonly name: string;
  readonly createdMs: number;
  readonly expiresMs: number;
  /** Joins wait for an operator. */
  readonly hold: boolean;
  readonly state: TokenState;
  /** sha256 of the public key that has it, hex; '' while it is open. */
  readonly key: string;
  /** When `state` became what it is. */
  readonly sinceMs: number;
  /** Wrong secrets shown with this id. */
  readonly failures: number;
  /**
   * Of the latest mark of its name (ledger.ts) when it was made, and of the one that was left when it let its key in: what ends a token with its name is written twice, and
   * either may be lost. Undefined in files of an earlier version.
   */
  readonly tag?: string;
}

/** What somebody shows who wants to join. */
export interface Presented {
  readonly id: string;
  readonly secretSha256: string;
  /** sha256 of the public key it wants signed, hex. */
  readonly key: string;
  /** Whom it takes itself for; '' = whom the token is for. */
  readonly name: string;
  readonly role: Role | '';
}

export type Verdict =
  /** Let it in. `first`: nobody was let in by this token before. */
  | { readonly kind: 'sign'; readonly record: TokenRecord; readonly first: boolean }
  /** An operator has to approve it. `first`: it was not known before. */
  | { readonly kind: 'held'; readonly record: TokenRecord; readonly first: boolean }
  /** `record`: the token that was meant, when there is one; `locked`: this was one wrong secret too many; `ended`: it is over from now on, which is to be kept. */
  | {
      readonly kind: 'refused';
      readonly error: ChairError;
      readonly record: TokenRecord | undefined;
      readonly locked: boolean;
      readonly ended: boolean;
    };

export const MIN_TTL_MS = 60_000;
export const MAX_TTL_MS = 90 * 86_400_000;
/** The key that has a token may come again for so long. */
export const REPEAT_MS = 7 * 86_400_000;
const MAX_FAILURES = 10;
/** Tokens that are over are shown for so long. */
const FORGET_MS = 30 * 86_400_000;
export const MAX_TOKENS = 5_000;
/** A digest that no secret has. */
const NOBODYS = '0'.repeat(64);

export function isOver({ state, expiresMs, sinceMs }: TokenRecord, nowMs: number): boolean {
  if (state === 'open') return nowMs > expiresMs;
  return state !== 'used' && state !== 'held' ? true : nowMs > sinceMs + REPEAT_MS;
}

function isEnded({ state }: TokenRecord): boolean {
  return state === 'revoked' || state === 'locked';
}

/** Tokens by id; changes give a new book and leave the old one as it is, so that what could not be written has not happened. */
export class TokenBook {
  readonly #records: ReadonlyMap<string, TokenRecord>;

  constructor(records: Iterable<TokenRecord> = []) {
    this.#records = new Map([...records].map((record) => [record.id, record]));
  }

  get(id: string): TokenRecord | undefined {
    return this.#records.get(id);
  }

  /** Oldest first. */
  all(): TokenRecord[] {
    return [...this.#records.values()].sort((a, b) => a.createdMs - b.createdMs);
  }

  /** Also makes room, and ends former invitations of the same name: one at a time. Throws QUEUE_FULL. */
  created(record: TokenRecord, nowMs: number): TokenBook {
    const kept = this.all()
      .filter((known) => !isOver(known, nowMs) || nowMs - known.sinceMs < FORGET_MS)
      .map((known) =>
        known.name === record.name && (known.state === 'open' || known.state === 'held') ? ended(known, 'revoked', nowMs) : known,
      );
    const room = kept.length - MAX_TOKENS + 1;
    const first = room <= 0 ? [] : kept.filter((known) => isOver(known, nowMs)).slice(0, room);
    if (room > first.length) {
      throw new ChairError('QUEUE_FULL', 'there are too many open tokens', {
        expected: `at most ${MAX_TOKENS}`,
        todo: 'Revoke some: `token list`, `token revoke`.',
      });
    }
    return new TokenBook([...kept.filter((known) => !first.includes(known)), record]);
  }

  /** What is to be done with somebody who shows a token, and the book after it. */
  presented(shown: Presented, nowMs: number): readonly [Verdict, TokenBook] {
    const record = this.#records.get(shown.id);
    // Compared in any case: how long an answer takes must not tell whether the id exists.
    const matches = sameDigest(shown.secretSha256, record?.secretSha256 ?? NOBODYS);
    if (record === undefined) return [refusal(unknownToken(), undefined), this];
    if (!matches) return this.#failed(record, nowMs);
    const wrong = whyNot(record, shown, nowMs);
    if (wrong !== undefined) {
      const expires = record.state === 'open' && wrong.code === 'TOKEN_EXPIRED';
      return [{ ...refusal(wrong, record), ended: expires }, expires ? this.expired([record.id], nowMs) : this];
    }
    if (record.state === 'used') return [{ kind: 'sign', record, first: false }, this];
    if (record.state === 'held') return [{ kind: 'held', record, first: false }, this];
    const state: TokenState = record.hold ? 'held' : 'used';
    const bound: TokenRecord = { ...record, state, key: shown.key, sinceMs: nowMs };
    return [{ kind: record.hold ? 'held' : 'sign', record: bound, first: true }, this.#with(bound)];
  }

  /** The held join of this name goes on. `key`: how its fingerprint begins, as the operator compared it; '' = not compared. Throws IDENTITY_UNKNOWN. */
  approved(name: string, key: string, nowMs: number): readonly [TokenRecord, TokenBook] {
    const record = this.all().find((known) => known.name === name && known.state === 'held' && known.key.startsWith(key));
    if (record === undefined) {
      throw new ChairError('IDENTITY_UNKNOWN', `no join of '${name}' waits${key === '' ? '' : ` with a key that begins with ${key}`}`, {
        todo: '`agents list` shows those that wait.',
      });
    }
    const used: TokenRecord = { ...record, state: 'used', sinceMs: nowMs };
    return [used, this.#with(used)];
  }

  /** Whatever was let in by it stays; nobody is let in by it any more. Throws TOKEN_REFUSED when there is none. `id`: how it begins, if no other begins so. */
  revoked(id: string, nowMs: number): readonly [TokenRecord, TokenBook] {
    const found = id === '' ? [] : this.all().filter((known) => known.id.startsWith(id));
    const [record] = found;
    if (record === undefined || found.length > 1) {
      throw new ChairError('TOKEN_REFUSED', `${found.length} tokens have an id that begins with '${id.slice(0, 32)}'`, {
        expected: 'one',
        todo: '`token list` shows them.',
      });
    }
    const next = ended(record, 'revoked', nowMs);
    return [next, this.#with(next)];
  }

  /** As `revoked`, of all that are for this name. Also of those that are over by their time: clocks go back. */
  nameRevoked(name: string, nowMs: number): TokenBook {
    return this.revokedWhere((known) => known.name === name, nowMs);
  }

  /** As `revoked`, of all these. */
  revokedWhere(which: (record: TokenRecord) => boolean, nowMs: number): TokenBook {
    return new TokenBook(this.all().map((known) => (!isEnded(known) && which(known) ? ended(known, 'revoked', nowMs) : known)));
  }

  /** This one lets its key in, and leaves a mark with this tag; all others of its name are revoked. */
  admitted({ id, name }: TokenRecord, tag: string, nowMs: number): TokenBook {
    const book = this.revokedWhere((known) => known.name === name && known.id !== id, nowMs);
    const record = book.get(id);
    return record === undefined ? book : book.#with({ ...record, tag });
  }

  /** Ids of those that nobody has used in time, and that are not known to be over. */
  over(nowMs: number): string[] {
    return this.all()
      .filter((known) => known.state === 'open' && isOver(known, nowMs))
      .map(({ id }) => id);
  }

  /** They are over for good; but those that were used meanwhile. */
  expired(ids: readonly string[], nowMs: number): TokenBook {
    const ends = ({ id, state }: TokenRecord): boolean => state === 'open' && ids.includes(id);
    return new TokenBook(this.all().map((known) => (ends(known) ? ended(known, 'expired', nowMs) : known)));
  }

  /** Whether this is the secret of a token there is; before anything that costs more is done for a stranger. */
  knows(id: string, secretSha256: string): boolean {
    return sameDigest(secretSha256, this.#records.get(id)?.secretSha256 ?? NOBODYS);
  }

  #failed(record: TokenRecord, nowMs: number): readonly [Verdict, TokenBook] {
    const failures = record.failures + 1;
    const locked = record.state === 'open' && failures >= MAX_FAILURES;
    const next: TokenRecord = locked ? { ...ended(record, 'locked', nowMs), failures } : { ...record, failures };
    return [{ ...refusal(unknownToken(), record), locked, ended: locked }, this.#with(next)];
  }

  #with(record: TokenRecord): TokenBook {
    return new TokenBook(new Map(this.#records).set(record.id, record).values());
  }
}

/** Only said to those who know the secret. */
function whyNot(record: TokenRecord, { key, name, role }: Presented, nowMs: number): ChairError | undefined {
  const { state } = record;
  if (state === 'revoked' || state === 'locked') return unknownToken();
  if ((name !== '' && name !== record.name) || (role !== '' && role !== record.role)) {
    return new ChairError('TOKEN_NAME_WRONG', 'the token is for another name', {
      expected: `${record.role} ${record.name}`,
      came: `${role === '' ? record.role : role} ${name === '' ? record.name : name}`,
      todo: 'Make a token for this name, or join under the name of the token.',
    });
  }
  const isUnused = state === 'open' || state === 'expired';
  if (!isUnused && key !== record.key) {
    return new ChairError('TOKEN_USED', 'the token was used already, by another key', {
      todo: 'Each token is good for one machine: make another one. If nobody else should have had it: `agents revoke` its name.',
    });
  }
  if (!isOver(record, nowMs)) return undefined;
  return new ChairError('TOKEN_EXPIRED', 'the token has expired', {
    expected: `its use until ${new Date(isUnused ? record.expiresMs : record.sinceMs + REPEAT_MS).toISOString()}`,
    came: new Date(nowMs).toISOString(),
    todo: 'Make another one on the gateway; --ttl says how long it is good for.',
  });
}

/** The same words for each reason, so that nothing can be learned by trying. */
export function unknownToken(): ChairError {
  return new ChairError('TOKEN_REFUSED', 'the gateway does not take this token', {
    todo: 'Is it of this gateway, and whole? Was it revoked? Make another one on the gateway: `token create --name NAME`.',
  });
}

function refusal(error: ChairError, record: TokenRecord | undefined) {
  return { kind: 'refused', error, record, locked: false, ended: false } as const;
}

function ended(record: TokenRecord, state: 'revoked' | 'locked' | 'expired', nowMs: number): TokenRecord {
  return { ...record, state, sinceMs: nowMs };
}

function sameDigest(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a, 'hex'), Buffer.from(b, 'hex')];
  return left.length === 32 && right.length === 32 && timingSafeEqual(left, right);
}

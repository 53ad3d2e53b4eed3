/** Who has joined a gateway, who may, and who is out: what its CA remembers, as a list for people. Pure. */
import type { Role } from './credentials.js';
import type { Ledger } from './ledger.js';
import { isOver, type TokenBook } from './token-book.js';

export type MemberState = 'invited' | 'held' | 'valid' | 'expired' | 'revoked';

/** One name, as `agents list` shows it. */
export interface Member {
  /** '' = it is not known: the name was revoked without one. */
  readonly role: Role | '';
  readonly name: string;
  readonly state: MemberState;
  /** Of the latest certificate; '' and 0 when there is none. */
  readonly serial: string;
  readonly issuedMs: number;
  readonly notAfterMs: number;
  /** sha256 of the public key, hex; '' when there is none. */
  readonly key: string;
  /** How it came in, or why it is out. */
  readonly why: string;
}

/** Everybody who has joined or may, by name; of a name that is valid and invited again, both. */
export function membersOf(ledger: Ledger, book: TokenBook, nowMs: number): Member[] {
  const joined = ledger.all().map((record): Member => {
    const isVoid = ledger.isRevoked(record, record.serial);
    const state = isVoid ? 'revoked' : record.notAfterMs < nowMs ? 'expired' : 'valid';
    return { ...record, state, why: isVoid ? (ledger.revocation(record)?.why ?? '') : record.by };
  });
  const none = { serial: '', issuedMs: 0, notAfterMs: 0 };
  const unseen = ledger.revoked.filter(({ name, isOut }) => isOut && !ledger.hasSigned(name));
  const out = unseen.map(({ role, name, why }): Member => ({ ...none, role, name, key: '', state: 'revoked', why }));
  const asked = book.all().filter((token) => (token.state === 'open' || token.state === 'held') && !isOver(token, nowMs));
  const invited = asked.map(({ role, name, state, key, id }): Member => {
    return { ...none, role, name, key, state: state === 'held' ? 'held' : 'invited', why: `token ${id}` };
  });
  const others = [...joined, ...out].filter(
    ({ name, state }) => state === 'valid' || !invited.some((invitation) => invitation.name === name),
  );
  return [...others, ...invited].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

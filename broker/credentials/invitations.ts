/** Under which names machines and people may join a gateway, and what is said to those who may not. Pure. */
import { ChairError } from '../errors.js';
import { NAME_PATTERN } from '../topics.js';
import { isoTime } from './authority-clock.js';
import { identityText, type Role } from './credentials.js';
import type { Ledger } from './ledger.js';
import { MAX_TTL_MS, MIN_TTL_MS } from './token-book.js';

export interface Invitation {
  readonly name: string;
  readonly role: Role;
  readonly ttlMs: number;
  /** The join waits for `approve`. */
  readonly hold?: boolean;
  /** The name has a valid certificate, which is to end with this join. */
  readonly replace?: boolean;
}

/** Names that parts of the gateway go by. */
const RESERVED = new Set(['gateway', 'scheduler', 'dispatcher', 'broker', 'operator']);
/** `alice-1a2b3c4d` is how a client of alice is called. */
export const SESSION = /-[0-9a-f]{8}$/;

/** Whether tokens are made for this name. */
export function canJoin(name: string): boolean {
  return NAME_PATTERN.test(name) && !RESERVED.has(name) && !SESSION.test(name);
}

/** Throws AGENT_NAME_INVALID, USAGE (the time), IDENTITY_TAKEN. */
export function checkInvitation(
  { name, role, ttlMs, replace }: Invitation,
  ledger: Pick<Ledger, 'otherRole' | 'valid'>,
  nowMs: number,
): void {
  if (!canJoin(name) || role === 'gateway') {
    throw new ChairError('AGENT_NAME_INVALID', 'nobody can join under this name', {
      expected: `letters, digits, dot, dash and underscore, at most 64; none of ${[...RESERVED].join(', ')}; no dash and 8 hex digits at its end`,
      came: role === 'gateway' ? 'the role gateway' : `'${name.slice(0, 80)}'`,
    });
  }
  if (!(ttlMs >= MIN_TTL_MS && ttlMs <= MAX_TTL_MS)) {
    throw new ChairError('USAGE', 'a token cannot be good for so long', { expected: 'one minute to 90 days', came: `${ttlMs} ms` });
  }
  const other = ledger.otherRole(name, role);
  if (other !== undefined) {
    throw new ChairError('IDENTITY_TAKEN', `'${name}' is the name of an ${other}`, {
      expected: 'a name that no other role has or had',
      came: role,
    });
  }
  const valid = ledger.valid(name, nowMs);
  if (valid !== undefined && replace !== true) {
    throw new ChairError('IDENTITY_TAKEN', `${identityText(valid)} has joined already`, {
      came: `a certificate good until ${isoTime(valid.notAfterMs)}`,
      todo: 'If that machine is to be replaced, or set up anew: --replace. The certificate of before ends when the new one joins.',
    });
  }
}

/** Of a name that is not revoked. `unknown`: it did not have to be known. */
export function nobody(name: string, unknown: boolean): ChairError {
  if (name === 'gateway') {
    return new ChairError('IDENTITY_UNKNOWN', 'the gateway cannot be revoked', {
      todo: 'To begin anew: move its credentials folder away, and let every machine join again.',
    });
  }
  if (unknown)
    return new ChairError('IDENTITY_UNKNOWN', `nobody can have joined as '${name.slice(0, 80)}'`, {
      expected: 'a name that tokens are made for',
    });
  return new ChairError('IDENTITY_UNKNOWN', `no such member is known here: '${name.slice(0, 80)}'`, {
    expected: 'a name that `agents list` shows',
    todo: `Is it typed right? Who joined after the backup that a gateway was restored from may be unknown to it, and is thrown out all the same by: agents revoke ${canJoin(name) ? name : 'NAME'} --unknown`,
  });
}

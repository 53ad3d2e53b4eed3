/**
 * A token as people copy it: `mc1.` and base64url of what the joining machine must know before it trusts anybody: the sha256 of the gateway's CA, the cluster, for
 * whom the token is, and a secret. It names no host: where the gateway is may change between flashing a card and putting it in.
 *
 *     32 bytes fingerprint | 8 id | 20 secret | 1 role | 1 length, cluster | 1 length, name | 4 bytes of sha256 over all before
 *
 * The checksum protects from what happens to text that is copied, not from anybody: the gateway believes nothing of it but id and secret.
 */
import { createHash } from 'node:crypto';
import { ChairError } from '../errors.js';
import { NAME_PATTERN } from '../topics.js';
import { ROLES, type Role } from './credentials.js';

export interface TokenText {
  /** sha256 of the gateway's CA certificate (DER), hex. */
  readonly fingerprint: string;
  /** 16 hex digits. */
  readonly id: string;
  /** 20 bytes, hex. */
  readonly secret: string;
  readonly cluster: string;
  readonly role: Role;
  readonly name: string;
}

const PREFIX = 'mc1.';
const [FINGERPRINT, ID, SECRET, CHECK] = [32, 8, 20, 4];
export const TOKEN_ID_BYTES = ID;
export const TOKEN_SECRET_BYTES = SECRET;
/** Longest: both names of 64 characters. */
const MAX_CHARACTERS = 400;

export function formatToken({ fingerprint, id, secret, cluster, role, name }: TokenText): string {
  const head = Buffer.from(`${fingerprint}${id}${secret}`, 'hex');
  const names = [cluster, name].map((text) => Buffer.from(text, 'ascii'));
  const [ours = Buffer.alloc(0), its = Buffer.alloc(0)] = names;
  const body = Buffer.concat([head, Buffer.from([ROLES.indexOf(role), ours.length]), ours, Buffer.from([its.length]), its]);
  return PREFIX + Buffer.concat([body, checkOf(body)]).toString('base64url');
}

/** Throws TOKEN_INVALID: never with the text, which may hold most of a secret. */
export function parseToken(given: string): TokenText {
  const text = given.trim();
  if (!text.startsWith(PREFIX)) throw invalid('a text that begins with mc1.', text === '' ? 'nothing' : 'another one');
  if (text.length > MAX_CHARACTERS || !/^[A-Za-z0-9_-]+$/.test(text.slice(PREFIX.length))) {
    throw invalid('letters, digits, - and _ on one line', 'other characters, or too many');
  }
  const bytes = Buffer.from(text.slice(PREFIX.length), 'base64url');
  const body = bytes.subarray(0, Math.max(0, bytes.length - CHECK));
  const whole = `${text.length} characters that are damaged or not all of it`;
  if (body.length < FINGERPRINT + ID + SECRET + 3 || !checkOf(body).equals(bytes.subarray(-CHECK))) throw invalid('a whole token', whole);
  const hex = (from: number, length: number): string => body.toString('hex', from, from + length);
  let at = FINGERPRINT + ID + SECRET;
  const role = ROLES[body[at++] ?? ROLES.length];
  const name = (): string => {
    const length = body[at++] ?? 0;
    at += length;
    return body.toString('latin1', at - length, at);
  };
  const [cluster, its] = [name(), name()];
  if (role === undefined || at !== body.length || !NAME_PATTERN.test(cluster) || !NAME_PATTERN.test(its))
    throw invalid('a whole token', whole);
  return { fingerprint: hex(0, FINGERPRINT), id: hex(FINGERPRINT, ID), secret: hex(FINGERPRINT + ID, SECRET), cluster, role, name: its };
}

function checkOf(body: Buffer): Buffer {
  return createHash('sha256').update(body).digest().subarray(0, CHECK);
}

function invalid(expected: string, came: string): ChairError {
  return new ChairError('TOKEN_INVALID', 'this is not a token', {
    expected,
    came,
    todo: 'Copy it whole from `token create` on the gateway.',
  });
}

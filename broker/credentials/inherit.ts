/**
 * What an authority that comes from a backup takes over from states of the same CA that lie beside it: who was revoked since, who has joined since. Without it, a restore
 * would let in again whom the very disk knows to be thrown out.
 */
import { randomBytes, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { toChairError } from '../errors.js';
import { AuthorityFiles, newLife } from './authority-files.js';
import { type Ledger, TAG_BYTES } from './ledger.js';
import { fingerprintOf } from './verify.js';

export interface Inheritance {
  /** Who would be let in again by the backup alone. */
  readonly stillRevoked: readonly string[];
  /** Folders of the same CA that were read. */
  readonly read: readonly string[];
  /** Folders that may be of the same CA, and cannot be read: who was revoked there is not known. */
  readonly unread: readonly string[];
}

const NOTHING: Inheritance = { stillRevoked: [], read: [], unread: [] };
/** Where the CA's certificate is: the authority's own, and copies for its own processes. */
const CERTIFICATES = ['ca.pem', join('gateway', 'ca.pem'), join('operator', 'ca.pem')];

/**
 * `directory`: credentials as the backup had them, in use by nobody; `others`: credentials folders of former states, there or not, which are only read. Throws
 * STATE_DAMAGED when the backup does not know who was revoked, GATEWAY_STORE_FULL.
 */
export async function inherit(
  directory: string,
  others: readonly string[],
  log: (line: string) => void = () => undefined,
): Promise<Inheritance> {
  const [ca] = await fingerprints(directory);
  if (ca === undefined) return NOTHING;
  const files = new AuthorityFiles(directory, log);
  const ledger = await files.ledger();
  const outBefore = namesOut(ledger);
  // Whatever was signed since the backup and stands nowhere here was signed by a memory that is gone.
  ledger.beginLife(newLife());
  const [read, unread]: [string[], string[]] = [[], []];
  for (const other of others) {
    const theirs = await fingerprints(other);
    if (theirs.length > 0 && !theirs.includes(ca)) continue;
    try {
      if (theirs.length === 0 && !(await isThere(other))) continue;
      if (theirs.length === 0) throw new Error('its CA cannot be read');
      ledger.adopt(await new AuthorityFiles(other, log).ledger(), () => randomBytes(TAG_BYTES).toString('hex'));
      read.push(other);
    } catch (error) {
      log(`${other}: ${toChairError(error).message}`);
      unread.push(other);
    }
  }
  await files.saveRevoked(ledger);
  await files.saveIssued(ledger);
  return { stillRevoked: [...namesOut(ledger)].filter((name) => !outBefore.has(name)).sort(), read, unread };
}

function namesOut(ledger: Ledger): Set<string> {
  return new Set(ledger.revoked.map(({ name }) => name).filter((name) => ledger.isOut(name)));
}

/** Of the CA certificates that can be read in a folder of credentials, each once. */
async function fingerprints(directory: string): Promise<string[]> {
  const found = await Promise.all(
    CERTIFICATES.map(async (name) => {
      try {
        return [fingerprintOf(new X509Certificate(await readFile(join(directory, name))))];
      } catch {
        return [];
      }
    }),
  );
  return [...new Set(found.flat())];
}

async function isThere(directory: string): Promise<boolean> {
  return readFile(join(directory, 'revoked.json')).then(
    () => true,
    // Not permitted is not the same as not there.
    (error: unknown) => !(error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR')),
  );
}

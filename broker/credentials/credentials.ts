/**
 * What a process proves itself with, and where it keeps it: the certificate of the cluster's CA, its own certificate, and its own key. Three PEM files in a folder
 * of its own, so that other programs (openssl, mosquitto_sub, curl) can use them as they are.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ChairError, type ErrorCode, toChairError } from '../errors.js';
import { writeWhole } from '../sealed-file.js';
import { NAME_PATTERN } from '../topics.js';

export const ROLES = ['gateway', 'agent', 'operator', 'viewer'] as const;
export type Role = (typeof ROLES)[number];

/** Who somebody is: nothing of it is the name of a machine or an address. */
export interface Identity {
  readonly cluster: string;
  readonly role: Role;
  readonly name: string;
}

/** What a process proves itself with; PEM texts. */
export interface Credentials {
  readonly identity: Identity;
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
  /** Hexadecimal, upper case, as node:crypto shows it. */
  readonly serial: string;
  readonly notAfterMs: number;
}

const CA_FILE = 'ca.pem';
const CERTIFICATE_FILE = 'cert.pem';
const KEY_FILE = 'key.pem';
const SCHEME = 'musical-chair:';
const PEM_BLOCK = /-----BEGIN [A-Z ]+-----[^-]+-----END [A-Z ]+-----/g;

/**
 * The credentials in a folder. Throws CREDENTIALS_MISSING when there is no certificate, CREDENTIALS_DAMAGED when the three files cannot be read or do not belong
 * together, CERTIFICATE_FOREIGN. Dates are not looked at: an expired certificate can still be renewed.
 */
export async function readCredentials(directory: string): Promise<Credentials> {
  let certificate = await readPart(directory, CERTIFICATE_FILE, 'CREDENTIALS_MISSING');
  for (;;) {
    try {
      return await readAround(directory, certificate);
    } catch (error) {
      // Replaced as a whole between two of the reads: what fits the former certificate is gone, and the new one is there.
      const now = await readPart(directory, CERTIFICATE_FILE, 'CREDENTIALS_MISSING');
      if (now === certificate) throw error;
      certificate = now;
    }
  }
}

async function readAround(directory: string, certificate: string): Promise<Credentials> {
  const authorities = blocksOf(await readPart(directory, CA_FILE, 'CREDENTIALS_DAMAGED'));
  const keys = blocksOf(await readPart(directory, KEY_FILE, 'CREDENTIALS_DAMAGED'));
  let own: X509Certificate;
  let ca: string | undefined;
  let key: string | undefined;
  try {
    own = new X509Certificate(certificate);
    // While they are replaced, those of before and those after stand there together (see `writeCredentials`).
    ca = authorities.find((block) => own.verify(new X509Certificate(block).publicKey));
    key = keys.find((block) => own.checkPrivateKey(createPrivateKey(block)));
  } catch (cause) {
    throw damaged(directory, cause instanceof Error ? cause.message : String(cause), cause);
  }
  if (ca === undefined) throw damaged(directory, 'a certificate that is not signed by the CA beside it');
  if (key === undefined) throw damaged(directory, 'a key that does not belong to the certificate');
  return { identity: identityOf(own), ca, certificate, key, serial: own.serialNumber, notAfterMs: Date.parse(own.validTo) };
}

/**
 * Replaces the credentials in a folder, which is made when it is not there: at any moment, also of a power cut, the former or the new ones can be read. The files are
 * for the owner alone. Throws CREDENTIALS_DAMAGED when the disk is full, else what the file system says.
 */
export async function writeCredentials(directory: string, { ca, certificate, key }: Credentials): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const write = (name: string, text: string): Promise<void> =>
    writeWhole(join(directory, name), text, { full: 'CREDENTIALS_DAMAGED', mode: 0o600 });
  const former = async (name: string): Promise<string[]> => blocksOf(await readFile(join(directory, name), 'utf8').catch(() => ''));
  // A reader takes the CA and the key that fit the certificate: so the new ones beside the former, then the certificate, and only then the new ones alone.
  const pairs = [
    { name: CA_FILE, block: ended(ca), former: await former(CA_FILE) },
    { name: KEY_FILE, block: ended(key), former: await former(KEY_FILE) },
  ].map((pair) => ({ ...pair, others: pair.former.filter((block) => block !== pair.block) }));
  for (const { name, block, others } of pairs) await write(name, [block, ...others].join(''));
  await write(CERTIFICATE_FILE, ended(certificate));
  for (const { name, block, others } of pairs) if (others.length > 0) await write(name, block);
}

/**
 * Who a certificate of our making names: by its URI `musical-chair:<cluster>/<role>/<name>`, which must agree with its subject. Says nothing about who signed it
 * or when it is valid: that is `verifyPeer` in verify.ts. Throws CERTIFICATE_FOREIGN when it is not one of ours.
 */
export function identityOf(certificate: X509Certificate): Identity {
  const uris = (certificate.subjectAltName ?? '').split(', ').filter((entry) => entry.startsWith('URI:'));
  const [uri = ''] = uris;
  const [cluster = '', role = '', name = '', ...more] = uri.slice(`URI:${SCHEME}`.length).split('/');
  const identity = { cluster, role: ROLES.find((known) => known === role), name };
  const isOurs = uris.length === 1 && uri.startsWith(`URI:${SCHEME}`) && more.length === 0;
  const { role: known } = identity;
  if (!isOurs || known === undefined || !NAME_PATTERN.test(cluster) || !NAME_PATTERN.test(name)) {
    throw foreign(certificate, 'it names nobody of a cluster');
  }
  if (certificate.subject !== `O=${cluster}\nOU=${role}\nCN=${name}`) throw foreign(certificate, 'its subject and its URI disagree');
  return { cluster, role: known, name };
}

/** The URI that stands in a certificate. */
export function uriOf({ cluster, role, name }: Identity): string {
  return `${SCHEME}${cluster}/${role}/${name}`;
}

/** `agent pi-1`, for people. */
export function identityText({ role, name }: Pick<Identity, 'role' | 'name'>): string {
  return `${role} ${name}`;
}

export function sameIdentity(a: Identity, b: Identity): boolean {
  return a.cluster === b.cluster && a.role === b.role && a.name === b.name;
}

async function readPart(directory: string, name: string, missing: ErrorCode): Promise<string> {
  try {
    return await readFile(join(directory, name), 'utf8');
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? cause.code : '';
    if (code !== 'ENOENT' && code !== 'ENOTDIR') throw damaged(directory, toChairError(cause).message, cause);
    throw new ChairError(missing, `${join(directory, name)} is not there`, {
      expected: 'ca.pem, cert.pem and key.pem in that folder',
      todo: 'On the gateway: `token create --name NAME`; here: `enrol --gateway HOST --token TOKEN`.',
      cause,
    });
  }
}

function damaged(directory: string, came: string, cause?: unknown): ChairError {
  return new ChairError('CREDENTIALS_DAMAGED', `the credentials in ${directory} cannot be used`, {
    expected: 'a certificate of the CA beside it, and its key, readable by this user',
    came,
    todo: 'Join again with a new token: they cannot be mended.',
    cause,
  });
}

function foreign(certificate: X509Certificate, why: string): ChairError {
  return new ChairError('CERTIFICATE_FOREIGN', `this certificate is not one of musical-chair: ${why}`, {
    came: `subject ${JSON.stringify(certificate.subject).slice(0, 200)}`,
  });
}

/** The PEM blocks of a text, each with a newline at its end. */
function blocksOf(text: string): string[] {
  return (text.match(PEM_BLOCK) ?? []).map(ended);
}

function ended(text: string): string {
  return text.endsWith('\n') ? text : `${text}\n`;
}

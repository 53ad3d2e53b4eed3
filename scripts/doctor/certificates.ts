/** Certificates and keys on this machine, and the gateway's time. The judging functions are pure. */
import { X509Certificate } from 'node:crypto';
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { type Credentials, type Identity, identityText, readCredentials } from '../../broker/credentials/credentials.js';
import { readRecord, takeTime } from '../../broker/credentials/enrolment.js';
import { addressText, type EnrolmentAddress } from '../../broker/credentials/enrolment-client.js';
import { GatewayClock } from '../../broker/credentials/gateway-clock.js';
import { validityOf } from '../../broker/credentials/verify.js';
import { isChairError } from '../../broker/errors.js';
import { bad, type Finding, note, ok } from './findings.js';
import { type ClockFacts, thrownAt } from './machine.js';

const DAY_MS = 86_400_000;
/** Renewals begin when ten days are left: with fewer than this, they have failed for days. */
const LEFT_NOTED_MS = 7 * DAY_MS;
const TIME_WITHIN_MS = 5000;

export interface CertificateFacts {
  readonly identity: Identity;
  readonly fromMs: number;
  readonly toMs: number;
  /** Whom this process is to be. */
  readonly wanted: Pick<Identity, 'cluster' | 'role'> & { readonly name?: string };
  /** By the gateway's clock where it is known. */
  readonly nowMs: number;
}

export function judgeCertificate(area: string, { identity, fromMs, toMs, wanted, nowMs }: CertificateFacts): Finding {
  const said = `${identity.role === identity.name ? identity.role : identityText(identity)} of cluster '${identity.cluster}'`;
  const isOther =
    identity.cluster !== wanted.cluster || identity.role !== wanted.role || (wanted.name !== undefined && identity.name !== wanted.name);
  if (isOther) {
    const meant = `${wanted.role}${wanted.name === undefined ? '' : ` ${wanted.name}`} of cluster '${wanted.cluster}'`;
    return bad(
      area,
      'certificate',
      `it is ${said}, not of ${meant}`,
      'Start it with the name and cluster that it joined with, or let it join anew: token create on the gateway.',
    );
  }
  const days = (ms: number): string => `${Math.max(0, Math.floor(ms / DAY_MS))} days`;
  if (nowMs < fromMs) return bad(area, 'certificate', `${said}: not valid yet`, 'A clock is wrong, here or at the gateway: see clock.');
  if (nowMs > toMs) {
    const todo = 'It renews by itself when the gateway can be reached (port 8884); if it was revoked: token create on the gateway.';
    return bad(area, 'certificate', `${said}: expired ${days(nowMs - toMs)} ago`, todo);
  }
  const text = `${said}, good for ${days(toMs - nowMs)}`;
  if (toMs - nowMs < LEFT_NOTED_MS)
    return note(area, 'certificate', `${text}; it should have been renewed`, "Can this machine reach the gateway's join port (8884)?");
  return ok(area, 'certificate', text);
}

/** `open`: private keys that others may read. */
export function judgeKeys(area: string, open: readonly string[]): Finding[] {
  if (open.length === 0) return [];
  return [
    bad(
      area,
      'keys',
      `others on this machine may read ${open.join(', ')}`,
      `chmod 600 ${open.join(' ')}; who read them can pass for this machine.`,
    ),
  ];
}

export interface CertificateOptions {
  readonly area: string;
  /** With ca.pem, cert.pem and key.pem. */
  readonly directory: string;
  readonly wanted: CertificateFacts['wanted'];
  /** What to do when there are none. */
  readonly join: string;
  readonly nowMs: number;
}

export async function lookAtCertificate({ area, directory, wanted, join, nowMs }: CertificateOptions): Promise<Finding[]> {
  let credentials: Credentials;
  try {
    credentials = await readCredentials(directory);
  } catch (error) {
    if (!isChairError(error, 'CREDENTIALS_MISSING')) return [thrownAt(area, 'certificate', error)];
    return [note(area, 'certificate', `none in ${directory}`, join)];
  }
  const [fromMs, toMs] = validityOf(new X509Certificate(credentials.certificate));
  const open = await openKeys(directory);
  return [judgeCertificate(area, { identity: credentials.identity, fromMs, toMs, wanted, nowMs }), ...judgeKeys(area, open)];
}

/** Private keys in a folder, and in those below it, that others may read. */
export async function openKeys(directory: string): Promise<string[]> {
  if (process.platform === 'win32') return [];
  const found: string[] = [];
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => [])) {
    if (!entry.isFile() || !/key\.pem$/.test(entry.name)) continue;
    const file = path.join(entry.parentPath, entry.name);
    if (((await stat(file)).mode & 0o077) !== 0) found.push(file);
  }
  return found.sort();
}

/** How far this machine's clock is ahead of the gateway's, asked over TLS at the port where machines join; a finding when the gateway does not answer there. */
export async function askTime(
  area: string,
  directory: string,
): Promise<{ readonly ahead?: ClockFacts['ahead']; readonly findings: readonly Finding[] }> {
  let gateway: EnrolmentAddress | undefined;
  try {
    const { ca, identity } = await readCredentials(directory);
    gateway = (await readRecord(directory))?.gateway;
    if (gateway === undefined) return { findings: [] };
    const clock = new GatewayClock();
    await takeTime(gateway, { ca, cluster: identity.cluster }, clock, { deadlineMs: TIME_WITHIN_MS });
    const { skew } = clock;
    return {
      ...(skew === undefined ? {} : { ahead: skew }),
      findings: [ok(area, 'join port', `${addressText(gateway)} answers, with the gateway's certificate`)],
    };
  } catch (error) {
    // What is wrong with the credentials is said elsewhere.
    return { findings: gateway === undefined ? [] : [thrownAt(area, 'join port', error)] };
  }
}

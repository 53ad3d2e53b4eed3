/**
 * Joining and renewing, from the machine's side. In this order, each step before the next: fetch the CA and compare it with the token; only then believe anything
 * that is said in a connection whose certificate that CA has signed; take the time from there, and check its certificate by it; make a key, and have it signed.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { join as joinPath } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Proofs } from '../discovery/proofs.js';
import { ChairError, type ErrorCode, isChairError, toChairError } from '../errors.js';
import { lockDirectory } from '../lock.js';
import { writeWhole } from '../sealed-file.js';
import {
  type Credentials,
  type Identity,
  identityText,
  type Role,
  readCredentials,
  sameIdentity,
  writeCredentials,
} from './credentials.js';
import {
  addressText,
  askGateway,
  type EnrolmentAddress,
  type EnrolmentLimits,
  type EnrolmentReply,
  fieldsOf,
  parseAddress,
} from './enrolment-client.js';
import { GatewayClock } from './gateway-clock.js';
import { dropPendingKey, pendingKey } from './pending-key.js';
import { parseToken, type TokenText } from './token-text.js';
import { fingerprintOf, verifyPeer } from './verify.js';

export interface EnrolmentOptions {
  /** Where the credentials are to be; made when it is not there. */
  readonly directory: string;
  readonly token: string;
  readonly gateway: EnrolmentAddress;
  /** Under what name this machine is to run, when it has been told one: the gateway refuses a token for another. */
  readonly name?: string;
  readonly role?: Role;
  readonly clock: GatewayClock;
  /** Of each request. */
  readonly limits?: EnrolmentLimits;
}

/** Beside the credentials: by what they were got, so that the same token is not used again at the next start, and where they are renewed. */
export interface EnrolmentRecord {
  readonly tokenId: string;
  readonly gateway: EnrolmentAddress;
  /** URL of the broker as the gateway said it; undefined when it did not. */
  readonly broker: string | undefined;
}

const RECORD = 'enrolment.json';

/**
 * Joins with a token, and gives what was written to the folder. Asking again after any failure is safe. Throws TOKEN_INVALID, CA_WRONG, CERTIFICATE_FOREIGN,
 * CERTIFICATE_EXPIRED (the gateway's), TOKEN_..., JOIN_HELD (ask again: somebody has to approve it), JOIN_BUSY, GATEWAY_UNREACHABLE, CREDENTIALS_DAMAGED (disk full).
 */
export async function enrol(options: EnrolmentOptions): Promise<Credentials> {
  const token = parseToken(options.token);
  return alone(options.directory, () => enrolWith(token, options));
}

async function enrolWith(token: TokenText, options: EnrolmentOptions): Promise<Credentials> {
  const { directory, gateway, clock, limits } = options;
  const ca = await fetchAuthority(gateway, token, limits);
  await takeTime(gateway, { ca, cluster: token.cluster }, clock, limits);
  const { makeRequest } = await import('./certificates.js');
  const key = await pendingKey(directory);
  const body = { token: options.token.trim(), csr: await makeRequest(key), name: options.name ?? '', role: options.role ?? '' };
  const check = gatewayCheck({ ca, cluster: token.cluster }, () => clock.nowMs());
  const reply = await askGateway(gateway, { method: 'POST', path: '/enrol', body, check }, limits);
  if (reply.status === 202) throw held(reply);
  const { cluster, role, name } = token;
  const made = signed(reply, { identity: { cluster, role, name }, ca, key, nowMs: clock.nowMs() });
  await writeCredentials(directory, made);
  await writeRecord(directory, { tokenId: token.id, gateway, broker: brokerSaid(reply, gateway) });
  await dropPendingKey(directory);
  return made;
}

/** Has a new key signed for the same identity, and gives what was written to the folder. Throws CERTIFICATE_REVOKED and as `enrol`; then the former ones are as they were. */
export async function renew(
  former: Credentials,
  options: Pick<EnrolmentOptions, 'directory' | 'gateway' | 'clock' | 'limits'>,
): Promise<Credentials> {
  return alone(options.directory, () => renewAs(former, options));
}

async function renewAs(
  former: Credentials,
  options: Pick<EnrolmentOptions, 'directory' | 'gateway' | 'clock' | 'limits'>,
): Promise<Credentials> {
  const { directory, gateway, clock, limits } = options;
  const { identity, ca } = former;
  await takeTime(gateway, { ca, cluster: identity.cluster }, clock, limits);
  const { makeRequest } = await import('./certificates.js');
  const key = await pendingKey(directory);
  const check = gatewayCheck({ ca, cluster: identity.cluster }, () => clock.nowMs());
  const body = { csr: await makeRequest(key) };
  const reply = await askGateway(gateway, { method: 'POST', path: '/renew', body, check, own: former }, limits);
  const made = signed(reply, { identity, ca, key, nowMs: clock.nowMs() });
  await writeCredentials(directory, made);
  const [record, broker] = [await readRecord(directory), brokerSaid(reply, gateway)];
  if (record !== undefined && broker !== undefined && broker !== record.broker) await writeRecord(directory, { ...record, broker });
  await dropPendingKey(directory);
  return made;
}

/** One process at a time writes to a folder of credentials: commands of one person share theirs. Throws JOIN_BUSY, which passes. */
async function alone<T>(directory: string, work: () => Promise<T>): Promise<T> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const unlock = await lockDirectory(directory, {
    code: 'JOIN_BUSY',
    what: 'the folder of credentials',
    expected: 'one process that joins or renews there',
    todo: 'Try again when it is done.',
  });
  try {
    return await work();
  } finally {
    await unlock();
  }
}

/** Asks the gateway for the time; whoever answers must have a certificate of this CA that is good at the time it says. */
export async function takeTime(
  gateway: EnrolmentAddress,
  { ca, cluster }: { readonly ca: string; readonly cluster: string },
  clock: GatewayClock,
  limits?: EnrolmentLimits,
): Promise<void> {
  let seen: X509Certificate | undefined;
  let mark = clock.mark();
  const look = gatewayCheck({ ca, cluster }, () => undefined);
  const check = (certificate: X509Certificate): void => {
    look(certificate);
    seen = certificate;
    // The handshake is no part of the way there and back.
    mark = clock.mark();
  };
  const { text } = await askGateway(gateway, { method: 'GET', path: '/time', check }, limits);
  const { nowMs } = fieldsOf(text);
  if (typeof nowMs !== 'number' || !Number.isFinite(nowMs) || nowMs < 0 || seen === undefined) {
    throw new ChairError('GATEWAY_UNREACHABLE', `the gateway at ${addressText(gateway)} was asked for the time`, {
      came: text.slice(0, 100),
    });
  }
  verifyPeer(seen, { ca, cluster, nowMs, roles: ['gateway'] });
  clock.learn(nowMs, mark);
}

/** By what the credentials in a folder were got; undefined when it is not known. */
export async function readRecord(directory: string): Promise<EnrolmentRecord | undefined> {
  const { tokenId, gateway, broker } = fieldsOf(await readFile(joinPath(directory, RECORD), 'utf8').catch(() => ''));
  if (typeof tokenId !== 'string' || typeof gateway !== 'string') return undefined;
  try {
    return { tokenId, gateway: parseAddress(gateway), broker: typeof broker === 'string' ? secureUrl(broker) : undefined };
  } catch {
    return undefined;
  }
}

/**
 * Where the broker may be for one that has joined, though nobody is heard on the network: as the gateway said when it let us in, and on its usual port where we have
 * joined, or were told to. To be believed only with its certificate.
 */
export async function knownBrokers(directory: string, told?: EnrolmentAddress): Promise<string[]> {
  const record = await readRecord(directory);
  const beside = [told, record?.gateway].flatMap((at) => (at === undefined ? [] : [secureUrl(`mqtts://${hostText(at)}:${BROKER_PORT}`)]));
  return [...new Set([record?.broker, ...beside])].filter((url) => url !== undefined);
}

const BROKER_PORT = 8883;
const hostText = ({ host }: EnrolmentAddress): string => (host.includes(':') ? `[${host}]` : host);

/** Where the gateway says that the broker is. An old one says nothing. */
function brokerSaid({ text }: EnrolmentReply, gateway: EnrolmentAddress): string | undefined {
  const { broker } = fieldsOf(text);
  if (typeof broker !== 'string') return undefined;
  return secureUrl(broker.startsWith(':') ? `mqtts://${hostText(gateway)}${broker}` : broker);
}

/** Undefined of what is no URL of a broker with TLS, or holds more than host and port. */
function secureUrl(text: string): string | undefined {
  if (!/^mqtts:\/\/[^\s/@?#]{1,255}$/.test(text)) return undefined;
  return URL.canParse(text) ? text : undefined;
}

async function writeRecord(directory: string, { tokenId, gateway, broker }: EnrolmentRecord): Promise<void> {
  const text = `${JSON.stringify({ tokenId, gateway: addressText(gateway), broker })}\n`;
  await writeWhole(joinPath(directory, RECORD), text, { full: 'CREDENTIALS_DAMAGED', mode: 0o600 });
}

/** What a join should wait for: the gateway is not up yet, is busy, is full, or an operator has not approved it yet. Everything else stays as it is. */
const PASSING = new Set<ErrorCode>([
  'GATEWAY_UNREACHABLE',
  'JOIN_BUSY',
  'JOIN_HELD',
  'GATEWAY_STORE_FULL',
  'GATEWAY_NOT_FOUND',
  'GATEWAY_AMBIGUOUS',
  'DISCOVERY_UNAVAILABLE',
]);
/** What answers there is not the gateway of the token. */
const OTHERS = new Set<ErrorCode>(['CA_WRONG', 'CERTIFICATE_FOREIGN']);
const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 60_000;
const HELD_WAIT_MS = 5_000;

export interface PatientOptions extends Omit<EnrolmentOptions, 'gateway'> {
  /** Where the gateway may be, asked before each attempt. Of several, the one that the token is of is found. */
  readonly find: (signal: AbortSignal) => Promise<readonly EnrolmentAddress[]>;
  /** It was only heard where it may be: then others than the token's are no end. */
  readonly isGuess?: boolean;
  readonly signal: AbortSignal;
  readonly random?: () => number;
  readonly log?: (line: string) => void;
  /** Default 1: tests make time pass faster. */
  readonly pace?: number;
}

/** Joins, and waits for as long as it takes where waiting helps. Throws what `enrol` throws otherwise, STOPPED when the signal says so. */
export async function enrolPatiently(patience: PatientOptions): Promise<Credentials> {
  const { find, isGuess = false, signal, random = Math.random, log, pace = 1, ...options } = patience;
  let said = '';
  for (let failures = 0; ; failures++) {
    try {
      signal.throwIfAborted();
      return await enrolAtOneOf(await find(signal), { ...options, limits: { ...options.limits, signal } });
    } catch (thrown) {
      if (signal.aborted) throw new ChairError('STOPPED', 'joining was given up', { cause: thrown });
      const error = toChairError(thrown);
      if (!PASSING.has(error.code) && !(isGuess && OTHERS.has(error.code))) throw error;
      if (error.code !== said) log?.(`${error.code}: ${error.message}; trying on`);
      said = error.code;
      // Full jitter: a room full of boards gets its power back at once.
      const longest = error.code === 'JOIN_HELD' ? HELD_WAIT_MS : Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(failures, 10));
      await delay(pace * (longest / 2 + (longest / 2) * random()), undefined, { signal }).catch(() => undefined);
    }
  }
}

async function enrolAtOneOf(gateways: readonly EnrolmentAddress[], options: Omit<EnrolmentOptions, 'gateway'>): Promise<Credentials> {
  const [first, second] = gateways;
  if (first === undefined) throw new ChairError('GATEWAY_NOT_FOUND', 'nobody said where machines can join');
  return enrol({ ...options, gateway: second === undefined ? first : await gatewayOf(gateways, options) });
}

/** Which of them is the gateway of the token: all are asked at once, as most may lie, or never answer. Throws what spoke against them. */
async function gatewayOf(
  gateways: readonly EnrolmentAddress[],
  { token, limits }: Omit<EnrolmentOptions, 'gateway'>,
): Promise<EnrolmentAddress> {
  const asked = parseToken(token);
  const proofs = new Proofs(
    async (text, signal) => {
      const deadlineMs = Math.min(PROOF_MS, limits?.deadlineMs ?? PROOF_MS);
      const quick = { deadlineMs, signal: limits?.signal === undefined ? signal : AbortSignal.any([signal, limits.signal]) };
      const gateway = parseAddress(text);
      const ca = await fetchAuthority(gateway, asked, quick);
      // The CA's certificate is no secret: it takes one that it has signed.
      await takeTime(gateway, { ca, cluster: asked.cluster }, new GatewayClock(), quick);
      return text;
    },
    () => undefined,
  );
  try {
    proofs.consider(gateways.map(addressText));
    await proofs.settled();
    const [found] = proofs.proven.keys();
    if (found !== undefined) return parseAddress(found);
    const failures = [...proofs.refuted.values()];
    throw (
      failures.find((error) => OTHERS.has(toChairError(error).code)) ?? failures[0] ?? new ChairError('STOPPED', 'joining was given up')
    );
  } finally {
    proofs.stop();
  }
}

/** Two handshakes and two short answers, on a slow board and a bad network. */
const PROOF_MS = 6_000;

/** The CA of whoever answers, if it is the one that the token names. Nothing was sent by then but the question. */
async function fetchAuthority(gateway: EnrolmentAddress, { fingerprint }: TokenText, limits: EnrolmentLimits | undefined): Promise<string> {
  const { text } = await askGateway(gateway, { method: 'GET', path: '/ca', check: () => undefined }, limits).catch((cause: unknown) => {
    if (isChairError(cause, 'GATEWAY_UNREACHABLE')) throw cause;
    // Whatever it says, it is not known yet who says so: a stranger's "no" is no answer to the token.
    throw new ChairError('GATEWAY_UNREACHABLE', `what answers at ${addressText(gateway)} does not show its CA`, {
      came: toChairError(cause).message,
      cause,
    });
  });
  let came: string;
  try {
    came = fingerprintOf(new X509Certificate(text));
  } catch (cause) {
    throw new ChairError('GATEWAY_UNREACHABLE', `what answers at ${addressText(gateway)} shows no CA`, { cause });
  }
  if (came === fingerprint) return text;
  throw new ChairError('CA_WRONG', `the gateway at ${addressText(gateway)} is not the one that the token is of`, {
    expected: `a CA with the fingerprint ${fingerprint}`,
    came,
    todo: 'Another gateway, or one that was set up anew: make a token there. Otherwise somebody is in between. Nothing was sent.',
  });
}

function gatewayCheck(
  { ca, cluster }: { readonly ca: string; readonly cluster: string },
  nowMs: () => number | undefined,
): (certificate: X509Certificate) => void {
  return (certificate) => void verifyPeer(certificate, { ca, cluster, nowMs: nowMs(), roles: ['gateway'] });
}

interface Wanted {
  readonly identity: Identity;
  readonly ca: string;
  readonly key: string;
  readonly nowMs: number;
}

/** The credentials that a reply brings, when they are what was asked for. Throws CREDENTIALS_WRONG, CERTIFICATE_..., GATEWAY_UNREACHABLE. */
function signed({ text }: EnrolmentReply, { identity, ca, key, nowMs }: Wanted): Credentials {
  const { certificate } = fieldsOf(text);
  let made: X509Certificate;
  try {
    made = new X509Certificate(typeof certificate === 'string' ? certificate : '');
  } catch (cause) {
    throw new ChairError('GATEWAY_UNREACHABLE', 'the gateway answered without a certificate', { cause });
  }
  const found = verifyPeer(made, { ca, cluster: identity.cluster, nowMs });
  if (!sameIdentity(found, identity)) {
    throw new ChairError('CREDENTIALS_WRONG', 'the gateway signed for another name', {
      expected: identityText(identity),
      came: identityText(found),
    });
  }
  const credentials = { identity, ca, certificate: made.toString(), key, serial: made.serialNumber, notAfterMs: Date.parse(made.validTo) };
  checkKey(made, credentials);
  return credentials;
}

function checkKey(made: X509Certificate, { key }: Credentials): void {
  if (made.checkPrivateKey(createPrivateKey(key))) return;
  throw new ChairError('CREDENTIALS_WRONG', 'the gateway signed another key than it was asked to');
}

function held({ text }: EnrolmentReply): ChairError {
  const { name, key } = fieldsOf(text);
  const short = typeof key === 'string' ? key.slice(0, 16) : '';
  return new ChairError('JOIN_HELD', `the join of ${typeof name === 'string' ? name.slice(0, 64) : 'this machine'} waits to be approved`, {
    todo: `On the gateway: \`agents approve ${typeof name === 'string' ? name.slice(0, 64) : 'NAME'} --key ${short}\`, if that is what this machine shows here.`,
  });
}

/** The credentials in a folder, when this very token has been used for them: then it is not to be used again. */
export async function alreadyEnrolled(directory: string, token: string): Promise<Credentials | undefined> {
  const { id } = parseToken(token);
  if ((await readRecord(directory))?.tokenId !== id) return undefined;
  return readCredentials(directory).catch((error: unknown) => {
    if (isChairError(error)) return undefined;
    throw error;
  });
}

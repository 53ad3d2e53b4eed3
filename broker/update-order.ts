/**
 * The word with which a gateway has an agent change its program: which bundle, for whom, signed with the gateway's key. The signature is over the text below, not over
 * JSON, so that there is one way to write it. Checked twice on the device: by the agent before it leaves its seats, and by root before anything is unpacked. No
 * order is obeyed after a later one: who keeps an old one, signed and all, cannot bring the program of then back. Later is what a gateway of a higher term says, or the
 * same one after it; clocks have no part in that, for one that was wrong for a day would make every order after it an old one.
 */
import { createPrivateKey, sign, verify, X509Certificate } from 'node:crypto';
import { type Credentials, type Identity, identityOf } from './credentials/credentials.js';
import { verifyPeer } from './credentials/verify.js';
import { ChairError } from './errors.js';

export interface UpdateFacts {
  readonly agent: string;
  /** Of the bundle: version and seal. */
  readonly name: string;
  readonly arch: string;
  /** Of the archive. */
  readonly sha256: string;
  readonly sizeBytes: number;
  /** By the gateway's clock, ms since 1970. */
  readonly issuedMs: number;
  /** Of the gateway: it never begins a second time in the same one. */
  readonly term: number;
  /** Of the orders of that gateway since its start, from 1. */
  readonly number: number;
}

export interface UpdateOrder extends UpdateFacts {
  /** Of the gateway, PEM. */
  readonly certificate: string;
  /** ECDSA with SHA-256, base64. */
  readonly signature: string;
}

export interface OrderRules {
  /** PEM of the cluster's CA. */
  readonly ca: string;
  /** Undefined: any. */
  readonly agent?: string;
  readonly arch: string;
  /** Undefined: dates are not looked at. */
  readonly nowMs: number | undefined;
}

/** An order that was on its way for longer is one of another day. */
const GOOD_MS = 3_600_000;
const CLOCK_TOLERANCE_MS = 120_000;
const MOST_BYTES = 400 * 2 ** 20;
const NAME = /^[0-9A-Za-z.+-]{1,64}-[0-9a-f]{16}$/;

function textOf({ agent, name, arch, sha256, sizeBytes, issuedMs, term, number }: UpdateFacts, { cluster }: Identity): string {
  return `musical-chair update 2\n${[cluster, agent, name, arch, sha256, sizeBytes, issuedMs, term, number].join('\n')}\n`;
}

/** Whether `order` was given after `other`, to whichever agents of one cluster. */
export function isLater(order: Pick<UpdateFacts, 'term' | 'number'>, other: Pick<UpdateFacts, 'term' | 'number'>): boolean {
  return order.term > other.term || (order.term === other.term && order.number > other.number);
}

/** Only what a gateway signs is obeyed. */
export function signOrder(facts: UpdateFacts, { identity, certificate, key }: Credentials): UpdateOrder {
  const signature = sign('sha256', Buffer.from(textOf(facts, identity)), createPrivateKey(key)).toString('base64');
  return { ...facts, certificate, signature };
}

/** Throws UPDATE_REFUSED, CERTIFICATE_FOREIGN, CERTIFICATE_EXPIRED. */
export function checkOrder(order: UpdateOrder, { ca, agent, arch, nowMs }: OrderRules): void {
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(order.certificate);
  } catch (cause) {
    throw new ChairError('UPDATE_REFUSED', 'the order to update names nobody who signed it', { cause });
  }
  const { cluster } = identityOf(certificate);
  const signer = verifyPeer(certificate, { ca, cluster, nowMs, roles: ['gateway'] });
  if (!verify('sha256', Buffer.from(textOf(order, signer)), certificate.publicKey, Buffer.from(order.signature, 'base64'))) {
    throw new ChairError('UPDATE_REFUSED', 'the order to update is not signed by the gateway that it names', {
      expected: 'its signature',
      came: 'another',
    });
  }
  if (agent !== undefined && order.agent !== agent) {
    throw new ChairError('UPDATE_REFUSED', 'the order to update is for another agent', { expected: agent, came: order.agent });
  }
  if (order.arch !== arch)
    throw new ChairError('BUNDLE_WRONG_ARCH', 'the bundle is made for another machine', { expected: arch, came: order.arch });
  if (nowMs !== undefined && (nowMs > order.issuedMs + GOOD_MS || nowMs < order.issuedMs - CLOCK_TOLERANCE_MS)) {
    throw new ChairError('UPDATE_REFUSED', 'the order to update is not of now', {
      expected: `one of the hour before ${new Date(nowMs).toISOString()}`,
      came: new Date(order.issuedMs).toISOString(),
    });
  }
}

/** What `JSON.stringify` made of an order. Throws UPDATE_REFUSED. */
export function parseOrder(text: string): UpdateOrder {
  let found: Readonly<Record<string, unknown>> = {};
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null) found = Object.fromEntries(Object.entries(value));
  } catch {
    // Found wanting below.
  }
  const { agent, name, arch, sha256, sizeBytes, issuedMs, term, number, certificate, signature } = found;
  const right =
    typeof agent === 'string' &&
    typeof name === 'string' &&
    NAME.test(name) &&
    typeof arch === 'string' &&
    typeof sha256 === 'string' &&
    /^[0-9a-f]{64}$/.test(sha256) &&
    isCount(sizeBytes) &&
    sizeBytes <= MOST_BYTES &&
    isCount(issuedMs) &&
    isCount(term) &&
    isCount(number) &&
    typeof certificate === 'string' &&
    typeof signature === 'string';
  if (!right) throw new ChairError('UPDATE_REFUSED', 'this is no order to update', { came: text.slice(0, 100) });
  return { agent, name, arch, sha256, sizeBytes, issuedMs, term, number, certificate, signature };
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value > 0;
}

/**
 * Takes up an update that the agent has fetched; runs as root before the agent starts (see `device/launch`). The agent's folder belongs to the agent: nothing in
 * it is believed. The order must be signed by a gateway of the cluster whose CA this machine has pinned, for this very agent, and after every order that was obeyed
 * before; the archive is read once, and what was checked is what is unpacked.
 */
import { createHash, createPrivateKey, X509Certificate } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile, readlink, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { identityOf } from '../../broker/credentials/credentials.js';
import { verifyPeer } from '../../broker/credentials/verify.js';
import { ChairError } from '../../broker/errors.js';
import { flushDirectory, writeWhole } from '../../broker/sealed-file.js';
import { checkOrder, parseOrder, type UpdateOrder } from '../../broker/update-order.js';
import { noteOrder } from './last-order.js';
import { isArchitecture } from './manifest.js';
import { OthersFolder } from './plain-file.js';
import { type Bundle, readBundleBytes } from './read.js';

export interface ApplyOptions {
  /** /opt/musical-chair */
  readonly prefix: string;
  /** /var/lib/musical-chair */
  readonly state: string;
  /** This machine's clock, which may be anything before its network is up. */
  readonly nowMs?: () => number;
}

const MOST_ORDER_BYTES = 64 * 1024;
const MOST_BUNDLE_BYTES = 400 * 2 ** 20;

/**
 * The name of the bundle that is unpacked now; `last-order` says that this order is open, which the caller closes. Throws CREDENTIALS_MISSING, UPDATE_REFUSED,
 * CERTIFICATE_FOREIGN, BUNDLE_DAMAGED, BUNDLE_WRONG_ARCH, AGENT_STORE_FULL.
 */
export async function applyUpdate({ prefix, state, nowMs = Date.now }: ApplyOptions): Promise<string> {
  const update = await OthersFolder.open(path.join(state, 'update'));
  try {
    const order = parseOrder((await update.read('order.json', MOST_ORDER_BYTES)).toString('utf8'));
    const ca = await pinnedCa(prefix, state);
    // Dates are not looked at here. The agent has, before it asked for this; root has the order of orders.
    checkOrder(order, { ca, agent: await ownName(state, ca), arch: process.arch, nowMs: undefined });
    await noteOrder(prefix, order, ca, nowMs());
    // What runs is whole, and is not touched.
    if (order.name === (await running(prefix))) return order.name;
    const bytes = await update.read('bundle.tgz', Math.min(order.sizeBytes, MOST_BUNDLE_BYTES));
    checkBytes(bytes, order);
    return await unpack(bytes, order, prefix);
  } finally {
    await update.close();
  }
}

async function unpack(bytes: Uint8Array, order: UpdateOrder, prefix: string): Promise<string> {
  if (!isArchitecture(process.arch))
    throw new ChairError('BUNDLE_WRONG_ARCH', 'there are no bundles for this machine', { came: process.arch });
  const into = path.join(prefix, 'versions', '.unpacking');
  await rm(into, { recursive: true, force: true });
  const bundle = await readBundleBytes(bytes, { arch: process.arch, into });
  return place(bundle, order, into, prefix);
}

/** A folder that has a bundle's name is whole, at any moment: what stands there goes under another name first, and only then is it removed. */
async function place(bundle: Bundle, order: UpdateOrder, into: string, prefix: string): Promise<string> {
  if (bundle.name !== order.name) {
    await rm(into, { recursive: true, force: true });
    throw new ChairError('UPDATE_REFUSED', 'the bundle is not the one that was ordered', { expected: order.name, came: bundle.name });
  }
  const versions = path.join(prefix, 'versions');
  const [target, aside] = [path.join(versions, bundle.name), path.join(versions, '.removing')];
  await rm(aside, { recursive: true, force: true });
  if (existsSync(target)) await rename(target, aside);
  await rename(into, target);
  await flushDirectory(versions);
  await rm(aside, { recursive: true, force: true });
  return bundle.name;
}

/** The name of the bundle that `current` leads to; '' when there is nothing to run. */
async function running(prefix: string): Promise<string> {
  const link = path.join(prefix, 'current');
  const target = await readlink(link).catch(() => '');
  return existsSync(path.join(link, 'bin', 'node')) ? path.basename(target) : '';
}

function checkBytes(bytes: Uint8Array, { sha256, sizeBytes }: UpdateOrder): void {
  const came = createHash('sha256').update(bytes).digest('hex');
  if (came === sha256 && bytes.length === sizeBytes) return;
  throw new ChairError('BUNDLE_DAMAGED', 'the bundle is not the one that was signed', {
    expected: `${sizeBytes} bytes with sha256 ${sha256}`,
    came: `${bytes.length} bytes with ${came}`,
  });
}

/**
 * The CA that root believes: that of the agent's credentials when it was first needed, from then on a copy that the agent cannot change. Who joins another cluster
 * removes it, or installs anew.
 */
async function pinnedCa(prefix: string, state: string): Promise<string> {
  const pin = path.join(prefix, 'ca.pem');
  const known = await readFile(pin, 'utf8').catch(() => '');
  if (known !== '') return known;
  const found = (await readCredential(state, 'ca.pem')).toString('utf8');
  if (!isCertificate(found)) throw new ChairError('UPDATE_REFUSED', "the cluster's CA, as the agent has it, is no certificate");
  await writeWhole(pin, found, { full: 'AGENT_STORE_FULL', mode: 0o644 });
  return found;
}

function isCertificate(text: string): boolean {
  try {
    return new X509Certificate(text).ca;
  } catch {
    return false;
  }
}

/**
 * Who the agent is, by its certificate. It has to show the key as well: the certificates of others are no secret, and with one of them it could show an order that was
 * meant for them. Throws CREDENTIALS_MISSING, CERTIFICATE_FOREIGN, UPDATE_REFUSED.
 */
async function ownName(state: string, ca: string): Promise<string> {
  const [certificate, key] = [await readCredential(state, 'cert.pem'), await readCredential(state, 'key.pem')];
  let own: X509Certificate;
  let isOwn: boolean;
  try {
    own = new X509Certificate(certificate);
    // While they are replaced, two keys stand there: see `writeCredentials`.
    const keys = key.toString('latin1').match(/-----BEGIN [A-Z ]+-----[^-]+-----END [A-Z ]+-----/g) ?? [];
    isOwn = keys.some((block) => own.checkPrivateKey(createPrivateKey(block)));
  } catch {
    // Without what OpenSSL says of it: what was read there need not have been a key.
    throw new ChairError('UPDATE_REFUSED', "the agent's credentials cannot be read", { expected: 'a certificate and its key, PEM' });
  }
  if (!isOwn) throw new ChairError('UPDATE_REFUSED', "the agent's key does not belong to its certificate");
  return verifyPeer(own, { ca, cluster: identityOf(own).cluster, nowMs: undefined, roles: ['agent'] }).name;
}

async function readCredential(state: string, name: string): Promise<Buffer> {
  let folder: OthersFolder | undefined;
  try {
    folder = await OthersFolder.open(path.join(state, 'credentials'));
    return await folder.read(name, MOST_ORDER_BYTES);
  } catch (cause) {
    throw new ChairError('CREDENTIALS_MISSING', 'this agent has not joined a cluster: nobody can sign an update for it', { cause });
  } finally {
    await folder?.close();
  }
}

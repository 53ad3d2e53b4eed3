/**
 * Takes up an update that the agent has fetched; runs as root before the agent starts (see `device/launch`). The agent's folder belongs to the agent: nothing in
 * it is believed. The order must be signed by a gateway of the cluster whose CA this machine has pinned, the archive is read once, and what was checked is what
 * is unpacked.
 */
import { createHash } from 'node:crypto';
import { constants, existsSync } from 'node:fs';
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { ChairError } from '../../broker/errors.js';
import { checkOrder, parseOrder, type UpdateOrder } from '../../broker/update-order.js';
import { isArchitecture } from './manifest.js';
import { type Bundle, readBundleBytes } from './read.js';

export interface ApplyOptions {
  /** /opt/musical-chair */
  readonly prefix: string;
  /** /var/lib/musical-chair */
  readonly state: string;
}

const MOST_ORDER_BYTES = 64 * 1024;
const MOST_BUNDLE_BYTES = 400 * 2 ** 20;

/** The name of the bundle that is unpacked now. Throws CREDENTIALS_MISSING, UPDATE_REFUSED, BUNDLE_DAMAGED, BUNDLE_WRONG_ARCH. */
export async function applyUpdate({ prefix, state }: ApplyOptions): Promise<string> {
  const update = path.join(state, 'update');
  const order = parseOrder((await readPlain(path.join(update, 'order.json'), MOST_ORDER_BYTES)).toString('utf8'));
  // Dates are not looked at: this machine's clock may be anything before its network is up. The agent has, before it asked for this.
  checkOrder(order, { ca: await pinnedCa(prefix, state), arch: process.arch, nowMs: undefined });
  const bytes = await readPlain(path.join(update, 'bundle.tgz'), Math.min(order.sizeBytes, MOST_BUNDLE_BYTES));
  checkBytes(bytes, order);
  if (!isArchitecture(process.arch))
    throw new ChairError('BUNDLE_WRONG_ARCH', 'there are no bundles for this machine', { came: process.arch });
  const into = path.join(prefix, 'versions', '.unpacking');
  await rm(into, { recursive: true, force: true });
  const bundle = await readBundleBytes(bytes, { arch: process.arch, into });
  return place(bundle, order, into, prefix);
}

async function place(bundle: Bundle, order: UpdateOrder, into: string, prefix: string): Promise<string> {
  if (bundle.name !== order.name) {
    await rm(into, { recursive: true, force: true });
    throw new ChairError('UPDATE_REFUSED', 'the bundle is not the one that was ordered', { expected: order.name, came: bundle.name });
  }
  const target = path.join(prefix, 'versions', bundle.name);
  if (existsSync(target)) await rm(target, { recursive: true, force: true });
  await rename(into, target);
  return bundle.name;
}

/** Never a link, and never more than was expected. */
async function readPlain(file: string, mostBytes: number): Promise<Buffer> {
  // The agent could lay a link to a file of others in its place.
  const handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const { size } = await handle.stat();
    if (size > mostBytes)
      throw new ChairError('UPDATE_REFUSED', `${file} is too large`, { expected: `at most ${mostBytes} bytes`, came: `${size}` });
    return await handle.readFile();
  } finally {
    await handle.close();
  }
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
  const found = await readPlain(path.join(state, 'credentials', 'ca.pem'), MOST_ORDER_BYTES).catch((cause: unknown) => {
    throw new ChairError('CREDENTIALS_MISSING', 'this agent has not joined a cluster: nobody can sign an update for it', { cause });
  });
  await mkdir(prefix, { recursive: true });
  const handle = await open(`${pin}.new`, 'w', 0o644);
  await handle.writeFile(found);
  await handle.sync();
  await handle.close();
  await rename(`${pin}.new`, pin);
  return found.toString('utf8');
}

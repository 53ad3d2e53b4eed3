import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import type { ChairError } from '../broker/errors.js';
import { testCa } from '../broker/test-trust.js';
import { parseOrder, signOrder } from '../broker/update-order.js';
import { BlobStore } from './store.js';
import { Updater, type UpdaterOptions } from './updating.js';

const BYTES = Buffer.from('a bundle');
const SHA256 = createHash('sha256').update(BYTES).digest('hex');
const NAME = '1.1.0-1111111111111111';

async function agent(change: Partial<UpdaterOptions> = {}) {
  const directory = await mkdtemp(path.join(tmpdir(), 'mc-updating-'));
  const store = await BlobStore.open({ directory, limitBytes: 2 ** 20 });
  onTestFinished(async () => {
    await store.close();
    await rm(directory, { recursive: true });
  });
  const prefix = path.join(directory, 'opt');
  await mkdir(prefix);
  const { ca, credentials } = await testCa();
  let fetches = 0;
  const rejected: ChairError[] = [];
  const updater = new Updater({
    agent: 'pi-1',
    directory,
    installation: { prefix, name: '1.0.0-0000000000000000' },
    authority: () => ({ ca, nowMs: Date.now() }),
    store,
    fetcher: {
      fetch: async (ref) => {
        fetches++;
        const part = await store.openPart(ref);
        await part.append(BYTES);
        await part.finish();
      },
    },
    onRejected: (error) => rejected.push(error),
    log: () => undefined,
    ...change,
  });
  onTestFinished(() => updater.stop());
  const gateway = await credentials('gateway', 'gateway');
  const order = (facts = {}) =>
    signOrder(
      {
        agent: 'pi-1',
        name: NAME,
        arch: process.arch,
        sha256: SHA256,
        sizeBytes: BYTES.length,
        issuedMs: Date.now(),
        term: 1,
        number: 1,
        ...facts,
      },
      gateway,
    );
  const read = (name: string): Promise<string> => readFile(path.join(directory, 'update', name), 'utf8').catch(() => '');
  return { updater, order, read, prefix, store, rejected, fetches: () => fetches };
}

describe('an agent that is updated', () => {
  it('fetches the bundle once and lays it ready with the order', async () => {
    const { updater, order, read, store, fetches } = await agent();
    const said = order();
    await Promise.all([updater.take(said, 5_000), updater.take(said, 5_000)]);
    expect(await read('bundle.tgz')).toBe('a bundle');
    expect(parseOrder(await read('order.json'))).toEqual(said);
    expect(fetches()).toBe(1);
    expect(store.list()).toEqual([]);
  });

  it('refuses what its gateway has not signed, what is for others, and what is not for it', async () => {
    const { updater, order, read } = await agent();
    const other = signOrder(order(), await (await testCa()).credentials('gateway', 'gateway'));
    await expect(updater.take(other, 5_000)).rejects.toMatchObject({ code: 'CERTIFICATE_FOREIGN' });
    await expect(updater.take({ ...order(), sha256: 'b'.repeat(64) }, 5_000)).rejects.toMatchObject({ code: 'UPDATE_REFUSED' });
    await expect(updater.take(order({ agent: 'pi-2' }), 5_000)).rejects.toMatchObject({ code: 'UPDATE_REFUSED' });
    await expect(updater.take(order({ arch: 'mips' }), 5_000)).rejects.toMatchObject({ code: 'BUNDLE_WRONG_ARCH' });
    expect(await read('order.json')).toBe('');
    // And is not confused by that.
    await updater.take(order(), 5_000);
  });

  it('refuses when it was not installed from a bundle, or has not joined', async () => {
    const without = await agent({ installation: undefined });
    await expect(without.updater.take(without.order(), 5_000)).rejects.toMatchObject({ code: 'UPDATE_REFUSED' });
    const open = await agent({ authority: () => undefined });
    await expect(open.updater.take(open.order(), 5_000)).rejects.toMatchObject({ code: 'UPDATE_REFUSED' });
  });

  it('on trial gives itself up when nobody confirms it in time', async () => {
    const { updater, prefix, read, rejected } = await agent({ trialMs: 20 });
    await writeFile(path.join(prefix, 'trial'), '1\n');
    updater.start();
    await vi.waitFor(() => expect(rejected).toMatchObject([{ code: 'UPDATE_FAILED' }]), { timeout: 10_000 });
    expect(await read('rejected')).toBe('1.0.0-0000000000000000\n');
  });

  it('on trial stays when it is confirmed, under its own name only', async () => {
    const { updater, order, prefix, read, rejected } = await agent({ trialMs: 1_000 });
    await writeFile(path.join(prefix, 'trial'), '1\n');
    updater.start();
    await expect(updater.take(order(), 5_000)).rejects.toMatchObject({ code: 'UPDATE_REFUSED' });
    await expect(updater.confirm(NAME)).rejects.toMatchObject({ code: 'UPDATE_REFUSED' });
    await updater.confirm('1.0.0-0000000000000000');
    expect(await read('confirmed')).toBe('1.0.0-0000000000000000\n');
    await updater.take(order(), 5_000);
    expect(await read('confirmed')).toBe('1.0.0-0000000000000000\n');
    await new Promise((resolve) => setTimeout(resolve, 1_200));
    expect(rejected).toEqual([]);
  });

  it('not on trial waits for nobody', async () => {
    const { updater, rejected } = await agent({ trialMs: 1 });
    updater.start();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(rejected).toEqual([]);
  });
});

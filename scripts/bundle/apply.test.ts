import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { testCa } from '../../broker/test-trust.js';
import { signOrder, type UpdateOrder } from '../../broker/update-order.js';
import { applyUpdate } from './apply.js';
import { smallBundle, temporaryFolder, thisArchitecture } from './test-bundle.js';

/** A device whose agent has fetched an update. */
async function fetched() {
  const folder = temporaryFolder();
  const [prefix, state] = [path.join(folder, 'opt'), path.join(folder, 'state')];
  mkdirSync(path.join(state, 'update'), { recursive: true });
  mkdirSync(path.join(state, 'credentials'));
  mkdirSync(path.join(prefix, 'versions'), { recursive: true });
  const trust = await testCa();
  writeFileSync(path.join(state, 'credentials/ca.pem'), trust.ca);
  const bundle = await smallBundle(folder);
  const facts = {
    agent: 'pi-1',
    name: bundle.name,
    arch: thisArchitecture(),
    sha256: bundle.sha256,
    sizeBytes: bundle.sizeBytes,
    issuedMs: Date.now(),
  };
  const order = signOrder(facts, await trust.credentials('gateway', 'gateway'));
  const update = (name: string): string => path.join(state, 'update', name);
  copyFileSync(bundle.file, update('bundle.tgz'));
  const say = (changed: UpdateOrder): void => writeFileSync(update('order.json'), JSON.stringify(changed));
  say(order);
  return {
    prefix,
    state,
    bundle,
    facts,
    order,
    say,
    trust,
    update,
    apply: () => applyUpdate({ prefix, state }),
    versions: () => readdirSync(path.join(prefix, 'versions')),
  };
}

describe('what root does with an update', () => {
  it('unpacks it under its name, when the gateway has signed it', async () => {
    const { prefix, bundle, apply, versions } = await fetched();
    expect(await apply()).toBe(bundle.name);
    expect(versions()).toEqual([bundle.name]);
    expect(existsSync(path.join(prefix, 'versions', bundle.name, 'bin/node'))).toBe(true);
    // Once more, as after a power cut.
    expect(await apply()).toBe(bundle.name);
  });

  it('unpacks nothing of a bundle with one byte flipped', async () => {
    const { apply, update, versions } = await fetched();
    const bytes = readFileSync(update('bundle.tgz'));
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
    writeFileSync(update('bundle.tgz'), bytes);
    await expect(apply()).rejects.toMatchObject({ code: 'BUNDLE_DAMAGED' });
    expect(versions()).toEqual([]);
  });

  it('unpacks nothing that another cluster has signed, even when the agent shows its CA', async () => {
    const { prefix, state, apply, facts, say, trust, versions } = await fetched();
    await apply();
    rmSync(path.join(prefix, 'versions'), { recursive: true });
    mkdirSync(path.join(prefix, 'versions'));
    const other = await testCa();
    writeFileSync(path.join(state, 'credentials/ca.pem'), other.ca);
    say(signOrder(facts, await other.credentials('gateway', 'gateway')));
    await expect(apply()).rejects.toMatchObject({ code: 'CERTIFICATE_FOREIGN' });
    say(signOrder(facts, await trust.credentials('agent', 'pi-1')));
    await expect(apply()).rejects.toMatchObject({ code: 'CERTIFICATE_FOREIGN' });
    expect(versions()).toEqual([]);
  });

  it('unpacks nothing that calls itself otherwise than it is, or is larger than was said', async () => {
    const { apply, facts, say, trust, versions, update } = await fetched();
    const gateway = await trust.credentials('gateway', 'gateway');
    say(signOrder({ ...facts, name: '9.9.9-0123456789abcdef' }, gateway));
    await expect(apply()).rejects.toMatchObject({ code: 'UPDATE_REFUSED' });
    say(signOrder(facts, gateway));
    writeFileSync(update('bundle.tgz'), Buffer.alloc(facts.sizeBytes + 1));
    await expect(apply()).rejects.toMatchObject({ code: 'UPDATE_REFUSED' });
    expect(versions()).toEqual([]);
  });

  it('follows no link that the agent has laid', async () => {
    const { apply, update, versions } = await fetched();
    rmSync(update('order.json'));
    symlinkSync('/etc/passwd', update('order.json'));
    await expect(apply()).rejects.toThrow();
    expect(versions()).toEqual([]);
  });

  it('obeys nobody before the agent has joined', async () => {
    const { state, apply } = await fetched();
    rmSync(path.join(state, 'credentials'), { recursive: true });
    await expect(apply()).rejects.toMatchObject({ code: 'CREDENTIALS_MISSING' });
  });
});

import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
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
    term: 3,
    number: 2,
  };
  const own = await trust.credentials('agent', 'pi-1');
  writeFileSync(path.join(state, 'credentials/cert.pem'), own.certificate);
  writeFileSync(path.join(state, 'credentials/key.pem'), own.key);
  const gateway = await trust.credentials('gateway', 'gateway');
  const order = signOrder(facts, gateway);
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
    /** As the gateway orders it, with something changed. */
    ordered: (change: Partial<typeof facts>): void => say(signOrder({ ...facts, ...change }, gateway)),
    lastOrder: (): string => readFileSync(path.join(prefix, 'last-order'), 'utf8'),
    /** What `launch` does when it is through with an order. */
    settle: (): void => {
      const file = path.join(prefix, 'last-order');
      writeFileSync(file, readFileSync(file, 'utf8').replace(/ open$/m, ' done'));
    },
    update,
    apply: (nowMs = Date.now()) => applyUpdate({ prefix, state, nowMs: () => nowMs }),
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

  it('does not wait for what is no file', async () => {
    const { apply, update, versions, say, order } = await fetched();
    rmSync(update('bundle.tgz'));
    execFileSync('mkfifo', [update('bundle.tgz')]);
    await expect(apply()).rejects.toMatchObject({ code: 'UPDATE_REFUSED', message: expect.stringContaining('not a file') });
    rmSync(update('order.json'));
    execFileSync('mkfifo', [update('order.json')]);
    await expect(apply()).rejects.toMatchObject({ code: 'UPDATE_REFUSED' });
    rmSync(update('order.json'));
    rmSync(update('bundle.tgz'));
    mkdirSync(update('bundle.tgz'));
    say(order);
    await expect(apply()).rejects.toMatchObject({ code: 'UPDATE_REFUSED' });
    expect(versions()).toEqual([]);
  });

  it('goes into no folder that is a link', async () => {
    const { apply, state, versions } = await fetched();
    renameSync(path.join(state, 'update'), path.join(state, 'elsewhere'));
    symlinkSync(path.join(state, 'elsewhere'), path.join(state, 'update'));
    await expect(apply()).rejects.toMatchObject({ code: 'UPDATE_REFUSED' });
    expect(versions()).toEqual([]);
  });

  it('does nothing for an order that another agent was given, also when its certificate is shown', async () => {
    const { apply, ordered, state, trust, versions } = await fetched();
    ordered({ agent: 'pi-2' });
    await expect(apply()).rejects.toMatchObject({ code: 'UPDATE_REFUSED', message: expect.stringContaining('another agent') });
    const other = await trust.credentials('agent', 'pi-2');
    writeFileSync(path.join(state, 'credentials/cert.pem'), other.certificate);
    await expect(apply()).rejects.toMatchObject({ code: 'UPDATE_REFUSED', message: expect.stringContaining('does not belong') });
    const foreign = await (await testCa()).credentials('agent', 'pi-2');
    writeFileSync(path.join(state, 'credentials/cert.pem'), foreign.certificate);
    writeFileSync(path.join(state, 'credentials/key.pem'), foreign.key);
    await expect(apply()).rejects.toMatchObject({ code: 'CERTIFICATE_FOREIGN' });
    expect(versions()).toEqual([]);
  });

  it('does not go back to an order of before, signed as it is', async () => {
    const { apply, ordered, settle, lastOrder, versions, prefix } = await fetched();
    await apply();
    settle();
    rmSync(path.join(prefix, 'versions'), { recursive: true });
    mkdirSync(path.join(prefix, 'versions'));
    for (const before of [{}, { number: 1 }, { term: 2, number: 9 }, { term: 2, number: 9, issuedMs: Date.now() + 1 }]) {
      ordered(before);
      await expect(apply(), JSON.stringify(before)).rejects.toMatchObject({ code: 'UPDATE_REFUSED' });
    }
    expect(versions()).toEqual([]);
    expect(lastOrder()).toMatch(/^3 2 .* done$/m);
    for (const after of [{ number: 3 }, { term: 4, number: 1, issuedMs: Date.now() - 1_000 }]) {
      ordered(after);
      await apply();
      settle();
    }
    expect(lastOrder()).toMatch(/^4 1 .* done$/m);
  });

  it('knows the order before anything is unpacked, so that one that was refused for its bundle is not tried with another', async () => {
    const { apply, update, ordered, settle, facts, versions } = await fetched();
    const bytes = readFileSync(update('bundle.tgz'));
    writeFileSync(update('bundle.tgz'), Buffer.alloc(facts.sizeBytes));
    await expect(apply()).rejects.toMatchObject({ code: 'BUNDLE_DAMAGED' });
    settle();
    writeFileSync(update('bundle.tgz'), bytes);
    await expect(apply()).rejects.toMatchObject({ code: 'UPDATE_REFUSED' });
    ordered({ sha256: facts.sha256.replace(/^./, (c) => (c === '0' ? '1' : '0')) });
    await expect(apply()).rejects.toMatchObject({ code: 'UPDATE_REFUSED' });
    expect(versions()).toEqual([]);
  });

  it('begins to count anew with another cluster, once root believes its CA', async () => {
    const { apply, facts, prefix, say, settle, state } = await fetched();
    await apply();
    settle();
    rmSync(path.join(prefix, 'ca.pem'));
    const other = await testCa('other');
    const own = await other.credentials('agent', 'pi-1');
    for (const [name, text] of [
      ['ca', other.ca],
      ['cert', own.certificate],
      ['key', own.key],
    ] as const)
      writeFileSync(path.join(state, `credentials/${name}.pem`), text);
    say(signOrder({ ...facts, term: 1, number: 1 }, await other.credentials('gateway', 'gateway')));
    expect(await apply()).toBe(facts.name);
  });

  it('does not believe that there was no order when the note of it is damaged', async () => {
    const { apply, prefix, versions } = await fetched();
    writeFileSync(path.join(prefix, 'last-order'), '');
    await expect(apply()).rejects.toMatchObject({ code: 'UPDATE_REFUSED', message: expect.stringContaining('Remove it as root') });
    expect(versions()).toEqual([]);
  });

  it('does not take up what was ordered days ago; a clock that is behind changes nothing', async () => {
    const { apply, facts, versions } = await fetched();
    await expect(apply(facts.issuedMs + 2 * 86_400_000)).rejects.toMatchObject({
      code: 'UPDATE_REFUSED',
      message: expect.stringContaining('clock of this machine'),
    });
    expect(versions()).toEqual([]);
    expect(await apply(0)).toBe(facts.name);
  });

  it('never takes away what runs, nor leaves half a folder under the name of a bundle', async () => {
    const { apply, bundle, ordered, prefix, settle, versions } = await fetched();
    await apply();
    settle();
    const there = path.join(prefix, 'versions', bundle.name);
    writeFileSync(path.join(there, 'mark'), 'as it was');
    symlinkSync(`versions/${bundle.name}`, path.join(prefix, 'current'));
    ordered({ number: 3 });
    expect(await apply()).toBe(bundle.name);
    expect(readFileSync(path.join(there, 'mark'), 'utf8')).toBe('as it was');
    // The one before may be replaced: whole.
    rmSync(path.join(prefix, 'current'));
    settle();
    ordered({ number: 4 });
    mkdirSync(path.join(prefix, 'versions/.removing/half'), { recursive: true });
    expect(await apply()).toBe(bundle.name);
    expect(existsSync(path.join(there, 'mark'))).toBe(false);
    expect(versions()).toEqual([bundle.name]);
  });

  it('believes no CA that is none', async () => {
    const { apply, prefix, state } = await fetched();
    writeFileSync(path.join(state, 'credentials/ca.pem'), 'nothing');
    await expect(apply()).rejects.toMatchObject({ code: 'UPDATE_REFUSED' });
    expect(existsSync(path.join(prefix, 'ca.pem'))).toBe(false);
  });

  it('obeys nobody before the agent has joined', async () => {
    const { state, apply } = await fetched();
    rmSync(path.join(state, 'credentials'), { recursive: true });
    await expect(apply()).rejects.toMatchObject({ code: 'CREDENTIALS_MISSING' });
  });
});

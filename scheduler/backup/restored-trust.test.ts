/** Who is in and who is out after a gateway was restored: credentials as they are on the disk, and what lies beside them. */
import { X509Certificate } from 'node:crypto';
import { mkdir, mkdtemp, readdir, realpath, rename, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Authority } from '../../broker/credentials/authority.js';
import { identityOf } from '../../broker/credentials/credentials.js';
import { HandClock, invite, machine, NOON } from '../../broker/credentials/test-authority.js';
import { nextTerm } from '../term.js';
import { writeBackup } from './backup.js';
import { type RestoreReport, restoreBackup } from './restore.js';

let folder: string;
let state: string;
const clock = new HandClock();
const opened: Authority[] = [];
beforeEach(async () => {
  clock.nowMs = NOON;
  folder = await realpath(await mkdtemp(path.join(tmpdir(), 'chair-restored-')));
  state = path.join(folder, 'state');
});
afterEach(async () => {
  await Promise.all(opened.splice(0).map((authority) => authority.stop()));
  await rm(folder, { recursive: true, force: true });
});

/** The gateway of a state folder; the one before has stopped. */
async function gateway(of = state): Promise<Authority> {
  await Promise.all(opened.splice(0).map((authority) => authority.stop()));
  await mkdir(of, { recursive: true });
  await nextTerm(of, 0, () => undefined);
  const authority = await Authority.open({ directory: path.join(of, 'credentials'), cluster: 'home', nowMs: clock.read });
  opened.push(authority);
  return authority;
}

async function joined(authority: Authority, name: string, more: { replace?: boolean; role?: 'viewer' } = {}): Promise<X509Certificate> {
  const answer = await authority.join(
    { token: await invite(authority, name, more), csr: (await machine()).csr, name: '', role: '' },
    'test',
  );
  if (answer.kind !== 'signed') throw new Error(`not signed but ${answer.kind}`);
  return new X509Certificate(answer.certificate);
}

async function backup(name: string): Promise<string> {
  const file = path.join(folder, name);
  await writeBackup({ stateDirectory: state, file, cluster: 'home', softwareVersion: '1', nowMs: clock.read });
  return file;
}

async function restore(file: string, to = state): Promise<RestoreReport> {
  await Promise.all(opened.splice(0).map((authority) => authority.stop()));
  return restoreBackup({ file, stateDirectory: to, cluster: 'home', nowMs: clock.read });
}

const isOut = (authority: Authority, certificate: X509Certificate): boolean =>
  authority.isRevoked(identityOf(certificate), certificate.serialNumber);
const stateOf = (authority: Authority, name: string): string | undefined =>
  authority.members().find((member) => member.name === name)?.state;

describe('a restore', () => {
  it('lets nobody in again whom the state that it replaces knows to be out, says who that is, and knows who has joined since', async () => {
    const before = await gateway();
    const [stolen, replaced, kept] = [await joined(before, 'pi-1'), await joined(before, 'pi-2'), await joined(before, 'pi-3')];
    const file = await backup('b.tar');
    await before.revoke('pi-1', 'stolen', 'test');
    const anew = await joined(before, 'pi-2', { replace: true });
    const late = await joined(before, 'late');
    const report = await restore(file);
    expect(report.trust).toEqual({ stillRevoked: ['pi-1'], read: [report.replaced], unread: [] });
    const after = await gateway();
    expect([stolen, replaced, kept, anew, late].map((one) => isOut(after, one))).toEqual([true, true, false, false, false]);
    expect(['pi-1', 'pi-2', 'pi-3', 'late'].map((name) => stateOf(after, name))).toEqual(['revoked', 'valid', 'valid', 'valid']);
    const [said] = (await after.history(100)).filter(({ event }) => event === 'restored');
    expect(said?.detail).toContain('pi-1');
    await after.revoke('late', 'stolen', 'test');
    expect(isOut(after, late)).toBe(true);
    expect(isOut(after, await joined(after, 'pi-1'))).toBe(false);
  });

  it('of a restore reads what the first one put aside, also when its own state is gone', async () => {
    const before = await gateway();
    const certificate = await joined(before, 'pi-1');
    const file = await backup('b.tar');
    await before.revoke('pi-1', 'stolen', 'test');
    // As a version did that took nothing over, or a hand.
    await before.stop();
    await rename(state, `${state}.before-20260101-000000`);
    const first = await restore(file);
    expect(first.trust).toMatchObject({ stillRevoked: ['pi-1'], read: [`${state}.before-20260101-000000`] });
    const second = await restore(file);
    expect(second.trust.stillRevoked).toEqual(['pi-1']);
    expect(second.trust.read).toEqual([second.replaced, `${state}.before-20260101-000000`]);
    expect(isOut(await gateway(), certificate)).toBe(true);
  });

  it('takes nothing from the state of another authority, and says when one cannot be read', async () => {
    const before = await gateway();
    const certificate = await joined(before, 'pi-1');
    const file = await backup('b.tar');
    await before.stop();
    await rename(state, path.join(folder, 'elsewhere'));
    const other = await gateway();
    await joined(other, 'pi-1');
    await other.revoke('pi-1', 'of another authority', 'test');
    expect((await restore(file)).trust).toEqual({ stillRevoked: [], read: [], unread: [] });
    const again = await gateway();
    expect(isOut(again, certificate)).toBe(false);
    await again.revoke('pi-1', 'stolen', 'test');
    await again.stop();
    await truncate(path.join(state, 'credentials', 'revoked.json'), 20);
    const report = await restore(file);
    expect(report.trust).toMatchObject({ stillRevoked: [], unread: [report.replaced] });
    expect(isOut(await gateway(), certificate)).toBe(false);
  });

  it('on another disk knows nothing of who has joined since; a revocation of that name is good all the same, by whatever clock', async () => {
    const before = await gateway();
    const [early, twice] = [await joined(before, 'pi-1'), await joined(before, 'pi-2')];
    clock.nowMs = NOON + 5_000;
    const file = await backup('b.tar');
    clock.nowMs = NOON + 20 * 86_400_000;
    const [late, later] = [await joined(before, 'late'), await joined(before, 'late-2')];
    const anew = await joined(before, 'pi-2', { replace: true });
    const csr = (await machine()).csr;
    const renewed = await before.renew(early, csr, 'test');
    if (renewed.kind !== 'signed') throw new Error('not renewed');
    const latest = new X509Certificate(renewed.certificate);
    clock.nowMs = NOON;
    const elsewhere = path.join(folder, 'elsewhere', 'state');
    expect(await restore(file, elsewhere)).toMatchObject({ trust: { stillRevoked: [], read: [], unread: [] }, clockBehindMs: 5_000 });
    const after = await gateway(elsewhere);
    // Whoever had joined is in.
    expect([early, twice, anew, late, later, latest].filter((one) => isOut(after, one))).toEqual([]);
    await after.revoke('pi-1', 'stolen', 'test');
    await expect(after.revoke('late', 'stolen', 'test')).rejects.toMatchObject({ code: 'IDENTITY_UNKNOWN' });
    await after.revoke('late', 'stolen', 'test', { unknown: true });
    // A name that is not known to be taken is given away, in another role even: then it is void for whoever had it.
    await joined(after, 'late-2', { role: 'viewer' });
    for (const nowMs of [NOON, NOON + 21 * 86_400_000]) {
      clock.nowMs = nowMs;
      expect([early, latest, late, later].map((one) => isOut(after, one))).toEqual([true, true, true, true]);
      await expect(after.renew(latest, csr, 'test')).rejects.toMatchObject({ code: 'CERTIFICATE_REVOKED' });
    }
    // By its certificate it is known that it came in the place of another.
    const cut: string[] = [];
    after.onRevoked(({ name }) => cut.push(name));
    const again = await after.renew(anew, csr, 'test');
    if (again.kind !== 'signed') throw new Error('not renewed');
    expect(cut).toEqual(['pi-2']);
    expect([twice, anew, new X509Certificate(again.certificate)].map((one) => isOut(after, one))).toEqual([true, false, false]);
    expect(await readdir(path.join(folder, 'elsewhere'))).toEqual(['state']);
  });
});

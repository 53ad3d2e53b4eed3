import { X509Certificate } from 'node:crypto';
import { cp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Authority, JoinAnswer } from './authority.js';
import { AuthorityFiles } from './authority-files.js';
import { type Identity, identityOf, readCredentials } from './credentials.js';
import { inherit } from './inherit.js';
import { DAY, invite, machine, NOON, type TestAuthority, testAuthority } from './test-authority.js';
import { TokenBook } from './token-book.js';
import { verifyPeer } from './verify.js';

let world: TestAuthority;
let authority: Authority;
beforeEach(async () => {
  world = await testAuthority();
  authority = world.authority;
});
afterEach(async () => {
  await world.stop();
});

async function join(token: string, csr: string, to = authority): Promise<X509Certificate> {
  return certificateOf(await to.join({ token, csr, name: '', role: '' }, '10.0.0.7'));
}

function certificateOf(answer: JoinAnswer): X509Certificate {
  if (answer.kind !== 'signed') throw new Error(`not signed but ${answer.kind}`);
  return new X509Certificate(answer.certificate);
}

const events = async (of = authority): Promise<string[]> =>
  (await of.history(100)).map(({ event, code, about }) => [event, code ?? about].join(' '));
const files = (name: string): string => path.join(world.directory, 'credentials', name);

describe('an authority', () => {
  it('is made once, with credentials for the gateway and an operator on the same machine', async () => {
    const again = await world.reopen();
    expect(again.fingerprint).toBe(authority.fingerprint);
    expect(again.source.current).toEqual(authority.source.current);
    expect(authority.source.current.identity).toEqual({ cluster: 'home', role: 'gateway', name: 'gateway' });
    const operator = await readCredentials(authority.operatorDirectory);
    const certificate = new X509Certificate(operator.certificate);
    expect(verifyPeer(certificate, { ca: authority.ca, cluster: 'home', nowMs: NOON, roles: ['operator'] }).name).toBe('operator');
    if (process.platform !== 'win32') {
      for (const name of ['ca-key.pem', 'issued.json', 'gateway/key.pem']) expect((await stat(files(name))).mode & 0o077).toBe(0);
    }
    expect((await readFile(files('issued.json'), 'utf8')).includes('PRIVATE')).toBe(false);
  });

  it('signs for whom the token is, whatever the request says, backdated, for thirty days', async () => {
    const certificate = await join(await invite(authority, 'pi-1'), (await machine()).csr);
    expect(identityOf(certificate)).toEqual({ cluster: 'home', role: 'agent', name: 'pi-1' });
    expect(Date.parse(certificate.validFrom)).toBe(NOON - DAY);
    expect(Date.parse(certificate.validTo)).toBe(NOON + 30 * DAY);
    expect(authority.members()).toMatchObject([
      { name: 'gateway' },
      { name: 'operator' },
      { name: 'pi-1', state: 'valid', serial: certificate.serialNumber },
    ]);
  });

  it('gives a token to one of two that come with it at once', async () => {
    const token = await invite(authority, 'pi-1');
    const two = await Promise.all([machine(), machine()]);
    const answers = await Promise.allSettled(two.map(({ csr }) => join(token, csr)));
    expect(answers.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(answers.find((a) => a.status === 'rejected')).toMatchObject({ reason: { code: 'TOKEN_USED' } });
    expect(await events()).toEqual(expect.arrayContaining(['joined agent pi-1', 'refused TOKEN_USED']));
  });

  it('cuts nobody off when somebody joins of whose name there never was anybody', async () => {
    const cut: Identity[] = [];
    authority.onRevoked((identity) => cut.push(identity));
    await join(await invite(authority, 'pi-1'), (await machine()).csr);
    expect(cut).toEqual([]);
    // Nobody is out, nor seems so when it is forgotten who has joined.
    expect(authority.members().filter(({ state }) => state === 'revoked')).toEqual([]);
    await writeFile(files('issued.json'), 'damaged');
    expect((await world.reopen()).members().filter(({ state }) => state === 'revoked')).toEqual([]);
  });

  it('ends a token that is over for good once that was so for a while; a clock that is ahead for a moment ends none', async () => {
    const { csr } = await machine();
    const [token, other] = [await invite(authority, 'pi-1'), await invite(authority, 'pi-2')];
    const at = async (nowMs: number): Promise<void> => {
      world.clock.nowMs = nowMs;
      await authority.look();
    };
    await at(NOON + 400 * DAY);
    await at(NOON);
    expect(authority.tokens().map(({ state }) => state)).toEqual(['open', 'open']);
    await join(other, csr);
    await at(NOON + DAY);
    await at(NOON + DAY);
    world.clock.nowMs = NOON;
    for (const of of [authority, await world.reopen()]) await expect(join(token, csr, of)).rejects.toMatchObject({ code: 'TOKEN_EXPIRED' });
    // Shown when it is over, it is over at once.
    const third = await invite(authority, 'pi-3');
    world.clock.nowMs = NOON + DAY;
    await expect(join(third, csr)).rejects.toMatchObject({ code: 'TOKEN_EXPIRED' });
    world.clock.nowMs = NOON;
    for (const of of [authority, await world.reopen()]) await expect(join(third, csr, of)).rejects.toMatchObject({ code: 'TOKEN_EXPIRED' });
  });

  it('keeps no secret on its disk, only its hash', async () => {
    const token = await invite(authority, 'pi-1');
    const bytes = Buffer.from(token.slice(4), 'base64url');
    const text = await readFile(files('tokens.json'), 'utf8');
    expect(text).toContain(bytes.toString('hex', 32, 40));
    expect(text).not.toContain(bytes.toString('hex', 40, 60));
  });

  it('refuses what is no request, or is for a key of another kind, and the token stays good', async () => {
    const token = await invite(authority, 'pi-1');
    const { csr } = await machine();
    const [first = '', ...lines] = csr.trim().split('\n');
    const flipped = [first, ...lines.map((line, i) => (i === lines.length - 2 ? [...line].reverse().join('') : line))].join('\n');
    for (const bad of ['', 'x', csr.slice(0, 200), flipped, 'A'.repeat(50_000)]) {
      await expect(join(token, bad)).rejects.toMatchObject({ code: 'JOIN_REFUSED' });
    }
    expect(identityOf(await join(token, csr)).name).toBe('pi-1');
  });

  it.each(['gateway', 'dispatcher', 'scheduler', 'operator', '', '-x', 'a b', 'pi/1', 'alice-0a1b2c3d', 'x'.repeat(65)])(
    'invites nobody as %j',
    async (name) => {
      await expect(invite(authority, name)).rejects.toMatchObject({ code: 'AGENT_NAME_INVALID' });
    },
  );

  it('gives a name to one role, and to a second machine only when that is said', async () => {
    const first = await join(await invite(authority, 'pi-1'), (await machine()).csr);
    await expect(invite(authority, 'pi-1')).rejects.toMatchObject({ code: 'IDENTITY_TAKEN' });
    await expect(invite(authority, 'pi-1', { role: 'viewer', replace: true })).rejects.toMatchObject({ code: 'IDENTITY_TAKEN' });
    const cut: Identity[] = [];
    authority.onRevoked((identity) => cut.push(identity));
    const token = await invite(authority, 'pi-1', { replace: true });
    expect(authority.isRevoked(identityOf(first), first.serialNumber)).toBe(false);
    const second = await join(token, (await machine()).csr);
    expect(authority.isRevoked(identityOf(first), first.serialNumber)).toBe(true);
    expect(authority.isRevoked(identityOf(second), second.serialNumber)).toBe(false);
    expect(cut).toEqual([identityOf(first)]);
  });

  it('lets a machine that was replaced not come back by the token it once used', async () => {
    const old = await machine();
    const token = await invite(authority, 'pi-1');
    await join(token, old.csr);
    await join(await invite(authority, 'pi-1', { replace: true }), (await machine()).csr);
    await expect(join(token, old.csr)).rejects.toMatchObject({ code: 'TOKEN_REFUSED' });
  });

  it('holds a join until the key that was compared is approved', async () => {
    const { csr, fingerprint } = await machine();
    const token = await invite(authority, 'pi-1', { hold: true });
    const ask = (): Promise<JoinAnswer> => authority.join({ token, csr, name: '', role: '' }, '10.0.0.7');
    expect(await ask()).toEqual({ kind: 'held', name: 'pi-1', key: fingerprint });
    expect(await ask()).toMatchObject({ kind: 'held' });
    expect(authority.members().find(({ name }) => name === 'pi-1')).toMatchObject({ state: 'held', key: fingerprint });
    await expect(authority.approve('pi-1', 'ffff0000ffff', 'operator alice')).rejects.toMatchObject({ code: 'IDENTITY_UNKNOWN' });
    await authority.approve('pi-1', fingerprint.slice(0, 12).toUpperCase(), 'operator alice');
    expect(await ask()).toMatchObject({ kind: 'signed' });
    expect((await events()).slice(-3)).toEqual(['held agent pi-1', 'approved agent pi-1', 'joined agent pi-1']);
  });
});

describe('a revocation', () => {
  it('is at once, for good, and lets in by a new token only', async () => {
    const { csr } = await machine();
    const token = await invite(authority, 'pi-1');
    const certificate = await join(token, csr);
    const identity = identityOf(certificate);
    const cut: string[] = [];
    authority.onRevoked(({ name }) => cut.push(name));
    await authority.revoke('pi-1', 'stolen', 'operator alice');
    expect(cut).toEqual(['pi-1']);
    for (const of of [authority, await world.reopen()]) {
      expect(of.isRevoked(identity, certificate.serialNumber)).toBe(true);
      await expect(of.renew(certificate, csr, '')).rejects.toMatchObject({ code: 'CERTIFICATE_REVOKED' });
      await expect(join(token, csr, of)).rejects.toMatchObject({ code: 'TOKEN_REFUSED' });
    }
    world.clock.nowMs += 400 * DAY;
    await expect(authority.renew(certificate, csr, '')).rejects.toMatchObject({ code: 'CERTIFICATE_REVOKED' });
    // No --replace: there is nobody to replace.
    const again = await join(await invite(authority, 'pi-1'), csr);
    expect(authority.isRevoked(identity, again.serialNumber)).toBe(false);
    expect(authority.isRevoked(identity, certificate.serialNumber)).toBe(true);
    expect(await events()).toEqual(expect.arrayContaining(['revoked agent pi-1', 'refused CERTIFICATE_REVOKED']));
  });

  it('ends an invitation that nobody has used', async () => {
    const token = await invite(authority, 'pi-1');
    await authority.revoke('pi-1', '', 'operator alice');
    await expect(join(token, (await machine()).csr)).rejects.toMatchObject({ code: 'TOKEN_REFUSED' });
    await expect(authority.revoke('pi-7', '', 'operator alice')).rejects.toMatchObject({ code: 'IDENTITY_UNKNOWN' });
    await expect(authority.revoke('gateway', '', 'operator alice')).rejects.toMatchObject({ code: 'IDENTITY_UNKNOWN' });
  });

  it("of the gateway's own operator gives this machine a new key", async () => {
    const before = await readCredentials(authority.operatorDirectory);
    await authority.revoke('operator', 'left the key on a train', 'operator operator');
    const after = await readCredentials(authority.operatorDirectory);
    expect(after.key).not.toBe(before.key);
    expect(authority.isRevoked(before.identity, before.serial)).toBe(true);
    expect(authority.isRevoked(after.identity, after.serial)).toBe(false);
  });

  it('leaves no token that the former key could come back with, wherever the power fails in it', async () => {
    for (const [i, write] of (['saveTokens', 'saveRevoked'] as const).entries()) {
      const { csr } = await machine();
      const token = await invite(authority, `pi-${i}`);
      await join(token, csr);
      const dying = await world.reopen();
      const failing = vi.spyOn(AuthorityFiles.prototype, write).mockRejectedValue(new Error('the power fails here'));
      await expect(dying.revoke(`pi-${i}`, 'stolen', 'operator alice')).rejects.toThrow('the power fails');
      // Until it did, it was out.
      await expect(join(token, csr, dying)).rejects.toMatchObject({ code: 'TOKEN_REFUSED' });
      failing.mockRestore();
      authority = await world.reopen();
      const isOut = authority.members().some(({ name, state }) => name === `pi-${i}` && state === 'revoked');
      expect(isOut).toBe(write === 'saveTokens');
      await expect(join(token, csr)).rejects.toMatchObject({ code: 'TOKEN_REFUSED' });
    }
  });

  it('ends an invitation that nobody has used for good, also where that could not be written into the list of tokens', async () => {
    const { csr, fingerprint } = await machine();
    const [token, held] = [await invite(authority, 'pi-1'), await invite(authority, 'pi-2', { hold: true })];
    await authority.join({ token: held, csr, name: '', role: '' }, '');
    const failing = vi.spyOn(AuthorityFiles.prototype, 'saveTokens').mockRejectedValue(new Error('the disk is full'));
    for (const name of ['pi-1', 'pi-2']) {
      await expect(authority.revoke(name, 'card stolen', 'operator alice', { unknown: true })).rejects.toThrow('the disk is full');
    }
    failing.mockRestore();
    const again = await world.reopen();
    for (const each of [token, held]) await expect(join(each, csr, again)).rejects.toMatchObject({ code: 'TOKEN_REFUSED' });
    await expect(again.approve('pi-2', fingerprint, 'operator alice')).rejects.toMatchObject({ code: 'IDENTITY_UNKNOWN' });
    expect(again.members().filter(({ name }) => name.startsWith('pi'))).toMatchObject([{ state: 'revoked' }, { state: 'revoked' }]);
    // Made after that, or kept by an earlier version, which did not note when.
    const later = await invite(again, 'pi-1');
    await new AuthorityFiles(path.join(world.directory, 'credentials'), () => undefined).saveTokens(
      new TokenBook(again.tokens().map(({ tag: _, ...record }) => record)),
    );
    const former = await world.reopen();
    for (const _ of ['first', 'again']) expect(identityOf(await join(later, csr, former)).name).toBe('pi-1');
  });

  it('that cannot be written counts all the same, and is said', async () => {
    const certificate = await join(await invite(authority, 'pi-1'), (await machine()).csr);
    await rm(path.join(world.directory, 'credentials'), { recursive: true });
    await expect(authority.revoke('pi-1', 'stolen', 'operator alice')).rejects.toThrow();
    expect(authority.isRevoked(identityOf(certificate), certificate.serialNumber)).toBe(true);
  });
});

describe('a revocation of somebody who is not remembered', () => {
  const pi1: Identity = { cluster: 'home', role: 'agent', name: 'pi-1' };
  const out = (of: Authority, certificate: X509Certificate, identity = pi1): boolean => of.isRevoked(identity, certificate.serialNumber);

  /** Knows nothing of who has joined, as after a restore from before that. */
  async function forgetful(): Promise<Authority> {
    for (const name of ['issued.json', 'revoked.json']) await rm(files(name));
    return world.reopen();
  }

  it('needs no list of what was signed', async () => {
    const certificate = await join(await invite(authority, 'pi-1'), (await machine()).csr);
    await writeFile(files('issued.json'), 'damaged');
    const again = await world.reopen();
    await expect(invite(again, 'pi-1', { role: 'viewer' })).rejects.toMatchObject({ code: 'IDENTITY_TAKEN' });
    await again.revoke('pi-1', 'stolen', 'operator alice');
    expect(out(again, certificate)).toBe(true);
  });

  it('needs to be meant, names what to say, and voids every certificate of that name in every role', async () => {
    const certificate = await join(await invite(authority, 'pi-1'), (await machine()).csr);
    const again = await forgetful();
    expect(again.members().map(({ name }) => name)).toEqual(['gateway', 'operator']);
    const refusal = again.revoke('pi-1', 'stolen', 'operator alice');
    await expect(refusal).rejects.toMatchObject({
      code: 'IDENTITY_UNKNOWN',
      message: expect.stringContaining('agents revoke pi-1 --unknown'),
    });
    expect(out(again, certificate)).toBe(false);
    const cut: Identity[] = [];
    again.onRevoked((identity) => cut.push(identity));
    await again.revoke('pi-1', 'stolen', 'operator alice', { unknown: true });
    // So that agents end their lanes with it.
    expect(cut).toEqual([pi1]);
    expect(again.members().filter(({ name }) => name === 'pi-1')).toMatchObject([
      { state: 'revoked', why: 'stolen', role: '', serial: '' },
    ]);
    for (const of of [again, await world.reopen()]) {
      expect([out(of, certificate), out(of, certificate, { ...pi1, role: 'viewer' })]).toEqual([true, true]);
      await expect(of.renew(certificate, (await machine()).csr, '')).rejects.toMatchObject({ code: 'CERTIFICATE_REVOKED' });
      // Known by now.
      await of.revoke('pi-1', 'again', 'operator alice');
    }
    for (const name of ['gateway', 'dispatcher', 'scheduler', 'a b', '', 'alice-0a1b2c3d']) {
      await expect(again.revoke(name, '', 'test', { unknown: true })).rejects.toMatchObject({ code: 'IDENTITY_UNKNOWN' });
    }
  });

  it('happens when somebody else joins under that name, in whatever role', async () => {
    const certificate = await join(await invite(authority, 'pi-1'), (await machine()).csr);
    const again = await forgetful();
    const viewer = await join(await invite(again, 'pi-1', { role: 'viewer' }), (await machine()).csr, again);
    expect([out(again, certificate), out(again, viewer, { ...pi1, role: 'viewer' })]).toEqual([true, false]);
    const renewed = certificateOf(await again.renew(viewer, (await machine()).csr, ''));
    expect(out(again, renewed)).toBe(false);
    await again.revoke('pi-1', '', 'test');
    expect(out(again, renewed)).toBe(true);
  });

  it('is not needed for who has been here since: he is in the list again, and his name is taken', async () => {
    const certificate = await join(await invite(authority, 'pi-1'), (await machine()).csr);
    const again = await forgetful();
    again.seen(pi1, certificate);
    again.seen(pi1, certificate);
    expect(again.members().filter(({ name }) => name === 'pi-1')).toMatchObject([
      { role: 'agent', state: 'valid', serial: certificate.serialNumber, notAfterMs: Date.parse(certificate.validTo) },
    ]);
    await expect(invite(again, 'pi-1')).rejects.toMatchObject({ code: 'IDENTITY_TAKEN' });
    await expect(invite(again, 'pi-1', { role: 'viewer' })).rejects.toMatchObject({ code: 'IDENTITY_TAKEN' });
    expect(world.log.filter((line) => line.includes('agent pi-1 has a good certificate'))).toHaveLength(1);
    await again.stop();
    expect((await world.reopen()).members().find(({ name }) => name === 'pi-1')?.state).toBe('valid');
    await again.revoke('pi-1', 'stolen', 'operator alice');
    expect(out(again, certificate)).toBe(true);
  });

  it('is the same after a clock that was four hundred days ahead for a moment, which forgets nobody', async () => {
    const { csr } = await machine();
    const certificate = await join(await invite(authority, 'pi-1'), csr);
    world.clock.nowMs += 400 * DAY;
    await authority.source.look();
    world.clock.nowMs = NOON;
    await authority.source.look();
    await expect(invite(authority, 'pi-1', { role: 'operator' })).rejects.toMatchObject({ code: 'IDENTITY_TAKEN' });
    await authority.revoke('pi-1', 'stolen', 'operator alice');
    expect(out(authority, certificate)).toBe(true);
    await expect(authority.renew(certificate, csr, '')).rejects.toMatchObject({ code: 'CERTIFICATE_REVOKED' });
  });

  it('voids what was renewed after the backup, by a clock that is behind it, and says that it is behind', async () => {
    const { csr } = await machine();
    const first = await join(await invite(authority, 'pi-1'), csr);
    world.clock.nowMs = NOON + 2 * DAY;
    await join(await invite(authority, 'pi-2'), (await machine()).csr);
    const backup = path.join(world.directory, 'copied');
    await cp(path.join(world.directory, 'credentials'), backup, { recursive: true });
    world.clock.nowMs = NOON + 20 * DAY;
    const renewed = certificateOf(await authority.renew(first, csr, ''));
    world.clock.nowMs = NOON + DAY;
    // Copied by hand, as the image of a card is.
    const again = await world.reopen({ directory: backup });
    expect(world.log.filter((line) => line.includes('behind'))).toEqual([expect.stringContaining('2026-11-22T12:00:00.000Z')]);
    await again.revoke('pi-1', 'stolen', 'operator alice');
    for (const clock of [NOON + DAY, NOON + 21 * DAY]) {
      world.clock.nowMs = clock;
      expect([first, renewed].map((certificate) => out(again, certificate))).toEqual([true, true]);
      await expect(again.renew(renewed, csr, '')).rejects.toMatchObject({ code: 'CERTIFICATE_REVOKED' });
    }
  });

  it('leaves nobody in of fifty who renew at that moment, and nobody else out', async () => {
    const { csr } = await machine();
    const [mine, other] = [await join(await invite(authority, 'pi-1'), csr), await join(await invite(authority, 'pi-2'), csr)];
    const renewals = Array.from({ length: 50 }, (_, i) => authority.renew(i % 2 === 0 ? mine : other, csr, ''));
    const revoked = authority.revoke('pi-1', 'stolen', 'operator alice');
    const later = Array.from({ length: 3 }, () => authority.renew(mine, csr, ''));
    const made = (await Promise.all(renewals)).map(certificateOf);
    await revoked;
    for (const answer of await Promise.allSettled(later)) expect(answer).toMatchObject({ reason: { code: 'CERTIFICATE_REVOKED' } });
    for (const of of [authority, await world.reopen()]) {
      expect(made.every((certificate) => out(of, certificate, identityOf(certificate)) === (identityOf(certificate).name === 'pi-1'))).toBe(
        true,
      );
    }
  });
});

describe('renewal', () => {
  it('is for the same name only, also of a certificate that has expired', async () => {
    const certificate = await join(await invite(authority, 'pi-1'), (await machine()).csr);
    world.clock.nowMs += 90 * DAY;
    const renewed = certificateOf(await authority.renew(certificate, (await machine()).csr, '10.0.0.7'));
    expect(identityOf(renewed)).toEqual(identityOf(certificate));
    expect(Date.parse(renewed.validTo)).toBe(world.clock.nowMs + 30 * DAY);
  });

  it('is not for whom somebody else throws out while it is under way, nor is the token he once used', async () => {
    const [{ csr }, other] = [await machine(), await machine()];
    await join(await invite(authority, 'pi-1'), other.csr);
    const used = await invite(authority, 'pi-1', { replace: true });
    const out = await join(used, csr);
    const backup = path.join(world.directory, 'backup', 'credentials');
    await cp(path.join(world.directory, 'credentials'), backup, { recursive: true });
    await inherit(backup, []);
    const within = await join(await invite(authority, 'pi-1', { replace: true }), other.csr);
    const again = await world.reopen({ directory: backup });
    const renewal = again.renew(out, csr, '');
    // Judged by now, and not signed yet.
    await Promise.resolve();
    await Promise.resolve();
    again.seen(identityOf(within), within);
    await expect(renewal).rejects.toMatchObject({ code: 'CERTIFICATE_REVOKED' });
    await expect(join(used, csr, again)).rejects.toMatchObject({ code: 'TOKEN_REFUSED' });
    expect(identityOf(certificateOf(await again.renew(within, csr, ''))).name).toBe('pi-1');
  });

  it('is not for certificates of another CA, of another cluster, or the gateway', async () => {
    const other = await testAuthority();
    try {
      const { csr } = await machine();
      const foreign = await join(await invite(other.authority, 'pi-1'), csr, other.authority);
      await expect(authority.renew(foreign, csr, '')).rejects.toMatchObject({ code: 'CERTIFICATE_FOREIGN' });
      await expect(authority.renew(new X509Certificate(authority.ca), csr, '')).rejects.toMatchObject({ code: 'CERTIFICATE_FOREIGN' });
      const own = new X509Certificate(authority.source.current.certificate);
      await expect(authority.renew(own, csr, '')).rejects.toMatchObject({ code: 'CERTIFICATE_FOREIGN' });
    } finally {
      await other.stop();
    }
  });

  it('of the gateway itself happens in time, and after its clock was set', async () => {
    const seen: string[] = [];
    authority.source.onChange(() => seen.push(authority.source.current.serial));
    await authority.source.look();
    expect(seen).toHaveLength(0);
    world.clock.nowMs += 21 * DAY;
    await authority.source.look();
    // From 1970 to now, as a board does when it hears of the network's time; and back.
    world.clock.nowMs = 0;
    await authority.source.look();
    world.clock.nowMs = NOON;
    await authority.source.look();
    expect(new Set(seen).size).toBe(3);
    expect(
      verifyPeer(new X509Certificate(authority.source.current.certificate), { ca: authority.ca, cluster: 'home', nowMs: NOON }).role,
    ).toBe('gateway');
  });
});

describe('what is on the disk', () => {
  it('lets the same key go on wherever the power failed between binding, signing and answering, and no other', async () => {
    const { csr } = await machine();
    const token = await invite(authority, 'pi-1');
    // Each write of a join, one after the other, fails: the process dies there.
    for (const write of ['saveRevoked', 'saveTokens', 'saveIssued'] as const) {
      const dying = await world.reopen();
      const failing = vi.spyOn(AuthorityFiles.prototype, write).mockRejectedValue(new Error('the power fails here'));
      await expect(join(token, csr, dying)).rejects.toThrow('the power fails');
      failing.mockRestore();
    }
    const after = await world.reopen();
    // By now it is bound: to this key.
    await expect(join(token, (await machine()).csr, after)).rejects.toMatchObject({ code: 'TOKEN_USED' });
    expect(identityOf(await join(token, csr, after)).name).toBe('pi-1');
    expect(identityOf(await join(token, csr, after)).name).toBe('pi-1');
  });

  it('never has two machines of one name in, wherever the power fails while the second one joins', async () => {
    const old = await join(await invite(authority, 'pi-1'), (await machine()).csr);
    const token = await invite(authority, 'pi-1', { replace: true });
    const { csr } = await machine();
    const isIn = (of: Authority, certificate: X509Certificate): boolean => !of.isRevoked(identityOf(certificate), certificate.serialNumber);
    const wasIn: boolean[] = [];
    for (const write of ['saveRevoked', 'saveTokens', 'saveIssued'] as const) {
      const dying = await world.reopen();
      const failing = vi.spyOn(AuthorityFiles.prototype, write).mockRejectedValue(new Error('the power fails here'));
      await expect(join(token, csr, dying)).rejects.toThrow('the power fails');
      failing.mockRestore();
      wasIn.push(isIn(await world.reopen(), old));
    }
    expect(wasIn).toEqual([true, false, false]);
    const after = await world.reopen();
    const second = await join(token, csr, after);
    for (const of of [after, await world.reopen()]) expect([isIn(of, old), isIn(of, second)]).toEqual([false, true]);
  });

  it('says loudly when the list of revocations is gone, or older than what was signed', async () => {
    await join(await invite(authority, 'pi-1'), (await machine()).csr);
    await world.reopen();
    expect(world.log.filter((line) => line.includes('revoked.json'))).toEqual([]);
    await rm(files('revoked.json'));
    await world.reopen();
    expect(world.log.filter((line) => line.includes('revoked.json'))).toEqual([expect.stringContaining('pi-1')]);
  });

  it('that is damaged lets nobody in: tokens are gone, revocations stop the gateway, so does a CA without its key', async () => {
    const token = await invite(authority, 'pi-1');
    await authority.revoke('operator', 'x', 'test');
    await writeFile(files('tokens.json'), 'x');
    await writeFile(files('issued.json'), 'x');
    const again = await world.reopen();
    await expect(join(token, (await machine()).csr, again)).rejects.toMatchObject({ code: 'TOKEN_REFUSED' });
    const revoked = await readFile(files('revoked.json'), 'utf8');
    await writeFile(files('revoked.json'), revoked.replace('"x"', '"y"'));
    await expect(world.reopen()).rejects.toMatchObject({ code: 'STATE_DAMAGED' });
    await writeFile(files('revoked.json'), revoked);
    await rm(files('ca-key.pem'));
    await expect(world.reopen()).rejects.toMatchObject({ code: 'CREDENTIALS_DAMAGED' });
  });

  it('keeps nothing of writes that were cut off', async () => {
    const left = ['ca-key.pem', 'tokens.json', 'gateway/key.pem', 'operator/key.pem'].map((name) => files(`${name}.0a1b2c3d.new`));
    for (const file of left) await writeFile(file, 'half');
    await world.reopen();
    for (const file of left) await expect(stat(file)).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('of a CA whose making was cut off is made anew, as nobody has it', async () => {
    await rm(files('ca.pem'));
    const again = await world.reopen();
    expect(again.fingerprint).not.toBe(authority.fingerprint);
    expect(again.source.current.ca).toBe(again.ca);
  });

  it("of another cluster is not taken for this one's", async () => {
    await expect(world.reopen({ cluster: 'elsewhere' })).rejects.toMatchObject({ code: 'CREDENTIALS_WRONG' });
  });
});

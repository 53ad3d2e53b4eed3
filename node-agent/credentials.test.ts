import { access, mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readCredentials } from '../broker/credentials/credentials.js';
import type { EnrolmentServer } from '../broker/credentials/enrolment-server.js';
import type { CredentialKeeper } from '../broker/credentials/keeper.js';
import { invite, serve, type TestAuthority, testAuthority } from '../broker/credentials/test-authority.js';
import { type CredentialOptions, openCredentials } from './credentials.js';

let world: TestAuthority;
let server: EnrolmentServer;
let said: string[];
const keepers: CredentialKeeper[] = [];
beforeEach(async () => {
  world = await testAuthority();
  server = await serve(world.authority);
  said = [];
});
afterEach(async () => {
  await Promise.all(keepers.splice(0).map((keeper) => keeper.stop()));
  await server.stop();
  await world.stop();
});

async function open(options: Partial<CredentialOptions> = {}): Promise<CredentialKeeper> {
  const keeper = await openCredentials({
    ...{ cluster: 'home', name: 'pi-1', directory: path.join(world.directory, 'pi'), token: '', tokenFile: '', brokerUrl: undefined },
    gateway: { host: '127.0.0.1', port: server.port },
    signal: new AbortController().signal,
    log: (line) => said.push(line),
    ...options,
  });
  keepers.push(keeper);
  return keeper;
}

const joins = async (): Promise<number> => (await world.authority.history(100)).filter(({ event }) => event === 'joined').length;

describe('the credentials of an agent', () => {
  it('come by the token in a file, which goes when they are there; the next start needs none', async () => {
    const tokenFile = path.join(world.directory, 'token');
    await writeFile(tokenFile, `${await invite(world.authority, 'pi-1')}\n`);
    const keeper = await open({ tokenFile });
    expect(keeper.current.identity).toEqual({ cluster: 'home', role: 'agent', name: 'pi-1' });
    await expect(access(tokenFile)).rejects.toMatchObject({ code: 'ENOENT' });
    expect((await open({ tokenFile })).current).toEqual(keeper.current);
    expect((await open()).current).toEqual(keeper.current);
    expect(await joins()).toBe(1);
  });

  it('say that there is neither a token nor a certificate, when the file of a token that somebody else has used is gone', async () => {
    const tokenFile = path.join(world.directory, 'no-token');
    await expect(open({ tokenFile })).rejects.toMatchObject({
      code: 'CREDENTIALS_MISSING',
      message: expect.stringContaining(`there is no token in ${tokenFile}`),
    });
  });

  it('come once by a token that is given at every start, also when the power failed before its file was removed', async () => {
    const token = await invite(world.authority, 'pi-1');
    const first = await open({ token });
    await server.stop();
    const tokenFile = path.join(world.directory, 'token');
    await writeFile(tokenFile, token);
    expect((await open({ token })).current).toEqual(first.current);
    expect((await open({ tokenFile })).current).toEqual(first.current);
    await expect(access(tokenFile)).rejects.toMatchObject({ code: 'ENOENT' });
    expect(await joins()).toBe(1);
  });

  it('come anew by a new token: the agent was revoked, or its card written again', async () => {
    await open({ token: await invite(world.authority, 'pi-1') });
    const before = await readFile(path.join(world.directory, 'pi', 'key.pem'), 'utf8');
    await world.authority.revoke('pi-1', 'by mistake', 'test');
    const keeper = await open({ token: await invite(world.authority, 'pi-1') });
    expect(keeper.current.key).not.toBe(before);
    expect(world.authority.isRevoked(keeper.current.identity, keeper.current.serial)).toBe(false);
  });

  it('stay in use when a token that was given is over', async () => {
    const { current } = await open({ token: await invite(world.authority, 'pi-1') });
    const late = await invite(world.authority, 'pi-1', { replace: true, ttlMs: 60_000 });
    world.clock.nowMs += 120_000;
    expect((await open({ token: late })).current).toEqual(current);
    expect(said.some((line) => line.startsWith('TOKEN_EXPIRED'))).toBe(true);
  });

  it('are missing, for another name, or refused: each with its code, and the token stays for the next try', async () => {
    await expect(open()).rejects.toMatchObject({ code: 'CREDENTIALS_MISSING' });
    const tokenFile = path.join(world.directory, 'token');
    await writeFile(tokenFile, await invite(world.authority, 'pi-2'));
    await expect(open({ tokenFile })).rejects.toMatchObject({ code: 'TOKEN_NAME_WRONG' });
    await access(tokenFile);
    await expect(open({ tokenFile, name: 'pi-2', cluster: 'elsewhere' })).rejects.toMatchObject({ code: 'CREDENTIALS_WRONG' });
    await access(tokenFile);
    await open({ tokenFile, name: 'pi-2' });
    await expect(open({ name: 'pi-1' })).rejects.toMatchObject({ code: 'CREDENTIALS_WRONG' });
    await mkdir(path.join(world.directory, 'folder'));
    await expect(open({ tokenFile: path.join(world.directory, 'folder') })).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
  });

  it('are waited for while the gateway is not there, until the agent is to end', async () => {
    await server.stop();
    const stop = new AbortController();
    const opening = open({ token: await invite(world.authority, 'pi-1'), signal: stop.signal });
    opening.catch(() => undefined);
    await expect.poll(() => said.length, { timeout: 20_000 }).toBe(1);
    expect(said[0]).toContain('GATEWAY_UNREACHABLE');
    stop.abort();
    await expect(opening).rejects.toMatchObject({ code: 'STOPPED' });
    await expect(readCredentials(path.join(world.directory, 'pi'))).rejects.toMatchObject({ code: 'CREDENTIALS_MISSING' });
  });
});

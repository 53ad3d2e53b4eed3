import { X509Certificate } from 'node:crypto';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { connect as connectTcp, createServer as createTcpServer, type Socket } from 'node:net';
import path from 'node:path';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { listen } from '../listen.js';
import { crowd, NO_CROWD } from '../test-brokers.js';
import { type Credentials, identityOf, readCredentials } from './credentials.js';
import { alreadyEnrolled, enrol, enrolPatiently, knownBrokers, readRecord, renew, takeTime } from './enrolment.js';
import { addressText, askGateway, type EnrolmentAddress, parseAddress } from './enrolment-client.js';
import type { EnrolmentServer } from './enrolment-server.js';
import { GatewayClock } from './gateway-clock.js';
import { DAY, invite, joinAt, machine, NOON, serve, type TestAuthority, testAuthority } from './test-authority.js';

let world: TestAuthority;
let server: EnrolmentServer;
let at: EnrolmentAddress;
beforeEach(async () => {
  world = await testAuthority();
  server = await serve(world.authority);
  at = { host: '127.0.0.1', port: server.port };
});
afterEach(async () => {
  await server.stop();
  await world.stop();
});

const folder = (name: string): string => path.join(world.directory, name);
const refusals = async (): Promise<(string | undefined)[]> =>
  (await world.authority.history(100)).filter(({ event }) => event === 'refused').map(({ code }) => code);

describe('joining', () => {
  it('brings a machine a certificate for a key that never left it', async () => {
    const token = await invite(world.authority, 'pi-1');
    const made = await joinAt(server, folder('pi'), token, { name: 'pi-1', role: 'agent' });
    expect(await readCredentials(folder('pi'))).toEqual(made);
    expect(made.identity).toEqual({ cluster: 'home', role: 'agent', name: 'pi-1' });
    expect(made.ca).toBe(world.authority.ca);
    expect(await readRecord(folder('pi'))).toMatchObject({ gateway: at });
    expect((await readdir(folder('pi'))).sort()).toEqual(['ca.pem', 'cert.pem', 'enrolment.json', 'key.pem']);
    // The same token again, as after a second boot: it is known that it was used.
    expect(await alreadyEnrolled(folder('pi'), token)).toEqual(made);
    expect(await alreadyEnrolled(folder('pi'), await invite(world.authority, 'pi-2'))).toBeUndefined();
  });

  it('learns where the broker is, which may be announced to nobody, and again when it renews', async () => {
    let said = ':18883';
    const hidden = await serve(world.authority, { broker: () => said });
    onTestFinished(() => hidden.stop());
    const made = await joinAt(hidden, folder('pi'), await invite(world.authority, 'pi-1'));
    expect(await knownBrokers(folder('pi'))).toEqual(['mqtts://127.0.0.1:18883', 'mqtts://127.0.0.1:8883']);
    said = 'mqtts://mosquitto.lan:9883';
    await renew(made, { directory: folder('pi'), gateway: { host: '127.0.0.1', port: hidden.port }, clock: new GatewayClock(() => NOON) });
    expect(await knownBrokers(folder('pi'), { host: 'fd00::1', port: 1 })).toEqual([
      said,
      'mqtts://[fd00::1]:8883',
      'mqtts://127.0.0.1:8883',
    ]);
    // Of one that does not say it, and of nonsense: only where it would be usually.
    for (const [name, nonsense] of [
      ['a', ''],
      ['b', 'mqtt://127.0.0.1:1883'],
      ['c', 'mqtts://user:secret@127.0.0.1'],
      ['d', ':99999'],
    ] as const) {
      said = nonsense;
      await joinAt(hidden, folder(name), await invite(world.authority, name));
      expect(await knownBrokers(folder(name))).toEqual(['mqtts://127.0.0.1:8883']);
    }
    expect(await knownBrokers(folder('nobody'))).toEqual([]);
  });

  it('finds the gateway of its token among those who refuse it, say nothing, or show the CA that anybody can read', async () => {
    const other = await testAuthority();
    onTestFinished(() => other.stop());
    const { certificate, key } = other.authority.source.current;
    const liar = async (status: string, body: string): Promise<EnrolmentAddress> => {
      const liar = createServer({ cert: certificate, key, minVersion: 'TLSv1.3' }, (socket) => {
        socket.on('error', () => undefined);
        socket.once('data', () => socket.end(`HTTP/1.1 ${status}\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`));
      });
      onTestFinished(() => void liar.close());
      return { host: '127.0.0.1', port: await listen(liar, '127.0.0.1', 0) };
    };
    const refuses = await liar('403 Forbidden', JSON.stringify({ code: 'TOKEN_USED', message: 'this token was used' }));
    const copies = await liar('200 OK', world.authority.ca);
    const sockets = new Set<Socket>();
    const mute = createTcpServer((socket) => void sockets.add(socket.on('error', () => undefined)));
    onTestFinished(() => {
      for (const socket of sockets) socket.destroy();
      mute.close();
    });
    const says = { host: '127.0.0.1', port: await listen(mute, '127.0.0.1', 0) };
    const heard = [[refuses], [copies], [refuses, copies, says, at]];
    const lines: string[] = [];
    const made = await enrolPatiently({
      ...{ directory: folder('pi'), token: await invite(world.authority, 'pi-1'), clock: new GatewayClock(), isGuess: true, pace: 0.01 },
      find: async () => heard.shift() ?? [],
      signal: new AbortController().signal,
      log: (line) => lines.push(line),
    });
    expect(made.identity.name).toBe('pi-1');
    expect(lines.map((line) => line.split(':')[0])).toEqual(['GATEWAY_UNREACHABLE', 'CERTIFICATE_FOREIGN']);
    expect(await refusals()).toEqual([]);
  });

  it.each([
    ['1970', 0],
    ['a day behind', NOON - DAY],
    ['a year ahead', NOON + 365 * DAY],
  ])('works with a clock that says %s: certificates are checked by the time of the gateway', async (_what, systemMs) => {
    const clock = new GatewayClock(() => systemMs);
    const made = await joinAt(server, folder('pi'), await invite(world.authority, 'pi-1'), { clock });
    expect(made.identity.name).toBe('pi-1');
    expect(Math.abs(clock.nowMs() - NOON)).toBeLessThan(5_000);
    expect(clock.skew?.ms).toBeCloseTo(systemMs - clock.nowMs(), -4);
  });

  it('works when the clock of the gateway is an hour off, or says 1970, and is mended later', async () => {
    for (const [name, gatewayMs] of [
      ['ahead', NOON + 3_600_000],
      ['behind', NOON - 3_600_000],
      ['unset', 1_000],
    ] as const) {
      world.clock.nowMs = gatewayMs;
      await world.authority.source.look();
      const made = await joinAt(server, folder(name), await invite(world.authority, name));
      world.clock.nowMs = NOON;
      await world.authority.source.look();
      const renewed = await renew(made, { directory: folder(name), gateway: at, clock: new GatewayClock(() => NOON) });
      expect(renewed.notAfterMs).toBe(NOON + 30 * DAY);
    }
  });

  it('tells a gateway that is not the one of the token nothing at all', async () => {
    const heard: string[] = [];
    const other = await testAuthority();
    const { certificate: cert, key } = other.authority.source.current;
    // In between: it hands out the right CA, which everybody can have, but cannot have a certificate of it.
    let ca = other.authority.ca;
    const impostor = createServer({ cert, key }, (socket: TLSSocket) => {
      socket.on('error', () => undefined);
      socket.on('data', (data) => {
        heard.push(data.toString());
        socket.end(`HTTP/1.1 200 OK\r\nContent-Length: ${ca.length}\r\nConnection: close\r\n\r\n${ca}`);
      });
    });
    const port = await listen(impostor, '127.0.0.1', 0);
    try {
      const token = await invite(world.authority, 'pi-1');
      const ask = (): Promise<unknown> =>
        enrol({ directory: folder('pi'), token, gateway: { host: '127.0.0.1', port }, clock: new GatewayClock() });
      await expect(ask()).rejects.toMatchObject({ code: 'CA_WRONG' });
      ca = world.authority.ca;
      await expect(ask()).rejects.toMatchObject({ code: 'CERTIFICATE_FOREIGN' });
      expect(heard).toHaveLength(2);
      expect(heard.every((text) => text.startsWith('GET /ca HTTP/1.1') && !text.includes('mc1.'))).toBe(true);
    } finally {
      impostor.close();
      await other.stop();
    }
  });

  it('is refused, coded and audited, with a token used twice, expired, for another name, revoked, or of another gateway', async () => {
    const used = await invite(world.authority, 'pi-1');
    await joinAt(server, folder('pi-1'), used);
    await expect(joinAt(server, folder('thief'), used)).rejects.toMatchObject({ code: 'TOKEN_USED' });
    const late = await invite(world.authority, 'pi-2', { ttlMs: 60_000 });
    world.clock.nowMs += 61_000;
    await expect(joinAt(server, folder('pi-2'), late)).rejects.toMatchObject({ code: 'TOKEN_EXPIRED' });
    const named = await invite(world.authority, 'pi-3');
    await expect(joinAt(server, folder('pi-4'), named, { name: 'pi-4' })).rejects.toMatchObject({ code: 'TOKEN_NAME_WRONG' });
    await expect(joinAt(server, folder('pi-4'), named, { role: 'operator' })).rejects.toMatchObject({ code: 'TOKEN_NAME_WRONG' });
    await world.authority.revoke('pi-3', '', 'test');
    await expect(joinAt(server, folder('pi-3'), named)).rejects.toMatchObject({ code: 'TOKEN_REFUSED' });
    await expect(joinAt(server, folder('pi-3'), 'mc1.AAAA')).rejects.toMatchObject({ code: 'TOKEN_INVALID' });
    const other = await testAuthority();
    await expect(joinAt(server, folder('pi-5'), await invite(other.authority, 'pi-5'))).rejects.toMatchObject({ code: 'CA_WRONG' });
    await other.stop();
    expect(await refusals()).toEqual(['TOKEN_USED', 'TOKEN_EXPIRED', 'TOKEN_NAME_WRONG', 'TOKEN_NAME_WRONG', 'TOKEN_REFUSED']);
    // The member is named, whoever he says he is.
    const said = (await world.authority.history(100)).filter(({ event }) => event === 'refused');
    expect(said[0]).toMatchObject({ code: 'TOKEN_USED', about: 'agent pi-1', from: '127.0.0.1' });
    expect(said[2]).toMatchObject({ code: 'TOKEN_NAME_WRONG', about: 'agent pi-3', detail: expect.stringContaining('pi-4') });
    // Nothing half done is left where somebody might take it for credentials.
    await expect(readCredentials(folder('pi-3'))).rejects.toMatchObject({ code: 'CREDENTIALS_MISSING' });
  });

  it('goes on with the same key when the answer was lost or the power failed before it was written', async () => {
    const token = await invite(world.authority, 'pi-1');
    const options = { directory: folder('pi'), token, gateway: at, clock: new GatewayClock() };
    const first = await enrol(options);
    const answered = await readFile(path.join(folder('pi'), 'key.pem'), 'utf8');
    // As if the power had failed right before the certificate was written.
    await writeFile(path.join(folder('pi'), 'pending-key.pem'), answered);
    await writeFile(path.join(folder('pi'), 'cert.pem'), '');
    const again = await enrol(options);
    expect(again.key).toBe(first.key);
    expect(again.identity).toEqual(first.identity);
    expect(world.authority.members().filter(({ name }) => name === 'pi-1')).toHaveLength(1);
  });

  it('waits for an operator where the token says so, and for a gateway that is not there yet', async () => {
    const said: string[] = [];
    const token = await invite(world.authority, 'pi-1', { hold: true });
    let asked = 0;
    const joining = enrolPatiently({
      ...{ directory: folder('pi'), token, clock: new GatewayClock(), signal: new AbortController().signal, pace: 0.01 },
      find: async () => [asked++ === 0 ? { host: '127.0.0.1', port: 1 } : at],
      log: (line) => said.push(line),
    });
    await expect.poll(() => world.authority.members().some(({ state }) => state === 'held'), { timeout: 20_000 }).toBe(true);
    await expect.poll(() => said.length, { timeout: 20_000 }).toBe(2);
    const key = world.authority.members().find(({ state }) => state === 'held')?.key ?? '';
    expect(said[0]).toContain('GATEWAY_UNREACHABLE');
    expect(said[1]).toContain(`agents approve pi-1 --key ${key.slice(0, 16)}`);
    await world.authority.approve('pi-1', key, 'operator alice');
    expect((await joining).identity.name).toBe('pi-1');
  });

  it('finds the gateway of its token among those that say they are it', async () => {
    const other = await testAuthority();
    const impostor = await serve(other.authority);
    const elsewhere = { host: '127.0.0.1', port: impostor.port };
    const token = await invite(world.authority, 'pi-1');
    const options = { directory: folder('pi'), token, clock: new GatewayClock(), signal: new AbortController().signal, pace: 0.01 };
    try {
      await expect(enrolPatiently({ ...options, find: async () => [elsewhere] })).rejects.toMatchObject({ code: 'CA_WRONG' });
      let asked = 0;
      const find = async () => (asked++ < 2 ? [elsewhere] : [{ host: '127.0.0.1', port: 1 }, elsewhere, at]);
      expect((await enrolPatiently({ ...options, isGuess: true, find })).identity.name).toBe('pi-1');
    } finally {
      await impostor.stop();
      await other.stop();
    }
  });

  it('is given up when it is asked to, and at once when waiting does not help', async () => {
    const stop = new AbortController();
    const patient = (token: string): Promise<unknown> =>
      enrolPatiently({ directory: folder('pi'), token, clock: new GatewayClock(), signal: stop.signal, find: async () => [at] });
    await world.authority.createToken({ name: 'pi-1', role: 'agent', ttlMs: 60_000 }, 'test');
    await expect(patient('mc1.x')).rejects.toMatchObject({ code: 'TOKEN_INVALID' });
    const held = patient(await invite(world.authority, 'pi-2', { hold: true }));
    await expect.poll(() => world.authority.members().some(({ state }) => state === 'held'), { timeout: 20_000 }).toBe(true);
    stop.abort();
    await expect(held).rejects.toMatchObject({ code: 'STOPPED' });
  });

  it('lets thirty machines in that come at once, from an address that others crowd', async () => {
    const others = await crowd(server.port, 0, 256);
    onTestFinished(() => others.stop());
    const waited: string[] = [];
    const tokens = await Promise.all(Array.from({ length: 30 }, (_, i) => invite(world.authority, `pi-${i}`)));
    const made = await Promise.all(
      tokens.map((token, i) =>
        enrolPatiently({
          directory: folder(`pi-${i}`),
          token,
          clock: new GatewayClock(),
          signal: new AbortController().signal,
          find: async () => [at],
          pace: 0.05,
          log: (line) => waited.push(line),
        }),
      ),
    );
    expect(waited).toEqual([]);
    expect(new Set(made.map(({ identity }) => identity.name)).size).toBe(30);
    expect(new Set(made.map(({ serial }) => serial)).size).toBe(30);
  }, 60_000);
});

describe('renewing', () => {
  it('gives a new key for the same name, in date or expired, until it is revoked', async () => {
    const first = await joinAt(server, folder('pi'), await invite(world.authority, 'pi-1'));
    world.clock.nowMs += 300 * DAY;
    await world.authority.source.look();
    const clock = new GatewayClock(world.clock.read);
    const second = await renew(first, { directory: folder('pi'), gateway: at, clock });
    expect(second.identity).toEqual(first.identity);
    expect(second.key).not.toBe(first.key);
    expect(await readCredentials(folder('pi'))).toEqual(second);
    await world.authority.revoke('pi-1', 'stolen', 'test');
    await expect(renew(second, { directory: folder('pi'), gateway: at, clock })).rejects.toMatchObject({ code: 'CERTIFICATE_REVOKED' });
    expect(await readCredentials(folder('pi'))).toEqual(second);
  });

  it('needs the key of the certificate that is shown', async () => {
    const [first, thief] = [await joinAt(server, folder('pi'), await invite(world.authority, 'pi-1')), await machine()];
    const { csr } = thief;
    const ask = (own?: { certificate: string; key: string }): Promise<unknown> =>
      askGateway(at, { method: 'POST', path: '/renew', body: { csr }, check: () => undefined, ...(own === undefined ? {} : { own }) });
    await expect(ask()).rejects.toMatchObject({ code: 'JOIN_REFUSED' });
    await expect(ask({ certificate: first.certificate, key: thief.key })).rejects.toMatchObject({ code: 'CREDENTIALS_DAMAGED' });
    const other = await testAuthority();
    await expect(ask(other.authority.source.current)).rejects.toMatchObject({ code: 'CERTIFICATE_FOREIGN' });
    await other.stop();
    await expect(ask(first)).resolves.toMatchObject({ status: 200 });
  });
});

describe('the enrolment port', () => {
  const raw = async (text: string): Promise<string> => {
    const socket = connect({ ...at, rejectUnauthorized: false });
    socket.write(text);
    let answer = '';
    for await (const chunk of socket) answer += String(chunk);
    return answer;
  };
  const post = (body: string, length = Buffer.byteLength(body)): string =>
    `POST /enrol HTTP/1.1\r\nHost: x\r\nContent-Length: ${length}\r\n\r\n${body}`;

  it('answers what is no request of ours with a refusal, and does not grow for it', async () => {
    expect(await raw('GET / HTTP/1.1\r\nHost: x\r\n\r\n')).toMatch(/^HTTP\/1\.1 404 /);
    expect(await raw('hello\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /);
    expect(await raw(post('{'))).toContain('"JOIN_REFUSED"');
    expect(await raw(post('[1]'))).toContain('"JOIN_REFUSED"');
    expect(await raw(post('{"token":7}'))).toContain('"JOIN_REFUSED"');
    expect(await raw(post(`{"token":"${'x'.repeat(20_000)}"}`))).toContain('"JOIN_REFUSED"');
    expect(await raw(`GET /ca HTTP/1.1\r\nHost: ${'x'.repeat(10_000)}\r\n\r\n`)).toMatch(/^HTTP\/1\.1 431 /);
  });

  it('says the same to whoever knows the id of a token and whoever does not', async () => {
    const token = await invite(world.authority, 'pi-1');
    const bytes = Buffer.from(token.slice(4), 'base64url');
    const { createHash } = await import('node:crypto');
    const forged = (at: number): string => {
      const body = Buffer.from(bytes.subarray(0, -4));
      body[at] = (body[at] ?? 0) ^ 1;
      return `mc1.${Buffer.concat([body, createHash('sha256').update(body).digest().subarray(0, 4)]).toString('base64url')}`;
    };
    const { csr } = await machine();
    const answers = await Promise.all([forged(32), forged(40)].map((text) => raw(post(JSON.stringify({ token: text, csr })))));
    const bodies = answers.map((answer) => answer.slice(answer.indexOf('\r\n\r\n')));
    expect(bodies[0]).toContain('TOKEN_REFUSED');
    expect(bodies[0]).toBe(bodies[1]);
  });

  it('holds up whoever is wrong too often, and not those with a token or a certificate who come from the same address', async () => {
    let nowMs = 0;
    await server.stop();
    server = await serve(world.authority, { nowMs: () => nowMs });
    at = { host: '127.0.0.1', port: server.port };
    const answers: string[] = [];
    for (let i = 0; i < 25; i++) answers.push(await raw(post(JSON.stringify({ token: `mc1.${i}` }))));
    expect(answers.filter((answer) => answer.includes('TOKEN_INVALID'))).toHaveLength(20);
    expect(answers.at(-1)).toMatch(/^HTTP\/1\.1 429 [\s\S]*JOIN_BUSY/);
    expect(await raw('GET /time HTTP/1.1\r\nHost: x\r\n\r\n')).toContain('"nowMs"');
    const made = await joinAt(server, folder('pi'), await invite(world.authority, 'pi-1'));
    const renewal = { directory: folder('pi'), gateway: at, clock: new GatewayClock(() => NOON) };
    expect((await renew(made, renewal)).identity.name).toBe('pi-1');
    // Whoever was thrown out is one of the others.
    await world.authority.revoke('pi-1', 'stolen', 'test');
    await expect(renew(made, renewal)).rejects.toMatchObject({ code: 'JOIN_BUSY' });
    nowMs += 10_000;
    await expect(renew(made, renewal)).rejects.toMatchObject({ code: 'CERTIFICATE_REVOKED' });
  });

  it('signs no more than a few times for one token or certificate, and lets those who wait for approval ask on', async () => {
    const [token, held] = [await invite(world.authority, 'pi-1'), await invite(world.authority, 'pi-2', { hold: true })];
    const { csr } = await machine();
    const ask = async (text: string): Promise<string> => (await raw(post(JSON.stringify({ token: text, csr })))).slice(9, 12);
    const answers = { signed: [] as string[], held: [] as string[] };
    for (let i = 0; i < 12; i++) {
      answers.signed.push(await ask(token));
      answers.held.push(await ask(held));
    }
    expect(answers.signed).toEqual([...Array<string>(10).fill('200'), '429', '429']);
    expect(answers.held).toEqual(Array<string>(12).fill('202'));
  });

  it('renews a name no more than a few times, also at once and each by the certificate of before, and counts only what it signed', async () => {
    let nowMs = 0;
    await server.stop();
    server = await serve(world.authority, { nowMs: () => nowMs });
    at = { host: '127.0.0.1', port: server.port };
    const [token, { csr }] = [await invite(world.authority, 'pi-9'), await machine()];
    for (let i = 0; i < 12; i++) expect(await raw(post(JSON.stringify({ token, csr: 'x' })))).toContain('JOIN_REFUSED');
    expect(await raw(post(JSON.stringify({ token, csr })))).toMatch(/^HTTP\/1\.1 200 /);
    const [made, other] = [
      await joinAt(server, folder('pi-1'), await invite(world.authority, 'pi-1')),
      await joinAt(server, folder('pi-2'), await invite(world.authority, 'pi-2')),
    ];
    const again = (of: Credentials, name: string): Promise<Credentials> =>
      renew(of, { directory: folder(name), gateway: at, clock: new GatewayClock(() => NOON) });
    const all = await Promise.allSettled(Array.from({ length: 13 }, (_, i) => again(made, `copy-${i}`)));
    const renewed = all.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
    expect(renewed).toHaveLength(10);
    const [first = made] = renewed;
    await expect(again(first, 'copy-0')).rejects.toMatchObject({ code: 'JOIN_BUSY' });
    expect((await again(other, 'pi-2')).identity.name).toBe('pi-2');
    nowMs += 60_000;
    const later = await again(first, 'copy-0');
    await expect(again(later, 'copy-0')).rejects.toMatchObject({ code: 'JOIN_BUSY' });
  });

  it('waits for nobody for ever, and stops with connections open that say nothing', async () => {
    await server.stop();
    server = await serve(world.authority, { requestMs: 200 });
    at = { host: '127.0.0.1', port: server.port };
    const silent = connectTcp(at);
    silent.on('error', () => undefined);
    const half = connect({ ...at, rejectUnauthorized: false });
    half.on('error', () => undefined);
    half.write('POST /enrol HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{');
    const closed = (socket: typeof silent): Promise<void> => new Promise((resolve) => socket.resume().once('close', () => resolve()));
    await Promise.all([closed(silent), closed(half)]);
    const open = connectTcp(at);
    open.on('error', () => undefined);
    await new Promise<void>((resolve) => open.once('connect', () => resolve()));
    await server.stop();
    await server.stop();
    await closed(open);
  }, 20_000);

  it.skipIf(NO_CROWD !== '')(
    'lets a machine in while twenty addresses hold all they may, silent, half open, or a byte at a time',
    async () => {
      const drips: NodeJS.Timeout[] = [];
      let come = 0;
      const others = await crowd(server.port, 20, 20, (socket) => {
        const kind = come++ % 8;
        if (kind === 1) socket.end();
        // A hello of TLS that never ends.
        if (kind > 1) socket.write(Buffer.from([0x16, 3, 1, 2, 0, 1, 0, 1]));
        if (kind > 4) drips.push(setInterval(() => socket.write(Buffer.of(0)), 100));
      });
      onTestFinished(() => {
        for (const drip of drips) clearInterval(drip);
        others.stop();
      });
      expect(others.open).toBeGreaterThan(100);
      expect((await joinAt(server, folder('pi'), await invite(world.authority, 'pi-1'))).identity.name).toBe('pi-1');
    },
  );

  it('says nothing about those who hang up in the middle, or come to no end', async () => {
    const log: string[] = [];
    await server.stop();
    server = await serve(world.authority, { requestMs: 200, log: (line) => log.push(line) });
    at = { host: '127.0.0.1', port: server.port };
    const half = (): TLSSocket => {
      const socket = connect({ ...at, rejectUnauthorized: false });
      socket.on('error', () => undefined);
      socket.write(`${post('{', 100)}`);
      return socket;
    };
    const [slow, gone] = [half(), half()];
    await new Promise<void>((resolve) => gone.once('secureConnect', () => resolve()));
    gone.destroy();
    await new Promise<void>((resolve) => slow.resume().once('close', () => resolve()));
    expect(await raw('GET /time HTTP/1.1\r\nHost: x\r\n\r\n')).toContain('"nowMs"');
    expect(log).toEqual([]);
    expect(await refusals()).toEqual([]);
  });

  it('shows a certificate that is renewed while it runs', async () => {
    const clock = new GatewayClock(() => NOON);
    world.clock.nowMs += 29 * DAY;
    await world.authority.source.look();
    let seen = '';
    const look = (certificate: X509Certificate): void => {
      seen = certificate.serialNumber;
    };
    await askGateway(at, { method: 'GET', path: '/time', check: look });
    expect(seen).toBe(world.authority.source.current.serial);
    await takeTime(at, { ca: world.authority.ca, cluster: 'home' }, clock);
    expect(clock.nowMs()).toBeGreaterThan(NOON + 28 * DAY);
  });

  it('does not say what went wrong inside', async () => {
    const token = await invite(world.authority, 'pi-1');
    world.authority.join = async () => {
      throw new Error('/secret/path is full');
    };
    await expect(joinAt(server, folder('pi'), token)).rejects.toMatchObject({ code: 'GATEWAY_UNREACHABLE' });
    await expect(joinAt(server, folder('pi'), token)).rejects.not.toThrow('secret');
  });
});

describe('a request', () => {
  it('ends at its deadline, when nobody is there, and when somebody else is', async () => {
    const ask = (port: number): Promise<unknown> =>
      askGateway({ host: '127.0.0.1', port }, { method: 'GET', path: '/time', check: () => undefined }, { deadlineMs: 300 });
    await expect(ask(1)).rejects.toMatchObject({ code: 'GATEWAY_UNREACHABLE' });
    const { createServer: plain } = await import('node:net');
    const silent = plain((socket) => void socket.on('error', () => undefined));
    const port = await listen(silent, '127.0.0.1', 0);
    await expect(ask(port)).rejects.toThrow('no answer within 300 ms');
    silent.close();
    const stop = AbortSignal.abort();
    await expect(askGateway(at, { method: 'GET', path: '/time', check: () => undefined }, { signal: stop })).rejects.toThrow('given up');
  });

  it.each([
    ['gateway', 'gateway:8884'],
    ['gateway.local:9000', 'gateway.local:9000'],
    ['10.0.0.1', '10.0.0.1:8884'],
    ['fe80::1', '[fe80::1]:8884'],
    ['[fe80::1%eth0]:9', '[fe80::1%eth0]:9'],
  ])('goes to %s as %s', (text, address) => {
    expect(addressText(parseAddress(text))).toBe(address);
  });

  it.each(['', 'a b', 'http://x', 'x:0', 'x:99999', '[::1', 'x:y'])('goes nowhere for %j', (text) => {
    expect(() => parseAddress(text)).toThrow(expect.objectContaining({ code: 'USAGE' }));
  });
});

it('a certificate says what its token said', async () => {
  const made = await joinAt(server, folder('op'), await invite(world.authority, 'alice', { role: 'viewer' }));
  expect(identityOf(new X509Certificate(made.certificate))).toEqual({ cluster: 'home', role: 'viewer', name: 'alice' });
});

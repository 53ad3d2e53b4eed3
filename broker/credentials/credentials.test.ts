import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { chmod, cp, mkdir, mkdtemp, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeAuthority, makeKey, publicKeyOf, sign } from './certificates.js';
import { type Credentials, type Identity, identityOf, readCredentials, writeCredentials } from './credentials.js';
import { DAY, NOON } from './test-authority.js';
import { verifyPeer } from './verify.js';

/** `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /` */
const NOBODYS = `-----BEGIN CERTIFICATE-----
MIIBVzCB/aADAgECAhRUluLH8PL4+F2Inev9P9jXis8iKzAKBggqhkjOPQQDAjAA
MCAXDTI2MTEyMTIwMTU0MloYDzIxMjYxMDI4MjAxNTQyWjAAMFkwEwYHKoZIzj0C
AQYIKoZIzj0DAQcDQgAErfj13YRQV9QIvKCvmjOQWRE7FvDuTS/RcggAmcG3vmZK
7BNThaiq+cXWDVIGu3/Zft79KwpnilYiZfBppF1ulKNTMFEwHQYDVR0OBBYEFPDF
lOYA4654iTELklIwRPyM+HrOMB8GA1UdIwQYMBaAFPDFlOYA4654iTELklIwRPyM
+HrOMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSQAwRgIhAIXDf6vtCr/2
k8RaD7OgEPpI4H8rZ6qPMt7CDptvZHGcAiEA7RdATY7eRRh0SJFgFC5kYb8vRiUW
PSUEJhr8soIxecY=
-----END CERTIFICATE-----`;
const pi: Identity = { cluster: 'home', role: 'agent', name: 'pi-1' };
let directory: string;
let folders = 0;
const folder = (): string => join(directory, `${folders++}`);

async function authority(cluster = 'home') {
  const key = await makeKey();
  return { ca: await makeAuthority(cluster, key), caKey: key };
}

let ours: Awaited<ReturnType<typeof authority>>;

async function made(identity: Identity = pi, by = ours, fromMs = NOON): Promise<Credentials> {
  const key = await makeKey();
  const serial = `4D${Math.floor(Math.random() * 1e9)
    .toString(16)
    .padStart(28, '0')}`.toUpperCase();
  const certificate = await sign({
    ...by,
    identity,
    publicKey: publicKeyOf(key),
    serial,
    notBeforeMs: fromMs - DAY,
    notAfterMs: fromMs + 30 * DAY,
  });
  return { identity, ca: by.ca, certificate, key, serial, notAfterMs: fromMs + 30 * DAY };
}

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'mc-credentials-'));
  ours = await authority();
});
afterAll(async () => {
  await rm(directory, { recursive: true, force: true });
});

describe('credentials on disk', () => {
  it('come back as they were written, in files for their owner alone', async () => {
    const at = folder();
    const written = await made();
    await writeCredentials(at, written);
    expect(await readCredentials(at)).toEqual(written);
    expect((await readdir(at)).sort()).toEqual(['ca.pem', 'cert.pem', 'key.pem']);
    if (process.platform === 'win32') return;
    for (const file of ['', 'ca.pem', 'cert.pem', 'key.pem']) expect((await stat(join(at, file))).mode & 0o077).toBe(0);
  });

  it.skipIf(process.platform === 'win32')('can be read by others while they are replaced', async () => {
    const [before, after] = [await made(), await made(pi, await authority())];
    const at = folder();
    await writeCredentials(at, before);
    // A pipe in place of the CA holds the reader between certificate and CA, until all three are replaced.
    await rm(join(at, 'ca.pem'));
    execFileSync('mkfifo', [join(at, 'ca.pem')]);
    const reading = readCredentials(at);
    const pipe = await open(join(at, 'ca.pem'), 'w');
    await rm(join(at, 'ca.pem'));
    await writeCredentials(at, after);
    await pipe.writeFile(after.ca);
    await pipe.close();
    expect((await reading).serial).toBe(after.serial);
  });

  it('are the former or the new ones at every moment at which the power may fail while they are replaced', async () => {
    const [before, renewed, elsewhere] = [await made(), await made(), await made(pi, await authority())];
    // Another CA: a machine that joins another gateway.
    for (const after of [renewed, elsewhere]) {
      const at = folder();
      await writeCredentials(at, before);
      const done = folder();
      await cp(at, done, { recursive: true });
      await writeCredentials(done, after);
      // What is renamed into place is whole, so the states are those between the renames; caught by looking as fast as it goes.
      const seen = new Set<string>();
      let isWriting = true;
      const looking = (async () => {
        while (isWriting) seen.add((await readCredentials(at)).serial);
      })();
      await writeCredentials(at, after);
      isWriting = false;
      await looking;
      expect([...seen].every((serial) => serial === before.serial || serial === after.serial)).toBe(true);
      // And one by one: both keys and CAs beside the former certificate, then beside the new one.
      for (const certificate of [before, after]) {
        const between = folder();
        await mkdir(between);
        await writeFile(join(between, 'ca.pem'), after.ca + before.ca);
        await writeFile(join(between, 'key.pem'), after.key + before.key);
        await writeFile(join(between, 'cert.pem'), certificate.certificate);
        expect(await readCredentials(between)).toEqual(certificate);
        // The next replacement tidies up.
        await writeCredentials(between, after);
        expect(await readFile(join(between, 'key.pem'), 'utf8')).toBe(after.key);
        expect(await readFile(join(between, 'ca.pem'), 'utf8')).toBe(after.ca);
      }
    }
  });

  it('that are not there are missing, those that do not fit together are damaged', async () => {
    const at = folder();
    await expect(readCredentials(at)).rejects.toMatchObject({ code: 'CREDENTIALS_MISSING' });
    const written = await made();
    await writeCredentials(at, written);
    const spoil = async (file: string, text: string): Promise<void> => {
      const copy = folder();
      await cp(at, copy, { recursive: true });
      await writeFile(join(copy, file), text);
      await expect(readCredentials(copy), `${file} ${text.slice(0, 20)}`).rejects.toMatchObject({ code: 'CREDENTIALS_DAMAGED' });
    };
    for (const file of ['ca.pem', 'cert.pem', 'key.pem']) {
      await spoil(file, '');
      await spoil(file, (await readFile(join(at, file), 'utf8')).slice(0, 80));
      await spoil(file, 'no PEM at all');
    }
    await spoil('key.pem', await makeKey());
    await spoil('ca.pem', (await authority()).ca);
    await rm(join(at, 'key.pem'));
    await expect(readCredentials(at)).rejects.toMatchObject({ code: 'CREDENTIALS_DAMAGED' });
  });

  it.skipIf(process.platform === 'win32' || process.getuid?.() === 0)('that may not be read are not taken for missing', async () => {
    const at = folder();
    await writeCredentials(at, await made());
    await chmod(join(at, 'cert.pem'), 0);
    await expect(readCredentials(at)).rejects.toMatchObject({ code: 'CREDENTIALS_DAMAGED' });
  });
});

describe('a certificate', () => {
  const of = (credentials: Credentials): X509Certificate => new X509Certificate(credentials.certificate);
  const rules = { cluster: 'home', nowMs: NOON };

  it('names one identity, for client and server', async () => {
    const certificate = of(await made());
    expect(identityOf(certificate)).toEqual(pi);
    expect(certificate.keyUsage).toEqual(expect.arrayContaining(['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']));
    expect(certificate.ca).toBe(false);
    expect(verifyPeer(certificate, { ...rules, ca: ours.ca })).toEqual(pi);
  });

  it('of a name with every character that a name may have is read back', async () => {
    const odd: Identity = { cluster: 'A.b_c-9', role: 'viewer', name: `x${'._-'.repeat(21)}` };
    expect(identityOf(of(await made(odd)))).toEqual(odd);
  });

  it('that names the CA, nobody, or two is foreign', async () => {
    expect(() => identityOf(new X509Certificate(ours.ca))).toThrow(expect.objectContaining({ code: 'CERTIFICATE_FOREIGN' }));
    const names = [
      { ...pi, name: 'a/b' },
      { ...pi, name: 'pi-1, URI:musical-chair:home/agent/pi-2' },
      { ...pi, cluster: '' },
      { ...pi, name: 'x'.repeat(65) },
    ];
    for (const identity of names) {
      const certificate = of(await made(identity));
      expect(() => identityOf(certificate), identity.name).toThrow(expect.objectContaining({ code: 'CERTIFICATE_FOREIGN' }));
    }
  });

  it('that names no issuer, as anybody can make one, is foreign', () => {
    const certificate = new X509Certificate(NOBODYS);
    expect(() => verifyPeer(certificate, { ...rules, ca: ours.ca })).toThrow(
      expect.objectContaining({ code: 'CERTIFICATE_FOREIGN', message: expect.stringContaining('got one of nobody') }),
    );
  });

  it.each([
    ['signed by another CA of the same name', async () => made(pi, await authority()), 'CERTIFICATE_FOREIGN'],
    ['of another cluster', () => made({ ...pi, cluster: 'elsewhere' }), 'CERTIFICATE_FOREIGN'],
    ['with another role than is wanted', () => made({ ...pi, role: 'viewer' }), 'CERTIFICATE_FOREIGN'],
    ['that is expired', () => made(pi, ours, NOON - 31 * DAY), 'CERTIFICATE_EXPIRED'],
    ['that is not valid yet', () => made(pi, ours, NOON + 2 * DAY), 'CERTIFICATE_EXPIRED'],
    ['that was revoked', () => made({ ...pi, name: 'out' }), 'CERTIFICATE_REVOKED'],
  ])('%s is refused', async (_what, make, code) => {
    const isRevoked = ({ name }: Identity): boolean => name === 'out';
    const certificate = of(await make());
    expect(() => verifyPeer(certificate, { ...rules, ca: ours.ca, roles: ['agent', 'gateway'], isRevoked })).toThrow(
      expect.objectContaining({ code }),
    );
  });

  it('of an agent does not sign others', async () => {
    const agent = await made();
    const forged = await made({ ...pi, name: 'pi-2' }, { ca: agent.certificate, caKey: agent.key });
    for (const ca of [ours.ca, agent.certificate]) {
      expect(() => verifyPeer(of(forged), { ...rules, ca })).toThrow(expect.objectContaining({ code: 'CERTIFICATE_FOREIGN' }));
    }
  });

  it('is looked at without its dates when the time is not known', async () => {
    const expired = of(await made(pi, ours, 0));
    expect(verifyPeer(expired, { ca: ours.ca, cluster: 'home', nowMs: undefined })).toEqual(pi);
  });
});

/** For tests of what is signed: a CA in memory, and credentials of anybody. */
import { randomBytes, X509Certificate } from 'node:crypto';
import { makeAuthority, makeKey, publicKeyOf, sign } from './credentials/certificates.js';
import type { Credentials, Identity, Role } from './credentials/credentials.js';

const DAY_MS = 86_400_000;

export interface TestCa {
  readonly ca: string;
  credentials(role: Role, name: string, validMs?: { readonly from: number; readonly to: number }): Promise<Credentials>;
}

export async function testCa(cluster = 'lab'): Promise<TestCa> {
  const caKey = await makeKey();
  const ca = await makeAuthority(cluster, caKey);
  return {
    ca,
    credentials: async (role, name, { from, to } = { from: Date.now() - DAY_MS, to: Date.now() + DAY_MS }) => {
      const identity: Identity = { cluster, role, name };
      const key = await makeKey();
      const serial = randomBytes(8).toString('hex');
      const certificate = await sign({ ca, caKey, identity, publicKey: publicKeyOf(key), serial, notBeforeMs: from, notAfterMs: to });
      return { identity, ca, certificate, key, serial: new X509Certificate(certificate).serialNumber, notAfterMs: to };
    },
  };
}

/** For tests: a cluster's CA in memory, certificates of it, right and wrong ones, and who is revoked. */
import { X509Certificate } from 'node:crypto';
import { makeAuthority, makeKey, publicKeyOf, sign } from './credentials/certificates.js';
import type { Credentials, Role } from './credentials/credentials.js';
import type { CredentialSource } from './credentials/source.js';
import { fixedSource } from './credentials/source.js';
import type { ChairError } from './errors.js';
import { Listeners } from './listeners.js';
import type { Trust } from './trust.js';

const DAY_MS = 24 * 3_600_000;

export interface MakeOptions {
  readonly notBeforeMs?: number;
  readonly notAfterMs?: number;
}

export interface TestAuthority {
  readonly cluster: string;
  make(role: Role, name: string, options?: MakeOptions): Promise<Credentials>;
  /** What a process with these credentials has; all of one authority hear of its revocations. */
  trust(source: Credentials | CredentialSource): TestTrust;
  revoke(name: string): void;
}

export interface TestTrust extends Trust {
  readonly refusals: { readonly error: ChairError; readonly who: string }[];
  /** Whoever was let in, each time. */
  readonly met: string[];
}

let serials = 0;

export async function testAuthority(cluster = 'test'): Promise<TestAuthority> {
  const caKey = await makeKey();
  const ca = await makeAuthority(cluster, caKey);
  const revoked = new Set<string>();
  const listeners = new Listeners<[]>((error) => {
    throw error;
  });
  return {
    cluster,
    make: async (role, name, { notBeforeMs = Date.now() - DAY_MS, notAfterMs = Date.now() + DAY_MS } = {}) => {
      const key = await makeKey();
      const identity = { cluster, role, name };
      const serial = (0x100000 + ++serials).toString(16);
      const certificate = await sign({ ca, caKey, identity, publicKey: publicKeyOf(key), serial, notBeforeMs, notAfterMs });
      return { identity, ca, certificate, key, serial: new X509Certificate(certificate).serialNumber, notAfterMs };
    },
    trust: (given) => {
      const refusals: { error: ChairError; who: string }[] = [];
      const met: string[] = [];
      return {
        source: 'look' in given ? given : fixedSource(given),
        isRevoked: ({ name }) => revoked.has(name),
        onRevoked: (listener) => listeners.add(listener),
        seen: ({ role, name }) => void met.push(`${role} ${name}`),
        refused: (error, peer) => refusals.push({ error, who: peer === undefined ? '' : `${peer.role} ${peer.name}` }),
        refusals,
        met,
      };
    },
    revoke: (name) => {
      revoked.add(name);
      listeners.emit();
    },
  };
}

/** A source whose credentials can be exchanged, as when they are renewed. */
export class RenewedSource implements CredentialSource {
  looked = 0;

  constructor(
    public current: Credentials,
    public nowMs: () => number = Date.now,
  ) {}

  async look(): Promise<void> {
    this.looked++;
  }

  onChange(): () => void {
    return () => undefined;
  }
}

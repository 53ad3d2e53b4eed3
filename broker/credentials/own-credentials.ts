/**
 * The credentials that an authority gives to its own machine: the gateway's, and those of an operator for commands on the same machine. It signs them itself, so they
 * are always good: also after the clock jumped, after a restore, and after they were revoked.
 */
import { X509Certificate } from 'node:crypto';
import { isChairError } from '../errors.js';
import { type Credentials, type Identity, readCredentials, sameIdentity, writeCredentials } from './credentials.js';
import { isDue } from './lifetime.js';
import { validityOf, verifyPeer } from './verify.js';

export interface OwnCredentialsOptions {
  readonly directory: string;
  readonly identity: Identity;
  readonly ca: string;
  readonly nowMs: () => number;
  readonly lifetimeMs: number;
  readonly isRevoked: (identity: Identity, serial: string) => boolean;
  /** Signs the public key of this key. */
  readonly sign: (identity: Identity, key: string) => Promise<string>;
}

export class OwnCredentials {
  readonly #o: OwnCredentialsOptions;
  #current: Credentials | undefined;

  constructor(options: OwnCredentialsOptions) {
    this.#o = options;
  }

  get current(): Credentials | undefined {
    return this.#current;
  }

  /** Makes them good again where they are not. True when they have changed. Throws GATEWAY_STORE_FULL, CREDENTIALS_DAMAGED (disk full). */
  async mend(): Promise<boolean> {
    const { directory, identity, ca, sign } = this.#o;
    const found = this.#current ?? (await this.#read());
    if (found !== undefined && this.#isGood(found)) {
      this.#current = found;
      return false;
    }
    const { makeKey } = await import('./certificates.js');
    const key = await makeKey();
    const certificate = await sign(identity, key);
    const { serialNumber: serial, validTo } = new X509Certificate(certificate);
    const made: Credentials = { identity, ca, certificate, key, serial, notAfterMs: Date.parse(validTo) };
    await writeCredentials(directory, made);
    this.#current = made;
    return true;
  }

  async #read(): Promise<Credentials | undefined> {
    try {
      return await readCredentials(this.#o.directory);
    } catch (error) {
      // Whatever is there cannot be used, and nothing is lost with it.
      if (isChairError(error)) return undefined;
      throw error;
    }
  }

  #isGood(found: Credentials): boolean {
    const { identity, ca, nowMs, lifetimeMs, isRevoked } = this.#o;
    try {
      const certificate = new X509Certificate(found.certificate);
      const [notBeforeMs, notAfterMs] = validityOf(certificate);
      const isIts = sameIdentity(verifyPeer(certificate, { ca, cluster: identity.cluster, nowMs: undefined, isRevoked }), identity);
      return isIts && !isDue({ notBeforeMs, notAfterMs }, nowMs(), 0, lifetimeMs);
    } catch {
      return false;
    }
  }
}

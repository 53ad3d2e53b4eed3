/**
 * The files of an authority: `ca.pem` and `ca-key.pem`, and what it knows: `tokens.json`, `issued.json`, `revoked.json`, each sealed and replaced whole, for the owner
 * alone. A damaged list of tokens lets nobody in; a damaged list of revocations would let everybody in again, so it stops the gateway instead.
 */
import { createPrivateKey, randomBytes, X509Certificate } from 'node:crypto';
import { chmod, mkdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ChairError, isChairError } from '../errors.js';
import { putAside, readSealed, writeSealed, writeWhole } from '../sealed-file.js';
import { type IssuedRecord, Ledger, LIFE_BYTES, type RevokedRecord } from './ledger.js';
import { TokenBook, type TokenRecord } from './token-book.js';

const FORMAT = 1;
const OWNER_ONLY = 0o600;
const LIFE = /^[0-9a-f]{8}$/;
const FILES = { ca: 'ca.pem', caKey: 'ca-key.pem', tokens: 'tokens.json', issued: 'issued.json', revoked: 'revoked.json' } as const;

export interface CertificateAuthority {
  readonly certificate: string;
  readonly key: string;
  readonly isNew: boolean;
}

export class AuthorityFiles {
  readonly #directory: string;
  readonly #log: (line: string) => void;

  constructor(directory: string, log: (line: string) => void) {
    this.#directory = directory;
    this.#log = log;
  }

  /** The CA, made when there is none. Throws CREDENTIALS_DAMAGED when only a part of it is there, GATEWAY_STORE_FULL. */
  async authority(cluster: string): Promise<CertificateAuthority> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const certificate = await this.#text(FILES.ca);
    // The certificate is written last: without it nothing was ever signed.
    if (certificate === undefined) return this.#make(cluster);
    const key = await this.#text(FILES.caKey);
    const fits = key !== undefined && isPair(certificate, key);
    if (!fits) {
      throw new ChairError('CREDENTIALS_DAMAGED', `the CA in ${this.#directory} cannot be used`, {
        expected: `${FILES.ca} and the key that belongs to it in ${FILES.caKey}`,
        came: key === undefined ? 'no key' : 'a damaged or another key',
        todo: 'Put both back from a backup. Without one: move the folder away, start anew, and let every machine join again.',
      });
    }
    const { subject } = new X509Certificate(certificate);
    if (!subject.split('\n').includes(`O=${cluster}`)) {
      throw new ChairError('CREDENTIALS_WRONG', `the CA in ${this.#directory} is of another cluster`, {
        expected: `O=${cluster}`,
        came: subject.replaceAll('\n', ', '),
        todo: 'Each cluster has a state folder of its own: --cluster or --directory is wrong.',
      });
    }
    await this.#closeToOthers(FILES.caKey);
    return { certificate, key, isNew: false };
  }

  /**
   * What was signed and revoked. `opens`: for the authority itself, which puts aside what is damaged and begins a new life where the former one is not known; others
   * only read. Throws STATE_DAMAGED when it cannot be known who was revoked.
   */
  async ledger({ opens = false } = {}): Promise<Ledger> {
    const revoked = await this.#content<RevokedRecord>(FILES.revoked, 'revoked').catch((error: unknown) => {
      if (!isChairError(error, 'STATE_DAMAGED')) throw error;
      throw new ChairError('STATE_DAMAGED', error.message, {
        todo: `Put ${FILES.revoked} back from a backup. Removing it lets everybody in again who was revoked.`,
        cause: error,
      });
    });
    const { rows: issued, more } = await this.#contentOrNone<IssuedRecord>(FILES.issued, 'issued', opens);
    const life = typeof more.life === 'string' && LIFE.test(more.life) ? more.life : undefined;
    const ledger = new Ledger({ issued, revoked: revoked.rows, life: life ?? newLife() });
    const unmarked = opens ? ledger.unmarked() : [];
    if (unmarked.length > 0) {
      const names = `${unmarked.slice(0, 10).join(', ')}${unmarked.length > 10 ? ` and ${unmarked.length - 10} more` : ''}`;
      this.#log(
        `${join(this.#directory, FILES.revoked)} is gone, or older than ${FILES.issued}: who was revoked may be in again. It does not know of ${names}. ` +
          'Put it back from a backup, or revoke again whom you know of',
      );
    }
    if (opens && life === undefined) await this.saveIssued(ledger);
    return ledger;
  }

  async tokens(): Promise<TokenBook> {
    return new TokenBook((await this.#contentOrNone<TokenRecord>(FILES.tokens, 'tokens', true)).rows);
  }

  saveTokens(book: TokenBook): Promise<void> {
    return this.#save(FILES.tokens, 'tokens', book.all());
  }

  saveIssued(ledger: Ledger): Promise<void> {
    return this.#save(FILES.issued, 'issued', ledger.issued, { life: ledger.life });
  }

  saveRevoked(ledger: Ledger): Promise<void> {
    return this.#save(FILES.revoked, 'revoked', ledger.revoked);
  }

  async #make(cluster: string): Promise<CertificateAuthority> {
    const { makeAuthority, makeKey } = await import('./certificates.js');
    const key = await makeKey();
    const certificate = await makeAuthority(cluster, key);
    const how = { full: 'GATEWAY_STORE_FULL', mode: OWNER_ONLY } as const;
    await writeWhole(join(this.#directory, FILES.caKey), key, how);
    await writeWhole(join(this.#directory, FILES.ca), certificate, how);
    return { certificate, key, isNew: true };
  }

  async #text(name: string): Promise<string | undefined> {
    try {
      return await readFile(join(this.#directory, name), 'utf8');
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
      throw error;
    }
  }

  /** A backup put back, or a hand, may have opened it. */
  async #closeToOthers(name: string): Promise<void> {
    const file = join(this.#directory, name);
    const { mode } = await stat(file);
    if (process.platform === 'win32' || (mode & 0o077) === 0) return;
    await chmod(file, OWNER_ONLY);
    this.#log(`${file} was open to others (mode ${(mode & 0o777).toString(8)}): closed. Who read it can sign certificates of this cluster`);
  }

  async #contentOrNone<T>(name: string, key: string, putsAside: boolean): Promise<Content<T>> {
    try {
      return await this.#content<T>(name, key);
    } catch (error) {
      if (!isChairError(error, 'STATE_DAMAGED')) throw error;
      if (putsAside) await putAside(join(this.#directory, name));
      this.#log(`${error.code}: ${error.message}`);
      return { rows: [], more: {} };
    }
  }

  async #content<T>(name: string, key: string): Promise<Content<T>> {
    const text = await readSealed(join(this.#directory, name));
    if (text === undefined) return { rows: [], more: {} };
    const content: unknown = JSON.parse(text);
    const isOurs = typeof content === 'object' && content !== null && 'format' in content && content.format === FORMAT;
    const { [key]: rows, ...more }: Readonly<Record<string, unknown>> = isOurs ? Object.fromEntries(Object.entries(content)) : {};
    // The seal says that we wrote it; only the form may be another version's.
    if (Array.isArray(rows)) return { rows: rows as T[], more };
    throw new ChairError('STATE_DAMAGED', `${join(this.#directory, name)} is of another version`, { expected: `format ${FORMAT}` });
  }

  #save(name: string, key: string, rows: readonly unknown[], more: Readonly<Record<string, unknown>> = {}): Promise<void> {
    const text = JSON.stringify({ format: FORMAT, ...more, [key]: rows }, null, 1);
    return writeSealed(join(this.#directory, name), text, 'GATEWAY_STORE_FULL', OWNER_ONLY);
  }
}

interface Content<T> {
  readonly rows: readonly T[];
  /** What stands beside them. */
  readonly more: Readonly<Record<string, unknown>>;
}

/** Of a memory: see ledger.ts. */
export function newLife(): string {
  return randomBytes(LIFE_BYTES).toString('hex');
}

function isPair(certificate: string, key: string): boolean {
  try {
    const ca = new X509Certificate(certificate);
    return ca.checkPrivateKey(createPrivateKey(key)) && ca.verify(ca.publicKey);
  } catch {
    return false;
  }
}

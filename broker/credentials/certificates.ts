// @peculiar/x509 injects its parts by decorators: the metadata must be there before it.
import 'reflect-metadata';
/**
 * Making certificates and requests for them (PKCS#10): ECDSA on P-256 with SHA-256 throughout. The only file with @peculiar/x509; reading and checking certificates is
 * node:crypto's. Load it when something is to be signed: it takes a moment on a small board.
 */
import { createHash, createPrivateKey, createPublicKey, KeyObject, webcrypto } from 'node:crypto';
import { isIP } from 'node:net';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  type Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  Pkcs10CertificateRequest,
  Pkcs10CertificateRequestGenerator,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';
import { ChairError } from '../errors.js';
import { type Identity, uriOf } from './credentials.js';

const EC = { name: 'ECDSA', namedCurve: 'P-256' } as const;
const SIGNING = { name: 'ECDSA', hash: 'SHA-256' } as const;
/** RFC 5280, 4.1.2.5: a certificate with no end. A CA that ended would end the cluster, and a clock that is wrong when it is made must not matter. */
const FOREVER = new Date('9999-12-31T23:59:59Z');
const BEGINNING = new Date(0);
/** What an open request may measure: a P-256 one has about 400 characters. */
const MAX_REQUEST_CHARACTERS = 4_000;

/** A private key, PKCS#8 PEM. */
export async function makeKey(): Promise<string> {
  const { privateKey } = await webcrypto.subtle.generateKey(EC, true, ['sign', 'verify']);
  return KeyObject.from(privateKey).export({ type: 'pkcs8', format: 'pem' }).toString();
}

/** The self-signed certificate of a new CA, PEM. */
export async function makeAuthority(cluster: string, key: string): Promise<string> {
  const keys = await keyPair(key);
  const made = await X509CertificateGenerator.createSelfSigned(
    {
      name: [{ O: [cluster] }, { CN: ['musical-chair CA'] }],
      serialNumber: Buffer.from(webcrypto.getRandomValues(new Uint8Array(15))).toString('hex'),
      notBefore: BEGINNING,
      notAfter: FOREVER,
      signingAlgorithm: SIGNING,
      keys,
      extensions: [
        new BasicConstraintsExtension(true, 0, true),
        new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
        await SubjectKeyIdentifierExtension.create(keys.publicKey, false, webcrypto),
      ],
    },
    webcrypto,
  );
  return pem(made);
}

export interface Signing {
  readonly ca: string;
  readonly caKey: string;
  readonly identity: Identity;
  /** SPKI, DER: of the request. */
  readonly publicKey: Buffer;
  /** Hexadecimal. */
  readonly serial: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** Host names and addresses, for tools that look at them; ours do not. */
  readonly hosts?: readonly string[];
}

/** A certificate of this identity for this key, PEM. */
export async function sign(signing: Signing): Promise<string> {
  const { ca, caKey, identity, publicKey, serial, notBeforeMs, notAfterMs, hosts = [] } = signing;
  const authority = new X509Certificate(ca);
  const { privateKey } = await keyPair(caKey);
  const key = await webcrypto.subtle.importKey('spki', publicKey, EC, true, ['verify']);
  const names = hosts.map((host) => ({ type: isIP(host) === 0 ? ('dns' as const) : ('ip' as const), value: host }));
  const extensions: Extension[] = [
    new BasicConstraintsExtension(false, undefined, true),
    new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
    // Both: an agent dials its peers and is dialled by them.
    new ExtendedKeyUsageExtension([ExtendedKeyUsage.clientAuth, ExtendedKeyUsage.serverAuth]),
    new SubjectAlternativeNameExtension([{ type: 'url', value: uriOf(identity) }, ...names]),
    await SubjectKeyIdentifierExtension.create(key, false, webcrypto),
    await AuthorityKeyIdentifierExtension.create(authority.publicKey, false, webcrypto),
  ];
  const made = await X509CertificateGenerator.create(
    {
      serialNumber: serial,
      subject: [{ O: [identity.cluster] }, { OU: [identity.role] }, { CN: [identity.name] }],
      issuer: authority.subjectName,
      notBefore: new Date(notBeforeMs),
      notAfter: new Date(notAfterMs),
      signingAlgorithm: SIGNING,
      publicKey: key,
      signingKey: privateKey,
      extensions,
    },
    webcrypto,
  );
  return pem(made);
}

/** A request to sign the key, PEM. It names nobody: who it is for, the token or the former certificate says. */
export async function makeRequest(key: string): Promise<string> {
  const request = await Pkcs10CertificateRequestGenerator.create(
    { name: [{ CN: ['musical-chair'] }], keys: await keyPair(key), signingAlgorithm: SIGNING },
    webcrypto,
  );
  return `${request.toString('pem')}\n`;
}

/**
 * The public key of a request, SPKI DER, when whoever made the request has the private one. Anything else in it is ignored. Throws JOIN_REFUSED for what is no
 * such request, or is for another kind of key.
 */
export async function openRequest(text: string): Promise<Buffer> {
  const refused = (came: string, cause?: unknown): ChairError =>
    new ChairError('JOIN_REFUSED', 'the request to sign cannot be used', { expected: 'PKCS#10 in PEM, for a P-256 key', came, cause });
  if (text.length > MAX_REQUEST_CHARACTERS) throw refused(`${text.length} characters`);
  let publicKey: Buffer;
  let isSigned: boolean;
  try {
    const request = new Pkcs10CertificateRequest(text);
    publicKey = Buffer.from(request.publicKey.rawData);
    const { asymmetricKeyType, asymmetricKeyDetails } = createPublicKey({ key: publicKey, format: 'der', type: 'spki' });
    // Before its signature is looked at: a huge RSA key would cost seconds.
    if (asymmetricKeyType !== 'ec' || asymmetricKeyDetails?.namedCurve !== 'prime256v1')
      throw refused(`a key of type ${asymmetricKeyType}`);
    isSigned = await request.verify(webcrypto);
  } catch (cause) {
    if (cause instanceof ChairError) throw cause;
    throw refused('something else', cause);
  }
  if (!isSigned) throw refused('one that is not signed with its own key');
  return publicKey;
}

/** sha256 of a public key (SPKI DER), hex: what a token is bound to, and what people compare. */
export function keyFingerprint(publicKey: Buffer): string {
  return createHash('sha256').update(publicKey).digest('hex');
}

/** SPKI DER of a private key. */
export function publicKeyOf(key: string): Buffer {
  return createPublicKey(key).export({ type: 'spki', format: 'der' });
}

async function keyPair(key: string): Promise<webcrypto.CryptoKeyPair> {
  const der = createPrivateKey(key).export({ type: 'pkcs8', format: 'der' });
  return {
    privateKey: await webcrypto.subtle.importKey('pkcs8', der, EC, false, ['sign']),
    publicKey: await webcrypto.subtle.importKey('spki', publicKeyOf(key), EC, true, ['verify']),
  };
}

function pem(certificate: X509Certificate): string {
  return `${certificate.toString('pem')}\n`;
}

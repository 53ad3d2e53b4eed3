/**
 * Is this certificate one of ours, and may its holder be here now? Own code instead of the TLS library's check, which asks for a host name, that boards do not have, and
 * goes by the system clock, that boards without a battery do not have either. That the peer has the key, the TLS handshake has proven by then.
 */
import { X509Certificate } from 'node:crypto';
import { ChairError } from '../errors.js';
import { type Identity, identityOf, identityText, type Role } from './credentials.js';

export interface PeerRules {
  /** PEM of the cluster's CA. */
  readonly ca: string;
  readonly cluster: string;
  /** What time it is; undefined: dates are not looked at (to ask for the time, or to renew). */
  readonly nowMs: number | undefined;
  /** Who is expected; default: anybody of the cluster. */
  readonly roles?: readonly Role[];
  readonly isRevoked?: (identity: Identity, serial: string) => boolean;
}

/** Clocks of two machines that both took the gateway's time differ by less. */
export const CLOCK_TOLERANCE_MS = 120_000;

/**
 * Who the holder of this certificate is. Throws CERTIFICATE_FOREIGN (another CA or cluster, an unexpected role, none of ours), CERTIFICATE_REVOKED, and at last
 * CERTIFICATE_EXPIRED (also: not valid yet), so that what is only out of its time can be told from what is not ours.
 */
export function verifyPeer(certificate: X509Certificate, { ca, cluster, nowMs, roles, isRevoked }: PeerRules): Identity {
  const authority = new X509Certificate(ca);
  // One level: our CA signs everybody, and nobody else signs. RFC 5280, 6.1, for a path of length one.
  if (certificate.ca || !certificate.checkIssued(authority) || !certificate.verify(authority.publicKey)) {
    // Anybody can make one that names no issuer; then Node has none, whatever its types say.
    const issuer: string | undefined = certificate.issuer;
    throw new ChairError('CERTIFICATE_FOREIGN', 'a certificate is not signed by the CA of this cluster', {
      came: `one of ${issuer === undefined ? 'nobody' : JSON.stringify(issuer.replaceAll('\n', ', ')).slice(0, 200)}`,
    });
  }
  const identity = identityOf(certificate);
  const who = identityText(identity);
  if (identity.cluster !== cluster) {
    throw new ChairError('CERTIFICATE_FOREIGN', `the certificate of ${who} is of another cluster`, {
      expected: `'${cluster}'`,
      came: `'${identity.cluster}'`,
    });
  }
  if (roles !== undefined && !roles.includes(identity.role)) {
    throw new ChairError('CERTIFICATE_FOREIGN', `the certificate of ${who} has another role than is wanted here`, {
      expected: roles.join(' or '),
      came: identity.role,
    });
  }
  if (isRevoked?.(identity, certificate.serialNumber) === true) {
    throw new ChairError('CERTIFICATE_REVOKED', `the certificate of ${who} was revoked`, {
      todo: 'If it is to come back: `token create` on the gateway, and join again.',
    });
  }
  if (nowMs !== undefined) checkDates(certificate, who, nowMs);
  return identity;
}

function checkDates(certificate: X509Certificate, who: string, nowMs: number): void {
  const [from, to] = validityOf(certificate);
  if (nowMs >= from - CLOCK_TOLERANCE_MS && nowMs <= to + CLOCK_TOLERANCE_MS) return;
  const late = nowMs > to;
  throw new ChairError('CERTIFICATE_EXPIRED', `the certificate of ${who} ${late ? 'has expired' : 'is not valid yet'}`, {
    expected: `a time from ${new Date(from).toISOString()} to ${new Date(to).toISOString()}`,
    came: new Date(nowMs).toISOString(),
    todo: 'Clocks are compared with the gateway: if that one is wrong, mend it; certificates are renewed by themselves.',
  });
}

/** When a certificate is valid, ms since 1970. */
export function validityOf(certificate: X509Certificate): readonly [fromMs: number, toMs: number] {
  return [Date.parse(certificate.validFrom), Date.parse(certificate.validTo)];
}

/** sha256 of a certificate, lower-case hex: of a CA, what a token carries. */
export function fingerprintOf(certificate: X509Certificate): string {
  return certificate.fingerprint256.replaceAll(':', '').toLowerCase();
}

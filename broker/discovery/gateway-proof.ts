/** How a process with credentials tells the gateway of its cluster from others that say they are it: by the certificate that the broker shows. */
import { verifyPeer } from '../credentials/verify.js';
import { ChairError } from '../errors.js';
import { publicUrl } from '../public-url.js';
import { certificateAt } from '../tls.js';
import type { Trust } from '../trust.js';
import type { GatewayProof } from './proofs.js';

/** A handshake takes milliseconds, on a slow board and a bad network a second. */
const PROOF_MS = 2_500;
const SECURE_PORT = 8883;

/**
 * A broker with a certificate of the gateway, of our cluster, signed by our CA. Its dates are not looked at: a board without a clock knows the time only from the
 * gateway that it is about to find. Rejects with INSECURE_REFUSED, CERTIFICATE_FOREIGN, BROKER_UNREACHABLE.
 */
export function gatewayProof(trust: Trust, timeoutMs = PROOF_MS): GatewayProof {
  return async (url, signal) => {
    const { protocol, hostname, port } = new URL(url);
    if (protocol !== 'mqtts:') throw new ChairError('INSECURE_REFUSED', `${publicUrl(url)} is plain MQTT`);
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(new Error(`no TLS handshake within ${timeoutMs} ms`)), timeoutMs);
    try {
      const host = hostname.replace(/^\[|\]$/g, '');
      const certificate = await certificateAt({
        host,
        port: Number(port) || SECURE_PORT,
        trust,
        signal: AbortSignal.any([signal, late.signal]),
      });
      const { ca, identity } = trust.source.current;
      verifyPeer(certificate, { ca, cluster: identity.cluster, nowMs: undefined, roles: ['gateway'] });
      return certificate.serialNumber;
    } finally {
      clearTimeout(timer);
    }
  };
}

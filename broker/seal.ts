/**
 * Signed commands: whatever an agent fetches, loads, runs or lets in is named by a command (a prepare of a plan's epoch, a standby, a profile, a peer table), and with
 * credentials it obeys only those that carry the signature of the gateway's key. So a broker that is not our own, or one that was taken over, can delay and withhold
 * but not make an agent run anything: a blob is accepted only by a sha256 that stands in a signed command of the cluster, the scheduler's term and the plan's epoch.
 */
import { sign, verify, X509Certificate } from 'node:crypto';
import { encode } from './codec.js';
import type { Credentials } from './credentials/credentials.js';
import { verifyPeer } from './credentials/verify.js';
import { ChairError } from './errors.js';
import type { Command } from './messages.js';
import type { Trust } from './trust.js';

/** To whom a command is: it is no command to anybody else. */
export interface Addressee {
  readonly cluster: string;
  readonly agent: string;
}

/** Of a command where nobody has credentials. */
export const NO_SEAL: Uint8Array = new Uint8Array(0);

/** r and s of P-256 (IEEE P1363); behind them stands the signer's certificate, DER. */
const SIGNATURE_BYTES = 64;
const CONTEXT = 'musical-chair command 1';
const ENCODING = 'ieee-p1363';

/** The bytes that are signed: everything that the command says, and to whom. */
function signedBytes(command: Command, { cluster, agent }: Addressee): Buffer {
  return Buffer.concat([Buffer.from(`${CONTEXT}\n${cluster}\n${agent}\n`), encode('Command', { ...command, seal: NO_SEAL })]);
}

const signers = new WeakMap<Credentials, Buffer>();

/** Throws CODEC_INVALID, CODEC_LIMIT for a command that cannot be sent anyhow. */
export function sealCommand(command: Command, to: Addressee, credentials: Credentials): Command {
  const signer = signers.get(credentials) ?? Buffer.from(new X509Certificate(credentials.certificate).raw);
  signers.set(credentials, signer);
  const signature = sign('sha256', signedBytes(command, to), { key: credentials.key, dsaEncoding: ENCODING });
  return { ...command, seal: Buffer.concat([signature, signer]) };
}

/** What an agent asks of every command. The check throws SIGNATURE_WRONG. */
export function sealCheck(trust: Trust, agent: string): (command: Command) => void {
  return (command) => {
    const { current } = trust.source;
    const { cluster } = current.identity;
    if (command.seal.length === 0) throw wrong(command, 'it has no signature');
    const [signature, signer] = [command.seal.subarray(0, SIGNATURE_BYTES), command.seal.subarray(SIGNATURE_BYTES)];
    let certificate: X509Certificate;
    try {
      certificate = new X509Certificate(signer);
      if (!certificate.raw.equals(signer)) throw new Error('something stands behind the certificate');
      verifyPeer(certificate, { ca: current.ca, cluster, nowMs: trust.source.nowMs(), roles: ['gateway'] });
    } catch (cause) {
      throw wrong(command, cause instanceof Error ? cause.message : String(cause), cause);
    }
    const key = { key: certificate.publicKey, dsaEncoding: ENCODING } as const;
    if (!verify('sha256', signedBytes(command, { cluster, agent }), key, signature)) {
      throw wrong(command, 'the signature is not of this command to this agent');
    }
  };
}

function wrong({ body, term }: Command, why: string, cause?: unknown): ChairError {
  return new ChairError('SIGNATURE_WRONG', `a '${body.kind}' of term ${term} is not obeyed: ${why}`, {
    expected: "the signature of the gateway's key",
    ...(cause === undefined ? {} : { cause }),
  });
}

/**
 * TLS between the processes of a cluster, for the broker and for lanes. Both ends show a certificate of the cluster's CA and are judged by the identity in it
 * (credentials/verify.ts), never by host names: boards have none that last. So the TLS library's own check is off, and ours runs before a byte is passed on.
 */
import type { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { connect, createSecureContext, createServer, type SecureContext, type Server, type TLSSocket } from 'node:tls';
import { type Credentials, type Identity, identityOf, identityText } from './credentials/credentials.js';
import { CLOCK_TOLERANCE_MS, validityOf, verifyPeer } from './credentials/verify.js';
import { ChairError, isChairError, toChairError } from './errors.js';
import type { Trust } from './trust.js';

/** Who is at the other end. */
export interface Peer {
  readonly identity: Identity;
  readonly serial: string;
  /** Of its certificate, ms since 1970. */
  readonly notAfterMs: number;
}

/** Clocks are set, and no timer waits for 30 days: it is looked again so often. */
const LOOK_MS = 3_600_000;
/** When the clock was set, all certificates may be over at once: their connections end within this time, so that the agents of a cluster are not all away together. */
const SPREAD_MS = 600_000;

/**
 * Ends what a connection carries when the certificate of its other end is over, by the gateway's time: a certificate ends connections as it keeps new ones out. Whoever
 * renewed his in time comes back with the new one. The gateway's own stays: whoever has its key has everything. Forgotten when the socket closes.
 */
export function endWhenOver(
  socket: Pick<Socket, 'once'>,
  { identity, notAfterMs }: Peer,
  { source }: Trust,
  end: (error: ChairError) => void,
  random: () => number = Math.random,
): void {
  if (identity.role === 'gateway') return;
  let timer: NodeJS.Timeout | undefined;
  let expectedMs = Number.POSITIVE_INFINITY;
  const look = (): void => {
    const leftMs = notAfterMs + CLOCK_TOLERANCE_MS - source.nowMs();
    const wasSet = leftMs < 0 && expectedMs > LOOK_MS;
    expectedMs = leftMs;
    if (leftMs >= 0 || wasSet) {
      timer = setTimeout(look, wasSet ? random() * SPREAD_MS : Math.min(leftMs + 1, LOOK_MS)).unref();
      return;
    }
    const over = new Date(notAfterMs).toISOString();
    end(new ChairError('CERTIFICATE_EXPIRED', `the certificate that ${identityText(identity)} came with has expired (${over})`));
  };
  socket.once('close', () => clearTimeout(timer));
  look();
}

/** Whoever opens a connection and says nothing has so long. */
const HANDSHAKE_MS = 10_000;
/** `MQTT CONNACK, not authorized` (MQTT 3.1.1, 3.2): a client that is turned away learns that it was not the network. */
const NOT_AUTHORIZED = Buffer.from([0x20, 2, 0, 5]);

const [AES, CHACHA] = ['TLS_AES_128_GCM_SHA256', 'TLS_CHACHA20_POLY1305_SHA256'];

/** Does this processor encrypt AES in hardware? Boards before the Raspberry Pi 5 do not: ChaCha20 is several times faster there. */
export function hasAesInstructions(cpuInfo: string): boolean {
  return /^(flags|Features)\s*:.*\baes\b/m.test(cpuInfo);
}

function cpuInfo(): string {
  try {
    return readFileSync('/proc/cpuinfo', 'utf8');
  } catch {
    // Not Linux: such machines are larger than a Raspberry Pi.
    return 'flags : aes';
  }
}

export type Cipher = 'aes' | 'chacha';

let preferred: Cipher | undefined;

/** Instead of what suits this processor, for connections of this process from now on: to measure what the other one costs. */
export function preferCipher(cipher: Cipher): void {
  preferred = cipher;
}

/** A slow processor decides: its client names ChaCha20 first, and so does its server, which then insists; a fast server takes what the client names first. */
function cipherOptions(): { readonly ciphers: string; readonly honorCipherOrder: boolean } {
  preferred ??= hasAesInstructions(cpuInfo()) ? 'aes' : 'chacha';
  const isSlow = preferred === 'chacha';
  return { ciphers: (isSlow ? [CHACHA, AES] : [AES, CHACHA]).join(':'), honorCipherOrder: isSlow };
}

const contexts = new WeakMap<Credentials, SecureContext>();

function contextOptions({ ca, certificate, key }: Credentials) {
  return { ca, cert: certificate, key, minVersion: 'TLSv1.3', ...cipherOptions() } as const;
}

function contextOf(credentials: Credentials): SecureContext {
  const known = contexts.get(credentials);
  if (known !== undefined) return known;
  const made = createSecureContext(contextOptions(credentials));
  contexts.set(credentials, made);
  return made;
}

function judge(certificate: X509Certificate | undefined, trust: Trust): Peer {
  if (certificate === undefined) {
    throw new ChairError('CERTIFICATE_FOREIGN', 'the other end showed no certificate', { expected: 'one of the CA of this cluster' });
  }
  const { current, nowMs } = { current: trust.source.current, nowMs: trust.source.nowMs() };
  const identity = verifyPeer(certificate, {
    ca: current.ca,
    cluster: current.identity.cluster,
    nowMs,
    isRevoked: (peer, serial) => trust.isRevoked(peer, serial),
  });
  trust.seen?.(identity, certificate);
  return { identity, serial: certificate.serialNumber, notAfterMs: validityOf(certificate)[1] };
}

export interface TlsServerOptions {
  readonly trust: Trust;
  readonly onPeer: (socket: TLSSocket, peer: Peer) => void;
  /** Turned away, and told to `trust.refused`: no TLS, or no certificate of ours. `address`: whose, '' when he has gone. */
  readonly onRefused: (error: ChairError, address: string) => void;
}

/** A listener that hands over connections whose other end is known. Credentials that are renewed serve the connections that come after. */
export function createTlsServer({ trust, onPeer, onRefused }: TlsServerOptions): Server {
  let served = trust.source.current;
  const server = createServer({
    ...contextOptions(served),
    requestCert: true,
    rejectUnauthorized: false,
    handshakeTimeout: HANDSHAKE_MS,
    noDelay: true,
  });
  const refuse = (error: ChairError, peer: Identity | undefined, address: string): void => {
    onRefused(error, address);
    trust.refused?.(error, peer, address);
  };
  // Before the library's own listener takes the connection.
  server.prependListener('connection', () => {
    if (trust.source.current === served) return;
    served = trust.source.current;
    server.setSecureContext(contextOptions(served));
  });
  server.on('secureConnection', (socket) => {
    socket.on('error', () => undefined);
    const certificate = socket.getPeerX509Certificate();
    try {
      onPeer(socket, judge(certificate, trust));
    } catch (error) {
      socket.end(NOT_AUTHORIZED);
      socket.resume();
      setTimeout(() => socket.destroy(), FAREWELL_MS).unref();
      refuse(toChairError(error), knownFrom(certificate, error), socket.remoteAddress ?? '');
    }
  });
  server.on('tlsClientError', (error: NodeJS.ErrnoException, socket) => {
    // Whoever only looks whether somebody listens, or loses his network meanwhile, was not turned away.
    if (error.code === 'ECONNRESET') return;
    const broken = new ChairError('TLS_FAILED', `no TLS connection came about: ${error.message}`, { cause: error });
    refuse(broken, undefined, socket.remoteAddress ?? '');
    socket.destroy();
  });
  return server;
}

const FAREWELL_MS = 1_000;

/** Who was turned away, when our CA has said who it is. */
function knownFrom(certificate: X509Certificate | undefined, error: unknown): Identity | undefined {
  const isOurs = isChairError(error, 'CERTIFICATE_REVOKED') || isChairError(error, 'CERTIFICATE_EXPIRED');
  return isOurs && certificate !== undefined ? identityOf(certificate) : undefined;
}

/** TLS sessions that servers gave us, and what they showed then: a resumed session saves both ends the signatures of a handshake. */
export class TlsSessions {
  readonly #sessions = new Map<string, { readonly session: Buffer; readonly certificate: X509Certificate }>();

  get(key: string): { readonly session: Buffer; readonly certificate: X509Certificate } | undefined {
    return this.#sessions.get(key);
  }

  set(key: string, session: Buffer, certificate: X509Certificate): void {
    this.#sessions.delete(key);
    this.#sessions.set(key, { session, certificate });
    const [oldest] = this.#sessions.keys();
    if (this.#sessions.size > MOST_SESSIONS && oldest !== undefined) this.#sessions.delete(oldest);
  }

  delete(key: string): void {
    this.#sessions.delete(key);
  }
}

const MOST_SESSIONS = 256;

export interface AskOptions {
  readonly host: string;
  readonly port: number;
  readonly trust: Trust;
  /** Ends it: what it is aborted with is what `certificateAt` rejects with. */
  readonly signal: AbortSignal;
}

/**
 * The certificate of whoever listens there, who has its key; nothing is said to him, and nobody has judged it. Rejects with BROKER_UNREACHABLE, CERTIFICATE_FOREIGN
 * when none is shown.
 */
export async function certificateAt({ host, port, trust, signal }: AskOptions): Promise<X509Certificate> {
  const socket = connect({
    host,
    port,
    secureContext: contextOf(trust.source.current),
    rejectUnauthorized: false,
    checkServerIdentity: () => undefined,
  });
  socket.on('error', () => undefined);
  const abort = (): void => void socket.destroy(toChairError(signal.reason));
  signal.addEventListener('abort', abort, { once: true });
  try {
    if (signal.aborted) abort();
    await new Promise<void>((resolve, reject) => {
      socket.once('secureConnect', resolve);
      socket.once('error', reject);
      socket.once('close', () => reject(new Error('the connection closed during the handshake')));
    });
    const certificate = socket.getPeerX509Certificate();
    if (certificate === undefined) throw new ChairError('CERTIFICATE_FOREIGN', `who listens at ${host}:${port} shows no certificate`);
    return certificate;
  } catch (error) {
    if (isChairError(error, 'CERTIFICATE_FOREIGN')) throw error;
    throw new ChairError('BROKER_UNREACHABLE', `no TLS connection to ${host}:${port}: ${toChairError(error).message}`, { cause: error });
  } finally {
    signal.removeEventListener('abort', abort);
    // In order, so that nobody has to note a connection that broke; whoever does not close his end is cut off.
    socket.end();
    const timer = setTimeout(() => socket.destroy(), FAREWELL_MS).unref();
    socket.once('close', () => clearTimeout(timer));
    socket.resume();
  }
}

export interface DialOptions {
  readonly host: string;
  readonly port: number;
  readonly trust: Trust;
  /** Is it who we mean to reach? '' or why not. */
  readonly accepts: (peer: Identity) => string;
  readonly sessions?: TlsSessions;
}

/**
 * Dials. The socket may be written to once `peer` has resolved: before that nothing is known of the other end. Rejects with what breaks the connection, CERTIFICATE_FOREIGN
 * (not of our cluster, or not who we mean), CERTIFICATE_EXPIRED (after which the source was asked to look at its clock), CERTIFICATE_REVOKED; then the socket is destroyed.
 */
export function dialTls({ host, port, trust, accepts, sessions }: DialOptions): {
  readonly socket: TLSSocket;
  readonly peer: Promise<Peer>;
} {
  const { current } = trust.source;
  const key = `${host} ${port} ${current.serial}`;
  const known = sessions?.get(key);
  const socket = connect({
    host,
    port,
    secureContext: contextOf(current),
    rejectUnauthorized: false,
    checkServerIdentity: () => undefined,
    ...(known === undefined ? {} : { session: known.session }),
  });
  socket.setNoDelay(true);
  // Whoever uses the socket has listeners of his own; an emitter without any throws.
  socket.on('error', () => undefined);
  const peer = new Promise<Peer>((resolve, reject) => {
    let certificate: X509Certificate | undefined;
    const fail = (error: Error): void => {
      sessions?.delete(key);
      reject(error);
      socket.destroy(error);
      if (isChairError(error, 'CERTIFICATE_EXPIRED')) void trust.source.look();
    };
    const closed = (): void => fail(new Error('the connection closed during the handshake'));
    socket.once('error', fail);
    socket.once('close', closed);
    socket.on('session', (session: Buffer) => {
      if (certificate !== undefined) sessions?.set(key, session, certificate);
    });
    socket.once('secureConnect', () => {
      try {
        // A resumed session may not carry the certificate: it is the one that was shown when the session was made.
        certificate = socket.getPeerX509Certificate() ?? (socket.isSessionReused() ? known?.certificate : undefined);
        const found = judge(certificate, trust);
        const why = accepts(found.identity);
        if (why !== '') throw new ChairError('CERTIFICATE_FOREIGN', `${host}:${port} is not who it should be: ${why}`);
        socket.off('close', closed);
        socket.off('error', fail);
        endWhenOver(socket, found, trust, (error) => {
          // What would be resumed began with the former certificate.
          sessions?.delete(key);
          socket.destroy(error);
        });
        resolve(found);
      } catch (error) {
        fail(toChairError(error));
      }
    });
  });
  peer.catch(() => undefined);
  return { socket, peer };
}

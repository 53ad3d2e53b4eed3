/** Requests to a gateway's enrolment port. Nothing is sent to whoever answers there before `check` has agreed with its certificate. */
import type { X509Certificate } from 'node:crypto';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import { ChairError, isChairError, isErrorCode, toChairError } from '../errors.js';
import type { Credentials } from './credentials.js';

/** Where a gateway takes requests to join. */
export interface EnrolmentAddress {
  readonly host: string;
  readonly port: number;
}

export const ENROLMENT_PORT = 8884;

export interface EnrolmentRequest {
  readonly method: 'GET' | 'POST';
  readonly path: '/ca' | '/time' | '/enrol' | '/renew';
  readonly body?: object;
  /** Looks at the certificate of whoever answers; what it throws ends the request, with nothing sent. */
  readonly check: (certificate: X509Certificate) => void;
  /** To show: who renews. */
  readonly own?: Pick<Credentials, 'certificate' | 'key'>;
}

const DEADLINE_MS = 30_000;
const MAX_ANSWER_BYTES = 64 * 1024;

/** `host`, `host:port` or `[address]:port`. Throws USAGE. */
export function parseAddress(text: string): EnrolmentAddress {
  const found = /^(?:\[([0-9A-Fa-f:.%a-z]+)\]|([^:/\s[\]]+)|([0-9A-Fa-f:]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*))(?::(\d{1,5}))?$/.exec(text);
  const host = found?.[1] ?? found?.[2] ?? found?.[3];
  const port = found?.[4] === undefined ? ENROLMENT_PORT : Number(found[4]);
  if (host !== undefined && port > 0 && port < 65_536) return { host, port };
  throw new ChairError('USAGE', 'this is not the address of a gateway', {
    expected: 'HOST or HOST:PORT',
    came: JSON.stringify(text.slice(0, 100)),
  });
}

export function addressText({ host, port }: EnrolmentAddress): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}

export interface EnrolmentLimits {
  /** Default 30,000 ms. */
  readonly deadlineMs?: number;
  /** Ends it before that. */
  readonly signal?: AbortSignal;
}

export interface EnrolmentReply {
  readonly status: number;
  readonly text: string;
}

/**
 * One request. Throws GATEWAY_UNREACHABLE (nobody there, no TLS, too slow, an answer that is none), what `check`
 * throws, and what the gateway refused it with.
 */
export async function askGateway(at: EnrolmentAddress, request: EnrolmentRequest, limits: EnrolmentLimits = {}): Promise<EnrolmentReply> {
  const { deadlineMs = DEADLINE_MS, signal } = limits;
  const socket = connecting(at, request);
  let ended = '';
  const end = (why: string): void => {
    ended = why;
    socket.destroy(new Error(why));
  };
  const timer = setTimeout(() => end(`no answer within ${deadlineMs} ms`), deadlineMs);
  const aborted = (): void => end('given up');
  signal?.addEventListener('abort', aborted, { once: true });
  try {
    if (signal?.aborted === true) aborted();
    await secured(socket, at, request.check);
    const reply = await exchanged(socket, at, request);
    if (reply.status < 300) return reply;
    throw refusalOf(reply);
  } catch (error) {
    if (isChairError(error)) throw error;
    throw new ChairError('GATEWAY_UNREACHABLE', `the gateway's enrolment port at ${addressText(at)} cannot be used`, {
      came: ended === '' ? toChairError(error).message : ended,
      todo: 'Does the gateway run, with certificates? Is that port open to this machine?',
      cause: error,
    });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', aborted);
    socket.destroy();
  }
}

function connecting(at: EnrolmentAddress, { own }: EnrolmentRequest): TLSSocket {
  const shown = own === undefined ? {} : { cert: own.certificate, key: own.key };
  const name = isIP(at.host) === 0 ? { servername: at.host } : {};
  try {
    // The library's own check wants a host name and believes the system's clock: `check` is ours.
    const socket = connect({ ...at, ...name, ...shown, rejectUnauthorized: false, minVersion: 'TLSv1.3' });
    // Also after the answer: an error of a socket that nobody hears would end the process.
    socket.on('error', () => undefined);
    return socket;
  } catch (cause) {
    throw new ChairError('CREDENTIALS_DAMAGED', 'the certificate that is to be shown cannot be used', {
      came: toChairError(cause).message,
      cause,
    });
  }
}

async function secured(socket: TLSSocket, at: EnrolmentAddress, check: EnrolmentRequest['check']): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    socket.once('secureConnect', resolve);
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('the connection was closed')));
  });
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) throw new ChairError('CERTIFICATE_FOREIGN', `who answers at ${addressText(at)} shows no certificate`);
  check(certificate);
}

async function exchanged(socket: TLSSocket, at: EnrolmentAddress, { method, path, body }: EnrolmentRequest): Promise<EnrolmentReply> {
  const text = body === undefined ? '' : JSON.stringify(body);
  const headers = {
    host: addressText(at),
    connection: 'close',
    'content-length': Buffer.byteLength(text),
    'content-type': 'application/json',
  };
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const asked = httpRequest({ createConnection: () => socket, method, path, headers }, resolve);
    asked.on('error', reject);
    asked.end(text);
  });
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response) {
    if (!(chunk instanceof Buffer)) break;
    bytes += chunk.length;
    if (bytes > MAX_ANSWER_BYTES) throw new Error(`an answer of more than ${MAX_ANSWER_BYTES} bytes`);
    chunks.push(chunk);
  }
  return { status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') };
}

/** What the gateway said, as it said it; of a later version's code, or of who is no gateway, GATEWAY_UNREACHABLE. */
function refusalOf({ status, text }: EnrolmentReply): ChairError {
  const said = fieldsOf(text);
  const [code, message] = [said.code, said.message];
  if (typeof code === 'string' && typeof message === 'string' && isErrorCode(code) && code !== 'INTERNAL') {
    return new ChairError(code, message.slice(0, 1000));
  }
  const came = typeof message === 'string' ? message.slice(0, 200) : `status ${status}`;
  return new ChairError('GATEWAY_UNREACHABLE', 'the gateway could not answer', { came });
}

/** The fields of a JSON object; none when it is not one. */
export function fieldsOf(text: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? Object.fromEntries(Object.entries(value)) : {};
  } catch {
    return {};
  }
}

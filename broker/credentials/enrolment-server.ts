/**
 * Where machines join and renew: HTTP/1.1 over TLS on a port of its own, beside the broker, which only those who have joined may talk to.
 *
 *     GET  /ca      the CA's certificate, PEM. Whoever asks compares it with its token: this connection proves nothing yet
 *     GET  /time    {nowMs}: what certificates are to be checked by
 *     POST /enrol    {token, csr, name, role} -> 200 {certificate, ca, broker}, 202 {name, key} when an operator has to approve it first; ask again
 *     POST /renew   {csr} in a connection with the former certificate -> 200 {certificate, ca, broker}
 *
 * `broker`: where the broker is, `mqtts://HOST:PORT`, or `:PORT` on the machine that was asked; '' when that is not known.
 *
 * Strangers can reach it, so everything is bounded: connections that have not said yet what they want, and how fast they come (doorkeeper.ts); what is read before anybody
 * has shown a valid token, and how long it may take; how often somebody may be wrong.
 */
import type { X509Certificate } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { Doorkeeper } from '../doorkeeper.js';
import { ChairError, type ErrorCode, isChairError, toChairError } from '../errors.js';
import { plainAddress } from '../host.js';
import { listen } from '../listen.js';
import { Repetition } from '../repetition.js';
import type { Authority, JoinAnswer, JoinRequest } from './authority.js';
import { Buckets } from './bucket.js';
import { type Identity, ROLES, type Role } from './credentials.js';
import { parseToken } from './token-text.js';
import { verifyPeer } from './verify.js';

export interface EnrolmentServerOptions {
  readonly authority: Authority;
  /** Default `0.0.0.0`. */
  readonly host?: string;
  /** 0 = any free port. */
  readonly port: number;
  /** Where the broker is, as answers say it; default ''. */
  readonly broker?: () => string;
  /** Monotonic, ms. */
  readonly nowMs?: () => number;
  readonly log?: (line: string) => void;
  /** How long a request may take to come; default 10,000 ms. */
  readonly requestMs?: number;
}

const MAX_BODY_BYTES = 16 * 1024;
/** Connections whose request has not come whole; and requests that are being answered. */
const [PLACES, MOST_AT_WORK] = [256, 256];
/** Wrong tokens, foreign certificates, and what is no proper request, of one address. */
const WRONG_EACH = { burst: 20, everyMs: 5_000 };
/** Signatures for one token, and renewals of one name, with whatever certificate: those who do it right need one in weeks. */
const SIGNED_EACH = { burst: 10, everyMs: 60_000 };
const REQUEST_MS = 10_000;
const BUSY_MS = 1_000;

const STATUS: Partial<Record<ErrorCode, number>> = {
  TOKEN_INVALID: 400,
  JOIN_REFUSED: 400,
  TOKEN_REFUSED: 403,
  TOKEN_EXPIRED: 403,
  TOKEN_USED: 403,
  TOKEN_NAME_WRONG: 403,
  CERTIFICATE_FOREIGN: 403,
  CERTIFICATE_REVOKED: 403,
  JOIN_BUSY: 429,
  GATEWAY_STORE_FULL: 503,
};
/** Of these the asker is guilty. */
const WRONG = new Set<ErrorCode>([
  'TOKEN_INVALID',
  'TOKEN_REFUSED',
  'TOKEN_USED',
  'TOKEN_NAME_WRONG',
  'JOIN_REFUSED',
  'CERTIFICATE_FOREIGN',
  'CERTIFICATE_REVOKED',
]);

type Body = Readonly<Record<string, unknown>>;

interface Answer {
  readonly status: number;
  readonly body: string | object;
}

export class EnrolmentServer {
  readonly #o: EnrolmentServerOptions;
  readonly #now: () => number;
  readonly #server: Server;
  readonly #door: Doorkeeper;
  readonly #wrong = new Buckets(WRONG_EACH);
  readonly #signatures = new Buckets(SIGNED_EACH);
  readonly #sockets = new Set<Socket>();
  readonly #unsubscribe: () => void;
  readonly #lines: Repetition;
  #atWork = 0;
  #port = 0;
  #stopping: Promise<void> | undefined;

  constructor(options: EnrolmentServerOptions) {
    this.#o = options;
    this.#now = options.nowMs ?? (() => performance.now());
    const { authority, requestMs = REQUEST_MS } = options;
    const limits = {
      headersTimeout: requestMs,
      requestTimeout: requestMs,
      handshakeTimeout: requestMs,
      connectionsCheckingInterval: requestMs / 4,
    };
    const tls = { ...this.#identity(), requestCert: true, rejectUnauthorized: false, minVersion: 'TLSv1.3' } as const;
    this.#server = createServer({ ...tls, ...limits, maxHeaderSize: 4096, keepAliveTimeout: 1_000 }, (request, response) => {
      void this.#serve(request, response);
    });
    // Some are on their way out.
    this.#server.maxConnections = 2 * (PLACES + MOST_AT_WORK);
    this.#lines = new Repetition((line) => options.log?.(line));
    this.#door = new Doorkeeper(this.#server, {
      places: PLACES,
      nowMs: this.#now,
      log: (line) => options.log?.(`enrolment: ${line}`),
    });
    this.#server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
    // Somebody who speaks no TLS, or hangs up in the middle: nothing to say to anybody.
    this.#server.on('tlsClientError', (_error, socket) => socket.destroy());
    this.#unsubscribe = authority.source.onChange(() => this.#server.setSecureContext(this.#identity()));
  }

  /** Throws PORT_IN_USE, BROKER_UNREACHABLE when the address cannot be listened on. */
  async start(): Promise<void> {
    this.#port = await listen(this.#server, this.#o.host ?? '0.0.0.0', this.#o.port);
  }

  get port(): number {
    return this.#port;
  }

  /** Idempotent; leaves no timer and no socket. */
  stop(): Promise<void> {
    this.#stopping ??= this.#end();
    return this.#stopping;
  }

  async #end(): Promise<void> {
    this.#unsubscribe();
    const closed = new Promise<void>((resolve) => (this.#server.listening ? this.#server.close(() => resolve()) : resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #identity(): { readonly cert: string; readonly key: string } {
    const { certificate: cert, key } = this.#o.authority.source.current;
    return { cert, key };
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const host = plainAddress(request.socket.remoteAddress ?? '');
    let answer: Answer | undefined;
    try {
      answer = await this.#answer(request, host);
    } catch (thrown) {
      const error = toChairError(thrown);
      if (WRONG.has(error.code)) this.#wrong.of(host, this.#now()).take(this.#now());
      const known = STATUS[error.code];
      // What went wrong in here is nobody's business out there.
      if (known === undefined) this.#lines.say(error.code, `enrolment: ${error.code}: ${error.message}`);
      const body = known === undefined ? { code: 'INTERNAL', message: 'the gateway could not do it; its log says why' } : error;
      answer = { status: known ?? 500, body: { code: body.code, message: body.message } };
    }
    if (answer === undefined) {
      response.destroy();
      return;
    }
    const text = typeof answer.body === 'string' ? answer.body : `${JSON.stringify(answer.body)}\n`;
    const type = typeof answer.body === 'string' ? 'application/x-pem-file' : 'application/json';
    // One request a connection: whoever refused to send its body must not go on with it.
    response.writeHead(answer.status, { 'content-type': type, 'content-length': Buffer.byteLength(text), connection: 'close' });
    response.end(text);
  }

  /** Undefined: whoever asked has gone. */
  async #answer(request: IncomingMessage, host: string): Promise<Answer | undefined> {
    const { authority } = this.#o;
    switch (`${request.method} ${request.url}`) {
      case 'GET /ca':
        return { status: 200, body: authority.ca };
      case 'GET /time':
        return { status: 200, body: { nowMs: authority.source.nowMs() } };
      case 'POST /enrol':
        return this.#asked(request, host, (body) => this.#join(body, host));
      case 'POST /renew':
        return this.#asked(request, host, (body) => this.#renew(request, body, host));
      default:
        return { status: 404, body: { code: 'JOIN_REFUSED', message: 'there is GET /ca, GET /time, POST /enrol and POST /renew' } };
    }
  }

  async #asked(request: IncomingMessage, host: string, work: (body: Body) => Promise<Answer>): Promise<Answer | undefined> {
    const body = await bodyOf(request);
    if (body === undefined) return undefined;
    this.#door.heard(request.socket);
    const waitMs = this.#wrong.of(host, this.#now()).waitMs(this.#now());
    if (waitMs > 0 && !this.#isOurs(request, body)) throw busy(waitMs);
    if (this.#atWork >= MOST_AT_WORK) throw busy(BUSY_MS);
    this.#atWork++;
    try {
      return await work(body);
    } finally {
      this.#atWork--;
    }
  }

  /** Whoever has a certificate of ours, or knows the id of a token, which nobody can guess, does not wait because others behind his address are wrong. */
  #isOurs(request: IncomingMessage, body: Body): boolean {
    const { authority } = this.#o;
    const certificate = certificateOf(request);
    if (certificate === undefined) return authority.hasToken(tokenIdOf(textOf(body, 'token')));
    return this.#holderOf(certificate) !== undefined;
  }

  /** Undefined: it is not of ours, or void. */
  #holderOf(certificate: X509Certificate): Identity | undefined {
    const { authority } = this.#o;
    const isRevoked = (identity: Identity, serial: string): boolean => authority.isRevoked(identity, serial);
    try {
      return verifyPeer(certificate, { ca: authority.ca, cluster: authority.cluster, nowMs: undefined, isRevoked });
    } catch {
      return undefined;
    }
  }

  async #join(body: Body, host: string): Promise<Answer> {
    const [token, csr, name, asked] = ['token', 'csr', 'name', 'role'].map((key) => textOf(body, key));
    const role: Role | undefined = ROLES.find((known) => known === asked);
    if (asked !== '' && role === undefined) throw new ChairError('JOIN_REFUSED', 'a request to join names a role that there is not');
    const request: JoinRequest = { token: token ?? '', csr: csr ?? '', name: name ?? '', role: role ?? '' };
    // Tokens are one each, so whoever repeats one for ever is held up here.
    const id = tokenIdOf(request.token);
    return this.#signed(this.#o.authority.hasToken(id) ? `token ${id}` : undefined, () => this.#o.authority.join(request, host));
  }

  async #renew(request: IncomingMessage, body: Body, host: string): Promise<Answer> {
    const certificate = certificateOf(request);
    if (certificate === undefined) {
      throw new ChairError('JOIN_REFUSED', 'a request to renew came without a certificate', {
        expected: 'the one to renew, in the TLS handshake',
      });
    }
    const csr = textOf(body, 'csr');
    // By name: each renewed certificate could renew itself else.
    const holder = this.#holderOf(certificate);
    const key = holder === undefined ? undefined : `renewal of ${holder.role}/${holder.name}`;
    return this.#signed(key, () => this.#o.authority.renew(certificate, csr, host));
  }

  /** Whoever waits to be approved may ask as often as it likes: only signatures count. `key`: undefined of those for whom nothing will be signed. */
  async #signed(key: string | undefined, sign: () => Promise<JoinAnswer>): Promise<Answer> {
    const bucket = key === undefined ? undefined : this.#signatures.of(key, this.#now());
    // Before it is signed: many come at once.
    if (bucket?.take(this.#now()) === false) throw busy(bucket.waitMs(this.#now()));
    let answer: JoinAnswer | undefined;
    try {
      answer = await sign();
    } finally {
      if (answer?.kind !== 'signed') bucket?.give();
    }
    return answered(answer, this.#o.broker?.() ?? '');
  }
}

/** What whoever asks has shown; nobody has judged it. */
function certificateOf({ socket }: IncomingMessage): X509Certificate | undefined {
  return socket instanceof TLSSocket ? socket.getPeerX509Certificate() : undefined;
}

/** '' of what is no token. */
function tokenIdOf(text: string): string {
  try {
    return parseToken(text).id;
  } catch {
    return '';
  }
}

function answered(answer: JoinAnswer, broker: string): Answer {
  if (answer.kind === 'held') return { status: 202, body: { name: answer.name, key: answer.key } };
  return { status: 200, body: { certificate: answer.certificate, ca: answer.ca, broker } };
}

function busy(waitMs: number): ChairError {
  return new ChairError('JOIN_BUSY', 'too many requests', { todo: `Try again in ${Math.ceil(waitMs / 1000)} s.` });
}

/** '' when it is not there. Throws JOIN_REFUSED for what is no text. */
function textOf(body: Body, key: string): string {
  const value = body[key] ?? '';
  if (typeof value === 'string') return value;
  throw new ChairError('JOIN_REFUSED', `"${key}" in a request is no text`);
}

/** Undefined when the request broke off. Throws JOIN_REFUSED for what is too long, or no JSON object. */
async function bodyOf(request: IncomingMessage): Promise<Body | undefined> {
  const chunks = await chunksOf(request);
  if (chunks === undefined) return undefined;
  try {
    const body: unknown = JSON.parse(Buffer.concat(chunks).toString('utf8'));
    if (typeof body === 'object' && body !== null && !Array.isArray(body)) return Object.fromEntries(Object.entries(body));
  } catch {
    // Said below.
  }
  throw new ChairError('JOIN_REFUSED', 'a request is not a JSON object');
}

async function chunksOf(request: IncomingMessage): Promise<Buffer[] | undefined> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of request) {
      if (!(chunk instanceof Buffer)) break;
      bytes += chunk.length;
      if (bytes > MAX_BODY_BYTES)
        throw new ChairError('JOIN_REFUSED', 'a request is too long', { expected: `at most ${MAX_BODY_BYTES} bytes` });
      chunks.push(chunk);
    }
  } catch (error) {
    // Whoever hangs up in the middle, or is too slow, is no fault of ours, and hears no answer.
    if (isChairError(error)) throw error;
    return undefined;
  }
  return chunks;
}

/**
 * The embedded MQTT broker: aedes behind a packet guard, with bounds and an end, and with trust behind TLS: then the certificate's name is who a client is, and acl.ts
 * says what it may. The only file that imports aedes.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { Aedes, type Client } from 'aedes';
import { type Attempt, permits, permitsClient } from './acl.js';
import { identityText } from './credentials/credentials.js';
import { Doorkeeper } from './doorkeeper.js';
import { ChairError, isChairError, toChairError } from './errors.js';
import { plainAddress } from './host.js';
import { listen } from './listen.js';
import { PacketGuard } from './packet-guard.js';
import { Repetition } from './repetition.js';
import { createTlsServer, endWhenOver, type Peer } from './tls.js';
import { nameOf } from './topics.js';
import type { Trust } from './trust.js';

export interface BrokerOptions {
  /** Address to listen on; default `0.0.0.0`. */
  readonly host?: string;
  /** 0 = any free port. */
  readonly port: number;
  /** Largest packet accepted, in bytes; default 32 MiB: a relayed activation of 8 MB with room. */
  readonly maxPacketBytes?: number;
  /** A subscriber that does not read for this long while something waits for it is disconnected; default 20,000 ms. Nobody waits for it meanwhile. */
  readonly drainTimeoutMs?: number;
  /** A subscriber for which more waits is disconnected; default 64 MiB. */
  readonly maxWaitingBytes?: number;
  /** A connection without CONNECT is ended after this; default 5,000 ms. */
  readonly connectTimeoutMs?: number;
  /** How often aedes looks after itself; default 60,000 ms. For tests. */
  readonly heartbeatMs?: number;
  /** Most connections at once; default 4,096. Those that have not been let in may be 512 of them, and no more than half (doorkeeper.ts). */
  readonly maxConnections?: number;
  /** TLS with client certificates; everybody may do what acl.ts permits, and nothing else. Default: plain MQTT, and everybody may do everything. */
  readonly trust?: Trust;
  /** Without trust: may this client publish on (also as its Last Will) or subscribe to this topic? Default: yes. */
  readonly authorize?: (request: AccessRequest) => boolean;
  readonly log?: (line: string) => void;
}

export interface AccessRequest extends Attempt {
  readonly clientId: string;
}

export interface BrokerStats {
  readonly clients: number;
  readonly connections: number;
  /** Since start, on all connections. */
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly messagesIn: number;
  /** Connections ended for a packet over the limit, for not reading what was said to them, and for anything else (no MQTT, keep-alive, refused topic). */
  readonly tooLarge: number;
  readonly notReading: number;
  readonly otherErrors: number;
  /** Turned away before MQTT: no TLS, no certificate of ours, expired, revoked. */
  readonly untrusted: number;
  /** Clients that came under a name that was connected already, from another process: both stay, and the scheduler refuses the second agent. */
  readonly duplicates: number;
}

export interface BrokerServer {
  /** For clients on this machine. */
  readonly url: string;
  readonly host: string;
  readonly port: number;
  stats(): BrokerStats;
  /** Ends every connection and frees the port. Idempotent. */
  stop(): Promise<void>;
}

/** As many as may wait to be accepted: when a whole fleet comes back at once, it does not push itself out. */
const MAX_STRANGERS = 512;
/** Longest topic of anybody, and of a client id. */
const MOST_TOPIC_CHARACTERS = 512;
const MOST_ID_CHARACTERS = 256;
/** CONNACK return codes (MQTT 3.1.1, 3.2.2.3). */
const IDENTIFIER_REJECTED = 2;
const NOT_AUTHORIZED = 5;

/** Throws PORT_IN_USE, or BROKER_UNREACHABLE when the address cannot be listened on for another reason. */
export async function startBroker(options: BrokerOptions): Promise<BrokerServer> {
  const server = new EmbeddedBroker(options);
  await server.start();
  return server;
}

class EmbeddedBroker implements BrokerServer {
  readonly host: string;
  readonly #options: BrokerOptions;
  /** By connection: who is at its other end, if that is known. */
  readonly #sockets = new Map<Socket, { readonly guard: PacketGuard; readonly peer: Peer | undefined }>();
  readonly #peers = new WeakMap<object, Peer>();
  /** Clients whose CONNECT is answered with a refusal. */
  readonly #turnedAway = new WeakMap<Client, { readonly returnCode: number; readonly error: ChairError }>();
  readonly #closedBytes = { in: 0, out: 0 };
  /** Much of what is said there was chosen by strangers. */
  readonly #lines: Repetition;
  readonly #counts = { messagesIn: 0, tooLarge: 0, notReading: 0, otherErrors: 0, untrusted: 0, duplicates: 0 };
  #offRevoked: (() => void) | undefined;
  #door: Doorkeeper | undefined;
  #aedes: Aedes | undefined;
  #server: Server | undefined;
  #port = 0;
  #stopping: Promise<void> | undefined;

  constructor(options: BrokerOptions) {
    this.#options = options;
    this.#lines = new Repetition((line) => options.log?.(line));
    this.host = options.host ?? '0.0.0.0';
  }

  get port(): number {
    return this.#port;
  }

  get url(): string {
    const anywhere = this.host === '0.0.0.0' || this.host === '::';
    const host = anywhere ? '127.0.0.1' : this.host;
    return `mqtt${this.#options.trust === undefined ? '' : 's'}://${host.includes(':') ? `[${host}]` : host}:${this.#port}`;
  }

  async start(): Promise<void> {
    const { drainTimeoutMs = 20_000, connectTimeoutMs = 5_000, heartbeatMs = 60_000, maxConnections = 4_096 } = this.#options;
    const aedes = await Aedes.createBroker({
      drainTimeout: drainTimeoutMs,
      connectTimeout: connectTimeoutMs,
      heartbeatInterval: heartbeatMs,
      preConnect: (client, packet, done) => {
        this.#judge(client, packet);
        done(null, true);
      },
      // Asked after preConnect, and answered with CONNACK.
      authenticate: (client, _username, _password, done) => {
        const refused = this.#turnedAway.get(client);
        if (refused === undefined) done(null, true);
        else done(Object.assign(refused.error, { returnCode: refused.returnCode }), false);
      },
      authorizePublish: (client, packet, done) => {
        const { topic, retain } = packet;
        done(client === null ? null : this.#refusal(client, client.id, { action: 'publish', topic, retain }));
      },
      authorizeSubscribe: (client, subscription, done) => {
        // A null subscription answers SUBACK 0x80 (failure) and keeps the client.
        const refused = this.#refusal(client, client.id, { action: 'subscribe', topic: subscription.topic });
        done(null, refused === null ? subscription : null);
      },
    });
    this.#aedes = aedes;
    keepAlive(aedes);
    this.#watch(aedes);
    const server = this.#createServer(aedes);
    server.maxConnections = maxConnections;
    this.#door = new Doorkeeper(server, {
      places: Math.min(MAX_STRANGERS, Math.ceil(maxConnections / 2)),
      log: (line) => this.#options.log?.(`broker: ${line}`),
    });
    this.#server = server;
    try {
      this.#port = await listen(server, this.host, this.#options.port);
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  #createServer(aedes: Aedes): Server {
    const { trust } = this.#options;
    if (trust === undefined) return createServer({ noDelay: true }, (socket) => this.#accept(aedes, socket, undefined));
    this.#offRevoked = trust.onRevoked(() => this.#dropRevoked(trust));
    return createTlsServer({
      trust,
      onPeer: (socket, peer) => this.#accept(aedes, socket, peer),
      onRefused: (error, address) => {
        this.#counts.untrusted++;
        const host = plainAddress(address);
        this.#lines.say(
          `${error.code} ${host}`,
          `broker: ${error.code}: ${error.message} (${host === '' ? 'gone since' : `from ${host}`})`,
        );
      },
    });
  }

  /** At once: what it sends from now on is not read. Its Last Will is spoken, and so its seats go to others. */
  #dropRevoked(trust: Trust): void {
    for (const { guard, peer } of this.#sockets.values()) {
      if (peer === undefined || !trust.isRevoked(peer.identity, peer.serial)) continue;
      guard.destroy(new ChairError('CERTIFICATE_REVOKED', `the certificate of ${identityText(peer.identity)} was revoked`));
    }
  }

  stats(): BrokerStats {
    let [bytesIn, bytesOut] = [this.#closedBytes.in, this.#closedBytes.out];
    for (const socket of this.#sockets.keys()) {
      bytesIn += socket.bytesRead;
      bytesOut += socket.bytesWritten;
    }
    return { clients: this.#aedes?.connectedClients ?? 0, connections: this.#sockets.size, bytesIn, bytesOut, ...this.#counts };
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#end();
    return this.#stopping;
  }

  async #end(): Promise<void> {
    const [aedes, server] = [this.#aedes, this.#server];
    const closed = new Promise<void>((resolve) => (server?.listening === true ? server.close(() => resolve()) : resolve()));
    if (aedes !== undefined) await new Promise<void>((resolve) => aedes.close(() => resolve()));
    this.#offRevoked?.();
    // Also connections that never became clients, and those of whom nothing is known yet.
    this.#door?.stop();
    for (const socket of this.#sockets.keys()) socket.destroy();
    await closed;
  }

  #accept(aedes: Aedes, socket: Socket, peer: Peer | undefined): void {
    const { maxPacketBytes = 32 * 1024 * 1024, maxWaitingBytes: waitingBytes, drainTimeoutMs: stalledMs } = this.#options;
    const patience = { ...(waitingBytes === undefined ? {} : { waitingBytes }), ...(stalledMs === undefined ? {} : { stalledMs }) };
    const guard = new PacketGuard(socket, maxPacketBytes, patience);
    this.#sockets.set(socket, { guard, peer });
    if (peer !== undefined) this.#peers.set(guard, peer);
    const { trust } = this.#options;
    if (peer !== undefined && trust !== undefined) {
      endWhenOver(socket, peer, trust, (error) => {
        trust.refused?.(error, peer.identity, socket.remoteAddress ?? '');
        guard.destroy(error);
      });
    }
    socket.once('close', () => {
      this.#sockets.delete(socket);
      this.#closedBytes.in += socket.bytesRead;
      this.#closedBytes.out += socket.bytesWritten;
    });
    aedes.handle(guard);
  }

  /** Whether a client may come in, by its CONNECT. */
  #judge(client: Client, { clientId, clean, will }: ConnectWords): void {
    const turnAway = (returnCode: number, error: ChairError): void => void this.#turnedAway.set(client, { returnCode, error });
    // [MQTT-3.1.3-8]: an id that the server makes up cannot have a session to come back to.
    if (clientId === '' && clean === false) {
      turnAway(IDENTIFIER_REJECTED, new ChairError('BROKER_REFUSED', 'a client without an id asked for a stored session'));
      return;
    }
    const peer = this.#peers.get(client.conn);
    if (peer !== undefined && clean === false) {
      // It would be kept in memory, with all that is said to it, for as long as the broker runs.
      const error = new ChairError(
        'BROKER_REFUSED',
        `${identityText(peer.identity)} asked for a stored session: nothing is kept for those who are away`,
      );
      this.#options.trust?.refused?.(error, peer.identity, addressOf(client));
      turnAway(IDENTIFIER_REJECTED, error);
      return;
    }
    const why = clientId.length > MOST_ID_CHARACTERS ? 'its id is too long' : peer && permitsClient(peer.identity, nameOf(clientId));
    if (why !== undefined && why !== '') {
      const error = new ChairError('BROKER_REFUSED', `a client was turned away: ${why}`);
      this.#options.trust?.refused?.(error, peer?.identity, addressOf(client));
      turnAway(IDENTIFIER_REJECTED, error);
      return;
    }
    const refused = will && this.#refusal(client, clientId, { action: 'will', topic: will.topic, retain: will.retain === true });
    if (refused) turnAway(NOT_AUTHORIZED, refused);
  }

  #watch(aedes: Aedes): void {
    aedes.on('clientReady', (client: Client) => {
      if (client.conn instanceof PacketGuard) {
        this.#door?.known(client.conn.socket);
        client.conn.release();
      }
      this.#noteDuplicate(aedes, client);
    });
    aedes.on('publish', (_packet: unknown, client: Client | null) => {
      if (client !== null) this.#counts.messagesIn++;
    });
    const known = new WeakSet<Client>();
    // Once of each: what was on its way to it fails, too.
    const failed = (client: Client, error: Error) => {
      if (known.has(client)) return;
      known.add(client);
      if (isChairError(error, 'PACKET_TOO_LARGE')) this.#counts.tooLarge++;
      else if (isChairError(error, 'QUEUE_FULL')) this.#counts.notReading++;
      else this.#counts.otherErrors++;
      const who = client.id ? nameOf(client.id) : addressOf(client);
      this.#lines.say(
        `dropped ${who} ${toChairError(error).code}`,
        `broker: client ${client.id ?? '(not connected)'} dropped: ${error.message}`,
      );
    };
    aedes.on('clientError', failed);
    aedes.on('connectionError', failed);
    aedes.on('keepaliveTimeout', (client: Client) =>
      this.#lines.say(`silent ${nameOf(client.id)}`, `broker: client ${client.id} missed its keep-alive`),
    );
  }

  /** Two processes with one certificate (a card that was copied, say) are told of, and do not throw each other out. */
  #noteDuplicate(aedes: Aedes, client: Client): void {
    const peer = this.#peers.get(client.conn);
    if (peer === undefined) return;
    const name = nameOf(client.id);
    const isThere = Object.values(clientsOf(aedes)).some((other) => other !== client && !other.closed && nameOf(other.id) === name);
    if (!isThere) return;
    this.#counts.duplicates++;
    this.#lines.say(`twice ${name}`, `broker: ${identityText(peer.identity)} is connected twice, now also from ${addressOf(client)}`);
  }

  #refusal(client: Client, clientId: string, attempt: Attempt): ChairError | null {
    const { action, topic } = attempt;
    const peer = this.#peers.get(client.conn);
    const why = peer === undefined ? this.#whyNot(clientId, attempt) : permits(peer.identity, attempt);
    if (why === '') return null;
    const error = new ChairError(
      'BROKER_REFUSED',
      `client ${clientId} may not ${action} on ${topic.slice(0, MOST_TOPIC_CHARACTERS)}: ${why}`,
    );
    this.#options.trust?.refused?.(error, peer?.identity, addressOf(client));
    return error;
  }

  /** Of clients that nobody knows. */
  #whyNot(clientId: string, attempt: Attempt): string {
    const { topic, action } = attempt;
    if (topic.length > MOST_TOPIC_CHARACTERS || topic.includes('\0')) return 'it is too long, or no text';
    if (action !== 'subscribe' && topic.startsWith('$')) return "topics that begin with $ are the broker's";
    return (this.#options.authorize?.({ ...attempt, clientId }) ?? true) ? '' : 'it is not permitted';
  }
}

/** What is looked at of a CONNECT packet. */
interface ConnectWords {
  readonly clientId: string;
  readonly clean?: boolean | undefined;
  readonly will?: { readonly topic: string; readonly retain?: boolean | undefined } | undefined;
}

function addressOf({ conn }: Client): string {
  return conn instanceof PacketGuard ? (conn.socket.remoteAddress ?? '') : '';
}

function clientsOf(aedes: Aedes): Readonly<Record<string, Client>> {
  return (aedes as unknown as { readonly clients: Record<string, Client> }).clients;
}

/**
 * Aedes notes by the wall clock when it last heard of each broker that shares its store, itself included, and publishes the Last Wills of the clients of one that fell
 * silent. When the clock jumps forward, that is itself: all agents would be said to be gone at once. There is no other broker here, and this one lives.
 */
function keepAlive(aedes: Aedes): void {
  const { brokers } = aedes as unknown as { readonly brokers: Record<string, number> };
  Object.defineProperty(brokers, aedes.id, { enumerable: true, get: () => Number.POSITIVE_INFINITY, set: () => undefined });
}

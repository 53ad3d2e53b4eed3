/** The embedded MQTT broker: aedes behind a packet guard, with bounds and an end. The only file that imports aedes. */
import { createServer, type Server, type Socket } from 'node:net';
import { Aedes, type Client } from 'aedes';
import { ChairError, isChairError } from './errors.js';
import { listen } from './listen.js';
import { PacketGuard } from './packet-guard.js';

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
  /** Most connections at once; default 4,096. */
  readonly maxConnections?: number;
  /** May this client publish on (also as its Last Will) or subscribe to this topic? Default: yes. `$` topics and wildcards are refused before. */
  readonly authorize?: (request: AccessRequest) => boolean;
  readonly log?: (line: string) => void;
}

export interface AccessRequest {
  readonly clientId: string;
  readonly action: 'publish' | 'will' | 'subscribe';
  readonly topic: string;
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

/** Throws PORT_IN_USE, or BROKER_UNREACHABLE when the address cannot be listened on for another reason. */
export async function startBroker(options: BrokerOptions): Promise<BrokerServer> {
  const server = new EmbeddedBroker(options);
  await server.start();
  return server;
}

class EmbeddedBroker implements BrokerServer {
  readonly host: string;
  readonly #options: BrokerOptions;
  readonly #sockets = new Set<Socket>();
  readonly #closedBytes = { in: 0, out: 0 };
  readonly #counts = { messagesIn: 0, tooLarge: 0, notReading: 0, otherErrors: 0 };
  #aedes: Aedes | undefined;
  #server: Server | undefined;
  #port = 0;
  #stopping: Promise<void> | undefined;

  constructor(options: BrokerOptions) {
    this.#options = options;
    this.host = options.host ?? '0.0.0.0';
  }

  get port(): number {
    return this.#port;
  }

  get url(): string {
    const anywhere = this.host === '0.0.0.0' || this.host === '::';
    const host = anywhere ? '127.0.0.1' : this.host;
    return `mqtt://${host.includes(':') ? `[${host}]` : host}:${this.#port}`;
  }

  async start(): Promise<void> {
    const { drainTimeoutMs = 20_000, connectTimeoutMs = 5_000, heartbeatMs = 60_000, maxConnections = 4_096 } = this.#options;
    const aedes = await Aedes.createBroker({
      drainTimeout: drainTimeoutMs,
      connectTimeout: connectTimeoutMs,
      heartbeatInterval: heartbeatMs,
      preConnect: (_client, packet, done) => {
        const will = packet.will?.topic;
        done(will === undefined ? null : this.#refusal(packet.clientId, 'will', will), true);
      },
      authorizePublish: (client, packet, done) => done(client === null ? null : this.#refusal(client.id, 'publish', packet.topic)),
      authorizeSubscribe: (client, subscription, done) => {
        // A null subscription answers SUBACK 0x80 (failure) and keeps the client.
        done(null, this.#refusal(client.id, 'subscribe', subscription.topic) === null ? subscription : null);
      },
    });
    this.#aedes = aedes;
    keepAlive(aedes);
    this.#watch(aedes);
    const server = createServer({ noDelay: true }, (socket) => this.#accept(aedes, socket));
    server.maxConnections = maxConnections;
    this.#server = server;
    try {
      this.#port = await listen(server, this.host, this.#options.port);
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  stats(): BrokerStats {
    let [bytesIn, bytesOut] = [this.#closedBytes.in, this.#closedBytes.out];
    for (const socket of this.#sockets) {
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
    // Also connections that never became clients.
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #accept(aedes: Aedes, socket: Socket): void {
    this.#sockets.add(socket);
    socket.once('close', () => {
      this.#sockets.delete(socket);
      this.#closedBytes.in += socket.bytesRead;
      this.#closedBytes.out += socket.bytesWritten;
    });
    const { maxPacketBytes = 32 * 1024 * 1024, maxWaitingBytes: waitingBytes, drainTimeoutMs: stalledMs } = this.#options;
    const patience = { ...(waitingBytes === undefined ? {} : { waitingBytes }), ...(stalledMs === undefined ? {} : { stalledMs }) };
    const guard = new PacketGuard(socket, maxPacketBytes, patience);
    aedes.handle(guard);
  }

  #watch(aedes: Aedes): void {
    aedes.on('clientReady', (client: Client) => {
      if (client.conn instanceof PacketGuard) client.conn.release();
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
      this.#options.log?.(`broker: client ${client.id ?? '(not connected)'} dropped: ${error.message}`);
    };
    aedes.on('clientError', failed);
    aedes.on('connectionError', failed);
    aedes.on('keepaliveTimeout', (client: Client) => this.#options.log?.(`broker: client ${client.id} missed its keep-alive`));
  }

  #refusal(clientId: string, action: AccessRequest['action'], topic: string): Error | null {
    const reserved = topic.startsWith('$') || topic.length > 512 || /[+#\0]/.test(topic);
    if (!reserved && (this.#options.authorize?.({ clientId, action, topic }) ?? true)) return null;
    return new ChairError('BROKER_REFUSED', `client ${clientId} may not ${action} on ${topic}`);
  }
}

/**
 * Aedes notes by the wall clock when it last heard of each broker that shares its store, itself included, and publishes the Last Wills of the clients of one that fell
 * silent. When the clock jumps forward, that is itself: all agents would be said to be gone at once. There is no other broker here, and this one lives.
 */
function keepAlive(aedes: Aedes): void {
  const { brokers } = aedes as unknown as { readonly brokers: Record<string, number> };
  Object.defineProperty(brokers, aedes.id, { enumerable: true, get: () => Number.POSITIVE_INFINITY, set: () => undefined });
}

/**
 * The control plane over MQTT 3.1.1. The only file that imports mqtt.js.
 *
 * Every connection is a fresh mqtt.js client without reconnection of its own: its period is fixed, it may stay "connecting" for ever after a broker
 * restart, and its queues have no bound. Here: full jitter, a watchdog, bounds, and subscriptions restored before anyone hears of the connection.
 * Long, because nothing that touches mqtt.js may be elsewhere; what does not is in backoff.ts, subscriptions.ts and listeners.ts.
 */
import { randomBytes } from 'node:crypto';
import { Socket } from 'node:net';
import mqtt, { type IClientOptions, type MqttClient } from 'mqtt';
import { permits } from './acl.js';
import { backoffMs } from './backoff.js';
import type { Bus } from './bus.js';
import { encode } from './codec.js';
import { ChairError, type ErrorCode, isChairError } from './errors.js';
import { Listeners } from './listeners.js';
import { publicUrl } from './public-url.js';
import { type ByteHandler, checkName, filterOf, Subscriptions } from './subscriptions.js';
import { dialTls, TlsSessions } from './tls.js';
import { speakerOn, spokenBy, type Topic } from './topics.js';
import { ownIdentity, type Trust } from './trust.js';

export interface BusOptions<T = unknown> {
  /** `mqtt://host:port`, as a rule; any URL that mqtt.js knows. Or where it is to be learned before each attempt: what that rejects with ends the attempt. */
  readonly url: string | ((signal: AbortSignal) => Promise<string>);
  /** TLS with our certificate, to a gateway or broker of our cluster's CA; only for `mqtts:` URLs. Default: as the URL says, without a certificate. */
  readonly trust?: Trust;
  /** Own name; the client id is this, `~` and a random nonce: an MQTT client id is no lock on a name. */
  readonly id: string;
  /** Published by the broker when the connection ends without `stop`. */
  readonly will?: { readonly topic: Topic<T>; readonly value: T };
  /** For one attempt; default 5,000 ms. */
  readonly connectTimeoutMs?: number;
  /** Keep trying when the first attempt fails, and resolve at once: for agents that boot before their gateway. Default false. */
  readonly retryFirst?: boolean;
  readonly keepaliveSeconds?: number;
  /** What the broker accepts; a larger publish fails here instead of costing the connection. Default 32 MiB. */
  readonly maxPacketBytes?: number;
  /** Bytes handed to the socket or waiting for it; default 64 MiB. */
  readonly maxQueuedBytes?: number;
  /** An attempt failed, and another one follows: for the log. */
  readonly onFailed?: (error: Error) => void;
  /** Ends the wait for the first connection. */
  readonly signal?: AbortSignal;
  readonly random?: () => number;
}

/** QoS 1 messages kept while disconnected. */
const MAX_OFFLINE_MESSAGES = 64;
const MAX_OFFLINE_BYTES = 1024 * 1024;
/** More than mqtt.js's own connect time-out: it only acts when that has failed to. */
const WATCHDOG_EXTRA_MS = 1_000;
const FAREWELL_MS = 500;
/** Turned away again and again, the gateway is asked so often whether our certificate is over. */
const LOOK_AGAIN_MS = 60_000;
/** MQTT over TLS (IANA). */
const SECURE_PORT = 8883;

/**
 * Connects to a broker. Throws BROKER_UNREACHABLE when the first attempt fails (unless `retryFirst`), BROKER_REFUSED when the broker does not let us in, CERTIFICATE_...
 * when it is not one of our cluster, STOPPED when the signal aborts it, AGENT_NAME_INVALID, CODEC_INVALID for a will that does not fit its schema.
 */
export async function connectBus<T = unknown>(options: BusOptions<T>): Promise<Bus> {
  checkName(options.id, 'bus id');
  const { will } = options;
  const bus = new MqttBus(options, will === undefined ? undefined : willOf(options.id, will));
  await bus.start();
  return bus;
}

function encodeFor<T>(topic: Topic<T>, value: T): Buffer {
  return encode(topic.schema, value, topic.version);
}

/** Where `id` publishes what it says on this topic. */
function nameFor<T>(topic: Topic<T>, id: string): string {
  return topic.speaker === undefined ? topic.name : spokenBy(topic.name, speakerOn(topic, id));
}

function willOf<T>(id: string, { topic, value }: { readonly topic: Topic<T>; readonly value: T }): { topic: string; payload: Buffer } {
  return { topic: nameFor(topic, id), payload: encodeFor(topic, value) };
}

interface Outgoing {
  readonly name: string;
  readonly payload: Uint8Array;
  readonly qos: 0 | 1;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

class MqttBus implements Bus {
  readonly id: string;
  readonly #options: Omit<BusOptions, 'will'>;
  #connection: IClientOptions;
  readonly #subscriptions = new Subscriptions();
  readonly #connects = new Listeners<[]>((error) => this.#subscriptions.refuse('(onConnect)', error));
  readonly #disconnects = new Listeners<[string]>((error) => this.#subscriptions.refuse('(onDisconnect)', error));
  /** Given to mqtt.js and not called back yet. */
  readonly #underWay = new Set<Outgoing>();
  #underWayBytes = 0;
  /** QoS 1, while disconnected. */
  #offline: Outgoing[] = [];
  #offlineBytes = 0;
  /** The live connection, after its subscriptions are restored. */
  #client: MqttClient | undefined;
  /** The attempt under way. */
  #attempting: MqttClient | undefined;
  /** Its TLS connection, before there is a client. */
  #dialling: Socket | undefined;
  #retry: NodeJS.Timeout | undefined;
  #failures = 0;
  #lookedMs = Number.NEGATIVE_INFINITY;
  /** Of the latest attempt. */
  #url: string;
  readonly #sessions = new TlsSessions();
  readonly #stopped = new AbortController();
  #stopping: Promise<void> | undefined;

  constructor(options: Omit<BusOptions, 'will'>, will: { topic: string; payload: Buffer } | undefined) {
    this.#options = options;
    this.id = options.id;
    this.#url = typeof options.url === 'string' ? options.url : 'an address not known yet';
    this.#connection = {
      // One id as long as connections only break: when it reconnects, the broker ends the old half-open one and publishes its will before the new hello.
      clientId: clientIdOf(options.id),
      protocolVersion: 4,
      clean: true,
      keepalive: options.keepaliveSeconds ?? 15,
      connectTimeout: options.connectTimeoutMs ?? 5_000,
      reconnectPeriod: 0,
      resubscribe: false,
      queueQoSZero: false,
      ...(will === undefined ? {} : { will: { ...will, qos: 1 as const, retain: false } }),
    };
  }

  get connected(): boolean {
    return this.#client !== undefined;
  }

  get localAddress(): string {
    const stream: unknown = this.#client?.stream;
    return stream instanceof Socket ? (stream.localAddress ?? '') : '';
  }

  reconnect<T>(why: string, will?: { readonly topic: Topic<T>; readonly value: T }): void {
    if (this.#stopping !== undefined) return;
    const spoken = will === undefined ? {} : { will: { ...willOf(this.id, will), qos: 1 as const, retain: false } };
    this.#connection = { ...this.#connection, clientId: clientIdOf(this.id), ...spoken };
    this.#failures = 0;
    const client = this.#client;
    if (this.#attempting !== undefined || this.#dialling !== undefined) {
      // From an address that is gone it may wait for long; another attempt follows.
      this.#attempting?.end(true);
      this.#dialling?.destroy(new Error(why));
      return;
    }
    clearTimeout(this.#retry);
    if (client !== undefined) {
      this.#forget(client, why);
      // DISCONNECT, if it still gets through: then the will is not published.
      void farewell(client);
    }
    this.#attempt().catch((error: Error) => this.#again(error));
  }

  async start(): Promise<void> {
    const { signal, retryFirst } = this.#options;
    const aborted = () => void this.stop();
    signal?.addEventListener('abort', aborted, { once: true });
    try {
      signal?.throwIfAborted();
      if (retryFirst === true) this.#attempt().catch((error: Error) => this.#again(error));
      else await this.#attempt();
    } catch (cause) {
      await this.stop();
      if (signal?.aborted === true) throw new ChairError('STOPPED', `connecting to ${publicUrl(this.#url)} was given up`, { cause });
      throw cause;
    } finally {
      if (retryFirst !== true) signal?.removeEventListener('abort', aborted);
    }
  }

  async publish<T>(topic: Topic<T>, value: T): Promise<void> {
    await this.publishBytes(nameFor(topic, this.id), encodeFor(topic, value), topic.qos);
  }

  async publishBytes(name: string, payload: Uint8Array, qos: 0 | 1 = 0): Promise<void> {
    this.#checkRunning();
    this.#checkMay(name);
    const limit = this.#options.maxPacketBytes ?? 32 * 1024 * 1024;
    // Fixed header, topic length and packet id beside topic and payload: at most 9 bytes.
    const packetBytes = payload.length + Buffer.byteLength(name) + 9;
    if (packetBytes > limit) {
      throw new ChairError('PACKET_TOO_LARGE', `a message on ${name} is larger than the broker takes`, {
        expected: `a packet of at most ${limit} bytes`,
        came: `${packetBytes}`,
      });
    }
    await new Promise<void>((resolve, reject) => {
      const outgoing: Outgoing = { name, payload, qos, resolve, reject };
      if (this.#client !== undefined) this.#hand(this.#client, outgoing);
      else this.#keep(outgoing);
    });
  }

  async subscribe<T>(topic: Topic<T>, handler: (value: T) => void): Promise<() => Promise<void>> {
    return this.subscribeBytes(filterOf(topic), this.#subscriptions.typed(topic, handler));
  }

  async subscribeBytes(name: string, handler: ByteHandler): Promise<() => Promise<void>> {
    this.#checkRunning();
    const client = this.#client;
    if (this.#subscriptions.add(name, handler) && client !== undefined) {
      try {
        await subscribeAll(client, [name]);
      } catch (error) {
        // A refusal is for the caller to know. Anything else is a connection that breaks: the next one restores it.
        if (isChairError(error, 'BROKER_REFUSED')) {
          this.#subscriptions.remove(name, handler);
          throw error;
        }
      }
    }
    return async () => {
      if (this.#subscriptions.remove(name, handler)) await this.#client?.unsubscribeAsync(name).catch(() => undefined);
    };
  }

  onConnect(listener: () => void): () => void {
    let pending = this.connected;
    const remove = this.#connects.add(() => {
      pending = false;
      listener();
    });
    queueMicrotask(() => {
      if (!pending || !this.connected) return;
      const once = new Listeners<[]>((error) => this.#subscriptions.refuse('(onConnect)', error));
      once.add(listener);
      once.emit();
    });
    return () => {
      pending = false;
      remove();
    };
  }

  onDisconnect(listener: (why: string) => void): () => void {
    return this.#disconnects.add(listener);
  }

  onRefused(listener: (topicName: string, error: Error) => void): () => void {
    return this.#subscriptions.refused.add(listener);
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#end();
    return this.#stopping;
  }

  async #end(): Promise<void> {
    clearTimeout(this.#retry);
    this.#stopped.abort();
    const client = this.#client;
    this.#client = undefined;
    const stopped = new ChairError('STOPPED', `bus ${this.id} was stopped`);
    this.#attempting?.end(true);
    this.#attempting?.emit('error', stopped);
    if (client !== undefined) await farewell(client);
    this.#rejectAll(stopped);
    this.#subscriptions.clear();
  }

  // ---- connection --------------------------------------------------------------------------------------------------------

  /** One attempt. Resolves when connected and subscribed, throws BROKER_UNREACHABLE, or what looking for the address rejects with. */
  async #attempt(): Promise<void> {
    const { url: where } = this.#options;
    if (typeof where !== 'string') this.#url = await where(this.#stopped.signal);
    if (this.#stopping !== undefined) return;
    const url = this.#url;
    let client: MqttClient | undefined;
    // A broker that lets us in and then says nothing must not hold the attempt either.
    const watchdogMs = (this.#connection.connectTimeout ?? 0) + WATCHDOG_EXTRA_MS;
    const watchdog = setTimeout(() => client?.end(true), 2 * watchdogMs);
    try {
      client = await this.#open(url);
      this.#attempting = client;
      const live = client;
      // An emitter without a listener throws; what matters is listened to where it matters.
      live.on('error', () => undefined);
      live.on('message', (name, payload) => this.#subscriptions.dispatch(name, payload));
      await opened(live, watchdogMs);
      // Subscriptions may be added while the first ones are confirmed.
      const confirmed = new Set<string>();
      for (;;) {
        const missing = this.#subscriptions.names.filter((name) => !confirmed.has(name));
        if (missing.length === 0) break;
        await subscribeAll(live, missing);
        for (const name of missing) confirmed.add(name);
      }
      this.#live(live);
    } catch (cause) {
      client?.end(true);
      throw connectError(url, cause);
    } finally {
      clearTimeout(watchdog);
      this.#attempting = undefined;
    }
  }

  /** A clock that was never set finds every certificate out of its time: then the gateway is asked for the time, and it is tried once more. */
  async #open(url: string): Promise<MqttClient> {
    try {
      return await this.#dial(url);
    } catch (error) {
      const { trust } = this.#options;
      if (trust === undefined || !isChairError(error, 'CERTIFICATE_EXPIRED')) throw error;
      await trust.source.look();
      return this.#dial(url);
    }
  }

  /** Behind TLS of ours nothing is said before it is known who is there. */
  async #dial(url: string): Promise<MqttClient> {
    const { trust, connectTimeoutMs = 5_000 } = this.#options;
    if (trust === undefined) return mqtt.connect(url, this.#connection);
    const { protocol, hostname, port } = new URL(url);
    if (protocol !== 'mqtts:') {
      throw new ChairError('INSECURE_REFUSED', `${publicUrl(url)} is plain MQTT`, {
        expected: 'mqtts://',
        todo: 'With --insecure everything is plain, and anybody on the network may listen and join.',
      });
    }
    const accepts = ({ role, name }: { readonly role: string; readonly name: string }) =>
      role === 'gateway' ? '' : `it is ${role} ${name}, and a broker has a certificate of the gateway`;
    const { socket, peer } = dialTls({
      host: hostname.replace(/^\[|\]$/g, ''),
      port: Number(port) || SECURE_PORT,
      trust,
      accepts,
      sessions: this.#sessions,
    });
    const giveUp = (): void => void socket.destroy(new ChairError('STOPPED', `bus ${this.id} was stopped`));
    const timer = setTimeout(() => socket.destroy(new Error(`no TLS handshake within ${connectTimeoutMs} ms`)), connectTimeoutMs);
    this.#stopped.signal.addEventListener('abort', giveUp, { once: true });
    this.#dialling = socket;
    try {
      await peer;
      return new mqtt.MqttClient(() => socket, this.#connection);
    } finally {
      clearTimeout(timer);
      this.#dialling = undefined;
      this.#stopped.signal.removeEventListener('abort', giveUp);
    }
  }

  /** A broker ends the connection of whoever publishes what he may not: better not to try. */
  #checkMay(topic: string): void {
    const { trust } = this.#options;
    const why = trust === undefined ? '' : permits(ownIdentity(trust), { action: 'publish', topic });
    if (why !== '') throw new ChairError('BROKER_REFUSED', `${topic} is not for us: ${why}`);
  }

  #live(client: MqttClient): void {
    if (this.#stopping !== undefined) {
      client.end(true);
      return;
    }
    if (!client.connected) throw new Error('the connection closed again');
    this.#client = client;
    this.#failures = 0;
    let reason = 'the connection closed';
    client.on('error', (error) => {
      reason = error.message;
    });
    client.once('close', () => this.#lost(client, reason));
    this.#connects.emit();
    // After the listeners: a hello goes out before what waited.
    for (const outgoing of this.#offline.splice(0)) this.#hand(client, outgoing);
    this.#offlineBytes = 0;
  }

  #lost(client: MqttClient, why: string): void {
    if (this.#client !== client) return;
    client.end(true);
    this.#again(this.#forget(client, why));
  }

  /** The connection is none of ours any more. What it was to carry is rejected with the error that is returned. */
  #forget(client: MqttClient, why: string): ChairError {
    if (this.#client === client) this.#client = undefined;
    const lost = new ChairError('BROKER_LOST', `lost the broker at ${publicUrl(this.#url)} (${why})`);
    for (const outgoing of [...this.#underWay]) this.#settle(outgoing, lost);
    this.#disconnects.emit(why);
    return lost;
  }

  #again(error: Error): void {
    if (this.#stopping !== undefined) return;
    this.#options.onFailed?.(error);
    if (isChairError(error, 'BROKER_REFUSED')) this.#lookAtCertificate();
    const waitMs = backoffMs(this.#failures++, this.#options.random ?? Math.random);
    this.#retry = setTimeout(() => {
      this.#attempt().catch((error: Error) => this.#again(error));
    }, waitMs);
  }

  /** The broker does not let us in: by the gateway's clock our certificate may be over, which ours does not say. Renewed meanwhile, the next attempt shows the new one. */
  #lookAtCertificate(): void {
    const { trust } = this.#options;
    if (trust === undefined || performance.now() - this.#lookedMs < LOOK_AGAIN_MS) return;
    this.#lookedMs = performance.now();
    void trust.source.look();
  }

  // ---- publishing --------------------------------------------------------------------------------------------------------

  #hand(client: MqttClient, outgoing: Outgoing): void {
    const { name, payload, qos } = outgoing;
    const limit = this.#options.maxQueuedBytes ?? 64 * 1024 * 1024;
    if (this.#underWayBytes + payload.length > limit) {
      outgoing.reject(
        new ChairError('QUEUE_FULL', `too much is on its way to the broker`, {
          expected: `at most ${limit} bytes`,
          came: `${this.#underWayBytes} and ${payload.length} more for ${name}`,
        }),
      );
      return;
    }
    this.#underWay.add(outgoing);
    this.#underWayBytes += payload.length;
    // The callback is mqtt.js's only sign of back-pressure: after the socket took it (QoS 0) or the broker acknowledged it (QoS 1).
    client.publish(name, Buffer.from(payload.buffer, payload.byteOffset, payload.length), { qos }, (error) => {
      const lost = error instanceof Error ? new ChairError('BROKER_LOST', `publish on ${name} failed`, { cause: error }) : undefined;
      this.#settle(outgoing, lost);
    });
  }

  #settle(outgoing: Outgoing, error: Error | undefined): void {
    if (!this.#underWay.delete(outgoing)) return;
    this.#underWayBytes -= outgoing.payload.length;
    if (error === undefined) outgoing.resolve();
    else outgoing.reject(error);
  }

  #keep(outgoing: Outgoing): void {
    const { name, payload, qos } = outgoing;
    if (qos === 0) {
      outgoing.reject(new ChairError('BROKER_LOST', `cannot publish on ${name}: not connected to ${publicUrl(this.#url)}`));
    } else if (this.#offline.length >= MAX_OFFLINE_MESSAGES || this.#offlineBytes + payload.length > MAX_OFFLINE_BYTES) {
      outgoing.reject(new ChairError('QUEUE_FULL', `cannot keep a message on ${name}: not connected, and the queue for that is full`));
    } else {
      this.#offline.push(outgoing);
      this.#offlineBytes += payload.length;
    }
  }

  #rejectAll(error: Error): void {
    for (const outgoing of [...this.#underWay]) this.#settle(outgoing, error);
    for (const outgoing of this.#offline.splice(0)) outgoing.reject(error);
    this.#offlineBytes = 0;
  }

  #checkRunning(): void {
    if (this.#stopping !== undefined) throw new ChairError('STOPPED', `bus ${this.id} was stopped`);
  }
}

/** CONNACK return codes for a client that is turned away as what it is (MQTT 3.1.1, 3.2.2.3): its id, its credentials. */
const TURNED_AWAY: readonly unknown[] = [2, 4, 5];

function connectError(url: string, cause: unknown): ChairError {
  if (isChairError(cause) && KEPT.has(cause.code)) return cause;
  const why = cause instanceof Error ? cause.message || cause.name : String(cause);
  const isRefusal = cause instanceof Error && 'code' in cause && TURNED_AWAY.includes(cause.code);
  return new ChairError(isRefusal ? 'BROKER_REFUSED' : 'BROKER_UNREACHABLE', `cannot connect to the broker at ${publicUrl(url)} (${why})`, {
    todo: isRefusal
      ? 'It answers, and does not let us in: is our certificate expired or revoked? The gateway says so (`agents list`, `audit`).'
      : 'Check the address and that the gateway is running.',
    cause,
  });
}

/** These say it all. */
const KEPT: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'STOPPED',
  'INSECURE_REFUSED',
  'CERTIFICATE_FOREIGN',
  'CERTIFICATE_EXPIRED',
  'CERTIFICATE_REVOKED',
]);

function clientIdOf(name: string): string {
  return `${name}~${randomBytes(6).toString('hex')}`;
}

/** Resolves on CONNACK; rejects on error, close or after `watchdogMs`. */
async function opened(client: MqttClient, watchdogMs: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no answer within ${watchdogMs} ms`)), watchdogMs);
    const settle = (error?: Error) => {
      clearTimeout(timer);
      client.off('error', settle);
      client.off('close', closed);
      if (error === undefined) resolve();
      else reject(error);
    };
    const closed = () => settle(new Error('the connection closed'));
    client.once('connect', () => settle());
    client.on('error', settle);
    client.on('close', closed);
  });
}

/** Throws BROKER_REFUSED when the broker says no to a topic (SUBACK 0x80), else what mqtt.js throws when the connection breaks. */
async function subscribeAll(client: MqttClient, names: readonly string[]): Promise<void> {
  try {
    await client.subscribeAsync([...names], { qos: 1 });
  } catch (cause) {
    const answered = cause instanceof Error && 'packet' in cause && cause.packet !== undefined;
    if (!answered) throw cause;
    throw new ChairError('BROKER_REFUSED', `the broker refused a subscription`, { came: names.join(', '), cause });
  }
}

/** Ends a connection with DISCONNECT, so that no will is published; by force when the broker does not take it. */
async function farewell(client: MqttClient): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(() => {
      // To end by force what is ending already does nothing; a socket whose other end is gone without a word would keep the process for a quarter of an hour.
      client.stream.destroy();
      resolve();
    }, FAREWELL_MS);
    client.end(false, () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

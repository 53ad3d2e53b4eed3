/**
 * A broker in memory for tests: everything is encoded and decoded as on the wire, delivered in order and never within the publisher's call.
 * Connections can be lost and restored, and messages dropped.
 */
import type { Bus } from './bus.js';
import { encode } from './codec.js';
import { ChairError } from './errors.js';
import { Listeners } from './listeners.js';
import { type ByteHandler, checkName, filterOf, Subscriptions } from './subscriptions.js';
import { speakerOn, spokenBy, type Topic } from './topics.js';

export interface Will<T = unknown> {
  readonly topic: Topic<T>;
  readonly value: T;
}

export interface FakeBroker {
  /** A connected client. Two buses of one id may coexist, as with nonces on a real broker. */
  bus<T = unknown>(id: string, options?: { readonly will?: Will<T> }): FakeBus;
  /** Return false to lose a message. */
  filter: (topicName: string, payload: Uint8Array, from: string) => boolean;
  /** Names of the topics of all messages published so far. */
  readonly log: readonly string[];
  /** The broker goes away: everyone is disconnected, no wills are published. `start` brings it back. */
  crash(): void;
  start(): void;
}

export interface FakeBus extends Bus {
  localAddress: string;
  /** The connection breaks: the broker publishes the will. */
  lose(why?: string): void;
  /** The connection comes back. */
  restore(): void;
}

export function createFakeBroker(): FakeBroker {
  return new Broker();
}

class Broker implements FakeBroker {
  filter: FakeBroker['filter'] = () => true;
  readonly log: string[] = [];
  readonly clients = new Set<Client>();
  up = true;

  bus<T>(id: string, options: { readonly will?: Will<T> } = {}): FakeBus {
    checkName(id, 'bus id');
    const { will } = options;
    const client = new Client(
      this,
      id,
      will === undefined ? undefined : { name: nameFor(will.topic, id), payload: encodeFor(will.topic, will.value) },
    );
    if (this.up) client.restore();
    return client;
  }

  crash(): void {
    this.up = false;
    for (const client of [...this.clients]) client.drop('the broker stopped', false);
  }

  start(): void {
    this.up = true;
  }

  deliver(name: string, payload: Uint8Array, from: string): void {
    this.log.push(name);
    if (!this.filter(name, payload, from)) return;
    // A macrotask as from a socket, and a copy each: no receiver sees another's writes.
    for (const client of [...this.clients]) setImmediate(() => client.receive(name, Uint8Array.from(payload)));
  }
}

function nameFor<T>(topic: Topic<T>, id: string): string {
  return topic.speaker === undefined ? topic.name : spokenBy(topic.name, speakerOn(topic, id));
}

function encodeFor<T>(topic: Topic<T>, value: T): Uint8Array {
  return encode(topic.schema, value, topic.version);
}

class Client implements FakeBus {
  connected = false;
  localAddress = '';
  readonly #subscriptions = new Subscriptions();
  readonly #connects = new Listeners<[]>((error) => this.#subscriptions.refuse('(onConnect)', error));
  readonly #disconnects = new Listeners<[string]>((error) => this.#subscriptions.refuse('(onDisconnect)', error));
  #stopped = false;

  constructor(
    readonly broker: Broker,
    readonly id: string,
    public will: { name: string; payload: Uint8Array } | undefined,
  ) {}

  async publish<T>(topic: Topic<T>, value: T): Promise<void> {
    await this.publishBytes(nameFor(topic, this.id), encodeFor(topic, value));
  }

  async publishBytes(name: string, payload: Uint8Array): Promise<void> {
    this.#checkUsable();
    if (!this.connected) throw new ChairError('BROKER_LOST', `cannot publish on ${name}: not connected`);
    this.broker.deliver(name, payload, this.id);
  }

  async subscribe<T>(topic: Topic<T>, handler: (value: T) => void): Promise<() => Promise<void>> {
    return this.subscribeBytes(filterOf(topic), this.#subscriptions.typed(topic, handler));
  }

  async subscribeBytes(name: string, handler: ByteHandler): Promise<() => Promise<void>> {
    this.#checkUsable();
    this.#subscriptions.add(name, handler);
    return async () => void this.#subscriptions.remove(name, handler);
  }

  onConnect(listener: () => void): () => void {
    let soon = this.connected;
    const remove = this.#connects.add(() => {
      soon = false;
      listener();
    });
    // Through a list of its own, so that what it throws is reported and not lost.
    queueMicrotask(() => {
      if (!soon || !this.connected) return;
      const once = new Listeners<[]>((error) => this.#subscriptions.refuse('(onConnect)', error));
      once.add(listener);
      once.emit();
    });
    return () => {
      soon = false;
      remove();
    };
  }

  onDisconnect(listener: (why: string) => void): () => void {
    return this.#disconnects.add(listener);
  }

  onRefused(listener: (topicName: string, error: Error) => void): () => void {
    return this.#subscriptions.refused.add(listener);
  }

  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    this.connected = false;
    this.broker.clients.delete(this);
    this.#subscriptions.clear();
  }

  lose(why = 'the connection broke'): void {
    this.drop(why, true);
  }

  drop(why: string, publishWill: boolean): void {
    if (!this.connected) return;
    this.connected = false;
    this.broker.clients.delete(this);
    if (publishWill && this.will !== undefined) this.broker.deliver(this.will.name, this.will.payload, this.id);
    this.#disconnects.emit(why);
  }

  reconnect<T>(why: string, will?: Will<T>): void {
    this.drop(why, false);
    if (will !== undefined) this.will = { name: nameFor(will.topic, this.id), payload: encodeFor(will.topic, will.value) };
    setImmediate(() => this.restore());
  }

  restore(): void {
    if (this.connected || this.#stopped || !this.broker.up) return;
    this.connected = true;
    this.broker.clients.add(this);
    this.#connects.emit();
  }

  receive(name: string, payload: Uint8Array): void {
    if (this.connected) this.#subscriptions.dispatch(name, payload);
  }

  #checkUsable(): void {
    if (this.#stopped) throw new ChairError('STOPPED', `bus ${this.id} was stopped`);
  }
}

/** The seam to the control plane: typed publish/subscribe. Implementations: `mqtt-bus.ts` (real), `fake-bus.ts` (tests, in memory). */
import type { Topic } from './topics.js';

export interface Bus {
  /** Own id: the MQTT client id's name part. */
  readonly id: string;
  readonly connected: boolean;
  /** This end of the connection; '' when there is none, or it is no socket. */
  readonly localAddress: string;
  /**
   * Encodes and publishes, as ourselves where the topic has speakers (`spokenBy`). Resolves when handed over (QoS 0) or acknowledged by the broker (QoS 1).
   * Throws QUEUE_FULL, BROKER_LOST, CODEC_LIMIT. Nothing is queued while disconnected except QoS 1 up to a small bound.
   */
  publish<T>(topic: Topic<T>, value: T): Promise<void>;
  /** Publishes payload bytes that are already encoded (relay lane). */
  publishBytes(name: string, payload: Uint8Array, qos?: 0 | 1): Promise<void>;
  /**
   * Subscribes on a topic, whoever speaks there; re-subscribed by itself after a reconnect. Messages that do not decode, or are not from who they say (SENDER_WRONG), and
   * handlers that throw are reported to `onRefused`.
   * Throws BROKER_REFUSED. Resolves when the broker has confirmed (at once while disconnected: restored before `onConnect`).
   */
  subscribe<T>(topic: Topic<T>, handler: (value: T) => void): Promise<() => Promise<void>>;
  /** An exact topic, or `byAnyone` of one: then `speaker` is whose it is, else ''. */
  subscribeBytes(name: string, handler: (payload: Uint8Array, speaker: string) => void): Promise<() => Promise<void>>;
  /**
   * Called on every (re)connect after subscriptions are restored, and soon after registering when the bus is connected already: once per
   * connection, so `onConnect(sayHello)` after the subscriptions is all an agent needs. Returns an unsubscriber.
   */
  onConnect(listener: () => void): () => void;
  onDisconnect(listener: (why: string) => void): () => void;
  onRefused(listener: (topicName: string, error: Error) => void): () => void;
  /**
   * Gives the connection up, and makes a new one at once as another client: to the broker the old one is there until it times out. `will` takes the place of
   * the former one. What is on its way is rejected with BROKER_LOST, as when the connection breaks.
   */
  reconnect<T>(why: string, will?: { readonly topic: Topic<T>; readonly value: T }): void;
  /** Idempotent; leaves no timer or socket. */
  stop(): Promise<void>;
}

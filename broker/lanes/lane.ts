/**
 * The seam to the data path. A lane carries MQTT 3.1.1 PUBLISH packets (QoS 0) either directly to the peer's own listener or relayed through
 * the broker. Implementations: `lanes.ts` (real), `fake-lanes.ts` (tests, in memory, can drop and delay).
 */
import type { LaneHealth, PeerEntry } from '../messages.js';

/** Payload as it came from the socket: consecutive segments, not joined, so that the one copy is the one into the engine's input. */
export type Segments = readonly Uint8Array[];

export interface LaneMessage {
  readonly topic: string;
  readonly payload: Segments;
  readonly payloadBytes: number;
  /** Who sent it: the name at the other end of a direct lane; of a relayed message, whose topic it came on (a client's owner). */
  readonly from: string;
  /** It came through the broker. */
  readonly relayed: boolean;
  /** Sends on the connection that this came on, where the peer dialled it; as `send`, but never relayed. */
  readonly answer?: (topic: string, payload: Segments) => Promise<boolean>;
  /** The connection that `answer` sends on has ended. */
  readonly isGone?: () => boolean;
}

/** See `Lanes.beside`. */
export interface SideLane {
  /** `trying`: the first attempt to dial the peer, where it is now, is under way. */
  readonly state: 'up' | 'trying' | 'down';
  /** As `Lanes.send`; throws LANE_DOWN while it is not up. The other end gets it as any message, and answers with its `answer`. */
  send(topic: string, payload: Segments): Promise<boolean>;
  /** Idempotent; nothing is told after it. */
  close(): void;
}

export interface SideLaneOptions {
  /** Of a message that comes, with its topic; a larger one ends the connection. */
  readonly maxMessageBytes: number;
  readonly onMessage: (message: Pick<LaneMessage, 'topic' | 'payload' | 'payloadBytes'>) => void;
  /** `state` may be another one. */
  readonly onChange: () => void;
}

export interface SendOptions {
  /** For tests and diagnosis. */
  readonly forceRelay?: boolean;
  /** False from the moment that nobody waits for the message any more (its frame was cancelled, say): what has not left then does not. Default: always. */
  readonly wanted?: () => boolean;
  /** Before everything that waits. For small messages that must not wait behind what they are about. */
  readonly urgent?: boolean;
}

export interface Lanes {
  readonly id: string;
  /** Port of the direct listener, 0 when there is none. */
  readonly port: number;
  /** Starts the listener and the relay subscriptions for `topics` (exact names). */
  start(): Promise<void>;
  /** The peer table: connects, reconnects (full jitter), and drops lanes as it changes. Peers not in it are relayed to. */
  setPeers(peers: readonly PeerEntry[]): void;
  /** Registers a handler for an exact topic; on both direct and relay. Handlers must not block. */
  on(topic: string, handler: (message: LaneMessage) => void): () => void;
  /**
   * Sends to a peer: direct when that lane is up, else relayed through the broker; resolves when the bytes are handed to the kernel or broker.
   * False: it was not `wanted` any more, and was dropped whole or in part; nothing reads its segments then either. A message is never silently dropped.
   * Throws LANE_DOWN, QUEUE_FULL (bytes queued to this peer exceed the bound), PACKET_TOO_LARGE, STOPPED.
   */
  send(peer: string, topic: string, payload: Segments, options?: SendOptions): Promise<boolean>;
  /**
   * A connection of its own to a peer, for bulk that is no frame: frames do not wait behind it, and what lanes measure is not of it. It is dialled for as long as it is
   * held, to where the table says that the peer is.
   */
  beside(peer: string, options: SideLaneOptions): SideLane;
  /** Something is not wanted any more: drops what waits to be sent for nothing. Cheap when nothing waits. */
  purge(): void;
  /** A lane to a peer broke or came (back) up. */
  onPeer(listener: (peer: string, lane: 'direct' | 'relay' | 'down', why: string) => void): () => void;
  /** This machine has these addresses now: connections from or to another one of its own are ended, and made anew. */
  readdress(own: ReadonlySet<string>): void;
  health(): readonly LaneHealth[];
  stop(): Promise<void>;
}

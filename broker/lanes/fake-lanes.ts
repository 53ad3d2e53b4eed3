/** Lanes in memory for tests: asynchronous, in order per pair, with loss, delay and broken pairs. Payloads are copied, so no receiver sees a sender's later writes. */
import { ChairError } from '../errors.js';
import { Listeners } from '../listeners.js';
import type { LaneHealth, PeerEntry } from '../messages.js';
import { segmentBytes } from '../segments.js';
import type { LaneMessage, Lanes, Segments, SendOptions, SideLane } from './lane.js';

export interface FakeNetwork {
  /** The lanes of one process; a second call with the same id replaces the first, as a restarted process does. */
  lanes(id: string): Lanes;
  /** Return false to lose a message after its sender was told that it is sent. */
  filter: (message: { readonly from: string; readonly to: string; readonly topic: string }) => boolean;
  /** Delay of one message, in ms; default 0 (still asynchronous). Delayed messages may overtake each other. */
  delayMs: (from: string, to: string) => number;
  /** How a pair is joined; default `direct`. `down`: sends fail with LANE_DOWN. Both directions; `onPeer` listeners of both are told. */
  join(a: string, b: string, lane: 'direct' | 'relay' | 'down', why?: string): void;
  /** The process is gone: sends to it fail, everyone is told. */
  kill(id: string): void;
  /** Messages sent so far, in order. */
  readonly log: readonly { readonly from: string; readonly to: string; readonly topic: string; readonly bytes: number }[];
  /** What handlers threw: as on real lanes, the sender and the other handlers do not notice. */
  readonly refused: readonly { readonly at: string; readonly topic: string; readonly error: unknown }[];
}

export function createFakeNetwork(): FakeNetwork {
  return new Network();
}

type LaneKind = 'direct' | 'relay' | 'down';

class Network implements FakeNetwork {
  filter: FakeNetwork['filter'] = () => true;
  delayMs: FakeNetwork['delayMs'] = () => 0;
  readonly log: { from: string; to: string; topic: string; bytes: number }[] = [];
  readonly refused: { at: string; topic: string; error: unknown }[] = [];
  readonly nodes = new Map<string, FakeLanes>();
  readonly #pairs = new Map<string, { lane: LaneKind; why: string }>();

  lanes(id: string): Lanes {
    const lanes = new FakeLanes(this, id);
    this.nodes.set(id, lanes);
    for (const other of this.nodes.values()) if (other !== lanes) other.tell(id);
    return lanes;
  }

  join(a: string, b: string, lane: LaneKind, why = 'set by the test'): void {
    this.#pairs.set(pairKey(a, b), { lane, why });
    this.nodes.get(a)?.tell(b);
    this.nodes.get(b)?.tell(a);
  }

  kill(id: string): void {
    this.nodes.delete(id);
    for (const other of this.nodes.values()) other.tell(id);
  }

  pair(from: string, to: string): { lane: LaneKind; why: string } {
    if (!this.nodes.has(to)) return { lane: 'down', why: 'no such process' };
    return this.#pairs.get(pairKey(from, to)) ?? { lane: 'direct', why: '' };
  }
}

function pairKey(a: string, b: string): string {
  return a < b ? `${a} ${b}` : `${b} ${a}`;
}

class FakeLanes implements Lanes {
  readonly port = 1;
  readonly #handlers = new Map<string, Set<(message: LaneMessage) => void>>();
  readonly #listeners = new Listeners<[peer: string, lane: LaneKind, why: string]>();
  readonly #table = new Map<string, { told: LaneKind; bytesSent: number; messagesSent: number }>();
  #stopped = false;

  constructor(
    readonly network: Network,
    readonly id: string,
  ) {}

  async start(): Promise<void> {
    this.#checkRunning();
  }

  setPeers(peers: readonly PeerEntry[]): void {
    const names = new Set(peers.map((peer) => peer.agent).filter((name) => name !== this.id));
    for (const name of this.#table.keys()) if (!names.has(name)) this.#table.delete(name);
    for (const name of names) {
      if (this.#table.has(name)) continue;
      this.#table.set(name, { told: 'down', bytesSent: 0, messagesSent: 0 });
      queueMicrotask(() => this.tell(name));
    }
  }

  on(topic: string, handler: (message: LaneMessage) => void): () => void {
    const handlers = this.#handlers.get(topic) ?? new Set();
    this.#handlers.set(topic, handlers.add(handler));
    return () => void handlers.delete(handler);
  }

  async send(peer: string, topic: string, payload: Segments, options: SendOptions = {}): Promise<boolean> {
    this.#checkRunning();
    if (options.wanted?.() === false) return false;
    const { lane, why } = peer === this.id ? { lane: 'direct' as const, why: '' } : this.network.pair(this.id, peer);
    if (lane === 'down') throw new ChairError('LANE_DOWN', `no lane to ${peer} (${why})`);
    const bytes = segmentBytes(payload);
    const copy = payload.map((segment) => Uint8Array.from(segment));
    const relayed = lane === 'relay' || options.forceRelay === true;
    const receiver = this.network.nodes.get(peer);
    this.network.log.push({ from: this.id, to: peer, topic, bytes });
    const row = this.#table.get(peer);
    if (row !== undefined) {
      row.bytesSent += bytes;
      row.messagesSent++;
    }
    if (this.network.filter({ from: this.id, to: peer, topic })) {
      const delay = this.network.delayMs(this.id, peer);
      const deliver = () => receiver?.receive({ topic, payload: copy, payloadBytes: bytes, from: this.id, relayed });
      if (delay > 0) setTimeout(deliver, delay).unref();
      else setImmediate(deliver);
    }
    await new Promise((resolve) => setImmediate(resolve));
    return true;
  }

  /** Fake lanes have no connections, and none beside them. */
  beside(peer: string): SideLane {
    const send = async () => {
      throw new ChairError('LANE_DOWN', `no connection beside the lane to ${peer}`);
    };
    return { state: 'down', send, close: () => undefined };
  }

  /** Nothing waits here. */
  purge(): void {}

  onPeer(listener: (peer: string, lane: LaneKind, why: string) => void): () => void {
    return this.#listeners.add(listener);
  }

  /** Fake lanes have no addresses. */
  readdress(): void {}

  health(): readonly LaneHealth[] {
    return [...this.#table].map(([peer, { bytesSent, messagesSent }]) => ({
      peer,
      ...this.network.pair(this.id, peer),
      bytesSent,
      messagesSent,
      sendMs: 0,
      receivedBytesPerSecond: 0,
      receivedSamples: 0,
      roundTripMs: 0,
      waitingBytes: 0,
      busyMs: 0,
      busyBytesPerSecond: 0,
      messagesDropped: 0,
    }));
  }

  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#handlers.clear();
    if (this.network.nodes.get(this.id) === this) this.network.kill(this.id);
  }

  /** Tells the owner how a peer of its table is joined now, if that changed. */
  tell(peer: string): void {
    const row = this.#table.get(peer);
    const { lane, why } = this.network.pair(this.id, peer);
    if (row === undefined || row.told === lane || this.#stopped) return;
    row.told = lane;
    this.#listeners.emit(peer, lane, why);
  }

  receive(message: LaneMessage): void {
    if (this.#stopped || this.network.nodes.get(this.id) !== this) return;
    for (const handler of [...(this.#handlers.get(message.topic) ?? [])]) {
      try {
        handler(message);
      } catch (error) {
        this.network.refused.push({ at: this.id, topic: message.topic, error });
      }
    }
  }

  #checkRunning(): void {
    if (this.#stopped) throw new ChairError('STOPPED', `lanes of ${this.id} were stopped`);
  }
}

/**
 * The data path of one process: a listener, a dialler for each peer of the table, and the relay through the broker. Which way a message goes is decided
 * per message and peer: own process, direct when a connection is up (ours to the peer's listener, or the peer's to ours), else relay.
 * Long, because every way changes the same table of peers; connections, framing and measuring are files of their own.
 */
import { randomBytes } from 'node:crypto';
import { BufferPool, type Buffers } from '../buffers.js';
import type { Bus } from '../bus.js';
import type { Identity } from '../credentials/credentials.js';
import { ChairError, toChairError } from '../errors.js';
import { plainAddress } from '../host.js';
import { Listeners } from '../listeners.js';
import type { LaneHealth, PeerEntry } from '../messages.js';
import { printable } from '../printable.js';
import { discard, joinSegments, segmentBytes } from '../segments.js';
import { checkName } from '../subscriptions.js';
import { TlsSessions } from '../tls.js';
import { byAnyone, DISPATCHER, spokenBy } from '../topics.js';
import type { Trust } from '../trust.js';
import { Dialler, type DiallerOptions } from './dialler.js';
import { MQTT_MAX_PACKET_BYTES, type PublishFrame } from './framing.js';
import { type KernelQueues, readKernelQueues } from './kernel-queues.js';
import type { LaneMessage, Lanes, Segments, SendOptions, SideLane, SideLaneOptions } from './lane.js';
import type { LaneSocket } from './lane-socket.js';
import { LaneWatch } from './lane-watch.js';
import { Listener } from './listener.js';
import { ReceiveMeter } from './receive-meter.js';
import { DialledSideLane } from './side-lane.js';

export interface LanesOptions {
  readonly id: string;
  /** Whose topics relayed messages are said on; default `id`. A client's is its owner. */
  readonly speaker?: string;
  /** Two clusters may use the same names: lanes connect only within one. Default ''. */
  readonly cluster?: string;
  /** TLS, and only with those of the peer table, or whom `admits` lets in. Default: plain, with anybody. */
  readonly trust?: Trust;
  /** With trust: who may connect beside the peers of the table; '' or why not. Default: nobody. */
  readonly admits?: (peer: Identity) => string;
  /** Relay, when there is one. Not stopped by `stop`. */
  readonly bus?: Bus;
  /** Run a listener, so that peers can send directly to us; default true. Without, peers reach us on the connections that we dial, or by relay. */
  readonly listen?: boolean;
  /** Address to listen on; default `0.0.0.0`. */
  readonly host?: string;
  /** 0 (default) = any free port. */
  readonly port?: number;
  /** Largest direct message with its topic; default and maximum 268,435,455 bytes (MQTT's own limit). */
  readonly maxPacketBytes?: number;
  /** Per peer, not yet taken by the kernel; default 64 MiB. */
  readonly maxQueuedBytes?: number;
  /** A peer that takes nothing of what waits for it is ended after this, and what large messages take on a slow link; default 30,000 ms. */
  readonly stalledMs?: number;
  /** At the listener; default 512. */
  readonly maxConnections?: number;
  /** Default 5,000 ms; a peer that is silent for two to three of them is dead. */
  readonly keepaliveMs?: number;
  readonly connectTimeoutMs?: number;
  /** How long the first messages to a new peer wait for its direct lane before they are relayed, from `setPeers` on; default 300 ms. */
  readonly graceMs?: number;
  readonly random?: () => number;
  /** From one turn of this process's CPU quota to the next, ms: messages that wait for it say nothing of links. Default: 0, no quota. */
  readonly turnMs?: number;
  /** What connections are read into; a handler that takes a message's memory over (`SegmentReader.adopt`) gives it back here. Default: a pool of 8 MiB. */
  readonly buffers?: Buffers;
  /** What kernels have not acknowledged; default: as this machine's says. */
  readonly kernelQueues?: () => Promise<KernelQueues>;
  /** A handler threw, a peer sent what no lane takes, or a message came for a topic without handler. Default: a process warning, once. */
  readonly onRefused?: (topic: string, error: Error) => void;
}

type Handler = (message: LaneMessage) => void;
type LaneKind = 'direct' | 'relay' | 'down';

/** What we know of one peer, be it in the table, connected to our listener, or only sent to. */
interface Peer {
  /** As the table has it. */
  entry: PeerEntry | undefined;
  dialler: Dialler | undefined;
  /** As last told to `onPeer` listeners. */
  told: LaneKind | undefined;
  bytesSent: number;
  messagesSent: number;
  /** Not wanted any more before they had left. */
  messagesDropped: number;
  /** Exponentially weighted mean, in ms. */
  sendMs: number;
}

const SEND_MS_WEIGHT = 0.2;
/** Peers that are neither in the table nor connected are forgotten beyond this many. */
const MAX_PASSING_PEERS = 256;
/** Of memory that messages were read into, what waits for the next ones at most. */
const IDLE_READ_BYTES = 8 * 1024 * 1024;

export function createLanes(options: LanesOptions): Lanes {
  checkName(options.id, 'lane id');
  return new MqttLanes(options);
}

class MqttLanes implements Lanes {
  readonly id: string;
  readonly #options: LanesOptions;
  readonly #maxPacketBytes: number;
  readonly #maxQueuedBytes: number;
  readonly #clientId: string;
  readonly #speaker: string;
  readonly #handlers = new Map<string, Set<Handler>>();
  readonly #peers = new Map<string, Peer>();
  readonly #received: ReceiveMeter;
  readonly #sessions = new TlsSessions();
  readonly #watch: LaneWatch;
  readonly #buffers: Buffers;
  readonly #listener: Listener | undefined;
  readonly #peerListeners = new Listeners<[peer: string, lane: LaneKind, why: string]>((error) => this.#refuse('(onPeer)', error));
  readonly #sides = new Set<DialledSideLane>();
  readonly #relayed = new Map<string, Promise<() => Promise<void>>>();
  readonly #busListeners: (() => void)[] = [];
  /** Topic and code of what was warned of: once each. */
  readonly #warned = new Set<string>();
  #started = false;
  #stopping: Promise<void> | undefined;

  constructor(options: LanesOptions) {
    this.#options = options;
    this.id = options.id;
    this.#speaker = options.speaker ?? options.id;
    this.#clientId = clientIdOf(options.id);
    this.#maxPacketBytes = Math.min(options.maxPacketBytes ?? MQTT_MAX_PACKET_BYTES, MQTT_MAX_PACKET_BYTES);
    this.#maxQueuedBytes = options.maxQueuedBytes ?? 64 * 1024 * 1024;
    this.#received = new ReceiveMeter(options.turnMs);
    this.#watch = new LaneWatch(options.kernelQueues ?? readKernelQueues);
    this.#buffers = options.buffers ?? new BufferPool(IDLE_READ_BYTES);
    this.#listener = options.listen === false ? undefined : this.#createListener();
  }

  get port(): number {
    return this.#listener?.port ?? 0;
  }

  async start(): Promise<void> {
    this.#checkRunning();
    await this.#listener?.start();
    this.#started = true;
    const { bus } = this.#options;
    if (bus !== undefined) {
      this.#busListeners.push(
        bus.onConnect(() => this.#tellAll('')),
        bus.onDisconnect((why) => this.#tellAll(why)),
      );
    }
    await Promise.all([...this.#handlers.keys()].map((topic) => this.#subscribeRelay(topic)));
  }

  setPeers(peers: readonly PeerEntry[]): void {
    this.#checkRunning();
    const wanted = new Map(peers.filter((entry) => entry.agent !== this.id).map((entry) => [entry.agent, entry]));
    for (const [name, peer] of this.#peers) {
      const entry = wanted.get(name);
      const before = peer.entry;
      peer.entry = entry;
      if (before === undefined || (entry !== undefined && sameEntry(entry, before))) continue;
      // Connections of the peer from an address that it had are as dead as those to it.
      if (entry !== undefined) this.#listener?.endFrom(name, gone(before, entry));
      if (peer.dialler === undefined || (entry !== undefined && peer.dialler.readdress(entry))) continue;
      peer.dialler.stop(new Error('the peer table has changed'));
      peer.dialler = undefined;
      if (entry === undefined) this.#tell(name, 'no longer in the peer table');
    }
    for (const [name, entry] of wanted) {
      const peer = this.#peer(name);
      peer.entry = entry;
      if (peer.dialler !== undefined || entry.lanePort === 0) continue;
      peer.dialler = this.#createDialler(name, entry);
      peer.dialler.start();
    }
    for (const side of this.#sides) side.move(this.#entryOf(side.peer));
    this.#listener?.expel();
    this.#forgetPassing();
  }

  readdress(own: ReadonlySet<string>): void {
    for (const { dialler } of this.#peers.values()) dialler?.leave(own);
    for (const side of this.#sides) side.leave(own);
    this.#listener?.leave(own);
  }

  on(topic: string, handler: Handler): () => void {
    const own: Handler = (message) => handler(message);
    const handlers = this.#handlers.get(topic);
    if (handlers !== undefined) handlers.add(own);
    else {
      this.#handlers.set(topic, new Set([own]));
      for (const peer of this.#peers.values()) peer.dialler?.subscribe([topic]);
      if (this.#started) this.#subscribeRelay(topic).catch((error: unknown) => this.#refuse(topic, error));
    }
    return () => this.#off(topic, own);
  }

  async send(peerName: string, topic: string, payload: Segments, options: SendOptions = {}): Promise<boolean> {
    this.#checkRunning();
    const payloadBytes = segmentBytes(payload);
    const peer = this.#peer(peerName);
    if (peerName === this.id) return this.#counted(peer, payloadBytes, this.#deliverHere(topic, payload, payloadBytes));
    if (options.forceRelay === true) return this.#counted(peer, payloadBytes, this.#relay(peerName, topic, payload, 'asked for'));
    let lane = this.#direct(peerName, topic);
    if (lane === undefined && this.#isFresh(peer)) {
      await this.#grace(peer);
      this.#checkRunning();
      lane = this.#direct(peerName, topic);
    }
    if (options.wanted?.() === false) return this.#counted(peer, payloadBytes, Promise.resolve(false));
    if (lane !== undefined) return this.#counted(peer, payloadBytes, lane.publish(topic, payload, payloadBytes, options));
    return this.#counted(peer, payloadBytes, this.#relay(peerName, topic, payload, this.#whyNotDirect(peerName)));
  }

  beside(peer: string, options: SideLaneOptions): SideLane {
    this.#checkRunning();
    // Another id: the listener takes the same one for the same client on a newer connection.
    const own = { clientId: clientIdOf(this.id), maxPacketBytes: options.maxMessageBytes, topics: () => [] };
    const dial = (entry: PeerEntry, hooks: Pick<DiallerOptions, 'onMessage' | 'onChange'>): Dialler =>
      new Dialler(entry, { ...this.#dialling(peer), ...own, ...hooks });
    const onMessage: SideLaneOptions['onMessage'] = (message) => {
      try {
        options.onMessage(message);
      } catch (error) {
        this.#refuse(message.topic, error);
      }
    };
    const entry = this.#entryOf(peer);
    const side = new DialledSideLane({ ...options, onMessage, peer, entry, dial, onClose: () => this.#sides.delete(side) });
    this.#sides.add(side);
    return side;
  }

  /** Where it is; the address first at which its lane found it. */
  #entryOf(name: string): PeerEntry | undefined {
    const peer = this.#peers.get(name);
    const found = plainAddress(peer?.dialler?.lane?.socket.remoteAddress ?? '');
    return peer?.entry && { ...peer.entry, addresses: peer.entry.addresses.toSorted((a, b) => Number(b === found) - Number(a === found)) };
  }

  onPeer(listener: (peer: string, lane: LaneKind, why: string) => void): () => void {
    return this.#peerListeners.add(listener);
  }

  purge(): void {
    this.#watch.purge();
  }

  health(): readonly LaneHealth[] {
    const nowMs = performance.now();
    return [...this.#peers].map(([name, peer]) => {
      const kind = name === this.id ? 'local' : this.#kind(name);
      const why = kind === 'direct' || kind === 'local' ? '' : this.#whyNotDirect(name);
      const { bytesSent, messagesSent, sendMs, messagesDropped } = peer;
      const { bytesPerSecond: receivedBytesPerSecond, samples: receivedSamples } = this.#received.read(name, nowMs);
      const seen = { receivedBytesPerSecond, receivedSamples, roundTripMs: peer.dialler?.roundTripMs ?? 0 };
      return { peer: name, lane: kind, why, bytesSent, messagesSent, sendMs, ...seen, messagesDropped, ...this.#waiting(name, nowMs) };
    });
  }

  /** Over all connections to a peer; of several that carry something the one on which it waits longest. */
  #waiting(name: string, nowMs: number): Pick<LaneHealth, 'waitingBytes' | 'busyMs' | 'busyBytesPerSecond'> {
    const dialled = this.#peers.get(name)?.dialler?.lane;
    const lanes = [...(dialled === undefined ? [] : [dialled]), ...(this.#listener?.lanesOf(name) ?? [])];
    let waiting = { waitingBytes: 0, busyMs: 0, busyBytesPerSecond: 0 };
    for (const lane of lanes) {
      const { busyMs, bytesPerSecond } = lane.draining(nowMs);
      const busiest = busyMs > waiting.busyMs ? { busyMs, busyBytesPerSecond: bytesPerSecond } : {};
      waiting = { ...waiting, ...busiest, waitingBytes: waiting.waitingBytes + lane.waitingBytes };
    }
    return waiting;
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#end();
    return this.#stopping;
  }

  async #end(): Promise<void> {
    for (const remove of this.#busListeners.splice(0)) remove();
    this.#watch.stop();
    const stopped = new ChairError('STOPPED', `lanes of ${this.id} were stopped`);
    for (const peer of this.#peers.values()) peer.dialler?.stop(stopped);
    for (const side of this.#sides) side.close();
    const relayed = [...this.#relayed.values()];
    this.#relayed.clear();
    await Promise.all(relayed.map((off) => off.then((unsubscribe) => unsubscribe()).catch(() => undefined)));
    await this.#listener?.stop();
    this.#handlers.clear();
  }

  // ---- ways to a peer ------------------------------------------------------------------------------------------------------

  #direct(name: string, topic: string): LaneSocket | undefined {
    return this.#peers.get(name)?.dialler?.lane ?? this.#listener?.laneTo(name, topic);
  }

  #kind(name: string): LaneKind {
    const direct = this.#peers.get(name)?.dialler?.lane !== undefined || this.#listener?.reaches(name) === true;
    if (direct) return 'direct';
    return this.#options.bus?.connected === true ? 'relay' : 'down';
  }

  #whyNotDirect(name: string): string {
    const dialler = this.#peers.get(name)?.dialler;
    return dialler?.why ?? 'the peer has no listener in the peer table and no connection to ours';
  }

  /** True while the first attempt to dial the peer, where it is now, is under way. */
  #isFresh(peer: Peer): boolean {
    return peer.dialler?.isFirst === true;
  }

  async #grace(peer: Peer): Promise<void> {
    const { dialler } = peer;
    if (dialler === undefined) return;
    // Without a relay there is nothing to fall back on: wait for the attempt, which has its own time-outs.
    if (this.#options.bus?.connected !== true) return dialler.first;
    const leftMs = (this.#options.graceMs ?? 300) - (performance.now() - dialler.createdAt);
    if (leftMs <= 0) return;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, leftMs);
    });
    await Promise.race([dialler.first, late]);
    clearTimeout(timer);
  }

  /** The payload is joined: a copy, which a relay can bear. */
  async #relay(peer: string, topic: string, payload: Segments, why: string): Promise<true> {
    const { bus } = this.#options;
    if (bus?.connected !== true) {
      throw new ChairError('LANE_DOWN', `no lane to ${peer}`, {
        expected: 'a direct or a relay lane',
        came: `not direct (${why}) and no relay (${bus === undefined ? 'there is no broker' : 'the broker is not connected'})`,
      });
    }
    try {
      await bus.publishBytes(spokenBy(topic, this.#speaker), joinSegments(payload), 0);
      return true;
    } catch (error) {
      const coded = toChairError(error);
      if (coded.code !== 'BROKER_LOST') throw coded;
      throw new ChairError('LANE_DOWN', `the relay lane to ${peer} broke`, { cause: error });
    }
  }

  async #deliverHere(topic: string, payload: Segments, payloadBytes: number): Promise<true> {
    // Not within the sender's call: a handler may send again.
    await new Promise((resolve) => setImmediate(resolve));
    if (this.#stopping !== undefined) throw new ChairError('STOPPED', `lanes of ${this.id} were stopped`);
    this.#dispatch({ topic, payload, payloadBytes, from: this.id, relayed: false });
    return true;
  }

  async #counted(peer: Peer, bytes: number, sending: Promise<boolean>): Promise<boolean> {
    const startedAt = performance.now();
    if (!(await sending)) {
      peer.messagesDropped++;
      return false;
    }
    peer.bytesSent += bytes;
    peer.messagesSent++;
    const ms = performance.now() - startedAt;
    peer.sendMs = peer.messagesSent === 1 ? ms : peer.sendMs + SEND_MS_WEIGHT * (ms - peer.sendMs);
    return true;
  }

  // ---- peers ---------------------------------------------------------------------------------------------------------------

  #peer(name: string): Peer {
    const known = this.#peers.get(name);
    if (known !== undefined) return known;
    if (this.#peers.size >= 2 * MAX_PASSING_PEERS) this.#forgetPassing();
    const counts = { bytesSent: 0, messagesSent: 0, messagesDropped: 0, sendMs: 0 };
    const peer: Peer = { entry: undefined, dialler: undefined, told: undefined, ...counts };
    this.#peers.set(name, peer);
    return peer;
  }

  /** Drops the oldest peers that nothing connects us with. */
  #forgetPassing(): void {
    const passing = [...this.#peers].filter(([name, peer]) => peer.entry === undefined && this.#listener?.reaches(name) !== true);
    for (const [name] of passing.slice(0, Math.max(0, passing.length - MAX_PASSING_PEERS))) this.#peers.delete(name);
  }

  #tell(name: string, why: string): void {
    const peer = this.#peers.get(name);
    const kind = this.#kind(name);
    if (peer === undefined || peer.told === kind || this.#stopping !== undefined) return;
    peer.told = kind;
    this.#peerListeners.emit(name, kind, kind === 'direct' ? '' : why);
  }

  #tellAll(why: string): void {
    for (const [name, peer] of this.#peers) if (peer.told !== undefined) this.#tell(name, why || this.#whyNotDirect(name));
  }

  #createDialler(name: string, entry: PeerEntry): Dialler {
    return new Dialler(entry, {
      ...this.#dialling(name),
      clientId: this.#clientId,
      maxPacketBytes: this.#maxPacketBytes,
      topics: () => [...this.#handlers.keys()],
      onMessage: (frame) => this.#receive(name, frame),
      onChange: () => this.#tell(name, this.#whyNotDirect(name)),
    });
  }

  /** How `name` is dialled, whatever for. */
  #dialling(name: string): Omit<DiallerOptions, 'clientId' | 'maxPacketBytes' | 'topics' | 'onMessage' | 'onChange'> {
    const { trust } = this.#options;
    return {
      ...(trust === undefined ? {} : { secure: { trust, sessions: this.#sessions, accepts: (peer) => whyNotPeer(name, peer) } }),
      addressee: this.#addressee(name),
      maxQueuedBytes: this.#maxQueuedBytes,
      stalledMs: this.#options.stalledMs,
      watch: this.#watch,
      buffers: this.#buffers,
      connectTimeoutMs: this.#options.connectTimeoutMs ?? 2_000,
      keepaliveMs: this.#options.keepaliveMs ?? 5_000,
      random: this.#options.random ?? Math.random,
    };
  }

  /** What a dialler says to be let in by `name` and by nobody else. */
  #addressee(name: string): string {
    return `${this.#options.cluster ?? ''}/${name}`;
  }

  #createListener(): Listener {
    const { host = '0.0.0.0', port = 0, maxConnections = 512, connectTimeoutMs = 5_000, trust } = this.#options;
    return new Listener({
      ...(trust === undefined ? {} : { trust, admits: (name, identity) => this.#whyNotAdmitted(name, identity) }),
      addressee: this.#addressee(this.id),
      host,
      port,
      maxPacketBytes: this.#maxPacketBytes,
      maxQueuedBytes: this.#maxQueuedBytes,
      stalledMs: this.#options.stalledMs,
      watch: this.#watch,
      buffers: this.#buffers,
      maxConnections,
      connectTimeoutMs,
      onMessage: (from, frame, lane) => this.#receive(from, frame, lane),
      onClient: (name, why) => {
        const reached = this.#listener?.reaches(name) === true;
        if (reached) this.#peer(name);
        this.#tell(name, why);
        if (!reached && this.#peers.get(name)?.entry === undefined) this.#peers.delete(name);
      },
      onRefused: (error) => this.#refuse('(listener)', error),
    });
  }

  /** The plan names our peers, and the dispatcher is everybody's; who is none of them has no business here. */
  #whyNotAdmitted(name: string, identity: Identity): string {
    if (name === DISPATCHER || this.#peers.get(name)?.entry !== undefined) return whyNotPeer(name, identity);
    return this.#options.admits?.(identity) ?? `${name} is not in the peer table`;
  }

  // ---- receiving -------------------------------------------------------------------------------------------------------------

  /** `lane`: on which it can be answered. */
  #receive(from: string, { topic, payload, payloadBytes, startedMs }: PublishFrame, lane?: LaneSocket): void {
    this.#received.add(from, payloadBytes, startedMs, performance.now());
    const answer = lane && ((on: string, segments: Segments) => lane.publish(on, segments, segmentBytes(segments)));
    const answers = lane && answer && { answer, isGone: () => lane.hasEnded };
    this.#dispatch({ topic, payload, payloadBytes, from, relayed: false, ...answers });
  }

  #dispatch(message: LaneMessage): void {
    const handlers = this.#handlers.get(message.topic);
    if (handlers === undefined) {
      discard(message.payload);
      this.#refuse(
        message.topic,
        new ChairError(
          this.#isOurs(message.topic) ? 'CODEC_INVALID' : 'CLUSTER_WRONG',
          'a lane message came for a topic that nobody here handles',
          {
            came: message.topic,
          },
        ),
      );
      return;
    }
    for (const handler of [...handlers]) {
      try {
        handler(message);
      } catch (error) {
        this.#refuse(message.topic, error);
      }
    }
  }

  /** Topics begin with the cluster, as topics.ts names them. */
  #isOurs(topic: string): boolean {
    const { cluster } = this.#options;
    return cluster === undefined || topic.startsWith(`mc/${cluster}/`) || !topic.startsWith('mc/');
  }

  async #subscribeRelay(topic: string): Promise<void> {
    const { bus } = this.#options;
    if (bus === undefined || this.#relayed.has(topic) || this.#stopping !== undefined) return;
    const off = bus.subscribeBytes(byAnyone(topic), (payload, from) =>
      this.#dispatch({ topic, payload: [payload], payloadBytes: payload.length, from, relayed: true }),
    );
    this.#relayed.set(topic, off);
    await off;
  }

  #off(topic: string, handler: Handler): void {
    const handlers = this.#handlers.get(topic);
    if (handlers === undefined || !handlers.delete(handler) || handlers.size > 0) return;
    this.#handlers.delete(topic);
    const off = this.#relayed.get(topic);
    this.#relayed.delete(topic);
    off?.then((unsubscribe) => unsubscribe()).catch(() => undefined);
  }

  #refuse(topic: string, error: unknown): void {
    const coded = toChairError(error);
    if (this.#options.onRefused !== undefined) {
      this.#options.onRefused(topic, coded);
      return;
    }
    const key = `${coded.code} ${this.#handlers.has(topic) ? topic : ''}`;
    if (this.#warned.has(key)) return;
    this.#warned.add(key);
    process.emitWarning(printable(`lane message on ${topic} refused: ${coded.message}`), { code: coded.code });
  }

  #checkRunning(): void {
    if (this.#stopping !== undefined) throw new ChairError('STOPPED', `lanes of ${this.id} were stopped`);
  }
}

function clientIdOf(id: string): string {
  return `${id}~${randomBytes(6).toString('hex')}`;
}

/** Is this the certificate of the peer that goes by `name` on lanes? '' or why not. */
function whyNotPeer(name: string, { role, name: certified }: Identity): string {
  const isRight = name === DISPATCHER ? role === 'gateway' : role === 'agent' && certified === name;
  return isRight ? '' : `the certificate is ${role} ${certified}'s, and the peer is ${name}`;
}

/** Addresses that it had and has no more. */
function gone(before: PeerEntry, after: PeerEntry): ReadonlySet<string> {
  return new Set(before.addresses.filter((address) => !after.addresses.includes(address)));
}

function sameEntry(a: PeerEntry, b: PeerEntry): boolean {
  return (
    a.lanePort === b.lanePort && a.addresses.length === b.addresses.length && a.addresses.every((address, i) => address === b.addresses[i])
  );
}

/**
 * The dialling end of a direct lane: keeps one MQTT 3.1.1 connection to one peer's listener. Tries the peer's addresses in order, comes back with full
 * jitter, pings. It subscribes to the owner's topics there, so that a peer that cannot dial back can use the same connection.
 */
import { connect, type Socket } from 'node:net';
import type { Packet } from 'mqtt-packet';
import { backoffMs } from '../backoff.js';
import type { Buffers } from '../buffers.js';
import type { Identity } from '../credentials/credentials.js';
import { isChairError } from '../errors.js';
import { plainAddress } from '../host.js';
import type { PeerEntry } from '../messages.js';
import { dialTls, type TlsSessions } from '../tls.js';
import type { Trust } from '../trust.js';
import type { PublishFrame } from './framing.js';
import { Inlet } from './inlet.js';
import { LaneSocket } from './lane-socket.js';
import type { LaneWatch } from './lane-watch.js';

export interface DiallerOptions {
  /** TLS: whoever answers must show the certificate of the one we mean. */
  readonly secure?: { readonly trust: Trust; readonly sessions: TlsSessions; readonly accepts: (peer: Identity) => string };
  readonly clientId: string;
  /** Whom we mean to reach (`addressee`), said as the user name: another listener at that address refuses. */
  readonly addressee: string;
  readonly maxPacketBytes: number;
  readonly maxQueuedBytes: number;
  /** See `LaneSocketOptions`. */
  readonly stalledMs?: number | undefined;
  readonly watch: LaneWatch;
  /** What comes is read into these. */
  readonly buffers: Buffers;
  /** Per address. */
  readonly connectTimeoutMs: number;
  readonly keepaliveMs: number;
  readonly random: () => number;
  /** Topics to subscribe to at the peer, asked on every connection. */
  readonly topics: () => readonly string[];
  readonly onMessage: (frame: PublishFrame) => void;
  /** The connection came up or broke, or an attempt failed for another reason than the one before. */
  readonly onChange: () => void;
}

/**
 * A peer that leaves this many pings in a row unanswered is dead: 2 to 3 keep-alive periods of silence. Pings are counted and not time, so that a stall of our
 * own event loop is not taken for the peer's death. While bytes are on their way to it, an answer may have to wait behind them on a slow link.
 */
const DEAD_AFTER_PINGS = 2;
const DEAD_AFTER_PINGS_SENDING = 5;
/** Round trips that are remembered: half a minute's, at the usual keep-alive. */
const ROUND_TRIPS = 6;
const LEAST_ROUND_TRIPS = 3;
/** What the listener is told to allow, in our periods. */
const KEEPALIVE_PERIODS = 2.5;
/** CONNACK return code (MQTT 3.1.1, 3.2.2.3). */
const NOT_AUTHORIZED = 5;
/** Largest keep-alive MQTT can express, in seconds. */
const MAX_KEEPALIVE_S = 65_535;

export class Dialler {
  readonly #options: DiallerOptions;
  #entry: PeerEntry;
  #lane: LaneSocket | undefined;
  #attempting: LaneSocket | undefined;
  #why = 'connecting';
  #retry: NodeJS.Timeout | undefined;
  #ping: NodeJS.Timeout | undefined;
  #pingedAt = 0;
  #unanswered = 0;
  readonly #roundTrips: number[] = [];
  #failures = 0;
  #messageId = 0;
  #stopped = false;
  #isFirst = true;
  #settleFirst: () => void = () => undefined;
  /** Settles when the first attempt has succeeded or failed. */
  readonly first: Promise<void>;
  readonly createdAt = performance.now();

  constructor(entry: PeerEntry, options: DiallerOptions) {
    this.#entry = entry;
    this.#options = options;
    this.first = new Promise((resolve) => {
      this.#settleFirst = () => {
        this.#isFirst = false;
        resolve();
      };
    });
  }

  /** Where the peer listens. */
  get entry(): PeerEntry {
    return this.#entry;
  }

  /** The first attempt has neither succeeded nor failed. */
  get isFirst(): boolean {
    return this.#isFirst;
  }

  /** The live connection. */
  get lane(): LaneSocket | undefined {
    return this.#lane;
  }

  /** Why there is none; '' when there is. */
  get why(): string {
    return this.#lane === undefined ? this.#why : '';
  }

  /** The peer is at other addresses: true when the live connection is to one of them, so that it can stay. */
  readdress(entry: PeerEntry): boolean {
    const to = plainAddress(this.#lane?.socket.remoteAddress ?? '');
    if (entry.lanePort !== this.#entry.lanePort || !entry.addresses.includes(to)) return false;
    this.#entry = entry;
    return true;
  }

  /** Ends the connection, or the attempt, when it is not from one of these addresses: dials again at once. */
  leave(own: ReadonlySet<string>): void {
    for (const lane of [this.#lane, this.#attempting]) {
      const from = plainAddress(lane?.socket.localAddress ?? '');
      if (from === '' || own.has(from)) continue;
      this.#failures = 0;
      lane?.end(new Error(`this machine has not the address ${from} any more`));
    }
  }

  start(): void {
    void this.#attempt();
  }

  /** `reason` is what sends on their way are rejected with, when it is STOPPED; else they get LANE_DOWN. */
  stop(reason: Error): void {
    this.#stopped = true;
    clearTimeout(this.#retry);
    clearInterval(this.#ping);
    this.#settleFirst();
    this.#attempting?.end(reason);
    this.#lane?.control({ cmd: 'disconnect' });
    this.#lane?.end(reason);
  }

  /** Subscribes to one more topic on the live connection. */
  subscribe(topics: readonly string[]): void {
    if (topics.length === 0) return;
    this.#messageId = (this.#messageId % 65_535) + 1;
    this.#lane?.control({ cmd: 'subscribe', messageId: this.#messageId, subscriptions: topics.map((topic) => ({ topic, qos: 0 })) });
  }

  async #attempt(): Promise<void> {
    const reasons: string[] = [];
    for (const address of this.#entry.addresses) {
      if (this.#stopped) return;
      try {
        const lane = await this.#open(address);
        this.#live(lane);
        return;
      } catch (error) {
        reasons.push(`${address}:${this.#entry.lanePort} ${error instanceof Error ? error.message || 'failed' : String(error)}`);
      }
    }
    this.#again(reasons.length === 0 ? 'the peer names no address' : reasons.join('; '));
  }

  /** A connection, and the word when it can be spoken on: behind TLS, when it is known who is there. */
  #dial(address: string): { readonly socket: Socket; readonly ready: Promise<unknown>; readonly inlet?: Inlet } {
    const { secure } = this.#options;
    const { lanePort: port } = this.#entry;
    if (secure !== undefined) {
      const { socket, peer } = dialTls({ host: address, port, ...secure });
      return { socket, ready: peer };
    }
    const inlet = new Inlet(this.#options.buffers);
    const socket = connect({ host: address, port, noDelay: true, onread: inlet.onread });
    return { socket, inlet, ready: new Promise((resolve) => void socket.once('connect', resolve)) };
  }

  /** Connection, CONNECT, CONNACK. */
  #open(address: string): Promise<LaneSocket> {
    return new Promise((resolve, reject) => {
      const { connectTimeoutMs, clientId, addressee, keepaliveMs } = this.#options;
      const { socket, ready, inlet } = this.#dial(address);
      const timer = setTimeout(() => lane.end(new Error(`no answer within ${connectTimeoutMs} ms`)), connectTimeoutMs);
      const accepted = (packet: Packet) => {
        if (packet.cmd === 'pingresp') this.#answered(lane);
        // Listeners of ours ask, too: how much of what they sent is here.
        else if (packet.cmd === 'pingreq') lane.control({ cmd: 'pingresp' });
        if (packet.cmd !== 'connack') return;
        clearTimeout(timer);
        // Nobody else listens to who is named as we name ourselves.
        lane.isOurs = packet.returnCode === 0;
        if (packet.returnCode === 0) resolve(lane);
        else lane.end(new Error(packet.returnCode === NOT_AUTHORIZED ? this.#whyRefused : `refused with code ${packet.returnCode}`));
      };
      const lane = new LaneSocket(socket, {
        inlet,
        first: 'connack',
        maxPacketBytes: this.#options.maxPacketBytes,
        maxQueuedBytes: this.#options.maxQueuedBytes,
        stalledMs: this.#options.stalledMs,
        watch: this.#options.watch,
        onPublish: this.#options.onMessage,
        onPacket: accepted,
        onClose: (error) => {
          clearTimeout(timer);
          if (this.#lane === lane) this.#lost(error);
          else reject(error ?? new Error('the connection closed'));
        },
      });
      this.#attempting = lane;
      ready.then(
        () => {
          const keepalive = Math.min(MAX_KEEPALIVE_S, Math.ceil((keepaliveMs * KEEPALIVE_PERIODS) / 1500));
          lane.control({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean: true, clientId, keepalive, username: addressee });
        },
        (error: Error) => lane.end(error),
      );
    });
  }

  get #whyRefused(): string {
    return this.#options.secure === undefined
      ? 'somebody else listens there'
      : 'it does not know us as its peer, or somebody else listens there';
  }

  #live(lane: LaneSocket): void {
    this.#attempting = undefined;
    // It may have closed between CONNACK and here.
    if (this.#stopped || lane.closed) {
      lane.end();
      if (!this.#stopped) this.#again('the connection closed at once');
      return;
    }
    this.#lane = lane;
    // The same loss again is another one.
    this.#why = '';
    this.#failures = 0;
    this.#unanswered = 0;
    this.#pingedAt = 0;
    this.subscribe(this.#options.topics());
    clearInterval(this.#ping);
    this.#ping = setInterval(() => this.#check(lane), this.#options.keepaliveMs);
    this.#settleFirst();
    this.#options.onChange();
  }

  #check(lane: LaneSocket): void {
    this.#unanswered = lane.activeAt > this.#pingedAt ? 0 : this.#unanswered + 1;
    const limit = lane.queuedBytes > 0 ? DEAD_AFTER_PINGS_SENDING : DEAD_AFTER_PINGS;
    if (this.#unanswered >= limit) {
      lane.end(new Error(`nothing heard for ${Math.round(performance.now() - lane.activeAt)} ms`));
      return;
    }
    this.#pingedAt = performance.now();
    lane.ping();
  }

  /** The shortest of late; 0 = unknown. A longer one was held up by what else either end did, which says nothing of the link. */
  get roundTripMs(): number {
    return this.#roundTrips.length < LEAST_ROUND_TRIPS ? 0 : Math.min(...this.#roundTrips);
  }

  #answered(lane: LaneSocket): void {
    // Behind frames it would measure their length, and half of a reply that comes late is not the link's.
    const roundTripMs = lane.pong();
    if (roundTripMs === undefined) return;
    this.#roundTrips.push(roundTripMs);
    if (this.#roundTrips.length > ROUND_TRIPS) this.#roundTrips.shift();
  }

  #lost(error: Error | undefined): void {
    this.#lane = undefined;
    clearInterval(this.#ping);
    // Nothing is wrong with the link: there is another certificate by now, and nobody has to be told.
    if (isChairError(error, 'CERTIFICATE_EXPIRED') && !this.#stopped) {
      this.#why = error.message;
      void this.#attempt();
      return;
    }
    this.#again(error?.message ?? 'the peer closed the connection');
  }

  #again(why: string): void {
    if (this.#stopped) return;
    const changed = this.#why !== why;
    this.#why = why;
    this.#settleFirst();
    this.#retry = setTimeout(() => void this.#attempt(), backoffMs(this.#failures++, this.#options.random, 100));
    if (changed) this.#options.onChange();
  }
}

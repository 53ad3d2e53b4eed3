/**
 * The listening end of direct lanes: an MQTT 3.1.1 server for one receiver. Messages go to the owner's handlers, never from client to client; a client that
 * subscribes to exact topics gets what the owner sends it. Any stock MQTT client can connect. QoS 0 and 1 in, QoS 0 out; wills and retain are ignored.
 */
import { createServer, type Server, type Socket } from 'node:net';
import type { IConnectPacket, ISubscribePacket, Packet } from 'mqtt-packet';
import { permits, permitsClient } from '../acl.js';
import type { Buffers } from '../buffers.js';
import type { Identity } from '../credentials/credentials.js';
import { Doorkeeper } from '../doorkeeper.js';
import { ChairError, type ErrorCode } from '../errors.js';
import { plainAddress } from '../host.js';
import { listen } from '../listen.js';
import { createTlsServer, endWhenOver, type Peer } from '../tls.js';
import { byAnyone, nameOf, ownerOf, spokenBy } from '../topics.js';
import type { Trust } from '../trust.js';
import type { PublishFrame } from './framing.js';
import { Inlet, readThrough } from './inlet.js';
import { LaneSocket } from './lane-socket.js';
import type { LaneWatch } from './lane-watch.js';
import { Strangers } from './strangers.js';

export interface ListenerOptions {
  /** TLS: a client's certificate says who it is, acl.ts what it may send and hear (as if it were relayed), and `admits` whether we have to do with it now. */
  readonly trust?: Trust;
  /** With trust: '' or why this client may not come in. Asked at CONNECT; `expel` ends those who stay. */
  readonly admits?: (name: string, identity: Identity) => string;
  /** Our own `addressee`. A client that names another as its user name is not for us; one that names none (a stock client) is welcome. */
  readonly addressee: string;
  readonly host: string;
  /** 0 = any free port. */
  readonly port: number;
  readonly maxPacketBytes: number;
  readonly maxQueuedBytes: number;
  /** See `LaneSocketOptions`. */
  readonly stalledMs?: number | undefined;
  readonly watch: LaneWatch;
  /** What comes is read into these. */
  readonly buffers: Buffers;
  readonly maxConnections: number;
  /** A connection without CONNECT is ended after this. */
  readonly connectTimeoutMs: number;
  /** `lane`: the connection that it came on. */
  readonly onMessage: (from: string, frame: PublishFrame, lane: LaneSocket) => void;
  /** What a client can be reached with has changed: ask `reaches`. `name` is its id up to `~`. */
  readonly onClient: (name: string, why: string) => void;
  /** A connection was ended for what it sent. */
  readonly onRefused: (error: Error) => void;
}

/** One client connection, from accept to close. */
interface Session {
  readonly lane: LaneSocket;
  /** Who its certificate says it is. */
  readonly peer: Peer | undefined;
  /** Topics that it may send on: asked once each. */
  readonly may: Set<string>;
  /** '' until CONNECT. */
  clientId: string;
  readonly topics: Set<string>;
  timer: NodeJS.Timeout | undefined;
}

/** CONNACK return codes (MQTT 3.1.1, 3.2.2.3). */
const ACCEPTED = 0;
const UNACCEPTABLE_VERSION = 1;
const IDENTIFIER_REJECTED = 2;
const NOT_AUTHORIZED = 5;
/** SUBACK failure (3.9.3). */
const SUBSCRIBE_FAILED = 0x80;
const MAX_TOPICS_PER_CLIENT = 64;
const MOST_ID_CHARACTERS = 256;
/** Of the connections, those that nobody has let in: a quarter. */
const STRANGERS_PART = 1 / 4;
/** The third time is no race any more. */
const STRANGER_REPORTED = 3;
/** What a client did, as against what happened to its connection. */
const REPORTED: readonly unknown[] = ['CODEC_INVALID', 'PACKET_TOO_LARGE', 'QUEUE_FULL', 'SENDER_WRONG', 'CERTIFICATE_REVOKED'];

/** Whose topics its messages would be on if they were relayed. */
function ownSpeaker({ role }: Identity, clientId: string): string {
  const name = nameOf(clientId);
  return role === 'operator' || role === 'viewer' ? ownerOf(name) : name;
}

export class Listener {
  readonly #options: ListenerOptions;
  readonly #server: Server;
  readonly #door: Doorkeeper;
  readonly #sessions = new Set<Session>();
  /** Newest last, by name. Two live clients of one name do not throw each other out; the newest that subscribed gets the messages. */
  readonly #byName = new Map<string, Session[]>();
  readonly #strangers = new Strangers();
  #port = 0;
  #anonymous = 0;
  #stopped = false;

  readonly #offRevoked: () => void;

  constructor(options: ListenerOptions) {
    this.#options = options;
    const { trust, onRefused } = options;
    this.#server =
      trust === undefined
        ? createServer({ noDelay: true })
        : createTlsServer({ trust, onRefused: (error) => onRefused(error), onPeer: (socket, peer) => this.#accept(socket, peer) });
    this.#server.maxConnections = options.maxConnections;
    this.#door = new Doorkeeper(this.#server, { places: Math.ceil(options.maxConnections * STRANGERS_PART) });
    // After the door, which may turn them away.
    if (trust === undefined) this.#server.on('connection', (socket: Socket) => this.#accept(socket, undefined));
    this.#offRevoked = trust?.onRevoked(() => this.#dropRevoked(trust)) ?? (() => undefined);
  }

  #dropRevoked(trust: Trust): void {
    for (const { lane, peer } of this.#sessions) {
      if (peer !== undefined && trust.isRevoked(peer.identity, peer.serial))
        lane.end(new ChairError('CERTIFICATE_REVOKED', 'its certificate was revoked'));
    }
  }

  /** Ends the connections of those who are not admitted any more. */
  expel(): void {
    const { admits } = this.#options;
    for (const { lane, peer, clientId } of this.#sessions) {
      if (peer === undefined || clientId === '') continue;
      const why = admits?.(nameOf(clientId), peer.identity) ?? '';
      if (why !== '') lane.end(new Error(why));
    }
  }

  get port(): number {
    return this.#port;
  }

  /** Throws PORT_IN_USE. */
  async start(): Promise<void> {
    this.#port = await listen(this.#server, this.#options.host, this.#options.port);
    // A server error after this point is a failed accept (out of file descriptors): the connection is lost, the listener lives.
    this.#server.on('error', this.#options.onRefused);
  }

  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#offRevoked();
    const closed = new Promise<void>((resolve) => (this.#server.listening ? this.#server.close(() => resolve()) : resolve()));
    const stopped = new ChairError('STOPPED', 'the lane listener was stopped');
    for (const session of this.#sessions) session.lane.end(stopped);
    this.#door.stop();
    await closed;
  }

  /** The connection on which `name` gets messages of `topic`, if it is there and subscribed. */
  laneTo(name: string, topic: string): LaneSocket | undefined {
    return this.#byName.get(name)?.findLast((session) => session.topics.has(topic))?.lane;
  }

  /** Its connections that frames may go on: who dials one beside its lane subscribes to nothing there. */
  lanesOf(name: string): readonly LaneSocket[] {
    return (this.#byName.get(name) ?? []).flatMap(({ lane, topics }) => (topics.size > 0 ? [lane] : []));
  }

  /** True when `name` is connected and has subscribed to something. */
  reaches(name: string): boolean {
    return this.#byName.get(name)?.some((session) => session.topics.size > 0) === true;
  }

  /** Ends connections of `name` that come from one of these addresses. */
  endFrom(name: string, addresses: ReadonlySet<string>): void {
    for (const { lane } of this.#byName.get(name) ?? []) {
      const from = plainAddress(lane.socket.remoteAddress ?? '');
      if (addresses.has(from)) lane.end(new Error(`${name} has not the address ${from} any more`));
    }
  }

  /** Ends connections to an address of this machine that is not among these. */
  leave(own: ReadonlySet<string>): void {
    for (const { lane } of this.#sessions) {
      const at = plainAddress(lane.socket.localAddress ?? '');
      if (at !== '' && !own.has(at)) lane.end(new Error(`this machine has not the address ${at} any more`));
    }
  }

  #accept(accepted: Socket, peer: Peer | undefined): void {
    if (this.#stopped) accepted.destroy();
    if (accepted.destroyed) return;
    // TLS hands over what it has decrypted, in pieces of its own.
    const inlet = peer === undefined ? new Inlet(this.#options.buffers) : undefined;
    const through = inlet === undefined ? undefined : readThrough(accepted, inlet);
    const socket = through ?? accepted;
    const session: Session = {
      clientId: '',
      peer,
      may: new Set(),
      topics: new Set(),
      timer: undefined,
      lane: new LaneSocket(socket, {
        inlet: through === undefined ? undefined : inlet,
        first: 'connect',
        maxPacketBytes: this.#options.maxPacketBytes,
        maxQueuedBytes: this.#options.maxQueuedBytes,
        stalledMs: this.#options.stalledMs,
        watch: this.#options.watch,
        onPublish: (frame) => this.#publish(session, frame),
        onPacket: (packet) => this.#packet(session, packet),
        onClose: (error) => this.#closed(session, error),
      }),
    };
    this.#sessions.add(session);
    const { trust } = this.#options;
    if (peer !== undefined && trust !== undefined) endWhenOver(socket, peer, trust, (error) => session.lane.end(error));
    session.timer = setTimeout(() => session.lane.end(new Error('CONNECT did not come in time')), this.#options.connectTimeoutMs);
  }

  #publish(session: Session, frame: PublishFrame): void {
    this.#checkMay(session, frame.topic);
    if (frame.qos === 1) session.lane.control({ cmd: 'puback', messageId: frame.messageId });
    this.#options.onMessage(nameOf(session.clientId), frame, session.lane);
  }

  /** A lane is the short way of what could come through the broker: whoever may not say it there may not say it here. Throws SENDER_WRONG, which ends the connection. */
  #checkMay({ peer, may, clientId }: Session, topic: string): void {
    if (peer === undefined || may.has(topic)) return;
    const why = permits(peer.identity, { action: 'publish', topic: spokenBy(topic, ownSpeaker(peer.identity, clientId)) });
    if (why !== '') throw new ChairError('SENDER_WRONG', `${nameOf(clientId)} may not send ${topic.slice(0, 200)}: ${why}`);
    if (may.size < MAX_TOPICS_PER_CLIENT) may.add(topic);
  }

  #packet(session: Session, packet: Packet): void {
    switch (packet.cmd) {
      case 'connect':
        this.#connect(session, packet);
        return;
      case 'subscribe':
        this.#subscribe(session, packet);
        return;
      case 'unsubscribe':
        for (const topic of packet.unsubscriptions) session.topics.delete(topic);
        session.lane.control({ cmd: 'unsuback', messageId: packet.messageId ?? 0, granted: [] });
        this.#options.onClient(nameOf(session.clientId), 'it unsubscribed');
        return;
      case 'pingreq':
        session.lane.control({ cmd: 'pingresp' });
        return;
      case 'pingresp':
        session.lane.pong();
        return;
      case 'disconnect':
        session.lane.end();
        return;
      case 'puback':
        // Nothing is sent with QoS 1; harmless.
        return;
      default:
        throw new ChairError('CODEC_INVALID', `a lane does not take ${packet.cmd} packets`);
    }
  }

  #connect(session: Session, packet: IConnectPacket): void {
    // [MQTT-3.1.0-2]: a second CONNECT is a protocol violation.
    if (session.clientId !== '') throw new ChairError('CODEC_INVALID', 'a second CONNECT on one connection');
    if (packet.protocolVersion !== 3 && packet.protocolVersion !== 4) {
      this.#reject(session, UNACCEPTABLE_VERSION, `MQTT protocol version ${packet.protocolVersion} is not spoken here`, 'CODEC_INVALID');
      return;
    }
    // As the broker does.
    if (packet.clientId.length > MOST_ID_CHARACTERS) {
      this.#reject(session, IDENTIFIER_REJECTED, `a client id of ${packet.clientId.length} characters`, 'CODEC_INVALID');
      return;
    }
    // [MQTT-3.1.3-8]: no id is for clean sessions only.
    if (packet.clientId === '' && packet.clean === false) {
      this.#reject(session, IDENTIFIER_REJECTED, 'a client without an id asked for a stored session', 'CODEC_INVALID');
      return;
    }
    // Addresses are reused (NAT, loopback, private networks): a frame must not vanish at a process that has no use for it.
    if (packet.username !== undefined && packet.username !== this.#options.addressee) {
      const cluster = this.#options.addressee.split('/')[0] ?? '';
      const code = String(packet.username).startsWith(`${cluster}/`) ? 'LANE_DOWN' : 'CLUSTER_WRONG';
      this.#reject(
        session,
        NOT_AUTHORIZED,
        `a lane to ${String(packet.username).slice(0, MOST_ID_CHARACTERS)} was dialled here, at ${this.#options.addressee}`,
        code,
      );
      return;
    }
    if (session.peer !== undefined && !this.#admit(session, session.peer, nameOf(packet.clientId))) return;
    // Only a dialler of ours says whom it means.
    session.lane.isOurs = packet.username !== undefined;
    session.clientId = packet.clientId === '' ? `anonymous-${++this.#anonymous}` : packet.clientId;
    const name = nameOf(session.clientId);
    const others = this.#byName.get(name) ?? [];
    // [MQTT-3.1.4-2]: the same full id is the same client on a new connection.
    for (const other of others) if (other.clientId === session.clientId) other.lane.end(new Error('taken over by a newer connection'));
    this.#byName.set(name, [...others, session]);
    this.#watchKeepalive(session, packet.keepalive ?? 0);
    this.#door.known(session.lane.socket);
    session.lane.control({ cmd: 'connack', returnCode: ACCEPTED, sessionPresent: false });
  }

  #admit(session: Session, { identity }: Peer, name: string): boolean {
    const wrong = permitsClient(identity, name);
    const stranger = wrong === '' ? (this.#options.admits?.(name, identity) ?? '') : '';
    if (wrong === '' && stranger === '') {
      this.#strangers.forget(name);
      return true;
    }
    // Who is named our peer may hear of it before we do, and dials again.
    const isReported = wrong !== '' || this.#strangers.came(name) === STRANGER_REPORTED;
    this.#reject(session, NOT_AUTHORIZED, `a lane was refused: ${wrong || stranger}`, isReported ? 'SENDER_WRONG' : undefined);
    return false;
  }

  /** Without a code it is not reported. */
  #reject(session: Session, returnCode: number, why: string, code: ErrorCode | undefined): void {
    session.lane.control({ cmd: 'connack', returnCode, sessionPresent: false });
    // Let the answer out, then close.
    session.lane.socket.end();
    if (code !== undefined) this.#options.onRefused(new ChairError(code, why));
  }

  #subscribe(session: Session, packet: ISubscribePacket): void {
    const granted = packet.subscriptions.map(({ topic }) => {
      // Exact topics only: nothing here rests on wildcards.
      if (/[+#]/.test(topic) || session.topics.size >= MAX_TOPICS_PER_CLIENT) return SUBSCRIBE_FAILED;
      const { peer } = session;
      if (peer !== undefined && permits(peer.identity, { action: 'subscribe', topic: byAnyone(topic) }) !== '') return SUBSCRIBE_FAILED;
      session.topics.add(topic);
      return 0;
    });
    session.lane.control({ cmd: 'suback', messageId: packet.messageId ?? 0, granted });
    this.#options.onClient(nameOf(session.clientId), '');
  }

  /** [MQTT-3.1.2-24]: one and a half keep-alive periods without a packet end the connection. */
  #watchKeepalive(session: Session, keepaliveSeconds: number): void {
    clearTimeout(session.timer);
    session.timer = undefined;
    if (keepaliveSeconds === 0) return;
    const limitMs = keepaliveSeconds * 1500;
    const check = () => {
      // Bytes of a large packet count: it may take longer than a period.
      const idleMs = performance.now() - session.lane.activeAt;
      if (idleMs < limitMs) {
        session.timer = setTimeout(check, limitMs - idleMs + 1);
        return;
      }
      // One turn of the event loop: what came while we were busy is read before it is judged.
      setImmediate(() => {
        if (performance.now() - session.lane.activeAt >= limitMs) session.lane.end(new Error(`nothing heard for ${Math.round(idleMs)} ms`));
        else if (!session.lane.closed) check();
      });
    };
    session.timer = setTimeout(check, limitMs);
  }

  #closed(session: Session, error: Error | undefined): void {
    clearTimeout(session.timer);
    this.#sessions.delete(session);
    if (error !== undefined && 'code' in error && REPORTED.includes(error.code)) this.#options.onRefused(error);
    if (session.clientId === '') return;
    const name = nameOf(session.clientId);
    const left = (this.#byName.get(name) ?? []).filter((other) => other !== session);
    if (left.length > 0) this.#byName.set(name, left);
    else this.#byName.delete(name);
    if (!this.#stopped) this.#options.onClient(name, error?.message ?? 'it disconnected');
  }
}

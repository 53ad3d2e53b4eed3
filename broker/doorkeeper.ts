/**
 * Who waits at the door of a port: connections that have not shown yet who they are. Whoever reaches the port can open as many as he likes and say nothing, or a byte a
 * second. So strangers have places of their own, and are not turned away when all are taken: then the one goes that has waited longest of the address that has most.
 * The more an address holds, the shorter each of its connections may wait, down to nothing; one that comes with a few gets through while any number of others hold all
 * they can.
 *
 * An address is a host's. Of IPv6, where a host has as many as it likes, it is looked first which network (/64) holds most, and in it which host: neighbours in one
 * network do not pay for each other.
 *
 * Beside that, how fast the connections of one address may come to nothing is bounded.
 */
import type { Server, Socket } from 'node:net';
import { type Bucket, type BucketOptions, Buckets, networkOf } from './credentials/bucket.js';
import { plainAddress } from './host.js';
import { Repetition } from './repetition.js';

export interface DoorkeeperOptions {
  /** Connections of strangers at once, of all addresses. */
  readonly places: number;
  /** Connections of one host that come to nothing: so many at once, and one more each so many ms. Default 400, and 20 in a second. */
  readonly rate?: BucketOptions;
  /** Told that somebody was turned away, one line in ten minutes. */
  readonly log?: (line: string) => void;
  /** Monotonic, ms. */
  readonly nowMs?: () => number;
}

interface Stranger {
  readonly socket: Socket;
  readonly host: string;
  readonly network: string;
  /** What its coming was taken from. */
  readonly buckets: readonly Bucket[];
}

/** A handshake costs a small board some milliseconds. Behind one address there may be a whole fleet, and each of it comes to the port to join three times. */
const RATE = { burst: 400, everyMs: 50 };
/** A door that is crowded stays so for hours, when somebody wants it. */
const CROWDED_MS = 600_000;
/** What a whole network of IPv6 may, as a multiple of what one host may. */
const NETWORK_SHARE = 4;

export class Doorkeeper {
  readonly #o: DoorkeeperOptions;
  readonly #now: () => number;
  /** By both ends of the connection: TLS hands over another socket than the one that came. Oldest first. */
  readonly #strangers = new Map<string, Stranger>();
  readonly #hosts: Buckets;
  readonly #networks: Buckets;
  readonly #lines: Repetition;

  /** `server` listens later; TLS or plain. Its own `maxConnections` must leave room for `places`, as Node turns newcomers away there. */
  constructor(server: Server, options: DoorkeeperOptions) {
    this.#o = options;
    this.#now = options.nowMs ?? (() => performance.now());
    const { burst, everyMs } = options.rate ?? RATE;
    this.#hosts = new Buckets({ burst, everyMs });
    this.#networks = new Buckets({ burst: NETWORK_SHARE * burst, everyMs: everyMs / NETWORK_SHARE });
    this.#lines = new Repetition((line) => options.log?.(line), this.#now, { quietMs: CROWDED_MS });
    server.on('connection', (socket: Socket) => this.#admit(socket));
  }

  get strangers(): number {
    return this.#strangers.size;
  }

  /** It has said all it had to say, and is being answered: nobody takes its place. The socket that came, or the one that TLS made of it. */
  heard(socket: Socket): void {
    this.#strangers.delete(keyOf(socket));
  }

  /** It has shown who it is: it stays, and its coming was no stranger's. */
  known(socket: Socket): void {
    const key = keyOf(socket);
    for (const bucket of this.#strangers.get(key)?.buckets ?? []) bucket.give();
    this.#strangers.delete(key);
  }

  /** Ends the connections of all strangers: a server that closes would wait for them. */
  stop(): void {
    for (const { socket } of this.#strangers.values()) socket.destroy();
    this.#strangers.clear();
  }

  #admit(socket: Socket): void {
    socket.on('error', () => undefined);
    const host = plainAddress(socket.remoteAddress ?? '');
    const buckets = this.#bucketsOf(host);
    // Without an address: it has gone already.
    if (host === '' || !buckets.every((bucket) => bucket.waitMs(this.#now()) === 0)) {
      socket.destroy();
      if (host !== '') this.#turnedAway(host);
      return;
    }
    for (const bucket of buckets) bucket.take(this.#now());
    const key = keyOf(socket);
    this.#strangers.set(key, { socket, host, network: networkOf(host), buckets });
    socket.once('close', () => {
      // A new connection may have the same ends already.
      if (this.#strangers.get(key)?.socket === socket) this.#strangers.delete(key);
    });
    if (this.#strangers.size > this.#o.places) this.#makeRoom();
  }

  #bucketsOf(host: string): Bucket[] {
    const [network, nowMs] = [networkOf(host), this.#now()];
    return [this.#hosts.of(host, nowMs), ...(network === host ? [] : [this.#networks.of(network, nowMs)])];
  }

  #makeRoom(): void {
    const network = mostOf(this.#strangers.values(), (stranger) => stranger.network);
    const neighbours = [...this.#strangers].filter(([, stranger]) => stranger.network === network);
    const host = mostOf(
      neighbours.map(([, stranger]) => stranger),
      (stranger) => stranger.host,
    );
    const [key, oldest] = neighbours.find(([, stranger]) => stranger.host === host) ?? [];
    if (key === undefined || oldest === undefined) return;
    this.#strangers.delete(key);
    oldest.socket.destroy();
    this.#turnedAway(oldest.host);
  }

  #turnedAway(host: string): void {
    this.#lines.say(
      '',
      `a connection of ${host} was ended: too many wait that have not said who they are, or too many come; that of whoever has most goes first`,
    );
  }
}

/** What most have in common; of equals, what the one has that came first. */
function mostOf(strangers: Iterable<Stranger>, of: (stranger: Stranger) => string): string {
  const counts = new Map<string, number>();
  for (const stranger of strangers) counts.set(of(stranger), (counts.get(of(stranger)) ?? 0) + 1);
  let most = '';
  for (const [key, count] of counts) if (count > (counts.get(most) ?? 0)) most = key;
  return most;
}

/** Both ends: no two connections that are open have the same. */
function keyOf({ remoteAddress, remotePort, localAddress, localPort }: Socket): string {
  return [remoteAddress, remotePort, localAddress, localPort].join(' ');
}

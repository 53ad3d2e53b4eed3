/** Makes a gateway known on the local network: announces it, and answers who asks for gateways. */
import { lookup } from 'node:dns/promises';
import { toChairError } from '../errors.js';
import { encodeDns } from './dns-message.js';
import { announcement, answerTo, type GatewayNotice, recordsOf } from './gateway-notice.js';
import { ipv4Interfaces, type NetworkInterface } from './interfaces.js';
import { type Heard, MDNS_PORT, MulticastSocket } from './multicast-socket.js';

export interface AnnouncerOptions {
  readonly notice: GatewayNotice;
  /** Address or name that the broker listens on: where others would not reach it, it is not announced. `0.0.0.0` = all. */
  readonly host: string;
  readonly log?: (line: string) => void;
  readonly interfaces?: () => readonly NetworkInterface[];
  /** Default 5353. */
  readonly groupPort?: number;
  /** How often interfaces are looked at, and a socket that could not be had is tried again; default 5,000 ms. */
  readonly refreshMs?: number;
  readonly nowMs?: () => number;
  readonly random?: () => number;
}

/** Unasked, after the start and on an interface that came up: agents that wait hear it at once. Wireless networks lose multicast. */
const ANNOUNCE_AT_MS = [0, 1_000, 3_000];
const REFRESH_MS = 5_000;
const EVERYWHERE = '0.0.0.0';
/** Shared records are answered after a random delay, so that many responders do not collide (RFC 6762, section 6). */
const DELAY_MS = { least: 20, most: 120 };
/** The same multicast answer is not repeated sooner (RFC 6762, section 6). */
const QUIET_MS = 1_000;
/** More askers a second than a network of ours has: beyond that somebody lets us shout. */
const MOST_REPLIES_PER_SECOND = 200;

export class Announcer {
  readonly #o: AnnouncerOptions;
  readonly #socket: MulticastSocket;
  readonly #timers = new Set<NodeJS.Timeout>();
  /** Last multicast answer by interface address. */
  readonly #answeredAtMs = new Map<string, number>();
  #second = { from: 0, replies: 0 };
  #refresh: NodeJS.Timeout | undefined;
  #isOpen = false;
  /** Said once, however often it is tried again. */
  #saidWhy = false;
  #address = '';
  #stopping: Promise<void> | undefined;

  constructor(options: AnnouncerOptions) {
    this.#o = options;
    this.#socket = this.#make();
  }

  /** Never throws: a cluster serves without being announced. Why it is not is logged, and tried again. */
  async start(): Promise<void> {
    try {
      this.#address = this.#o.host === '::' ? EVERYWHERE : (await lookup(this.#o.host, { family: 4 })).address;
      // A name or URL that no record can hold.
      encodeDns(announcement(this.#records([])));
    } catch (error) {
      this.#say(error);
      return;
    }
    await this.#open();
    if (this.#stopping === undefined) this.#refresh = setInterval(() => void this.#look(), this.#o.refreshMs ?? REFRESH_MS);
  }

  /** Says goodbye. Idempotent. */
  stop(): Promise<void> {
    this.#stopping ??= this.#end();
    return this.#stopping;
  }

  async #end(): Promise<void> {
    clearInterval(this.#refresh);
    for (const timer of this.#timers) clearTimeout(timer);
    if (this.#isOpen) for (const from of this.#reachable()) await this.#socket.multicast(announcement(this.#records([from], 0)), from);
    this.#socket.close();
  }

  #make(): MulticastSocket {
    const { interfaces = ipv4Interfaces, groupPort = MDNS_PORT } = this.#o;
    return new MulticastSocket({ interfaces, groupPort, bind: 'group', onHeard: (heard) => this.#hear(heard) });
  }

  async #open(): Promise<void> {
    try {
      await this.#socket.open();
    } catch (error) {
      this.#say(error);
      return;
    }
    if (this.#stopping !== undefined) {
      this.#socket.close();
      return;
    }
    this.#isOpen = true;
    for (const from of this.#reachable()) this.#announce(from);
  }

  #say(error: unknown): void {
    if (!this.#saidWhy) this.#o.log?.(`not announced on the network, so agents and commands need --broker: ${toChairError(error).message}`);
    this.#saidWhy = true;
  }

  async #look(): Promise<void> {
    if (!this.#isOpen) return this.#open();
    const fresh = this.#socket.refresh();
    for (const from of this.#reachable(fresh)) this.#announce(from);
  }

  #announce(from: NetworkInterface): void {
    for (const delayMs of ANNOUNCE_AT_MS)
      this.#later(delayMs, () => void this.#socket.multicast(announcement(this.#records([from])), from));
  }

  #hear(heard: Heard): void {
    const { groupPort = MDNS_PORT, nowMs = () => performance.now(), random = Math.random } = this.#o;
    const here = this.#reachable(heard.interfaces);
    if (here.length === 0 || heard.message.response) return;
    const legacy = heard.port !== groupPort;
    const answer = answerTo(heard.message, this.#records(here), legacy);
    if (answer === undefined) return;
    if (legacy || heard.message.questions.every(({ unicast }) => unicast)) {
      if (this.#mayReply(nowMs())) void this.#socket.reply(answer, heard);
      return;
    }
    const [from] = here;
    if (from === undefined || nowMs() - (this.#answeredAtMs.get(from.address) ?? -QUIET_MS) < QUIET_MS) return;
    this.#answeredAtMs.set(from.address, nowMs());
    this.#later(DELAY_MS.least + random() * (DELAY_MS.most - DELAY_MS.least), () => void this.#socket.multicast(answer, from));
  }

  #mayReply(nowMs: number): boolean {
    if (nowMs - this.#second.from >= 1_000) this.#second = { from: nowMs, replies: 0 };
    return this.#second.replies++ < MOST_REPLIES_PER_SECOND;
  }

  /** Of these interfaces, those on which the broker can be reached. One elsewhere can be, wherever the asker is. */
  #reachable(interfaces = this.#socket.interfaces): readonly NetworkInterface[] {
    return this.#address === EVERYWHERE ? interfaces : interfaces.filter(({ address }) => address === this.#address);
  }

  #records(interfaces: readonly NetworkInterface[], ttlSeconds?: number) {
    return recordsOf(
      this.#o.notice,
      interfaces.map(({ address }) => address),
      ttlSeconds,
    );
  }

  #later(delayMs: number, act: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      act();
    }, delayMs);
    this.#timers.add(timer);
  }
}

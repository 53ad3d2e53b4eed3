/**
 * The agent's presence in the cluster: its hello at every connection and reign, its question for its peers, its health, its farewell, and what it does when
 * its address changes. What it says is read from the parts at that moment; a message that is lost with the connection is said again on the next one.
 */
import { isChairError, toChairError } from '../broker/errors.js';
import { plainAddress } from '../broker/host.js';
import type { Gone, Health, Reign } from '../broker/messages.js';
import { publicUrl } from '../broker/public-url.js';
import { isSchemaStand, OUR_SCHEMAS, reconcile } from '../broker/schema/version.js';
import { type Topics, topicsOf } from '../broker/topics.js';
import { Acceptance } from './acceptance.js';
import { FIND_BROKER } from './config.js';
import { interfaceAddresses } from './device.js';
import { HealthMeter } from './health.js';
import { announced, introduce } from './identity.js';
import type { Will } from './options.js';
import type { Host, Parts } from './parts.js';
import { within } from './within.js';

/** Longest wait for a farewell to leave. */
export const FAREWELL_MS = 1000;
/** After a renewal, agents do not come back to the broker all at once. */
const RECONNECT_WITHIN_MS = 600_000;
/** Lanes that break together are told together. */
const LANES_TOLD_MS = 20;

const LOOPBACK = /^(127\.|::1$)/;

type PresenceHost = Pick<
  Host,
  'options' | 'nonce' | 'nowMs' | 'log' | 'repetition' | 'refusals' | 'isDraining' | 'isStopping' | 'onFailure'
>;

export class Presence {
  /** Of the cluster, in the version that the scheduler reads. */
  topics: Topics;
  /** Does a scheduler know this agent? */
  readonly acceptance: Acceptance;
  private parts: Parts | undefined;
  /** Connections to the broker that were given up here. */
  private connection = 0;
  /** Connections to the broker so far. */
  private connections = 0;
  /** This machine's addresses when they were last looked at. */
  private addresses = '';

  constructor(private readonly host: PresenceHost) {
    const { cluster, broker } = host.options.config;
    this.topics = topicsOf(cluster);
    this.acceptance = new Acceptance({
      cluster,
      broker: broker === FIND_BROKER ? 'the broker that was found' : publicUrl(broker),
      log: host.log,
    });
  }

  /** What the broker says in this agent's place when the connection breaks. */
  get will(): Will {
    return { topic: this.topics.gone, value: this.gone('will') };
  }

  /** Says hello now or as soon as the broker is there, and health from now on. Returns what ends it. */
  start(parts: Parts): () => void {
    this.parts = parts;
    const { bus, epochs, runner, lanes, inbox, forwarder, commands, store, term, peers } = parts;
    const { options, nonce, nowMs, refusals } = this.host;
    const { name, healthMs } = options.config;
    const meter = new HealthMeter({
      agent: name,
      nonce,
      epochs,
      runner,
      lanes: () => [...lanes.health(), ...forwarder.health(name)],
      refused: () => inbox.counts.refused + inbox.counts.stale + commands.refused,
      damaged: () => store.damaged + (term.damage === undefined ? 0 : 1),
      refusals,
      peers,
      reconnects: () => Math.max(0, this.connections - 1),
      precision: () => ({ encodedMessages: forwarder.encodedMessages, rawFallbacks: forwarder.rawFallbacks }),
      nowMs,
    });
    const tell = (health: Health): void => {
      if (bus.connected) bus.publish(this.topics.health, health).catch(() => undefined);
    };
    const health = setInterval(() => tell(meter.read()), healthMs);
    // The scheduler suspects a peer as soon as a lane to it breaks: it is told in the agent's next health, which does not wait for its turn.
    let soon: NodeJS.Timeout | undefined;
    const offPeer = lanes.onPeer((_peer, lane) => {
      if (lane === 'direct' || soon !== undefined) return;
      soon = setTimeout(() => {
        soon = undefined;
        tell(meter.now());
      }, LANES_TOLD_MS);
    });
    this.addresses = this.ownAddresses().join();
    const offConnect = bus.onConnect(() => {
      this.connections++;
      void this.sayHello();
    });
    const offDisconnect = bus.onDisconnect(() => this.acceptance.lost());
    const offRenewed = this.watchCertificate(parts);
    return () => {
      clearInterval(health);
      clearTimeout(soon);
      offPeer();
      offConnect();
      offDisconnect();
      offRenewed();
      this.acceptance.stop();
    };
  }

  /** A scheduler reigns: from now on it is spoken to in a version that it reads. */
  reigned(reign: Reign): void {
    const { options, repetition, refusals, onFailure } = this.host;
    if (!isSchemaStand(reign)) {
      refusals.count('SCHEMA_MISMATCH', 'a reign that names no schemas of this project');
      repetition.say('reign', 'refused a reign that names no schemas of this project');
      return;
    }
    const agreed = reconcile(OUR_SCHEMAS, reign);
    if (!agreed.ok) {
      onFailure(agreed.error);
      return;
    }
    this.topics = topicsOf(options.config.cluster, agreed.version);
    void this.sayHello();
  }

  /**
   * Time passes: has this machine other addresses? Connections from an address that is gone are dead, though nobody says so: packets from it are not sent any
   * more, and TCP waits for minutes. They are made anew, and the agent says hello with what it has now.
   */
  watchAddresses(): void {
    const { parts } = this;
    const own = this.ownAddresses();
    const addresses = own.join();
    // No network at all: it may come back as it was.
    if (parts === undefined || addresses === this.addresses || own.every((address) => LOOPBACK.test(address))) return;
    this.addresses = addresses;
    this.host.log(`this machine has other addresses now: ${announced(this.host.options).join(', ')}`);
    parts.lanes.readdress(new Set(own));
    const from = plainAddress(parts.bus.localAddress);
    if (from === '' || own.includes(from)) {
      if (parts.bus.connected) void this.sayHello();
      return;
    }
    this.reconnect(parts, `its own address ${from} is gone`);
  }

  private reconnect({ bus }: Parts, why: string): void {
    // Its Will, when the broker comes to speak it, is of a connection that this agent gave up.
    this.connection++;
    bus.reconnect(why, this.will);
  }

  /** The broker ends a connection when the certificate that it began with is over, and takes the agent for lost: so it comes back with a new one in time. */
  private watchCertificate(parts: Parts): () => void {
    const { trust, reconnectWithinMs = RECONNECT_WITHIN_MS } = this.host.options;
    let timer: NodeJS.Timeout | undefined;
    const off = trust?.source.onChange(() => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        // While it is away it comes back with the new one anyhow.
        if (parts.bus.connected) this.reconnect(parts, 'its certificate was renewed');
      }, Math.random() * reconnectWithinMs).unref();
    });
    return () => {
      clearTimeout(timer);
      off?.();
    };
  }

  private ownAddresses(): readonly string[] {
    return (this.host.options.ownAddresses?.() ?? interfaceAddresses()).toSorted();
  }

  /** Never throws and never waits long: the Last Will says it otherwise. */
  async sayGone(why: string): Promise<void> {
    await within(
      FAREWELL_MS,
      this.parts?.bus.publish(this.topics.gone, this.gone(why)).catch(() => undefined),
    );
  }

  private async sayHello(): Promise<void> {
    const { parts } = this;
    const { options, nonce, isDraining, isStopping, log } = this.host;
    if (parts === undefined || isStopping()) return;
    try {
      await parts.bus.publish(this.topics.hello, await introduce(options, nonce, this.connection, parts));
      this.acceptance.asked();
      await parts.bus.publish(this.topics.peersQuestion, { agent: options.config.name, nonce, ...parts.peers.version });
      if (isDraining()) await this.sayGone('draining');
    } catch (error) {
      // Lost with the connection: said again on the next one.
      if (!isChairError(error, 'BROKER_LOST') && !isChairError(error, 'STOPPED')) log(`hello not sent: ${toChairError(error).message}`);
    }
  }

  private gone(why: string): Gone {
    return { agent: this.host.options.config.name, nonce: this.host.nonce, why, connection: this.connection };
  }
}

/**
 * The agent's presence in the cluster: its hello at every connection and reign, its health, its farewell. What it says is read from the parts
 * at that moment; a message that is lost with the connection is said again on the next one.
 */
import { isChairError, toChairError } from '../broker/errors.js';
import type { Gone, Reign } from '../broker/messages.js';
import { isSchemaStand, OUR_SCHEMAS, reconcile } from '../broker/schema/version.js';
import { type Topics, topicsOf } from '../broker/topics.js';
import { Acceptance } from './acceptance.js';
import { HealthMeter } from './health.js';
import { introduce } from './identity.js';
import type { Will } from './options.js';
import type { Host, Parts } from './parts.js';
import { within } from './within.js';

/** Longest wait for a farewell to leave. */
export const FAREWELL_MS = 1000;

type PresenceHost = Pick<Host, 'options' | 'nonce' | 'nowMs' | 'log' | 'repetition' | 'isDraining' | 'isStopping' | 'onFailure'>;

export class Presence {
  /** Of the cluster, in the version that the scheduler reads. */
  topics: Topics;
  /** Does a scheduler know this agent? */
  readonly acceptance: Acceptance;
  private parts: Parts | undefined;

  constructor(private readonly host: PresenceHost) {
    const { cluster, broker } = host.options.config;
    this.topics = topicsOf(cluster);
    this.acceptance = new Acceptance({ cluster, broker, log: host.log });
  }

  /** What the broker says in this agent's place when the connection breaks. */
  get will(): Will {
    return { topic: this.topics.gone, value: this.gone('will') };
  }

  /** Says hello now or as soon as the broker is there, and health from now on. Returns what ends it. */
  start(parts: Parts): () => void {
    this.parts = parts;
    const { bus, epochs, runner, lanes, inbox, forwarder, commands, store, term } = parts;
    const { options, nonce, nowMs } = this.host;
    const { name, healthMs } = options.config;
    const meter = new HealthMeter({
      agent: name,
      nonce,
      epochs,
      runner,
      lanes: () => [...lanes.health(), ...forwarder.health(name)],
      refused: () => inbox.counts.refused + inbox.counts.stale + commands.refused,
      damaged: () => store.damaged + (term.damage === undefined ? 0 : 1),
      precision: () => ({ encodedMessages: forwarder.encodedMessages, rawFallbacks: forwarder.rawFallbacks }),
      nowMs,
    });
    const health = setInterval(() => {
      if (bus.connected) bus.publish(this.topics.health, meter.read()).catch(() => undefined);
    }, healthMs);
    const offConnect = bus.onConnect(() => void this.sayHello());
    const offDisconnect = bus.onDisconnect(() => this.acceptance.lost());
    return () => {
      clearInterval(health);
      offConnect();
      offDisconnect();
      this.acceptance.stop();
    };
  }

  /** A scheduler reigns: from now on it is spoken to in a version that it reads. */
  reigned(reign: Reign): void {
    const { options, repetition, onFailure } = this.host;
    if (!isSchemaStand(reign)) {
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
      await parts.bus.publish(this.topics.hello, await introduce(options, nonce, parts));
      this.acceptance.asked();
      if (isDraining()) await this.sayGone('draining');
    } catch (error) {
      // Lost with the connection: said again on the next one.
      if (!isChairError(error, 'BROKER_LOST') && !isChairError(error, 'STOPPED')) log(`hello not sent: ${toChairError(error).message}`);
    }
  }

  private gone(why: string): Gone {
    return { agent: this.host.options.config.name, nonce: this.host.nonce, why };
  }
}

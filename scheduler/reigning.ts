/** Which term this scheduler reigns in, and whether it is the only one: a later one that really is there ends this one. */
import type { Bus } from '../broker/bus.js';
import { ChairError, toChairError } from '../broker/errors.js';
import type { Hello, Reign } from '../broker/messages.js';
import { OUR_SCHEMAS } from '../broker/schema/version.js';
import type { Topics } from '../broker/topics.js';
import { Rivals } from './rivals.js';

/** Unknown agents are asked to introduce themselves at most this often. */
const REIGN_AGAIN_MS = 2000;
/** Beyond it a term is no count of starts. Well below what a message can carry, so that ours can always grow. */
export const MAX_TERM = 2 ** 40;
/** How long another scheduler of this cluster has time to answer. */
const RIVAL_MS = 1000;

export interface ReigningOptions {
  readonly cluster: string;
  readonly bus: Bus;
  readonly topics: Topics;
  /** The next term, written down before it is used; higher than `atLeast`. */
  readonly nextTerm: (atLeast: number) => Promise<number>;
  /** The broker is not our own: another scheduler may be there already. Default false. */
  readonly sharedBroker?: boolean;
  /** Another scheduler reigns in this cluster in a later term: this one has to stop. */
  readonly onReplaced?: (error: ChairError) => void;
}

export class Reigning {
  readonly #o: ReigningOptions;
  readonly #now: () => number;
  readonly #log: (kind: string, text: string) => void;
  readonly #rivals: Rivals;
  #term = 0;
  #raising = false;
  #searching = false;
  #reignedMs = Number.NEGATIVE_INFINITY;
  #stopped = false;

  constructor(options: ReigningOptions, now: () => number, log: (kind: string, text: string) => void) {
    this.#o = options;
    this.#now = now;
    this.#log = log;
    this.#rivals = new Rivals(options.bus, options.topics);
  }

  get term(): number {
    return this.#term;
  }

  /** Our own questions for rivals come back to us: they are not to be answered. */
  isOurs(client: string): boolean {
    return client === this.#rivals.client;
  }

  /** Takes the next term. Throws CLUSTER_TAKEN when another scheduler answers. */
  async begin(): Promise<void> {
    const { cluster } = this.#o;
    const rival = this.#o.sharedBroker === true ? await this.#rivals.find(RIVAL_MS) : undefined;
    if (rival !== undefined) {
      throw new ChairError('CLUSTER_TAKEN', `another scheduler serves cluster '${cluster}' on this broker`, {
        expected: 'one scheduler per cluster',
        came: `one that reigns in term ${rival.term}`,
        todo: 'Stop that one, or give this one another --cluster.',
      });
    }
    this.#term = await this.#o.nextTerm(0);
  }

  stop(): void {
    this.#stopped = true;
  }

  /** An agent has obeyed a later scheduler than this state folder knows: reign after it. */
  async obeyed(hello: Hello): Promise<void> {
    if (hello.term <= this.#term || this.#raising) return;
    this.#raising = true;
    try {
      this.#term = await this.#o.nextTerm(hello.term);
      this.#log('term', `agent ${hello.agent} had obeyed term ${hello.term}; this is term ${this.#term} now`);
      this.reign();
    } catch (error) {
      this.#log('failed', `the term could not be written: ${toChairError(error).message}`);
    } finally {
      this.#raising = false;
    }
  }

  /** Says that this scheduler is here, which asks all agents to introduce themselves. */
  reign(): void {
    this.#reignedMs = this.#now();
    const reign = { term: this.#term, ...OUR_SCHEMAS };
    // If the link breaks now, the next connect reigns again.
    this.#o.bus.publish(this.#o.topics.reign, reign).catch((error: unknown) => this.#log('offline', toChairError(error).message));
  }

  /** As `reign`, but not again and again. */
  reignAgain(): void {
    if (this.#now() - this.#reignedMs > REIGN_AGAIN_MS) this.reign();
  }

  /** Our own come back, too. A later term is another scheduler's, if there really is one: one forged message must not stop this one. */
  async reigned({ term }: Reign): Promise<void> {
    if (term <= this.#term || this.#raising || this.#searching || this.#stopped) return;
    this.#searching = true;
    try {
      const rival = await this.#rivals.find(RIVAL_MS);
      if (rival === undefined || rival.term <= this.#term || this.#stopped) return;
      this.#o.onReplaced?.(
        new ChairError('CLUSTER_TAKEN', `another scheduler reigns in cluster '${this.#o.cluster}' in term ${rival.term}`, {
          expected: `term ${this.#term}, which is this one's`,
          todo: 'Run one scheduler per cluster on a broker.',
        }),
      );
    } catch (error) {
      this.#log('offline', toChairError(error).message);
    } finally {
      this.#searching = false;
    }
  }
}

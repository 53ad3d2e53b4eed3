/** Which term this scheduler reigns in, and whether it is the only one: a later one that really is there ends this one. */
import { randomBytes } from 'node:crypto';
import type { Bus } from '../broker/bus.js';
import { ChairError, toChairError } from '../broker/errors.js';
import type { Hello, Reign, StatusReport } from '../broker/messages.js';
import { OUR_SCHEMAS } from '../broker/schema/version.js';
import type { Topics } from '../broker/topics.js';
import { Rivals } from './rivals.js';

/** Unknown agents are asked to introduce themselves at most this often. */
const REIGN_AGAIN_MS = 2000;
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
  /** How long another scheduler of this cluster has time to answer; default 1,000 ms. */
  readonly rivalMs?: number;
}

export class Reigning {
  /** Random per start: see Command.scheduler. */
  readonly id = randomBytes(6).toString('hex');
  readonly #o: ReigningOptions;
  readonly #now: () => number;
  readonly #log: (kind: string, text: string) => void;
  readonly #rivals: Rivals;
  #term = 0;
  /** The highest that agents have named. */
  #seenTerm = 0;
  #raising = false;
  #looking: Promise<StatusReport | undefined> | undefined;
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

  /** Takes the next term, above `atLeast`. Throws CLUSTER_TAKEN when another scheduler answers. */
  async begin(atLeast = 0): Promise<void> {
    const { cluster } = this.#o;
    const rival = this.#o.sharedBroker === true ? await this.#rivals.find(this.#o.rivalMs ?? RIVAL_MS) : undefined;
    if (rival !== undefined) {
      throw new ChairError('CLUSTER_TAKEN', `another scheduler serves cluster '${cluster}' on this broker`, {
        expected: 'one scheduler per cluster',
        came: `one that reigns in term ${rival.term}`,
        todo: 'Stop that one, or give this one another --cluster.',
      });
    }
    this.#term = await this.#o.nextTerm(atLeast);
  }

  stop(): void {
    this.#stopped = true;
  }

  /**
   * An agent has said hello. When it has obeyed a later scheduler than this one, or another one in the same term, then either that one is at work and this one has to
   * stop, or its state folder knows of terms that ours does not: then this one reigns after it.
   */
  async obeyed({ agent, term, scheduler }: Pick<Hello, 'agent' | 'term' | 'scheduler'>): Promise<void> {
    if (term < this.#term || (term === this.#term && (scheduler === this.id || scheduler === ''))) return;
    this.#seenTerm = Math.max(this.#seenTerm, term);
    try {
      const rival = await this.#look();
      if (this.#stopped) return;
      if (rival !== undefined && rival.term >= this.#term) this.#replaced(rival);
      else if (this.#seenTerm >= this.#term) await this.#raise(agent);
    } catch (error) {
      // Cut off meanwhile: it says hello again.
      this.#log('offline', toChairError(error).message);
    }
  }

  /**
   * This process stood still, or was cut off from the broker: perhaps another one was started in its place. Resolves with whether this one still reigns, as far as
   * can be told.
   */
  async confirm(): Promise<boolean> {
    try {
      const rival = await this.#look();
      if (this.#stopped || rival === undefined || rival.term <= this.#term) return !this.#stopped;
      this.#replaced(rival);
      return false;
    } catch (error) {
      this.#log('offline', toChairError(error).message);
      return !this.#stopped;
    }
  }

  /** An agent refused a command as that of a scheduler that was replaced. */
  async refused(): Promise<void> {
    // Whether to stop or to take a higher term its hello will say.
    if (await this.confirm()) this.reignAgain();
  }

  /** Says that this scheduler is here, which asks all agents to introduce themselves. */
  reign(): void {
    this.#reignedMs = this.#now();
    const reign = { term: this.#term, scheduler: this.id, ...OUR_SCHEMAS };
    // If the link breaks now, the next connect reigns again.
    this.#o.bus.publish(this.#o.topics.reign, reign).catch((error: unknown) => this.#log('offline', toChairError(error).message));
  }

  /** As `reign`, but not again and again. */
  reignAgain(): void {
    if (this.#now() - this.#reignedMs > REIGN_AGAIN_MS) this.reign();
  }

  /** Our own come back, too. A later term is another scheduler's, if there really is one: one forged message must not stop this one. */
  async reigned({ term }: Reign): Promise<void> {
    if (term > this.#term) await this.confirm();
  }

  async #raise(agent: string): Promise<void> {
    if (this.#raising) return;
    this.#raising = true;
    try {
      this.#term = await this.#o.nextTerm(Math.max(this.#seenTerm, this.#term));
      this.#log('term', `agent ${agent} had obeyed term ${this.#seenTerm}; this is term ${this.#term} now`);
      this.reign();
    } catch (error) {
      this.#log('failed', `the term could not be written: ${toChairError(error).message}`);
    } finally {
      this.#raising = false;
    }
  }

  /** One search at a time, for all who ask. */
  #look(): Promise<StatusReport | undefined> {
    this.#looking ??= this.#rivals.find(this.#o.rivalMs ?? RIVAL_MS).finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  #replaced(rival: StatusReport): void {
    this.#o.onReplaced?.(
      new ChairError('CLUSTER_TAKEN', `another scheduler reigns in cluster '${this.#o.cluster}' in term ${rival.term}`, {
        expected: `term ${this.#term}, which is this one's`,
        todo: 'Run one scheduler per cluster on a broker.',
      }),
    );
  }
}

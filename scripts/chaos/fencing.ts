/**
 * Is anything acted upon that is over? Seen from outside: every command, reply and health message that passes the broker, in the order it was seen there.
 * No I/O and no clock in here; a message that was not seen (the broker was away) can only make this blind, not wrong.
 */
import type { Command, Health, Reply } from '../../broker/messages.js';

export interface Violation {
  readonly invariant: string;
  readonly text: string;
}

interface Seen {
  readonly order: number;
  readonly agent: string;
  readonly nonce: string;
  readonly term: number;
  readonly scheduler: string;
  readonly atMs: number;
  readonly what: string;
  readonly deployment: string;
  readonly epoch: number;
}

/** Of one agent: the highest term it has obeyed, of which scheduler, and when that was seen. */
interface Obeyed {
  readonly term: number;
  readonly scheduler: string;
  readonly order: number;
}

interface Release {
  readonly order: number;
  readonly atMs: number;
}

/** Of one epoch number of one deployment at one process: an epoch number comes again in a later term. */
interface Held {
  /** Terms in which it was to be prepared, and not released since. */
  readonly wanted: Set<number>;
  readonly released: Map<number, Release>;
}

/** Two health intervals and some: what an agent said before it had let go may still be under way. */
const SETTLE_MS = 3000;
const REMEMBERED = 5000;

export class Fencing {
  readonly #settleMs: number;
  readonly #commands = new Map<string, Seen>();
  readonly #obeyed = new Map<string, Obeyed>();
  /** By process, deployment and epoch. */
  readonly #held = new Map<string, Held>();
  /** Slices were fetched in these times, ms: what a cluster may take longer for. */
  readonly transfers: { readonly agent: string; readonly fromMs: number; readonly toMs: number; readonly bytes: number }[] = [];
  /** Commands refused for their term or epoch: fences that held. */
  refused = 0;
  accepted = 0;
  #order = 0;

  constructor(settleMs = SETTLE_MS) {
    this.#settleMs = settleMs;
  }

  command(agent: string, command: Pick<Command, 'id' | 'term' | 'scheduler' | 'nonce' | 'body'>, atMs: number): Violation[] {
    const order = ++this.#order;
    // Asked again after a reconnect: the first time counts, as it may have been obeyed then.
    if (this.#commands.has(command.id)) return [];
    const { id, nonce, term, scheduler, body } = command;
    const held = epochOf(command);
    this.#commands.set(id, { order, agent, nonce, term, scheduler, atMs, what: body.kind, ...held });
    if (this.#commands.size > REMEMBERED) this.#commands.delete(this.#commands.keys().next().value ?? '');
    if (body.kind === 'prepare') this.#of(nonce, held).wanted.add(term);
    return [];
  }

  reply(reply: Pick<Reply, 'id' | 'code' | 'fetchedBytes'>, atMs: number): Violation[] {
    const order = ++this.#order;
    const asked = this.#commands.get(reply.id);
    if (asked === undefined) return [];
    if (reply.code !== '') {
      if (reply.code === 'EPOCH_STALE' || reply.code === 'TERM_STALE') this.refused++;
      return [];
    }
    this.accepted++;
    const violations = [...this.#late(asked), ...this.#overtaken(asked)];
    const obeyed = this.#obeyed.get(asked.agent);
    if (obeyed === undefined || asked.term > obeyed.term) this.#obeyed.set(asked.agent, { ...asked, order });
    if (reply.fetchedBytes > 0) this.transfers.push({ agent: asked.agent, fromMs: asked.atMs, toMs: atMs, bytes: reply.fetchedBytes });
    if (asked.what === 'release') this.#letGo(asked, order, atMs);
    return violations;
  }

  health(health: Pick<Health, 'agent' | 'nonce' | 'seats'>, atMs: number): Violation[] {
    this.#order++;
    return health.seats.flatMap((seat) => {
      const { wanted, released } = this.#of(health.nonce, seat);
      const last = Math.max(...[...released.values()].map((release) => release.atMs));
      if (wanted.size > 0 || released.size === 0 || atMs - last < this.#settleMs) return [];
      const ago = ((atMs - last) / 1000).toFixed(1);
      const text = `agent ${health.agent} holds a seat of ${seat.deployment} epoch ${seat.epoch}, which it had let go ${ago} s before`;
      return [{ invariant: 'nothing is held after its release', text }];
    });
  }

  /** It had obeyed a later scheduler before this command was even sent. */
  #late({ agent, term, scheduler, order, what }: Seen): Violation[] {
    const obeyed = this.#obeyed.get(agent);
    if (obeyed === undefined || order < obeyed.order || term > obeyed.term) return [];
    if (term < obeyed.term) {
      const text = `agent ${agent} obeyed '${what}' of term ${term} although it had obeyed term ${obeyed.term} before`;
      return [{ invariant: 'no command of a lower term is obeyed', text }];
    }
    if (scheduler === obeyed.scheduler) return [];
    const text = `agent ${agent} obeyed '${what}' of scheduler ${scheduler} in term ${term}, which is ${obeyed.scheduler}'s`;
    return [{ invariant: 'one scheduler is obeyed in a term', text }];
  }

  /** It had let go of this epoch before the command was sent. */
  #overtaken(asked: Seen): Violation[] {
    const { agent, nonce, term, order, what, deployment, epoch } = asked;
    if (what !== 'prepare' && what !== 'commit') return [];
    const release = this.#of(nonce, asked).released.get(term);
    if (release === undefined || order < release.order) return [];
    const text = `agent ${agent} obeyed '${what}' of ${deployment} epoch ${epoch}, term ${term}, although it had let go of it before`;
    return [{ invariant: 'no command of a released epoch is obeyed', text }];
  }

  /** A scheduler also clears away what its predecessors left, of which it knows the number but not the term. */
  #letGo(asked: Seen, order: number, atMs: number): void {
    const { wanted, released } = this.#of(asked.nonce, asked);
    const terms = wanted.has(asked.term) ? [asked.term] : [...wanted].filter((term) => term < asked.term);
    for (const term of terms) {
      wanted.delete(term);
      released.set(term, { order, atMs });
    }
  }

  #of(nonce: string, { deployment, epoch }: { readonly deployment: string; readonly epoch: number }): Held {
    const key = `${nonce} ${deployment} ${epoch}`;
    const known = this.#held.get(key) ?? { wanted: new Set(), released: new Map() };
    this.#held.set(key, known);
    if (this.#held.size > REMEMBERED) this.#held.delete(this.#held.keys().next().value ?? '');
    return known;
  }
}

function epochOf({ body }: Pick<Command, 'body'>): { readonly deployment: string; readonly epoch: number } {
  if (body.kind === 'prepare') return { deployment: body.prepare.deployment, epoch: body.prepare.epoch };
  if (body.kind === 'commit') return body.commit;
  if (body.kind === 'release') return body.release;
  return { deployment: '', epoch: 0 };
}

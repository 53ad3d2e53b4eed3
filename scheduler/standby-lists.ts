/**
 * Which slices stand by on which agent: asks agents for them, few at once, asks again before the leases are over, and remembers what they answered. What a list
 * does not name any more is given back.
 */
import { toChairError } from '../broker/errors.js';
import type { SliceRef } from '../broker/plan.js';
import type { Commands } from './commands.js';
import type { Registry } from './registry.js';

/** Lists are asked for again so often, and given up by an agent that was not asked for so long. */
const AGAIN_MS = 30_000;
const LEASE_MS = 120_000;
/** An agent has so long for its list, and so much longer for each byte. */
const STANDBY_MS = 120_000;
const STANDBY_BYTES_PER_MS = 100;
/** Agents that fetch at once: the gateway serves frames, too. */
const AT_ONCE = 2;
/** Slices on one list: its answer names them all. */
const MOST_SLICES = 400;

export interface StandbyListsOptions {
  readonly registry: Registry;
  readonly commands: Commands;
  readonly term: () => number;
  readonly log: (kind: string, text: string) => void;
  readonly now: () => number;
}

/** Of one deployment on one agent. */
export interface Wanted {
  readonly agent: string;
  readonly deployment: string;
  readonly slices: readonly SliceRef[];
}

interface List extends Wanted {
  readonly nonce: string;
  /** Graphs of slices, as the agent answered. */
  loaded: ReadonlySet<string>;
  stored: ReadonlySet<string>;
  askedMs: number;
  asking: boolean;
  why: string;
}

export class StandbyLists {
  readonly #o: StandbyListsOptions;
  readonly #lists = new Map<string, List>();
  #stopped = false;

  constructor(options: StandbyListsOptions) {
    this.#o = options;
  }

  /** From now on these, those of the deployments `left` alone, and no others. What is the same as before stays as it is. */
  replace(wanted: readonly Wanted[], left: ReadonlySet<string>): void {
    const kept = new Set(wanted.map(keyOf));
    for (const [key, list] of this.#lists) {
      if (kept.has(key) || left.has(list.deployment)) continue;
      this.#lists.delete(key);
      if (this.#isThere(list)) void this.#send({ ...list, slices: [] });
    }
    for (const one of wanted) {
      const nonce = this.#o.registry.get(one.agent)?.nonce ?? '';
      const slices = one.slices.slice(0, MOST_SLICES);
      const known = this.#lists.get(keyOf(one));
      if (known !== undefined && known.nonce === nonce && sameSlices(known.slices, slices)) continue;
      const had = known?.nonce === nonce ? known : undefined;
      const answered = { loaded: had?.loaded ?? new Set<string>(), stored: had?.stored ?? new Set<string>() };
      this.#lists.set(keyOf(one), { ...one, slices, nonce, ...answered, askedMs: Number.NEGATIVE_INFINITY, asking: false, why: '' });
    }
  }

  /** What agents said that they have, of those that are still the same process. */
  *standing(): Generator<{ readonly agent: string; readonly slice: SliceRef; readonly loaded: boolean }> {
    for (const list of this.#lists.values()) {
      if (!this.#isThere(list)) continue;
      for (const slice of list.slices) {
        const loaded = list.loaded.has(slice.graph.sha256);
        if (loaded || list.stored.has(slice.graph.sha256)) yield { agent: list.agent, slice, loaded };
      }
    }
  }

  /** Bytes of all that is on an agent's lists. */
  bytesOn(agent: string): number {
    let bytes = 0;
    for (const list of this.#lists.values()) if (list.agent === agent) bytes += blobBytes(list.slices);
    return bytes;
  }

  /** Asks for the lists whose turn it is. */
  tick(): void {
    if (this.#stopped) return;
    const now = this.#o.now();
    let asking = 0;
    for (const list of this.#lists.values()) if (list.asking) asking++;
    for (const list of this.#lists.values()) {
      if (asking >= AT_ONCE) return;
      if (list.asking || now - list.askedMs < AGAIN_MS || !this.#isThere(list)) continue;
      asking++;
      list.asking = true;
      list.askedMs = now;
      void this.#ask(list).finally(() => {
        list.asking = false;
      });
    }
  }

  stop(): void {
    this.#stopped = true;
  }

  async #ask(list: List): Promise<void> {
    const why = await this.#send(list);
    // It is asked again; said once.
    if (why !== '' && why !== list.why && this.#lists.get(keyOf(list)) === list && !this.#stopped) {
      this.#o.log('standby', `${list.agent} does not have all that ${list.deployment} would need of it: ${why}`);
    }
    list.why = why;
  }

  /** Why not all of it is there; '' when it is. Never throws. */
  async #send(list: List): Promise<string> {
    const { agent, nonce, deployment, slices } = list;
    const standby = { deployment, slices, leaseMs: LEASE_MS, urgent: false };
    const deadlineMs = STANDBY_MS + blobBytes(slices) / STANDBY_BYTES_PER_MS;
    try {
      const { standing } = await this.#o.commands.send(agent, nonce, this.#o.term(), { kind: 'standby', standby }, deadlineMs);
      list.loaded = new Set(standing?.loaded);
      list.stored = new Set(standing?.stored);
      return standing?.why ?? '';
    } catch (error) {
      return toChairError(error).message;
    }
  }

  #isThere({ agent, nonce }: List): boolean {
    return this.#o.registry.serves(agent, nonce);
  }
}

/** Of the blobs, each counted once. */
export function blobBytes(slices: readonly SliceRef[]): number {
  const sizes = new Map(slices.flatMap(({ graph, blobs }) => [graph, ...blobs]).map(({ sha256, sizeBytes }) => [sha256, sizeBytes]));
  return [...sizes.values()].reduce((sum, bytes) => sum + bytes, 0);
}

function keyOf({ agent, deployment }: Wanted): string {
  return `${agent} ${deployment}`;
}

function sameSlices(a: readonly SliceRef[], b: readonly SliceRef[]): boolean {
  return a.length === b.length && a.every(({ graph }, i) => graph.sha256 === b[i]?.graph.sha256);
}

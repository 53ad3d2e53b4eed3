/**
 * Who this agent exchanges activations with, and where they listen. Three sources, the first one that names a peer counts: the table, which the scheduler
 * tells whole and in versions; what prepares named, for as long as their epochs are held, since a new scheduler may not know these yet; and peers whose
 * link was measured, for a while, since a plan may use it next. Whom the table names as thrown out is none, whatever names him. Pure.
 */
import type { Neighbour, PeerEntry } from '../broker/messages.js';
import type { EpochKey } from './epochs.js';

/** A link that was measured for a plan is used by it soon, or not at all. */
const BORROWED_MS = 30_000;

export class PeerTable {
  private told = { term: 0, version: 0 };
  private table = new Map<string, PeerEntry>();
  private out: ReadonlySet<string> = new Set();
  private prepared: { readonly key: EpochKey; readonly peers: readonly PeerEntry[] }[] = [];
  private readonly borrowed = new Map<string, { readonly peer: PeerEntry; readonly untilMs: number }>();

  constructor(private readonly self: string) {}

  /** Of the table that the scheduler told; versions begin with 1 in every term. */
  get version(): { readonly term: number; readonly version: number } {
    return this.told;
  }

  /** Replaces the table. False when it is not newer than what is known. */
  replace(term: number, version: number, neighbours: readonly Neighbour[], out: readonly string[] = []): boolean {
    const { told } = this;
    if (term < told.term || (term === told.term && version <= told.version)) return false;
    this.told = { term, version };
    this.out = new Set(out);
    this.table = new Map(neighbours.map(({ agent, addresses, lanePort }) => [agent, { agent, addresses, lanePort }]));
    return true;
  }

  /** A prepare's peers. It may come again, long after it was written: it says nothing new of those that the table names. */
  prepare(key: EpochKey, peers: readonly PeerEntry[]): void {
    this.prepared = [...this.prepared.filter((other) => !isSame(other.key, key)), { key, peers }];
  }

  /** The link to this peer is measured. */
  borrow(peer: PeerEntry, nowMs: number): void {
    this.borrowed.set(peer.agent, { peer, untilMs: nowMs + BORROWED_MS });
  }

  /** Forgets the peers of epochs that are not held any more, and those borrowed long ago. True when that changed anything. */
  tidy(isHeld: (key: EpochKey) => boolean, nowMs: number): boolean {
    const before = this.prepared.length + this.borrowed.size;
    this.prepared = this.prepared.filter(({ key }) => isHeld(key));
    for (const [agent, { untilMs }] of this.borrowed) if (nowMs >= untilMs) this.borrowed.delete(agent);
    return this.prepared.length + this.borrowed.size !== before;
  }

  get all(): PeerEntry[] {
    const all = new Map<string, PeerEntry>();
    for (const { peer } of this.borrowed.values()) all.set(peer.agent, peer);
    for (const { peers } of this.prepared) for (const peer of peers) all.set(peer.agent, peer);
    for (const [agent, peer] of this.table) all.set(agent, peer);
    all.delete(this.self);
    for (const agent of this.out) all.delete(agent);
    return [...all.values()];
  }
}

function isSame(a: EpochKey, b: EpochKey): boolean {
  return a.term === b.term && a.deployment === b.deployment && a.epoch === b.epoch;
}

/** The peer table as the scheduler tells it: whole tables in version order, and what a prepare adds before the next whole table. Pure. */
import type { PeerEntry } from '../broker/messages.js';

export class PeerTable {
  private version = { term: 0, version: -1 };
  private readonly entries = new Map<string, PeerEntry>();

  constructor(private readonly self: string) {}

  /** Replaces the table. False when it is not newer than what is known. */
  replace(term: number, version: number, peers: readonly PeerEntry[]): boolean {
    const { version: known } = this;
    if (term < known.term || (term === known.term && version <= known.version)) return false;
    this.version = { term, version };
    this.entries.clear();
    this.add(peers);
    return true;
  }

  /** A prepare's peers, as the scheduler knew them when it wrote the prepare. */
  add(peers: readonly PeerEntry[]): void {
    for (const peer of peers) if (peer.agent !== this.self) this.entries.set(peer.agent, peer);
  }

  get all(): PeerEntry[] {
    return [...this.entries.values()];
  }
}

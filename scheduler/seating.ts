/** What agents are told about their seats: prepare, commit, release; and the release of seats that nobody here knows. */
import type { CommandBody, Health, PeerEntry, Reply } from '../broker/messages.js';
import type { SliceRef } from '../broker/plan.js';
import type { Commands } from './commands.js';
import type { Deployment, Placed } from './deployment.js';
import { neighboursOf } from './peer-tables.js';
import { slicesOf } from './plan-builder.js';
import type { Registry } from './registry.js';
import { blobBytes } from './standby-lists.js';

const COMMAND_MS = 10_000;
/** What was fetched ahead is kept so long for the seats that need it. */
const FETCHED_LEASE_MS = 120_000;
/** An agent loads and warms up in this time, and fetches at least this fast. */
const PREPARE_MS = 60_000;
const PREPARE_BYTES_PER_MS = 500;
/** How long to wait before a seat that nobody knows is released again. */
const RELEASE_AGAIN_MS = 5000;

export interface SeatingOptions {
  readonly registry: Registry;
  readonly commands: Commands;
  readonly term: () => number;
  readonly peers: (agents: Iterable<string>) => PeerEntry[];
  readonly now: () => number;
}

export class Seating {
  readonly #o: SeatingOptions;
  readonly #strangers = new Map<string, number>();

  constructor(options: SeatingOptions) {
    this.#o = options;
  }

  /** Resolves when the agent holds its slices, warm. Throws what the agent answers, AGENT_UNKNOWN, REQUEST_TIMEOUT. */
  async prepare(placed: Placed, agent: string): Promise<void> {
    const { plan } = placed;
    const slices = slicesOf(plan, agent);
    const { deployment, epoch, inputs, outputs, stages, wires } = plan;
    const peers = this.#o.peers(neighboursOf(plan).get(agent)?.keys() ?? []);
    const prepare = { deployment, epoch, inputs, outputs, stages, wires, slices, peers };
    await this.#command(agent, placed.nonces.get(agent) ?? '', { kind: 'prepare', prepare }, fetchingMs(slices));
  }

  /** Resolves when the agent has its blobs on disk, as far as there is room; with why it has not all of them. Throws AGENT_UNKNOWN, REQUEST_TIMEOUT. */
  async fetch(placed: Placed, agent: string): Promise<string> {
    const slices = slicesOf(placed.plan, agent);
    // No deployment has such a name: what stands by for this one stays as it is.
    const standby = { deployment: `${placed.plan.deployment}/next`, slices, leaseMs: FETCHED_LEASE_MS, urgent: true };
    const { standing } = await this.#command(agent, placed.nonces.get(agent) ?? '', { kind: 'standby', standby }, fetchingMs(slices));
    return standing?.why ?? '';
  }

  async commit(placed: Placed, agent: string): Promise<void> {
    const { deployment, epoch } = placed.plan;
    await this.#command(agent, placed.nonces.get(agent) ?? '', { kind: 'commit', commit: { deployment, epoch } });
  }

  /** Best effort: what is missed shows up in the agent's health and is released then. */
  async release(placed: Placed, only?: string): Promise<void> {
    const { deployment, epoch } = placed.plan;
    const there = [...placed.nonces].filter(
      ([agent, nonce]) => (only === undefined || agent === only) && this.#o.registry.serves(agent, nonce),
    );
    await Promise.allSettled(
      there.map(([agent, nonce]) => this.#command(agent, nonce, { kind: 'release', release: { deployment, epoch } })),
    );
  }

  /** Releases seats that no deployment knows: of an earlier term, of an agent that was away when its seat was moved. */
  observe(health: Health, deployments: ReadonlyMap<string, Deployment>): void {
    for (const { deployment: name, epoch } of health.seats) {
      const deployment = deployments.get(name);
      const known = [deployment?.serving, deployment?.next, deployment?.restoring?.placed, ...(deployment?.draining.values() ?? [])];
      if (known.some((placed) => placed?.plan.epoch === epoch && placed.nonces.get(health.agent) === health.nonce)) continue;
      const key = `${health.agent} ${health.nonce} ${name} ${epoch}`;
      const askedMs = this.#strangers.get(key);
      if (askedMs !== undefined && this.#o.now() - askedMs < RELEASE_AGAIN_MS) continue;
      if (this.#strangers.size > 10_000) this.#strangers.clear();
      this.#strangers.set(key, this.#o.now());
      void this.#command(health.agent, health.nonce, { kind: 'release', release: { deployment: name, epoch } }).catch(() => undefined);
    }
  }

  #command(agent: string, nonce: string, body: CommandBody, deadlineMs = COMMAND_MS): Promise<Reply> {
    return this.#o.commands.send(agent, nonce, this.#o.term(), body, deadlineMs);
  }
}

function fetchingMs(slices: readonly SliceRef[]): number {
  return PREPARE_MS + blobBytes(slices) / PREPARE_BYTES_PER_MS;
}

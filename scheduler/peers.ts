/**
 * Tells agents who their peers are: when their tables change, when they ask, and when their health shows an old one. The shell around peer-tables.ts. An agent
 * at another address is told to its neighbours first; then frames that were under way through it are issued again, since what was sent to where it was is gone.
 */
import { ChairError, toChairError } from '../broker/errors.js';
import type { Health, Hello, LaneHealth, PeerEntry, PeerRow, PeersQuestion, PeersReport } from '../broker/messages.js';
import type { Plan } from '../broker/plan.js';
import { DISPATCHER } from '../broker/topics.js';
import type { Commands } from './commands.js';
import type { Deployment } from './deployment.js';
import { brokenLanes, type PeerTable, PeerTables } from './peer-tables.js';
import type { AgentRecord, Registry } from './registry.js';
import { type Doubted, Witnesses } from './witnesses.js';

/** A table that an agent does not hold is told again after this time. */
const AGAIN_MS = 3000;
/** How long neighbours may take to learn where an agent is now. */
const MOVE_MS = 1500;
/** Lanes of an agent that moved break, and that says nothing of it, for so long. */
const MOVING_MS = 5000;
/** Names that are told to be out: the latest. Of others no plan has known anything for long. */
const MOST_OUT = 256;

export interface PeersOptions {
  readonly registry: Registry;
  readonly commands: Commands;
  readonly deployments: () => readonly Deployment[];
  readonly dispatcherPeer: () => PeerEntry;
  /** The dispatcher's own lanes. */
  readonly lanes: () => readonly LaneHealth[];
  /** The agents that can be reached, or where, changed. */
  readonly onPeers: (peers: readonly PeerEntry[]) => void;
  /** A direct lane to this agent broke: `why` says whose. */
  readonly onBroken: (agent: string, why: string) => void;
  /** Frames under way through this agent have to be issued again. */
  readonly onMoved: (agent: string) => void;
  readonly term: () => number;
  readonly now: () => number;
  readonly log: (kind: string, text: string) => void;
}

export class Peers {
  readonly #o: PeersOptions;
  readonly #tables = new PeerTables();
  readonly #witnesses = new Witnesses();
  /** What the tables were made of. */
  #madeOf: readonly unknown[] = [];
  /** When each process was last told a table that it does not hold. */
  readonly #toldMs = new Map<string, number>();
  readonly #movedMs = new Map<string, number>();
  /** Agents that the dispatcher has a direct lane to. */
  readonly #direct = new Set<string>();
  /** Agents whose certificate was revoked, the latest last. */
  readonly #out = new Set<string>();

  constructor(options: PeersOptions) {
    this.#o = options;
  }

  /** The dispatcher, and those of the agents that are known. */
  entries(agents: Iterable<string>): PeerEntry[] {
    const others = [...agents].filter((agent) => agent !== DISPATCHER);
    return [this.#o.dispatcherPeer(), ...others.flatMap((agent) => this.#entry(agent) ?? [])];
  }

  /** Plans, agents or addresses may have changed: whose table did is told. Cheap when nothing has. */
  sync(): void {
    for (const agent of this.#update()) this.#tell(agent);
  }

  /** Its certificate is void: from the next `sync` on no table names it, and all agents are told to have nothing to do with it. */
  revoked(agent: string): void {
    this.#out.delete(agent);
    this.#out.add(agent);
    const [oldest = ''] = this.#out;
    if (this.#out.size > MOST_OUT) this.#out.delete(oldest);
  }

  /** It has joined, with a certificate that is good. */
  back(agent: string): void {
    this.#out.delete(agent);
  }

  /** An agent asks for its table. */
  asked({ agent, nonce }: PeersQuestion): void {
    this.sync();
    if (this.#o.registry.get(agent)?.nonce === nonce) this.#tell(agent);
  }

  /** What an agent's lanes say of its peers. `before`: its last health. */
  health(before: Health | null | undefined, now: Health): void {
    const table = this.#tables.get(now.agent);
    if (this.#o.registry.get(now.agent)?.nonce === now.nonce) this.#witnesses.heard(now.agent, this.#o.now());
    if (this.#o.registry.serves(now.agent, now.nonce)) {
      for (const { peer, why } of brokenLanes(before, now))
        this.#broke(peer, `the direct lane of ${now.agent} to it broke (${why})`, now.agent);
    }
    const holds = now.peersTerm === this.#o.term() && now.peersVersion === table?.version;
    if (table === undefined || holds || this.#o.registry.get(now.agent)?.nonce !== now.nonce) return;
    if (this.#o.now() - (this.#toldMs.get(now.agent) ?? Number.NEGATIVE_INFINITY) >= AGAIN_MS) this.#tell(now.agent);
  }

  /** This agent is gone, or another process of its name is here: whoever said that it cannot be reached was right. */
  gone(agent: string): void {
    this.#witnesses.gone(agent);
  }

  /** Agents whose word on their peers does not count, since it was contradicted too often. */
  doubted(): Doubted[] {
    return this.#witnesses.doubted(this.#o.now());
  }

  /** `by` could not send to this agent. */
  unreached(agent: string, by: string, code: string): void {
    this.#broke(agent, `${by} could not reach it (${code})`, by);
  }

  /** Of the dispatcher's own lanes. */
  ownLane(agent: string, lane: 'direct' | 'relay' | 'down', why: string): void {
    if (lane === 'direct') this.#direct.add(agent);
    else if (this.#direct.delete(agent)) this.#broke(agent, `the direct lane of the dispatcher to it broke (${why})`, DISPATCHER);
  }

  /** The same process listens somewhere else now. */
  moved(agent: string, before: Hello, after: Hello): void {
    this.#movedMs.set(agent, this.#o.now());
    this.#o.onPeers(this.entries(this.#alive()));
    const changed = this.#update();
    this.#o.log(
      'moved',
      `agent ${agent} is at ${placeText(after)} now, before at ${placeText(before)}; ${changed.length} peer tables changed`,
    );
    const gone = before.lanePort !== after.lanePort || before.addresses.some((address) => !after.addresses.includes(address));
    if (!gone) {
      for (const name of changed) this.#tell(name);
      return;
    }
    void Promise.allSettled(changed.map((name) => this.#send(name))).then(() => this.#o.onMoved(agent));
  }

  /** Tables of one agent, or of all that are there (''). Throws AGENT_UNKNOWN. */
  report(agent: string): PeersReport {
    this.sync();
    const { registry, term } = this.#o;
    const records = registry.all().filter((record) => agent === '' || record.agent === agent);
    if (agent !== '' && records.length === 0) {
      const todo = `There are: ${
        registry
          .all()
          .map((record) => record.agent)
          .join(', ') || 'none'
      }.`;
      throw new ChairError('AGENT_UNKNOWN', `no agent is called '${agent}'`, { todo });
    }
    const tables = records.flatMap((record) => {
      const table = this.#tables.get(record.agent);
      return table === undefined ? [] : [{ agent: record.agent, version: table.version, ...this.#seen(record, table) }];
    });
    return { term: term(), tables };
  }

  #seen({ agent, health }: AgentRecord, { rows }: PeerTable): { readonly heldVersion: number; readonly rows: PeerRow[] } {
    const held = health !== null && health.peersTerm === this.#o.term() ? health.peersVersion : 0;
    const seen = rows.map(({ agent: name, ...row }): PeerRow => {
      const lane = health?.lanes.find(({ peer }) => peer === name);
      const theirs = (name === DISPATCHER ? this.#o.lanes() : (this.#o.registry.get(name)?.health?.lanes ?? [])).find(
        ({ peer }) => peer === agent,
      );
      return {
        ...row,
        agent: name,
        state: this.#o.registry.get(name)?.state ?? '',
        lane: lane?.lane ?? '',
        why: lane?.why ?? '',
        // Whoever dialled measures it.
        roundTripMs: lane?.roundTripMs || theirs?.roundTripMs || 0,
        inBytesPerSecond: lane?.receivedBytesPerSecond ?? 0,
        outBytesPerSecond: theirs?.receivedBytesPerSecond ?? 0,
        waitingBytes: lane?.waitingBytes ?? 0,
        busyMs: lane?.busyMs ?? 0,
        busyBytesPerSecond: lane?.busyBytesPerSecond ?? 0,
      };
    });
    return { heldVersion: held, rows: seen };
  }

  #update(): string[] {
    const { registry, deployments, dispatcherPeer } = this.#o;
    const plans = deployments().flatMap(({ serving, next, draining }) =>
      [serving, next, ...draining.values()].flatMap((placed) => placed?.plan ?? []),
    );
    const alive = this.#alive();
    const hellos = registry.all().map(({ hello }) => hello);
    // Plans and hellos are never changed, only replaced.
    const out = [...this.#out];
    const madeOf = [...plans, ...hellos, ...alive, placeText(dispatcherPeer()), out.join(' ')];
    if (madeOf.length === this.#madeOf.length && madeOf.every((one, i) => one === this.#madeOf[i])) return [];
    this.#madeOf = madeOf;
    const seen = { plans: plans as Plan[], agents: alive, out, entry: (name: string) => this.#entry(name) };
    for (const [agent, atMs] of this.#movedMs) if (this.#o.now() - atMs > MOVING_MS) this.#movedMs.delete(agent);
    for (const agent of this.#toldMs.keys()) if (!alive.includes(agent)) this.#toldMs.delete(agent);
    return this.#tables.update(seen);
  }

  #alive(): string[] {
    const { registry } = this.#o;
    return registry.all().flatMap(({ agent, nonce, state }) => (state === 'joining' || registry.serves(agent, nonce) ? [agent] : []));
  }

  #entry(name: string): PeerEntry | undefined {
    if (name === DISPATCHER) return this.#o.dispatcherPeer();
    if (this.#out.has(name)) return undefined;
    const hello = this.#o.registry.get(name)?.hello;
    return hello && { agent: name, addresses: hello.addresses, lanePort: hello.lanePort };
  }

  #broke(peer: string, why: string, by: string): void {
    const isMoving = (name: string): boolean => this.#o.now() - (this.#movedMs.get(name) ?? Number.NEGATIVE_INFINITY) < MOVING_MS;
    // Who has nothing to do with a peer has nothing to say of it: else any agent could keep seats from any other.
    const knows = by === DISPATCHER || this.#tables.get(by)?.rows.some(({ agent }) => agent === peer) === true;
    if (!knows || isMoving(peer) || isMoving(by)) return;
    if (this.#witnesses.says(by, peer, this.#o.now())) this.#o.onBroken(peer, why);
  }

  /** Not waited for: an agent that did not get it says so in its health. */
  #tell(agent: string): void {
    const told = this.#body(agent);
    if (told === undefined) return;
    this.#o.commands
      .tell(agent, told.nonce, this.#o.term(), told.body)
      .catch((error: unknown) => this.#o.log('offline', toChairError(error).message));
  }

  /** Resolves when the agent has taken it. */
  async #send(agent: string): Promise<void> {
    const told = this.#body(agent);
    if (told !== undefined) await this.#o.commands.send(agent, told.nonce, this.#o.term(), told.body, MOVE_MS);
  }

  #body(agent: string) {
    const table = this.#tables.get(agent);
    const record = this.#o.registry.get(agent);
    if (table === undefined || record === undefined) return undefined;
    this.#toldMs.set(agent, this.#o.now());
    const body = { kind: 'peers', peers: { version: table.version, peers: table.rows, out: table.out } } as const;
    return { nonce: record.nonce, body };
  }
}

function placeText({ addresses, lanePort }: Pick<PeerEntry, 'addresses' | 'lanePort'>): string {
  return `${addresses.join(', ') || 'no address'} port ${lanePort}`;
}

/** What the scheduler learns while it runs: how fast links are, how real runs compare with predictions, who shares a machine. The shell around links/, live/ and hosts.ts. */
import { ChairError, toChairError } from '../broker/errors.js';
import { hostId } from '../broker/host.js';
import type { LinkProbe, ProbeBudget } from '../broker/link-probe.js';
import type { Health, LaneHealth, LinkMeasurement, LinkStatus, LinksRequest, Measure, PeerEntry } from '../broker/messages.js';
import { DISPATCHER } from '../broker/topics.js';
import type { Commands } from './commands.js';
import type { Deployments } from './deployments.js';
import type { Dispatcher } from './dispatcher.js';
import { hostShares } from './hosts.js';
import type { LinkFile } from './links/file.js';
import { LinkKeeper, type Pair, PLAN_LIMITS, pairsOf } from './links/keeper.js';
import type { CorrectionFile } from './live/file.js';
import { SeatTimes } from './live/seat-times.js';
import type { Links } from './planners/problem.js';
import { besidesComputing } from './planning.js';
import type { AgentRecord, Registry } from './registry.js';

/** The dispatcher's own lanes are looked at this often, as agents do theirs. */
const OWN_LANES_MS = 1000;
/** A measurement may exceed its budget by the round that is under way. */
const MEASURE_GRACE_MS = 12_000;
/** All links of a cluster on request. */
const ALL_LINKS_MS = 120_000;
/** What one status can carry. */
const MOST_LINKS = 20_000;

export interface LearningOptions {
  /** What planners take of links that nobody measured. */
  readonly told: Links;
  /** Measures the dispatcher's own lanes; undefined: links are assumed, never measured. */
  readonly probe: Pick<LinkProbe, 'measure'> | undefined;
  /** The dispatcher's own lanes. */
  readonly lanes: (() => readonly LaneHealth[]) | undefined;
  readonly registry: Registry;
  readonly commands: Commands;
  /** Agents have credentials. */
  readonly isSecure: boolean;
  readonly dispatcher: Dispatcher;
  readonly deployments: () => Deployments;
  /** Slices are profiled on this agent: with its processor busy, a link to it looks slow. */
  readonly isProfiling: (agent: string) => boolean;
  readonly term: () => number;
  readonly peers: (agents: Iterable<string>) => PeerEntry[];
  readonly now: () => number;
  readonly log: (kind: string, text: string) => void;
  readonly linkFile?: LinkFile | undefined;
  readonly correctionFile?: CorrectionFile | undefined;
}

export class Learning {
  readonly times = new SeatTimes();
  /** The gateway's own machine. */
  readonly host = hostId();
  readonly #o: LearningOptions;
  readonly #keeper: LinkKeeper;
  #shares: ReadonlySet<string> | undefined;
  #lanesReadMs = Number.NEGATIVE_INFINITY;

  constructor(options: LearningOptions) {
    this.#o = options;
    const { told, now, log } = options;
    this.#keeper = new LinkKeeper({
      ...{ told, now, log, file: options.linkFile },
      measure: (from, to, budget, evenIfBusy) => this.#measure(from, to, budget, evenIfBusy),
      isBusy: (end) => this.#isBusy(end),
      sameHost: (a, b) => this.#sameHost(a, b),
      turnMs: (end) => {
        const hello = options.registry.get(end)?.hello;
        return hello === undefined ? 0 : (besidesComputing(hello).quota?.periodMs ?? 0);
      },
    });
  }

  /** What was known before a restart. */
  async load(): Promise<void> {
    await this.#keeper.load();
    this.times.correction.restore((await this.#o.correctionFile?.load()) ?? [], this.#o.now());
  }

  /** Resolves when what is known is kept. */
  async stop(): Promise<void> {
    await this.#o.linkFile?.flush();
    await this.#o.correctionFile?.flush();
  }

  /** For planners: what is known of links now. */
  links(): ReturnType<LinkKeeper['links']> {
    return this.#keeper.links();
  }

  /** Measures pairs that a draft would use, where they are not known well. Resolves with how many were. */
  async measureLinks(pairs: readonly Pair[], budgetMs: number): Promise<number> {
    return this.#o.probe === undefined ? 0 : this.#keeper.ensure(pairs, { ...PLAN_LIMITS, budgetMs });
  }

  /** What a link carries as far as it is known, whatever is held against it now; bytes/s. */
  knownLink(from: string, to: string): number {
    return this.#keeper.known(from, to);
  }

  /** Somebody who sends sees it carry so little. */
  doubtLink(from: string, to: string, bytesPerSecond: number): void {
    this.#keeper.doubt(from, to, bytesPerSecond);
  }

  /** The agent's link carries what it did before. */
  trust(agent: string): void {
    this.#keeper.trust(agent);
  }

  /** Measures the lane from the dispatcher to an agent while frames run; nothing is kept of it. Throws as LinkProbe.measure. */
  measureNow(agent: string, budget: ProbeBudget): Promise<LinkMeasurement> {
    return this.#measure(DISPATCHER, agent, budget, true);
  }

  /** What `measureNow` found counts from now on. */
  accept(agent: string, found: LinkMeasurement): void {
    try {
      this.#keeper.accept(agent, found);
    } catch (error) {
      // Implausible: the row itself says it.
      this.#o.log('link', toChairError(error).message);
    }
  }

  status(): readonly LinkStatus[] {
    return this.#keeper.status().slice(0, MOST_LINKS);
  }

  /** From an agent's health: how its seats run, and what its lanes carried. */
  health(health: Health): void {
    const { registry, deployments, now, probe, correctionFile } = this.#o;
    const record = registry.get(health.agent);
    if (record === undefined || record.nonce !== health.nonce) return;
    const contended = this.#sharing().has(health.agent) && registry.all().some((other) => besides(record, other));
    const restedMs = besidesComputing(record.hello).quota?.periodMs ?? 0;
    this.times.health(health, (deployment, epoch) => deployments().inForce(deployment, epoch), { contended, restedMs }, now());
    if (health.framesPerSecond > 0) correctionFile?.changed(() => this.times.correction.saved(now()), false);
    // A cluster that only assumes its links does so whatever they carry.
    if (probe === undefined) return;
    // Of peers that nobody knows there is nothing to plan, and their number has no bound.
    const lanes = health.lanes.filter(({ peer }) => peer === DISPATCHER || registry.get(peer) !== undefined);
    this.#keeper.health({ agent: health.agent, lanes });
  }

  /** Time passes. */
  tick(): void {
    const { lanes, now } = this.#o;
    if (lanes === undefined || now() - this.#lanesReadMs < OWN_LANES_MS) return;
    this.#lanesReadMs = now();
    this.#keeper.health({ agent: DISPATCHER, lanes: lanes() });
  }

  /** Who is there, or what somebody says of itself, has changed. */
  agentsChanged(): void {
    this.#shares = undefined;
  }

  /** The agent has other addresses: its links are others. */
  moved(agent: string): void {
    this.#keeper.forget(agent);
  }

  /** Measures links between these agents (empty = all) and with the dispatcher, when it is asked to. Throws AGENT_UNKNOWN. */
  async answer({ measure, evenIfBusy, agents }: LinksRequest): Promise<void> {
    const alive = this.#alive().map(({ agent }) => agent);
    const unknown = agents.filter((agent) => !alive.includes(agent));
    if (unknown.length > 0) {
      throw new ChairError('AGENT_UNKNOWN', `no agent that can be reached is called ${unknown.join(', ')}`, {
        todo: `There are: ${alive.join(', ') || 'none'}.`,
      });
    }
    if (!measure) return;
    const names = [DISPATCHER, ...(agents.length > 0 ? agents : alive)];
    const all = names.flatMap((from, i) => names.slice(i + 1).map((to) => ({ from, to, bytesPerFrame: 1 })));
    await this.#keeper.ensure(pairsOf(all, agents.length > 0 ? agents.length : 2), { budgetMs: ALL_LINKS_MS, maxAgeMs: 0, evenIfBusy });
  }

  /** Agents that share cores; looked up anew when who is there has changed. */
  #sharing(): ReadonlySet<string> {
    this.#shares ??= new Set(hostShares(this.#alive().map(({ hello }) => hello)).keys());
    return this.#shares;
  }

  #alive(): AgentRecord[] {
    const { registry } = this.#o;
    return registry.all().filter(({ agent, nonce }) => registry.serves(agent, nonce));
  }

  /** The dispatcher measures by itself; an agent is told to. */
  async #measure(from: string, to: string, budget: ProbeBudget, evenIfBusy: boolean): Promise<LinkMeasurement> {
    const { probe, registry, commands, term } = this.#o;
    if (probe === undefined) throw new ChairError('LANE_DOWN', 'this scheduler has no lane of its own to measure links with');
    if (from === DISPATCHER) return probe.measure(to, budget);
    const record = registry.get(from);
    const peer = this.#peer(to);
    if (record === undefined || peer === undefined) {
      throw new ChairError('AGENT_UNKNOWN', `no agent is called ${record === undefined ? from : to}`, { came: 'a link to measure' });
    }
    const measure = { peer, ...budget, evenIfBusy, expect: false };
    await this.#announce(from, to, measure);
    const { link } = await commands.send(from, record.nonce, term(), { kind: 'measure', measure }, budget.budgetMs + MEASURE_GRACE_MS);
    if (link === null) throw new ChairError('CODEC_INVALID', `agent ${from} answered without a measurement`);
    return link;
  }

  /** Lanes with credentials let in only whom the scheduler named: the other end is told who will come. */
  async #announce(from: string, to: string, budget: Omit<Measure, 'peer'>): Promise<void> {
    const { isSecure, registry, commands, term } = this.#o;
    const [record, peer] = [registry.get(to), this.#peer(from)];
    if (!isSecure || record === undefined || peer === undefined) return;
    await commands.send(to, record.nonce, term(), { kind: 'measure', measure: { ...budget, peer, expect: true } }, MEASURE_GRACE_MS);
  }

  #isBusy(end: string): boolean {
    const { deployments, dispatcher, isProfiling } = this.#o;
    if (isProfiling(end)) return true;
    return deployments()
      .all()
      .some(({ name, serving, draining }) => {
        const { inFlight, queued } = dispatcher.stats(name);
        if (inFlight + queued === 0) return false;
        return end === DISPATCHER || [serving, ...draining.values()].some((placed) => placed?.nonces.has(end) === true);
      });
  }

  /** Without a network between them: containers of one machine with addresses of their own have one. */
  #sameHost(a: string, b: string): boolean {
    if (a === b || this.#hostOf(a) === '' || this.#hostOf(a) !== this.#hostOf(b)) return false;
    const theirs = this.#peer(b)?.addresses ?? [];
    return this.#peer(a)?.addresses.some((address) => theirs.includes(address)) === true;
  }

  #hostOf(end: string): string {
    return end === DISPATCHER ? this.host : (this.#o.registry.get(end)?.hello.host ?? '');
  }

  #peer(end: string): PeerEntry | undefined {
    return this.#o.peers([end]).find(({ agent }) => agent === end);
  }
}

/** Another agent of the same machine that runs frames. */
function besides(mine: AgentRecord, { agent, hello, health }: AgentRecord): boolean {
  return agent !== mine.agent && hello.host === mine.hello.host && (health?.framesPerSecond ?? 0) > 0;
}

/**
 * The shell around the registry: what agents say becomes its events, and what it says of them becomes steps of deployments and dispatcher, words to agents,
 * lines for people, and counts of what was refused.
 */
import { ChairError, toChairError } from '../broker/errors.js';
import type { CommandBody, Health, Hello, Reply, Trouble } from '../broker/messages.js';
import { MAX_TERM, MOST_TERMS_AHEAD } from '../broker/plan.js';
import type { Refusals } from '../broker/refusals.js';
import { OUR_SCHEMAS, reconcile as reconcileSchemas } from '../broker/schema/version.js';
import type { Commands } from './commands.js';
import type { Deployments } from './deployments.js';
import type { Dispatcher } from './dispatcher.js';
import type { DrainsFile } from './drains-file.js';
import type { Learning } from './learning.js';
import { Peers, type PeersOptions } from './peers.js';
import { plausible } from './plausible.js';
import type { Problems } from './problems.js';
import { type AgentRecord, followSuspicion, Registry, type RegistryChange, type RegistryEvent, type RegistryOptions } from './registry.js';
import type { Reigning } from './reigning.js';

export interface MembersOptions extends Pick<PeersOptions, 'dispatcherPeer' | 'lanes' | 'onPeers' | 'now' | 'log'> {
  readonly membership: Pick<RegistryOptions, 'missedHealth' | 'holdDown'> | undefined;
  readonly commands: Commands;
  readonly dispatcher: Dispatcher;
  readonly reigning: Reigning;
  readonly deployments: () => Deployments;
  readonly learning: () => Learning;
  readonly refusals: Refusals;
  /** Standing problems, for `status`. */
  readonly problems: Problems;
  /** Where it is kept over restarts whom an operator drains; default: it is not. */
  readonly drainsFile?: Pick<DrainsFile, 'load' | 'changed' | 'flush'> | undefined;
}

/** A process that has lost its name is told so often at most. */
const TOLD_AGAIN_MS = 5000;

export class Members {
  readonly registry: Registry;
  readonly peers: Peers;
  readonly #o: MembersOptions;
  /** When somebody was last told that an agent's name is another's, by agent. */
  readonly #toldMs = new Map<string, number>();
  /** Agents that stand among the problems as not believed. */
  #doubted: readonly string[] = [];
  /** As it was given to the file. */
  #drained: Registry['drained'] = new Map();

  constructor(options: MembersOptions) {
    this.#o = options;
    this.registry = new Registry({ incompatible, ...options.membership });
    const { commands, dispatcher, reigning, deployments, dispatcherPeer, lanes, onPeers, now, log } = options;
    this.peers = new Peers({
      ...{ registry: this.registry, commands, dispatcherPeer, lanes, onPeers, now, log },
      deployments: () => deployments().all(),
      onBroken: (agent, why) => this.apply({ kind: 'unreachable', agent, why }),
      onMoved: (agent) => dispatcher.agentMoved(agent),
      term: () => reigning.term,
    });
  }

  /** Whom an operator drained before; before anybody says hello. */
  async load(): Promise<void> {
    const drains = (await this.#o.drainsFile?.load()) ?? [];
    this.registry.apply({ kind: 'drained before', drains }, this.#o.now());
    this.#drained = this.registry.drained;
  }

  /** Resolves when it is on the disk whom an operator drains, or is said not to be. */
  async kept(): Promise<void> {
    await this.#o.drainsFile?.flush();
  }

  hello(said: Hello): void {
    const { reigning, learning, commands, refusals, log } = this.#o;
    const { hello, wrong } = plausible(said);
    // Above the last there is none to take.
    if (hello.term >= MAX_TERM || hello.term > reigning.term + MOST_TERMS_AHEAD) {
      const todo = "remove the file 'term' from its directory and start it again";
      const text = `agent ${hello.agent} says that it obeyed term ${hello.term}, which no scheduler had; ${todo}`;
      refusals.count('EPOCH_STALE', text);
      log('refuse', text);
      return;
    }
    void reigning.obeyed(hello);
    learning().agentsChanged();
    const before = this.registry.get(hello.agent);
    this.apply({ kind: 'hello', hello });
    const after = this.registry.get(hello.agent);
    if (wrong.length > 0 && before?.nonce !== hello.nonce) {
      log('implausible', `agent ${hello.agent} says that it has ${wrong.join(', ')}: that cannot be, and counts as unknown`);
    }
    if (before?.nonce === hello.nonce && after?.nonce === hello.nonce) commands.again(hello.agent, hello.nonce);
    if (before === undefined || after === undefined || addressOf(before) === addressOf(after)) return;
    learning().moved(hello.agent);
    if (before.nonce === after.nonce) this.peers.moved(hello.agent, before.hello, after.hello);
  }

  health(health: Health): void {
    const before = this.registry.get(health.agent)?.health;
    this.apply({ kind: 'health', health });
    this.peers.health(before, health);
  }

  replied(reply: Reply): void {
    const { commands, refusals } = this.#o;
    if (!commands.settle(reply)) refusals.count('SENDER_WRONG', `agent ${reply.agent} answered what another one was asked`);
  }

  /** Throws AGENT_UNKNOWN, AGENT_BUSY for one that is not at work or asked to leave itself. */
  drain(agent: string, undo: boolean): void {
    const before = this.registry.get(agent);
    const wasDrained = this.registry.drained.has(agent);
    if (before === undefined && !(undo && wasDrained)) throw new ChairError('AGENT_UNKNOWN', `no agent is called ${agent}`);
    this.apply({ kind: 'drain', agent, undo });
    // Taken back while it is away.
    if (undo && wasDrained && !this.registry.drained.has(agent)) return;
    const { state, why } = this.registry.get(agent) ?? before ?? { state: 'not here', why: '' };
    if (state === (undo ? 'ready' : 'draining') || (undo && state === 'suspect')) return;
    throw new ChairError('AGENT_BUSY', undo ? `agent ${agent} cannot be given seats` : `agent ${agent} cannot be drained`, {
      expected: undo ? 'an agent that is ready, or drained by an operator' : 'an agent that is ready',
      came: `${state}${why === '' ? '' : `: ${why}`}`,
    });
  }

  /** Its certificate is void: others take its seats, and end their lanes with it now. */
  revoked(agent: string): void {
    this.peers.revoked(agent);
    this.apply({ kind: 'revoked', agent });
    this.peers.sync();
  }

  /** An agent could not send to a peer. */
  trouble({ peer, agent, code }: Trouble): void {
    this.peers.unreached(peer, agent, code);
  }

  apply(event: RegistryEvent): void {
    const { learning, deployments, onPeers, now } = this.#o;
    const changes = this.registry.apply(event, now()).filter((change) => this.#changed(change));
    this.#keepDrains();
    if (event.kind === 'tick') this.#showDoubts();
    if (changes.length === 0) return;
    learning().agentsChanged();
    const alive = this.registry.all().filter(({ agent, nonce }) => this.registry.serves(agent, nonce));
    onPeers(this.peers.entries(alive.map(({ agent }) => agent)));
    this.peers.sync();
    deployments().agentsChanged(changes.some((change) => change.kind === 'ready'));
  }

  #keepDrains(): void {
    const { drained } = this.registry;
    if (drained === this.#drained) return;
    this.#drained = drained;
    this.#o.drainsFile?.changed(() => [...this.registry.drained].map(([agent, nonce]) => ({ agent, nonce })), true);
  }

  #showDoubts(): void {
    const { problems, log } = this.#o;
    const doubted = this.peers.doubted();
    for (const { agent, times, peer } of doubted) {
      const said = `agent ${agent} says again and again that peers cannot be reached, and they answer`;
      problems.set(`doubt ${agent}`, `${said} (${times} times, ${peer} at last): its word alone does not count. Is its own network bad?`);
      if (!this.#doubted.includes(agent)) log('doubted', said);
    }
    for (const agent of this.#doubted) if (!doubted.some((one) => one.agent === agent)) problems.clear(`doubt ${agent}`);
    this.#doubted = doubted.map(({ agent }) => agent);
  }

  /** True when it is one of an agent that is known. */
  #changed(change: RegistryChange): boolean {
    const { reigning, refusals, commands, dispatcher, deployments, log } = this.#o;
    const { kind, agent, nonce } = change;
    if (kind === 'unknown') {
      reigning.reignAgain();
      return false;
    }
    if (kind === 'impostor') {
      refusals.count('SENDER_WRONG', change.message);
      this.#disown(agent, nonce);
      return false;
    }
    followSuspicion(dispatcher.suspects, change);
    if (kind === 'lost' || kind === 'stopped' || kind === 'joined') this.peers.gone(agent);
    log(kind, `agent ${agent}${'why' in change ? `: ${change.why}` : ''}${'message' in change ? `: ${change.message}` : ''}`);
    if (kind === 'lost' || kind === 'stopped') {
      commands.lost(agent, nonce, change.why);
      dispatcher.agentLost(agent);
      deployments().agentGone(agent, kind === 'lost');
    } else if (kind === 'joined') {
      this.peers.back(agent);
      // Without seats nothing else would tell an agent that it is known here.
      this.#tell(agent, nonce, { kind: 'ping', ping: { padBytes: 0 } });
    } else if (kind === 'ready' || kind === 'draining') deployments().agentBack(agent, nonce);
    else if (kind === 'refuse') {
      const { code, message } = change;
      refusals.count(code, `agent ${agent}: ${message}`);
      this.#tell(agent, nonce, { kind: 'refuse', refuse: { code, message } });
    }
    return true;
  }

  /** A process that hung while another one took its name does not know; only a process of this nonce obeys. */
  #disown(agent: string, nonce: string): void {
    const nowMs = this.#o.now();
    if (nowMs - (this.#toldMs.get(agent) ?? Number.NEGATIVE_INFINITY) < TOLD_AGAIN_MS) return;
    this.#toldMs.set(agent, nowMs);
    for (const name of this.#toldMs.keys()) if (this.registry.get(name) === undefined) this.#toldMs.delete(name);
    const message = `another process took the name '${agent}' while this one did not answer`;
    this.#tell(agent, nonce, { kind: 'refuse', refuse: { code: 'AGENT_NAME_TAKEN', message } });
  }

  #tell(agent: string, nonce: string, body: CommandBody): void {
    const { commands, reigning, log } = this.#o;
    commands.tell(agent, nonce, reigning.term, body).catch((error: unknown) => log('offline', toChairError(error).message));
  }
}

function incompatible(hello: Hello): string | undefined {
  const reconciled = reconcileSchemas(OUR_SCHEMAS, hello);
  return reconciled.ok ? undefined : reconciled.error.message;
}

function addressOf(record: AgentRecord): string {
  return `${record.hello.addresses.join()}:${record.hello.lanePort}`;
}

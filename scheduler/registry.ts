/**
 * Who is in the cluster. The state changes only by `apply(event, nowMs)`: no I/O, no clock, no randomness in here, so thousands of
 * agents can join, hang and fail in a unit test. What the shell has to do about a change is returned as data.
 *
 *   hello -> joining -> (first health) ready <-> suspect -> lost
 *                                      ready -> draining -> stopped     hello that cannot be accepted -> refused
 *   any of these -> stopped, when it says so; nobody has to look for what went wrong then
 */
import type { ErrorCode } from '../broker/errors.js';
import type { Gone, Health, Hello } from '../broker/messages.js';
import { DISPATCHER, NAME_PATTERN } from '../broker/topics.js';

export type AgentState = 'joining' | 'ready' | 'suspect' | 'lost' | 'stopped' | 'draining' | 'refused';

export interface AgentRecord {
  readonly agent: string;
  /** The process: a restarted agent has another nonce. */
  readonly nonce: string;
  readonly state: AgentState;
  /** Why it is suspect, lost, stopped, draining or refused; '' otherwise. */
  readonly why: string;
  readonly hello: Hello;
  readonly health: Health | null;
  /** When it was last heard, on the clock of `nowMs`. */
  readonly seenMs: number;
}

export type RegistryEvent =
  | { readonly kind: 'hello'; readonly hello: Hello }
  | { readonly kind: 'health'; readonly health: Health }
  | { readonly kind: 'gone'; readonly gone: Gone }
  /** A peer could not reach this agent. */
  | { readonly kind: 'unreachable'; readonly agent: string; readonly why: string }
  /** Time passes: at least twice a second. */
  | { readonly kind: 'tick' }
  /** The scheduler's own link to the broker. While it is down, silence says nothing about the agents. */
  | { readonly kind: 'offline' }
  | { readonly kind: 'online' };

export type RegistryChange =
  | { readonly kind: 'joined' | 'ready' | 'recovered'; readonly agent: string; readonly nonce: string }
  | { readonly kind: 'suspect' | 'draining' | 'lost' | 'stopped'; readonly agent: string; readonly nonce: string; readonly why: string }
  /** This process may not join: tell it. */
  | { readonly kind: 'refuse'; readonly agent: string; readonly nonce: string; readonly code: ErrorCode; readonly message: string }
  /** Somebody nobody introduced: ask everyone for a hello. */
  | { readonly kind: 'unknown'; readonly agent: string; readonly nonce: string };

export interface RegistryOptions {
  /** Agents known at once; default 4,096, the connections of the embedded broker. Those that are gone make room first. */
  readonly maxAgents?: number;
  /** Silence after which an agent gets no new seats, ms. Health comes once a second. */
  readonly suspectAfterMs?: number;
  /** Silence after which its seats are moved, ms. */
  readonly lostAfterMs?: number;
  /** Undefined = this agent's schema can be read; else why not. */
  readonly incompatible?: (hello: Hello) => string | undefined;
}

/** A tick that comes this much late means that we were busy ourselves, not that every agent fell silent. */
const LATE_TICK_MS = 1000;
/** Lost, stopped and refused agents are shown this long. */
const FORGET_AFTER_MS = 3_600_000;

export class Registry {
  readonly #agents = new Map<string, AgentRecord>();
  readonly #maxAgents: number;
  readonly #suspectAfterMs: number;
  readonly #lostAfterMs: number;
  readonly #incompatible: (hello: Hello) => string | undefined;
  #online = true;
  #lastTickMs: number | undefined;

  constructor(options: RegistryOptions = {}) {
    this.#maxAgents = options.maxAgents ?? 4096;
    this.#suspectAfterMs = options.suspectAfterMs ?? 2000;
    this.#lostAfterMs = options.lostAfterMs ?? 3500;
    this.#incompatible = options.incompatible ?? (() => undefined);
  }

  get(agent: string): AgentRecord | undefined {
    return this.#agents.get(agent);
  }

  all(): AgentRecord[] {
    return [...this.#agents.values()];
  }

  /** True while this very process can hold seats: it may be suspect or draining, but it is not gone. */
  serves(agent: string, nonce: string): boolean {
    const record = this.#agents.get(agent);
    return record !== undefined && record.nonce === nonce && SERVING.has(record.state);
  }

  apply(event: RegistryEvent, nowMs: number): RegistryChange[] {
    switch (event.kind) {
      case 'hello':
        return this.#hello(event.hello, nowMs);
      case 'health':
        return this.#health(event.health, nowMs);
      case 'gone':
        return this.#gone(event.gone);
      case 'unreachable':
        return this.#unreachable(event.agent, event.why);
      case 'tick':
        return this.#tick(nowMs);
      case 'offline':
        this.#online = false;
        return [];
      case 'online':
        this.#online = true;
        for (const record of this.all()) if (isAlive(record)) this.#set({ ...record, seenMs: nowMs });
        this.#lastTickMs = nowMs;
        return [];
    }
  }

  #hello(hello: Hello, nowMs: number): RegistryChange[] {
    const { agent, nonce } = hello;
    const fresh: AgentRecord = { agent, nonce, state: 'joining', why: '', hello, health: null, seenMs: nowMs };
    if (!NAME_PATTERN.test(agent) || agent === DISPATCHER) {
      return [{ kind: 'refuse', agent, nonce, code: 'AGENT_NAME_INVALID', message: `the name '${agent}' is not allowed for an agent` }];
    }
    const known = this.#agents.get(agent);
    if (known !== undefined && known.nonce !== nonce && isAlive(known) && nowMs - known.seenMs < this.#lostAfterMs) {
      const message = `another live agent uses the name '${agent}'; give this one another name, or stop the other`;
      return [{ kind: 'refuse', agent, nonce, code: 'AGENT_NAME_TAKEN', message }];
    }
    if (known === undefined && !this.#hasRoom()) {
      const message = `${this.#agents.size} agents are in this cluster already; start another cluster for more`;
      return [{ kind: 'refuse', agent, nonce, code: 'AGENT_BUSY', message }];
    }
    const changes: RegistryChange[] = [];
    if (known !== undefined && known.nonce !== nonce && isAlive(known)) {
      changes.push({ kind: 'lost', agent, nonce: known.nonce, why: 'replaced by a new process of the same name' });
    }
    const problem = this.#incompatible(hello);
    if (problem !== undefined) {
      this.#set({ ...fresh, state: 'refused', why: problem });
      return [...changes, { kind: 'refuse', agent, nonce, code: 'SCHEMA_MISMATCH', message: problem }];
    }
    if (known?.nonce === nonce && isAlive(known)) {
      // A reconnect of the same process: addresses or store may have changed, its state has not.
      this.#set({ ...known, hello, seenMs: nowMs });
      return changes;
    }
    this.#set(fresh);
    return [...changes, { kind: 'joined', agent, nonce }];
  }

  #hasRoom(): boolean {
    if (this.#agents.size < this.#maxAgents) return true;
    const gone = this.all().find((record) => !isAlive(record));
    return gone !== undefined && this.#agents.delete(gone.agent);
  }

  #health(health: Health, nowMs: number): RegistryChange[] {
    const { agent, nonce } = health;
    const record = this.#agents.get(agent);
    if (record === undefined) return [{ kind: 'unknown', agent, nonce }];
    // Another process of that name: it is told so when it says hello, here it changes nothing.
    if (record.nonce !== nonce || record.state === 'refused') return [];
    const seen = { ...record, health, seenMs: nowMs };
    if (record.state === 'ready' || record.state === 'draining') {
      this.#set(seen);
      return [];
    }
    this.#set({ ...seen, state: 'ready', why: '' });
    return [{ kind: record.state === 'suspect' ? 'recovered' : 'ready', agent, nonce }];
  }

  #gone(gone: Gone): RegistryChange[] {
    const record = this.#agents.get(gone.agent);
    // A Will may come late, when the next process of that name is already here: the nonce tells.
    if (record === undefined || record.nonce !== gone.nonce || !isAlive(record)) return [];
    if (gone.why === 'draining') {
      if (record.state === 'draining') return [];
      this.#set({ ...record, state: 'draining', why: 'asked to leave' });
      return [{ kind: 'draining', agent: record.agent, nonce: record.nonce, why: 'asked to leave' }];
    }
    if (gone.why === 'will') return [this.#lose(record, 'its connection to the broker broke')];
    this.#set({ ...record, state: 'stopped', why: 'it was asked to' });
    return [{ kind: 'stopped', agent: record.agent, nonce: record.nonce, why: 'it was asked to' }];
  }

  #unreachable(agent: string, why: string): RegistryChange[] {
    const record = this.#agents.get(agent);
    if (record === undefined || record.state !== 'ready') return [];
    this.#set({ ...record, state: 'suspect', why });
    return [{ kind: 'suspect', agent, nonce: record.nonce, why }];
  }

  #tick(nowMs: number): RegistryChange[] {
    const lateMs = this.#lastTickMs === undefined ? 0 : nowMs - this.#lastTickMs;
    this.#lastTickMs = nowMs;
    if (!this.#online) return [];
    const changes: RegistryChange[] = [];
    for (const known of this.all()) {
      if (!isAlive(known)) {
        if (nowMs - known.seenMs > FORGET_AFTER_MS) this.#agents.delete(known.agent);
        continue;
      }
      const record = lateMs > LATE_TICK_MS ? { ...known, seenMs: Math.min(nowMs, known.seenMs + lateMs) } : known;
      if (record !== known) this.#set(record);
      const silentMs = nowMs - record.seenMs;
      if (silentMs >= this.#lostAfterMs) {
        changes.push(this.#lose(record, `silent for ${(silentMs / 1000).toFixed(1)} s`));
      } else if (silentMs >= this.#suspectAfterMs && record.state === 'ready') {
        const why = `silent for ${(silentMs / 1000).toFixed(1)} s`;
        this.#set({ ...record, state: 'suspect', why });
        changes.push({ kind: 'suspect', agent: record.agent, nonce: record.nonce, why });
      }
    }
    return changes;
  }

  #lose(record: AgentRecord, why: string): RegistryChange {
    this.#set({ ...record, state: 'lost', why });
    return { kind: 'lost', agent: record.agent, nonce: record.nonce, why };
  }

  #set(record: AgentRecord): void {
    this.#agents.set(record.agent, record);
  }
}

const SERVING: ReadonlySet<AgentState> = new Set<AgentState>(['ready', 'suspect', 'draining']);

function isAlive(record: AgentRecord): boolean {
  return record.state === 'joining' || SERVING.has(record.state);
}

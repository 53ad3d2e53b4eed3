/**
 * Who is in the cluster. The state changes only by `apply(event, nowMs)`: no I/O, no clock, no randomness in here, so thousands of
 * agents can join, hang and fail in a unit test. What the shell has to do about a change is returned as data.
 *
 *   hello -> joining -> (first health) ready <-> suspect -> lost
 *                                      ready -> draining -> stopped     hello that cannot be accepted -> refused
 *   any of these -> stopped, when it says so; nobody has to look for what went wrong then
 *   lost -> joining, while it is held back (registry-hold-down.ts) -> ready
 *
 * Three signals raise suspicion: the Last Will, which is believed at once; health that does not come; and a peer that says its direct lane broke. A
 * peer may be wrong, its own link may be bad: its word makes an agent suspect, and lost only together with a health message that is missing. An agent whose link is
 * slow (links/slow.ts) is suspect as long as that lasts, however well it is heard.
 *
 * Long, because every event may move an agent between any two of these states; holding back is a file of its own.
 */
import type { ErrorCode } from '../broker/errors.js';
import type { Gone, Health, Hello } from '../broker/messages.js';
import { DISPATCHER, NAME_PATTERN } from '../broker/topics.js';
import { HoldDown, type HoldDownOptions } from './registry-hold-down.js';

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

/** A process that an operator drains. */
export interface Drain {
  readonly agent: string;
  readonly nonce: string;
}

export type RegistryEvent =
  | { readonly kind: 'hello'; readonly hello: Hello }
  | { readonly kind: 'health'; readonly health: Health }
  | { readonly kind: 'gone'; readonly gone: Gone }
  /** A peer could not reach this agent, or its direct lane to it broke. */
  | { readonly kind: 'unreachable'; readonly agent: string; readonly why: string }
  /** Its link carries so little that it is avoided; or that is over ('' as `why`). */
  | { readonly kind: 'slow'; readonly agent: string; readonly why: string }
  /** Its certificate was revoked: it is not waited for. */
  | { readonly kind: 'revoked'; readonly agent: string }
  /** An operator wants its seats moved, or takes that back. It goes on running, and says nothing of it. */
  | { readonly kind: 'drain'; readonly agent: string; readonly undo: boolean }
  /** Processes that an operator drained before this scheduler began. */
  | { readonly kind: 'drained before'; readonly drains: readonly Drain[] }
  /** Time passes: at least twice a second. */
  | { readonly kind: 'tick' }
  /** The scheduler's own link to the broker. While it is down, silence says nothing about the agents. */
  | { readonly kind: 'offline' }
  | { readonly kind: 'online' };

export type RegistryChange =
  | { readonly kind: 'joined' | 'ready' | 'recovered'; readonly agent: string; readonly nonce: string }
  | { readonly kind: 'suspect' | 'draining' | 'lost' | 'stopped'; readonly agent: string; readonly nonce: string; readonly why: string }
  /** It is here again, but gets no seats yet. */
  | { readonly kind: 'held'; readonly agent: string; readonly nonce: string; readonly why: string }
  /** This process may not join: tell it. */
  | { readonly kind: 'refuse'; readonly agent: string; readonly nonce: string; readonly code: ErrorCode; readonly message: string }
  /** Somebody nobody introduced: ask everyone for a hello. */
  | { readonly kind: 'unknown'; readonly agent: string; readonly nonce: string }
  /** A message in the name of an agent that another process has: tell its sender, if it is a process, that it has lost its name. */
  | { readonly kind: 'impostor'; readonly agent: string; readonly nonce: string; readonly message: string };

/** Keeps a set of the agents that are suspect in step with what changed. */
export function followSuspicion(suspects: Set<string>, { kind, agent }: RegistryChange): void {
  if (kind === 'suspect') suspects.add(agent);
  else if (CLEARS.has(kind)) suspects.delete(agent);
}

/** It was heard, or it is known to be gone. What another process says in its name clears nothing. */
const CLEARS: ReadonlySet<string> = new Set<RegistryChange['kind']>(['joined', 'ready', 'recovered', 'draining', 'lost', 'stopped']);

export interface RegistryOptions {
  /** Agents known at once; default 4,096, the connections of the embedded broker. Those that are gone make room first. */
  readonly maxAgents?: number;
  /** An agent is lost when so many of its health messages in a row did not come; default 3. How often they come, it says in its hello. */
  readonly missedHealth?: number;
  readonly holdDown?: HoldDownOptions;
  /** Undefined = this agent's schema can be read; else why not. */
  readonly incompatible?: (hello: Hello) => string | undefined;
}

/** A tick that comes this much late means that we were busy ourselves, not that every agent fell silent. */
const LATE_TICK_MS = 1000;
/** An agent that lost the broker is back on it within this: the longest back-off (`broker/backoff.ts`), and connecting. */
export const RETURN_MS = 6_000;
/** Health may come this part of its interval late. */
const JITTER = 0.5;
/** Of an agent that a peer cannot reach, so many health messages are waited for. */
const MISSED_WHEN_REPORTED = 1;
/** What was on its way from an agent when it was cut off has come in by then. */
const ECHO_MS = 10_000;
/** What an interval can be; what an agent says beyond that is not believed. */
const HEALTH_MS = { least: 50, most: 60_000, usual: 1000 };
/** Why an agent drains that did not ask for it. */
export const BY_OPERATOR = 'an operator asked for it';
/** Drains of agents that never come back are kept no further than this. */
const MOST_DRAINS = 1000;
/** Lost, stopped and refused agents are shown this long. */
const FORGET_AFTER_MS = 3_600_000;

export class Registry {
  readonly #agents = new Map<string, AgentRecord>();
  readonly #maxAgents: number;
  readonly #missedHealth: number;
  readonly #holdDown: HoldDown;
  /** Agents that a peer could not reach, and nobody has heard since: what was said. */
  readonly #reported = new Map<string, string>();
  /** Agents whose links are slow, and how slow: suspect until that is over. */
  readonly #slow = new Map<string, string>();
  readonly #incompatible: (hello: Hello) => string | undefined;
  /** How many can hold seats. */
  #serving = 0;
  /** Agents whose certificate was revoked: the process that had it, and until when what it said before it was cut off may still come in. */
  readonly #out = new Map<string, { readonly nonce: string; readonly untilMs: number }>();
  #drained: ReadonlyMap<string, string> = new Map();
  #online = true;
  /** When our own link to the broker came back. */
  #onlineMs = Number.NEGATIVE_INFINITY;
  #lastTickMs: number | undefined;

  constructor(options: RegistryOptions = {}) {
    this.#maxAgents = options.maxAgents ?? 4096;
    this.#missedHealth = options.missedHealth ?? 3;
    this.#holdDown = new HoldDown(options.holdDown);
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

  /** Agents that an operator drains: the process. That it is lost and comes back changes nothing of that. Another map when something has changed. */
  get drained(): ReadonlyMap<string, string> {
    return this.#drained;
  }

  /** Its link carries so little that it is avoided. */
  isSlow(agent: string): boolean {
    return this.#slow.has(agent);
  }

  /** How often the agent was lost, and how long it is held back for that. */
  flapping(agent: string, nowMs: number): { readonly losses: number; readonly heldMs: number } {
    const isHeld = this.#agents.get(agent)?.state === 'joining';
    return { losses: this.#holdDown.losses(agent), heldMs: isHeld ? this.#holdDown.heldMs(agent, nowMs) : 0 };
  }

  apply(event: RegistryEvent, nowMs: number): RegistryChange[] {
    switch (event.kind) {
      case 'hello':
        return this.#isOut(event.hello, nowMs) ? [] : this.#hello(event.hello, nowMs);
      case 'health':
        return this.#isOut(event.health, nowMs) ? [] : this.#health(event.health, nowMs);
      case 'gone':
        return this.#gone(event.gone, nowMs);
      case 'unreachable':
        return this.#unreachable(event.agent, event.why);
      case 'slow':
        return this.#slowed(event.agent, event.why);
      case 'revoked':
        return this.#revoked(event.agent, nowMs);
      case 'drain':
        return this.#drain(event.agent, event.undo);
      case 'drained before':
        this.#drained = new Map(event.drains.slice(-MOST_DRAINS).map(({ agent, nonce }) => [agent, nonce]));
        return [];
      case 'tick':
        return this.#tick(nowMs);
      case 'offline':
        this.#online = false;
        return [];
      case 'online':
        this.#online = true;
        this.#onlineMs = nowMs;
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
    // After an outage nobody is known to live until it is heard: a machine that was started anew meanwhile is no second one of its name.
    const heard = known !== undefined && !this.#isAwaited(known) && nowMs - known.seenMs < this.#lostAfterMs(known);
    if (known !== undefined && known.nonce !== nonce && isAlive(known) && heard) {
      const message = `another live agent uses the name '${agent}'; give this one another name, or stop the other`;
      return [{ kind: 'refuse', agent, nonce, code: 'AGENT_NAME_TAKEN', message }];
    }
    if (known === undefined && !this.#hasRoom()) {
      const message = `${this.#agents.size} agents are in this cluster already; start another cluster for more`;
      return [{ kind: 'refuse', agent, nonce, code: 'AGENT_BUSY', message }];
    }
    const changes: RegistryChange[] = [];
    if (known !== undefined && known.nonce !== nonce && isAlive(known)) {
      changes.push(this.#lose(known, 'replaced by a new process of the same name', nowMs));
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
    // Started anew: what was said of the process before is over.
    if (this.#drained.get(agent) !== nonce) this.#setDrained(agent, undefined);
    this.#set(fresh);
    return [...changes, { kind: 'joined', agent, nonce }];
  }

  #hasRoom(): boolean {
    if (this.#agents.size < this.#maxAgents) return true;
    const gone = this.all().find((record) => !isAlive(record));
    if (gone !== undefined) this.#forget(gone.agent);
    return gone !== undefined;
  }

  #health(health: Health, nowMs: number): RegistryChange[] {
    const { agent, nonce } = health;
    const record = this.#agents.get(agent);
    if (record === undefined) return [{ kind: 'unknown', agent, nonce }];
    if (record.state === 'refused') return [];
    // Nobody has the name any more: a process that stood still while others came and went may have it again.
    if (record.nonce !== nonce && !isAlive(record)) return [{ kind: 'unknown', agent, nonce }];
    if (record.nonce !== nonce) return [impostor(agent, nonce, 'health')];
    this.#reported.delete(agent);
    const seen = { ...record, health, seenMs: nowMs };
    const slow = this.#slow.get(agent);
    if (record.state === 'suspect' && slow !== undefined) {
      this.#set({ ...seen, why: slow });
      return [];
    }
    if (record.state === 'ready' || record.state === 'draining') {
      this.#set(seen);
      return [];
    }
    const held = record.state === 'suspect' ? undefined : this.#held(agent, nowMs);
    if (held !== undefined) {
      this.#set({ ...seen, state: 'joining', why: held });
      return record.why === held ? [] : [{ kind: 'held', agent, nonce, why: held }];
    }
    if (record.state === 'joining' && this.#drained.get(agent) === nonce) {
      this.#set({ ...seen, state: 'draining', why: BY_OPERATOR });
      return [{ kind: 'draining', agent, nonce, why: BY_OPERATOR }];
    }
    this.#set({ ...seen, state: 'ready', why: '' });
    return [{ kind: record.state === 'suspect' ? 'recovered' : 'ready', agent, nonce }];
  }

  /** Why the agent gets no seats yet. An agent that flaps is better than none: when no other can serve, nobody is held back. */
  #held(agent: string, nowMs: number): string | undefined {
    if (this.#holdDown.heldMs(agent, nowMs) === 0) return undefined;
    const own = this.#agents.get(agent);
    if (this.#serving - (own !== undefined && SERVING.has(own.state) ? 1 : 0) === 0) return undefined;
    return `held back: it was lost ${this.#holdDown.losses(agent)} times`;
  }

  #gone(gone: Gone, nowMs: number): RegistryChange[] {
    const record = this.#agents.get(gone.agent);
    if (record === undefined) return [];
    // A Will may come late, when the next process of that name is already here: the nonce tells.
    if (record.nonce !== gone.nonce) return gone.why === 'will' ? [] : [impostor(gone.agent, gone.nonce, 'farewell')];
    // A Will of a connection that the agent gave up when its address changed: it is here on another one.
    if (!isAlive(record) || gone.connection < record.hello.connection) return [];
    if (gone.why === 'draining') {
      const before = record.state === 'draining';
      this.#set({ ...record, state: 'draining', why: 'asked to leave' });
      if (before) return [];
      return [{ kind: 'draining', agent: record.agent, nonce: record.nonce, why: 'asked to leave' }];
    }
    if (gone.why === 'will') return [this.#lose(record, 'its connection to the broker broke', nowMs)];
    this.#slow.delete(record.agent);
    this.#set({ ...record, state: 'stopped', why: 'it was asked to' });
    return [{ kind: 'stopped', agent: record.agent, nonce: record.nonce, why: 'it was asked to' }];
  }

  /** It has not flapped: if it is let in again, it is welcome at once. */
  #revoked(agent: string, nowMs: number): RegistryChange[] {
    const record = this.#agents.get(agent);
    if (record === undefined) return [];
    const why = 'its certificate was revoked';
    this.#out.set(agent, { nonce: record.nonce, untilMs: nowMs + ECHO_MS });
    // Whoever revoked it wants it away: nobody has to look after it any more, as after one that is lost.
    if (record.state !== 'stopped') this.#set({ ...record, state: 'stopped', why });
    if (!isAlive(record)) return [];
    this.#reported.delete(agent);
    return [{ kind: 'lost', agent, nonce: record.nonce, why }];
  }

  /** Later it is in by a new certificate: a process that runs takes up what was joined in its folder. */
  #isOut({ agent, nonce }: { readonly agent: string; readonly nonce: string }, nowMs: number): boolean {
    const out = this.#out.get(agent);
    return out?.nonce === nonce && nowMs < out.untilMs;
  }

  #unreachable(agent: string, why: string): RegistryChange[] {
    const record = this.#agents.get(agent);
    if (record === undefined || !SERVING.has(record.state)) return [];
    this.#reported.set(agent, why);
    if (record.state !== 'ready') return [];
    this.#set({ ...record, state: 'suspect', why });
    return [{ kind: 'suspect', agent, nonce: record.nonce, why }];
  }

  #slowed(agent: string, why: string): RegistryChange[] {
    const record = this.#agents.get(agent);
    if (why === '') this.#slow.delete(agent);
    if (record === undefined || !SERVING.has(record.state)) return [];
    const { nonce } = record;
    if (why === '') {
      // What else it is suspected of shows at the next tick.
      if (record.state !== 'suspect' || this.#reported.has(agent)) return [];
      this.#set({ ...record, state: 'ready', why: '' });
      // As one that comes back: what was moved away from it may come again.
      return [{ kind: 'ready', agent, nonce }];
    }
    this.#slow.set(agent, why);
    if (record.state === 'draining') return [];
    const before = record.state;
    this.#set({ ...record, state: 'suspect', why });
    return before === 'suspect' ? [] : [{ kind: 'suspect', agent, nonce, why }];
  }

  #drain(agent: string, undo: boolean): RegistryChange[] {
    const record = this.#agents.get(agent);
    if (record === undefined || !SERVING.has(record.state)) {
      // It is away: when it comes back it gets seats.
      if (undo) this.#setDrained(agent, undefined);
      return [];
    }
    const { nonce } = record;
    if (undo) {
      // What the agent asked for itself, only it can take back: it is about to stop.
      if (record.state !== 'draining' || record.why !== BY_OPERATOR) return [];
      this.#setDrained(agent, undefined);
      this.#set({ ...record, state: 'ready', why: '' });
      return [{ kind: 'ready', agent, nonce }];
    }
    if (record.state === 'draining') return [];
    this.#setDrained(agent, nonce);
    this.#set({ ...record, state: 'draining', why: BY_OPERATOR });
    return [{ kind: 'draining', agent, nonce, why: BY_OPERATOR }];
  }

  #setDrained(agent: string, nonce: string | undefined): void {
    if (this.#drained.get(agent) === nonce) return;
    const others = [...this.#drained].filter(([name]) => name !== agent);
    this.#drained = new Map(nonce === undefined ? others : [...others, [agent, nonce] as const].slice(-MOST_DRAINS));
  }

  #tick(nowMs: number): RegistryChange[] {
    const lateMs = this.#lastTickMs === undefined ? 0 : nowMs - this.#lastTickMs;
    this.#lastTickMs = nowMs;
    if (!this.#online) return [];
    const changes: RegistryChange[] = [];
    for (const known of this.all()) {
      if (!isAlive(known)) {
        if (nowMs - known.seenMs > FORGET_AFTER_MS) this.#forget(known.agent);
        continue;
      }
      const record = lateMs > LATE_TICK_MS ? { ...known, seenMs: Math.min(nowMs, known.seenMs + lateMs) } : known;
      if (record !== known) this.#set(record);
      const change = this.#judge(record, nowMs - record.seenMs, nowMs);
      if (change !== undefined) changes.push(change);
    }
    return changes;
  }

  /** What silence says of an agent. */
  #judge(record: AgentRecord, silentMs: number, nowMs: number): RegistryChange | undefined {
    const { agent, nonce } = record;
    // A broker that was gone is gone for everybody: agents come back within their own back-off, not with us.
    const awaited = this.#isAwaited(record);
    const silent = `silent for ${(silentMs / 1000).toFixed(1)} s`;
    if (silentMs >= this.#lostAfterMs(record) + (awaited ? RETURN_MS : 0)) return this.#lose(record, silent, nowMs);
    const reported = this.#reported.get(agent);
    if (reported !== undefined && silentMs >= silenceMs(record, MISSED_WHEN_REPORTED)) {
      return this.#lose(record, `${reported}, and it is ${silent}`, nowMs);
    }
    if (awaited || record.state !== 'ready' || silentMs < silenceMs(record, this.#missedHealth / 2)) return undefined;
    this.#set({ ...record, state: 'suspect', why: silent });
    return { kind: 'suspect', agent, nonce, why: silent };
  }

  /** Not heard since our own link to the broker came back. */
  #isAwaited(record: AgentRecord): boolean {
    return record.seenMs <= this.#onlineMs;
  }

  /** Never less than what a stall of our own may take before it is noticed. */
  #lostAfterMs(record: AgentRecord): number {
    return Math.max(LATE_TICK_MS, silenceMs(record, this.#missedHealth));
  }

  #lose(record: AgentRecord, why: string, nowMs: number): RegistryChange {
    this.#holdDown.lost(record.agent, nowMs);
    this.#reported.delete(record.agent);
    this.#slow.delete(record.agent);
    this.#set({ ...record, state: 'lost', why });
    return { kind: 'lost', agent: record.agent, nonce: record.nonce, why };
  }

  #forget(agent: string): void {
    this.#count(agent, -1);
    this.#agents.delete(agent);
    this.#out.delete(agent);
    this.#holdDown.forget(agent);
    this.#reported.delete(agent);
    this.#slow.delete(agent);
  }

  #set(record: AgentRecord): void {
    this.#count(record.agent, -1);
    this.#agents.set(record.agent, record);
    this.#count(record.agent, 1);
  }

  #count(agent: string, by: 1 | -1): void {
    const known = this.#agents.get(agent);
    if (known !== undefined && SERVING.has(known.state)) this.#serving += by;
  }
}

const SERVING: ReadonlySet<AgentState> = new Set<AgentState>(['ready', 'suspect', 'draining']);

function isAlive(record: AgentRecord): boolean {
  return record.state === 'joining' || SERVING.has(record.state);
}

/** Silence in which so many health messages did not come. */
function silenceMs({ hello }: AgentRecord, missed: number): number {
  const { least, most, usual } = HEALTH_MS;
  return (missed + JITTER) * (hello.healthMs >= least && hello.healthMs <= most ? hello.healthMs : usual);
}

function impostor(agent: string, nonce: string, what: string): RegistryChange {
  return { kind: 'impostor', agent, nonce, message: `${what} of another process that calls itself ${agent}` };
}

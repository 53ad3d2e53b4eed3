/**
 * One request for profiles under way: asks agents to measure what is not known yet, one after another on each host (agents of one host would disturb each other), hosts
 * side by side. An agent that vanishes, drains or falls silent is left out, and another one of its class goes on, or itself when it was started again; a slice that does
 * not fit is a row with its code.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { ChairError, type ErrorCode, isChairError, toChairError } from '../../broker/errors.js';
import type { Profile, ProfileResult } from '../../broker/messages.js';
import type { SliceRef } from '../../broker/plan.js';
import type { AgentRecord } from '../registry.js';
import type { DeviceClass, ProfileCache, ProfileKey } from './cache.js';
import type { Need } from './needs.js';
import { type Measured, medianMs, quantile } from './table.js';
import type { Turns } from './turns.js';
import { unlessAborted } from './unless-aborted.js';

export interface JobClass extends DeviceClass {
  /** For people. */
  readonly text: string;
  /** Those that may be asked. */
  readonly agents: readonly string[];
  /** Engine threads to measure with. */
  readonly threads: readonly number[];
  /** Engine threads that they serve with. */
  readonly serving: number;
}

export interface JobDeps {
  readonly cache: ProfileCache;
  /** undefined when it cannot be asked now. */
  readonly ready: (agent: string) => AgentRecord | undefined;
  /** Frames run on another agent of this one's machine. */
  readonly isDisturbed: (record: AgentRecord) => boolean;
  /** The agent is told when the signal is given, and ends its measurement. */
  readonly measure: (record: AgentRecord, profile: Profile, deadlineMs: number, signal: AbortSignal) => Promise<ProfileResult>;
  /** Writes the slice of a need into the store. */
  readonly slice: (need: Need) => Promise<SliceRef>;
  readonly log: (kind: string, text: string) => void;
  /** How long an agent of a class is waited for when there is none; looks every `everyMs`. */
  readonly patience?: { readonly forMs: number; readonly everyMs: number };
  /** Of all jobs together: agents of one host would disturb each other, whoever asks. */
  readonly turns: Turns;
}

export interface JobRequest {
  readonly model: string;
  readonly needs: readonly Need[];
  readonly classes: readonly JobClass[];
  readonly runs: number;
  readonly budgetMs: number;
  readonly fresh: boolean;
}

/** A need on a class with so many threads: a measurement, or why there is none. */
export interface JobRow {
  readonly need: Need;
  readonly class: JobClass;
  readonly threads: number;
  readonly from: 'measured' | 'kept';
  readonly measured: Measured | undefined;
  readonly error: ChairError | undefined;
}

/** An agent loads, warms up and runs within this time, besides its budget, and fetches at least this fast. */
const GRACE_MS = 60_000;
const FETCH_BYTES_PER_MS = 500;
/** The agent ends by itself first, with a better error. */
const REPLY_MS = 5000;
/** profiling-process.ts may take so many budgets for its first runs. */
const PATIENCE = 5;
/** A run that warms up and one that counts, each so much slower than the agent's probe says. */
const SLOW_RUNS = 2 * 8;
/** Of an agent that could not probe itself. */
const SLOWEST_MACS_PER_SECOND = 1e8;
/** An agent that is started again is back by then. */
const RETURNING = { forMs: 30_000, everyMs: 250 };
/** One slice that so many agents vanish with is not tried on a further one. */
const MOST_LOST = 3;

/** Distance of the quartiles / median of a measurement that nothing disturbed, and how often a disturbed one is tried. */
const CALM = 0.15;
/** Nor does a plan care for less than this between the quartiles, ms. */
const CALM_MS = 0.1;
const MOST_TRIES = 3;

/** Of one run or load, and of a peak of memory: beyond them a clock or an agent is wrong. */
const LONGEST_MS = 3_600_000;
const MOST_BYTES = 2 ** 50;

/** Not the slice's fault: another agent may well do it. */
const AGENT_FAULTS: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'AGENT_UNKNOWN',
  'AGENT_BUSY',
  'AGENT_STORE_FULL',
  'BROKER_LOST',
  'EPOCH_STALE',
  'PROFILE_CANCELLED',
  'PROFILE_INVALID',
  'REQUEST_TIMEOUT',
]);

export class Job {
  readonly rows: JobRow[] = [];
  readonly notes: string[] = [];
  readonly total: number;
  current = '';
  readonly #deps: JobDeps;
  readonly #request: JobRequest;
  readonly #slices = new Map<Need, Promise<SliceRef>>();
  /** Processes of agents that are not asked any more, and why. */
  readonly #out = new Map<string, string>();
  /** Classes whose agents were waited for in vain. */
  readonly #deserted = new Set<JobClass>();
  /** Who of each class measures, while the job lasts. */
  readonly #on = new Map<JobClass, string>();
  readonly #abort = new AbortController();
  #cancelled: ChairError | undefined;

  constructor(deps: JobDeps, request: JobRequest) {
    this.#deps = deps;
    this.#request = request;
    this.total = request.classes.reduce((sum, one) => sum + one.threads.length * request.needs.length, 0);
  }

  get done(): number {
    return this.rows.length;
  }

  /** Its processor measures, now or in a moment: what else is timed there meanwhile says nothing. */
  isOn(agent: string): boolean {
    return [...this.#on.values()].includes(agent);
  }

  /** What is under way on agents is ended; nothing new is begun. */
  cancel(error: ChairError): void {
    this.#cancelled ??= error;
    this.#abort.abort(this.#cancelled);
  }

  /** Resolves when every row is there. Throws what cancelled it, and what writing slices throws. */
  async run(): Promise<void> {
    try {
      const ended = await Promise.allSettled(this.#request.classes.map((one) => this.#class(one)));
      for (const end of ended) if (end.status === 'rejected') throw end.reason;
    } finally {
      this.current = '';
      this.#on.clear();
      await this.#deps.cache.flush();
    }
  }

  async #class(device: JobClass): Promise<void> {
    for (const threads of device.threads) {
      for (const need of this.#request.needs) {
        if (this.#cancelled !== undefined) throw this.#cancelled;
        // Another request may be measuring the same: then it is known when the turn comes.
        const row = this.#deps.turns.take(`class ${device.fingerprint}`, () => this.#row(device, need, threads));
        this.rows.push(await unlessAborted(row, this.#abort.signal));
      }
    }
  }

  async #row(device: JobClass, need: Need, threads: number): Promise<JobRow> {
    if (this.#cancelled !== undefined) throw this.#cancelled;
    const { cache } = this.#deps;
    const key: ProfileKey = { model: this.#request.model, need, threads };
    const known = cache.get(device, key);
    const base = { need, class: device, threads };
    // What was measured while frames ran is measured again when it can be.
    if (known !== undefined && !this.#request.fresh && !known.busy) return { ...base, from: 'kept', measured: known, error: undefined };
    const slice = await this.#slice(need);
    const same = this.#request.fresh ? undefined : cache.bySlice(device, slice.graph.sha256, threads);
    if (same !== undefined && !same.busy) {
      cache.set(device, key, slice.graph.sha256, same);
      return { ...base, from: 'kept', measured: same, error: undefined };
    }
    try {
      const measured = await this.#calm(device, need, slice, threads);
      // What was measured at rest is nearer to the truth than what was measured anew while frames ran.
      if (!measured.busy || known === undefined || known.busy) cache.set(device, key, slice.graph.sha256, measured);
      return { ...base, from: 'measured', measured, error: undefined };
    } catch (thrown) {
      const error = toChairError(thrown);
      if (error === this.#cancelled || isChairError(error, 'STOPPED')) throw error;
      // An old figure, taken while frames ran, is better than none.
      return { ...base, from: 'kept', measured: known, error: known === undefined ? error : undefined };
    }
  }

  /**
   * Something else that runs on a device makes single runs longer, never shorter, so the samples of a disturbed measurement lie far apart: it is taken again, and the
   * calmest counts; one that frames ran beside only when there is no other.
   */
  async #calm(device: JobClass, need: Need, slice: SliceRef, threads: number): Promise<Measured> {
    let best: Measured | undefined;
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      const measured = await this.#ask(device, need, slice, threads);
      if (best === undefined || isBetter(measured, best)) best = measured;
      if (isCalm(best)) break;
    }
    if (best === undefined) throw new ChairError('INTERNAL', 'nothing was measured');
    return best;
  }

  /** One agent of the class after another until one has measured. Throws the slice's own fault, or what the last agent was left out for. */
  async #ask(device: JobClass, need: Need, slice: SliceRef, threads: number): Promise<Measured> {
    let last: ChairError | undefined;
    for (let lost = 0; lost < MOST_LOST; ) {
      const record = await this.#someone(device);
      if (record === undefined) throw last ?? this.#nobody(device);
      this.#on.set(device, record.agent);
      try {
        const disturbed = this.#deps.isDisturbed(record);
        const { samplesMs, loadMs, loadPeakBytes, runPeakBytes, busy } = await this.#measure(record, device, need, slice, threads);
        const beside = disturbed || this.#deps.isDisturbed(record);
        return { agent: record.agent, samplesMs, loadMs, loadPeakBytes, runPeakBytes, busy: busy || beside };
      } catch (thrown) {
        last = toChairError(thrown);
        if (last === this.#cancelled || !AGENT_FAULTS.has(last.code)) throw last;
        if (last.code === 'AGENT_UNKNOWN') lost++;
        this.#leaveOut(record, last);
      }
    }
    throw last ?? this.#nobody(device);
  }

  /** Who is to measure; where nobody can, he is waited for once: agents are started again, and are suspected for a moment. */
  async #someone(device: JobClass): Promise<AgentRecord | undefined> {
    const { forMs, everyMs } = this.#deps.patience ?? RETURNING;
    let found = this.#next(device);
    const mayCome = (): boolean => !this.#deserted.has(device) && device.agents.some((agent) => this.#deps.ready(agent) === undefined);
    for (const end = performance.now() + forMs; found === undefined && mayCome(); found = this.#next(device)) {
      if (performance.now() > end) this.#deserted.add(device);
      this.current = `waiting for ${device.agents.join(', ').slice(0, 100)}`;
      await unlessAborted(delay(everyMs), this.#abort.signal);
    }
    if (found !== undefined) this.#deserted.delete(device);
    return found;
  }

  #measure(record: AgentRecord, device: JobClass, need: Need, slice: SliceRef, threads: number): Promise<ProfileResult> {
    const host = record.hello.host || record.agent;
    return this.#deps.turns.take(`host ${host}`, async () => {
      if (this.#cancelled !== undefined) throw this.#cancelled;
      const { runs, budgetMs } = this.#request;
      const cut = need.parts === 1 ? 'whole' : `${need.cut} in ${need.parts}`;
      this.current = `${need.label}, ${cut}, ${threads} thread${threads === 1 ? '' : 's'}, on ${record.agent}`;
      const bytes = slice.graph.sizeBytes + slice.blobs.reduce((sum, blob) => sum + blob.sizeBytes, 0);
      const runMs = (1000 * need.macs) / (record.hello.probeMacsPerSecond || SLOWEST_MACS_PER_SECOND);
      const deadlineMs = Math.min(LONGEST_MS, GRACE_MS + bytes / FETCH_BYTES_PER_MS + PATIENCE * budgetMs + SLOW_RUNS * runMs);
      const profile = { slice, threads, runs, budgetMs };
      const result = await this.#deps.measure(record, profile, deadlineMs + REPLY_MS, this.#abort.signal);
      return checkedResult(result, device);
    });
  }

  /** The idlest first; in the order of names among equals. Who came back as another device is of the class no more. */
  #next(device: JobClass): AgentRecord | undefined {
    const able = device.agents
      .map((agent) => this.#deps.ready(agent))
      .filter((one) => one !== undefined && !this.#out.has(processOf(one)) && isOf(one, device))
      .filter((one) => one !== undefined);
    const load = (record: AgentRecord): number => record.health?.framesPerSecond ?? 0;
    return able.sort((a, b) => load(a) - load(b) || (a.agent < b.agent ? -1 : 1))[0];
  }

  #leaveOut(record: AgentRecord, { code, message }: ChairError): void {
    const { agent } = record;
    this.#out.set(processOf(record), `${code}: ${message}`);
    this.notes.push(`${agent} was left out: ${code}: ${message}`);
    this.#deps.log('profile', `${agent} is not measured any more: ${code}: ${message}`);
  }

  #nobody(device: JobClass): ChairError {
    const whyNot = (agent: string): string => {
      const record = this.#deps.ready(agent);
      if (record !== undefined && !isOf(record, device)) return 'came back as a device of another class';
      const [, why] = [...this.#out].findLast(([process]) => process.startsWith(`${agent} `)) ?? [];
      return why ?? 'not ready';
    };
    const why = device.agents.map((agent) => `${agent}: ${whyNot(agent)}`).join('; ');
    return new ChairError('AGENT_UNKNOWN', `no agent of the class ${device.text} is left to measure on (${why})`, {
      todo: 'Start one, and ask again: what was measured is kept.',
    });
  }

  #slice(need: Need): Promise<SliceRef> {
    const known = this.#slices.get(need) ?? this.#deps.slice(need);
    this.#slices.set(need, known);
    return known;
  }
}

function processOf({ agent, nonce }: AgentRecord): string {
  return `${agent} ${nonce}`;
}

function isOf({ hello }: AgentRecord, { fingerprint, engine, engineVersion }: JobClass): boolean {
  return hello.fingerprint === fingerprint && hello.engine === engine && hello.engineVersion === engineVersion;
}

function isBetter(one: Measured, other: Measured): boolean {
  return one.busy === other.busy ? spreadOf(one) < spreadOf(other) : !one.busy;
}

/** An answer of another engine than the class says, or without samples, is none. Throws PROFILE_INVALID. */
function checkedResult(result: ProfileResult, device: JobClass): ProfileResult {
  const came = `${result.fingerprint}, ${result.engine} ${result.engineVersion}, ${result.samplesMs.length} samples`;
  const right =
    result.fingerprint === device.fingerprint &&
    result.engineVersion === device.engineVersion &&
    result.samplesMs.length > 0 &&
    // What is no time cannot be written to the cache, and would spoil the class for good.
    [...result.samplesMs, result.loadMs].every((ms) => ms >= 0 && ms <= LONGEST_MS) &&
    [result.loadPeakBytes, result.runPeakBytes].every((bytes) => bytes >= 0 && bytes <= MOST_BYTES);
  if (right) return result;
  const expected = `${device.fingerprint}, ${device.engine} ${device.engineVersion}, and samples, times and peaks that can be`;
  throw new ChairError('PROFILE_INVALID', 'a measurement does not fit its class', { expected, came });
}

/** Nothing else ran on the device, as far as the samples tell. */
export function isCalm(measured: Measured): boolean {
  return spreadOf(measured) < CALM || spreadOf(measured) * medianMs(measured) < CALM_MS;
}

function spreadOf(measured: Measured): number {
  const { samplesMs } = measured;
  return (quantile(samplesMs, 0.75) - quantile(samplesMs, 0.25)) / Math.max(1e-6, medianMs(measured));
}

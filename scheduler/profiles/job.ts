/**
 * One request for profiles under way: asks agents to measure what is not known yet, one after another on each host (agents of one host would disturb each other), hosts
 * side by side. An agent that vanishes, drains or falls silent is left out, and another one of its class goes on; a slice that does not fit is a row with its code.
 */
import { ChairError, type ErrorCode, isChairError, toChairError } from '../../broker/errors.js';
import type { Profile, ProfileResult } from '../../broker/messages.js';
import type { SliceRef } from '../../broker/plan.js';
import type { AgentRecord } from '../registry.js';
import type { DeviceClass, ProfileCache, ProfileKey } from './cache.js';
import type { Need } from './needs.js';
import { type Measured, medianMs, quantile } from './table.js';
import type { Turns } from './turns.js';

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
  readonly measure: (record: AgentRecord, profile: Profile, deadlineMs: number) => Promise<ProfileResult>;
  /** Writes the slice of a need into the store. */
  readonly slice: (need: Need) => Promise<SliceRef>;
  readonly log: (kind: string, text: string) => void;
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
  /** Agents that are not asked any more, and why. */
  readonly #out = new Map<string, string>();
  /** Who of each class measures, while the job lasts. */
  readonly #on = new Map<JobClass, string>();
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

  /** What is under way on an agent is waited for; nothing new is begun. */
  cancel(error: ChairError): void {
    this.#cancelled ??= error;
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
        this.rows.push(await this.#deps.turns.take(`class ${device.fingerprint}`, () => this.#row(device, need, threads)));
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
      cache.set(device, key, slice.graph.sha256, measured);
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
   * calmest counts.
   */
  async #calm(device: JobClass, need: Need, slice: SliceRef, threads: number): Promise<Measured> {
    let best: Measured | undefined;
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      const { agent, result } = await this.#ask(device, need, slice, threads);
      const { samplesMs, loadMs, loadPeakBytes, runPeakBytes, busy } = result;
      const measured = { agent, samplesMs, loadMs, loadPeakBytes, runPeakBytes, busy };
      if (best === undefined || spreadOf(measured) < spreadOf(best)) best = measured;
      if (isCalm(best)) break;
    }
    if (best === undefined) throw new ChairError('INTERNAL', 'nothing was measured');
    return best;
  }

  /** One agent of the class after another until one has measured. Throws the slice's own fault, or what the last agent was left out for. */
  async #ask(device: JobClass, need: Need, slice: SliceRef, threads: number): Promise<{ agent: string; result: ProfileResult }> {
    let last: ChairError | undefined;
    for (;;) {
      const record = this.#next(device);
      if (record === undefined) throw last ?? this.#nobody(device);
      this.#on.set(device, record.agent);
      try {
        return { agent: record.agent, result: await this.#measure(record, device, need, slice, threads) };
      } catch (thrown) {
        last = toChairError(thrown);
        if (last === this.#cancelled || !AGENT_FAULTS.has(last.code)) throw last;
        this.#leaveOut(record.agent, last);
      }
    }
  }

  #measure(record: AgentRecord, device: JobClass, need: Need, slice: SliceRef, threads: number): Promise<ProfileResult> {
    const host = record.hello.host || record.agent;
    return this.#deps.turns.take(`host ${host}`, async () => {
      if (this.#cancelled !== undefined) throw this.#cancelled;
      const { runs, budgetMs } = this.#request;
      const cut = need.parts === 1 ? 'whole' : `${need.cut} in ${need.parts}`;
      this.current = `${need.label}, ${cut}, ${threads} thread${threads === 1 ? '' : 's'}, on ${record.agent}`;
      const bytes = slice.graph.sizeBytes + slice.blobs.reduce((sum, blob) => sum + blob.sizeBytes, 0);
      const deadlineMs = GRACE_MS + bytes / FETCH_BYTES_PER_MS + PATIENCE * budgetMs;
      const result = await this.#deps.measure(record, { slice, threads, runs, budgetMs }, deadlineMs + REPLY_MS);
      return checkedResult(result, device);
    });
  }

  /** The idlest first; in the order of names among equals. */
  #next(device: JobClass): AgentRecord | undefined {
    const able = device.agents
      .flatMap((agent) => (this.#out.has(agent) ? [] : [this.#deps.ready(agent)]))
      .filter((one) => one !== undefined);
    const load = (record: AgentRecord): number => record.health?.framesPerSecond ?? 0;
    return able.sort((a, b) => load(a) - load(b) || (a.agent < b.agent ? -1 : 1))[0];
  }

  #leaveOut(agent: string, { code, message }: ChairError): void {
    this.#out.set(agent, `${code}: ${message}`);
    this.notes.push(`${agent} was left out: ${code}: ${message}`);
    this.#deps.log('profile', `${agent} is not measured any more: ${code}: ${message}`);
  }

  #nobody(device: JobClass): ChairError {
    const why = device.agents.map((agent) => `${agent}: ${this.#out.get(agent) ?? 'not ready'}`).join('; ');
    return new ChairError('AGENT_UNKNOWN', `no agent of the class ${device.text} is left to measure on (${why})`);
  }

  #slice(need: Need): Promise<SliceRef> {
    const known = this.#slices.get(need) ?? this.#deps.slice(need);
    this.#slices.set(need, known);
    return known;
  }
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

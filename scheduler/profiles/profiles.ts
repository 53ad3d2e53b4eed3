/**
 * Profiles as the scheduler has them: starts and answers requests to measure, and gives planners the table of a model on a device. A job is named by its client, which asks
 * again and again how far it is; a job nobody asks for ends. What was measured stays on disk, so nothing is lost with the connection or the gateway.
 */
import { createHash } from 'node:crypto';
import { basename } from 'node:path';
import { ChairError, toChairError } from '../../broker/errors.js';
import type { Profile, ProfileReport, ProfileRequest, ProfileResult } from '../../broker/messages.js';
import { CUT_KINDS, type CutKind } from '../../models/slicing/partition.js';
import type { LoadedModel, ModelSource } from '../model-source.js';
import type { ProfileTable } from '../planners/problem.js';
import type { Problems } from '../problems.js';
import type { AgentRecord } from '../registry.js';
import { type DeviceClass, ProfileCache } from './cache.js';
import { isCalm, Job, type JobClass, type JobDeps, type JobRow } from './job.js';
import { needsOf } from './needs.js';
import { findings } from './report.js';
import { isComplete, tableOf } from './table.js';
import { Turns } from './turns.js';

export interface ProfilesOptions {
  readonly directory: string;
  readonly source: ModelSource;
  readonly agents: () => readonly AgentRecord[];
  /** Rejects with the signal's reason when it is given; the agent is told. */
  readonly measure: (record: AgentRecord, profile: Profile, deadlineMs: number, signal: AbortSignal) => Promise<ProfileResult>;
  /** Files that `work` writes are not cleaned away meanwhile. */
  readonly during: <T>(work: () => Promise<T>) => Promise<T>;
  readonly log: (kind: string, text: string) => void;
  readonly now: () => number;
  readonly problems?: Problems | undefined;
  /** As of a job. */
  readonly patience?: JobDeps['patience'];
}

interface Running {
  readonly request: ProfileRequest;
  job: Job | undefined;
  report: ProfileReport;
  askedMs: number;
  cancelled: ChairError | undefined;
  readonly timer: NodeJS.Timeout;
}

/** Cuts that planners use of themselves. */
const USUAL_CUTS: readonly CutKind[] = ['rows', 'channels'];
/** Nobody has asked for so long: nobody waits. */
const FORGOTTEN_MS = 30_000;
const MOST_JOBS = 8;
const KEPT_MS = 10 * 60_000;
const MOST_PARTS = 64;

export class Profiles {
  readonly #o: ProfilesOptions;
  readonly #cache: Promise<ProfileCache>;
  #opened: ProfileCache | undefined;
  readonly #jobs = new Map<string, Running>();
  readonly #tables = new Map<string, { readonly revision: number; readonly table: ProfileTable | undefined }>();
  readonly #turns = new Turns();
  #stopped = false;

  constructor(options: ProfilesOptions) {
    this.#o = options;
    this.#cache = ProfileCache.open({
      directory: options.directory,
      problems: options.problems,
      log: (error) => options.log('profile', `${error.code}: ${error.message}`),
    });
    void this.#cache.then((cache) => {
      this.#opened = cache;
    });
  }

  /** Begins the job, or says how far it is. Throws PROFILE_INVALID, AGENT_UNKNOWN, NO_AGENTS, QUEUE_FULL. */
  async request(request: ProfileRequest): Promise<ProfileReport> {
    const known = this.#jobs.get(request.job);
    if (known !== undefined) return this.#answer(known, request);
    const none = {
      code: '',
      message: '',
      model: '',
      done: 0,
      total: 0,
      current: 'reading the model',
      classes: [],
      rows: [],
      checks: [],
      notes: [],
    };
    if (request.cancel) return { job: request.job, state: 'failed', ...none, code: 'PROFILE_CANCELLED', message: 'there is no such job' };
    checkRequest(request);
    const classes = classesFor(request, this.#o.agents());
    if ([...this.#jobs.values()].filter(({ report }) => report.state === 'running').length >= MOST_JOBS) {
      throw new ChairError('QUEUE_FULL', `${MOST_JOBS} requests for profiles are under way already`, {
        todo: 'Ask again when one is done.',
      });
    }
    const timer = setInterval(() => this.#look(request.job), FORGOTTEN_MS / 4).unref();
    const running: Running = {
      ...{ request, job: undefined, askedMs: this.#o.now(), cancelled: undefined, timer },
      report: { job: request.job, state: 'running', ...none },
    };
    this.#jobs.set(request.job, running);
    void this.#run(running, classes);
    return running.report;
  }

  /** A job measures on this agent. */
  isMeasuring(agent: string): boolean {
    return [...this.#jobs.values()].some(({ job }) => job?.isOn(agent) === true);
  }

  /** What is measured of the model on devices of this agent's class with its threads; undefined = not all of it. */
  tableFor(model: LoadedModel, { hello }: AgentRecord): ProfileTable | undefined {
    const cache = this.#opened;
    if (cache === undefined) return undefined;
    const { fingerprint, engineThreads: threads } = hello;
    const key = `${keyOf(model)} ${fingerprint} ${threads}`;
    const known = this.#tables.get(key);
    if (known?.revision === cache.revision) return known.table;
    const table = this.#table(cache, model, hello, threads);
    if (this.#tables.size > 1000) this.#tables.clear();
    this.#tables.set(key, { revision: cache.revision, table });
    return table;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    for (const running of this.#jobs.values()) this.#cancel(running, new ChairError('STOPPED', 'the scheduler was stopped'));
    await (await this.#cache).close();
  }

  #table(cache: ProfileCache, model: LoadedModel, device: DeviceClass, threads: number): ProfileTable | undefined {
    const entries = cache.all(device, keyOf(model), threads);
    if (entries.length === 0) return undefined;
    const busy = entries.filter(({ measured }) => measured.busy).length;
    const table = tableOf(
      `${device.fingerprint} with ${threads} thread${threads === 1 ? '' : 's'}, ${entries.length} measurements${busy === 0 ? '' : `, ${busy} of them too long, as frames ran meanwhile`}`,
      entries,
    );
    return isComplete(table, model.facts.blocks) ? table : undefined;
  }

  #answer(running: Running, request: ProfileRequest): ProfileReport {
    running.askedMs = this.#o.now();
    if (request.cancel) this.#cancel(running, new ChairError('PROFILE_CANCELLED', 'the job was given up by its client'));
    const { job, report } = running;
    return report.state !== 'running' || job === undefined ? report : { ...report, done: job.done, total: job.total, current: job.current };
  }

  #cancel(running: Running, error: ChairError): void {
    running.cancelled ??= error;
    running.job?.cancel(error);
  }

  #look(name: string): void {
    const running = this.#jobs.get(name);
    if (running === undefined) return;
    const silentMs = this.#o.now() - running.askedMs;
    if (running.report.state === 'running' && silentMs > FORGOTTEN_MS) {
      this.#cancel(running, forgotten());
    }
    if (running.report.state !== 'running' && silentMs > KEPT_MS) {
      clearInterval(running.timer);
      this.#jobs.delete(name);
    }
  }

  async #run(running: Running, classes: readonly JobClass[]): Promise<void> {
    const { request } = running;
    try {
      const cache = await this.#cache;
      const report = await this.#o.during(() => this.#measure(running, cache, classes));
      running.report = { ...running.report, ...report, state: 'done', current: '' };
      this.#o.log(
        'profile',
        `${basename(request.model)}: ${report.done} measurements of ${classes.length} class${classes.length === 1 ? '' : 'es'} of device`,
      );
    } catch (thrown) {
      const { code, message } = toChairError(thrown);
      const { job } = running;
      const far = job === undefined ? {} : { done: job.done, total: job.total, notes: [...job.notes] };
      running.report = { ...running.report, ...far, state: 'failed', code, message: message.slice(0, 4000), current: '' };
      if (!this.#stopped) this.#o.log('profile', `${basename(request.model)}: ${code}: ${message}`);
    } finally {
      if (this.#stopped) clearInterval(running.timer);
    }
  }

  async #measure(running: Running, cache: ProfileCache, classes: readonly JobClass[]): Promise<Partial<ProfileReport> & { done: number }> {
    const { request } = running;
    const model = await this.#o.source.load(request);
    const { slice, describe } = model;
    if (slice === undefined) throw new ChairError('PROFILE_INVALID', 'this source of models has no slices to measure');
    const cuts = request.cuts.length > 0 ? (request.cuts as CutKind[]) : USUAL_CUTS;
    const parts = request.parts.length > 0 ? request.parts : usualParts(this.#o.agents());
    const { needs, between, notPossible } = needsOf(model.facts, { cuts, parts }, describe ?? ((start, end) => `nodes ${start} to ${end}`));
    const { runs, budgetMs, fresh } = request;
    const ready = (name: string): AgentRecord | undefined =>
      this.#o.agents().find(({ agent, state }) => agent === name && state === 'ready');
    const { measure, log, patience } = this.#o;
    const isDisturbed = (record: AgentRecord): boolean => frameOnHost(record, this.#o.agents());
    const job = new Job(
      { cache, ready, isDisturbed, measure, slice, log, turns: this.#turns, ...(patience === undefined ? {} : { patience }) },
      { model: keyOf(model), needs, classes, runs, budgetMs, fresh },
    );
    running.job = job;
    if (running.cancelled !== undefined) throw running.cancelled;
    await job.run();
    const notes = [...job.notes, ...beside(job.rows), ...disturbed(job.rows), ...unwritten(cache)];
    if (notPossible > 0) notes.push(`${notPossible} combinations of block, cut and parts cannot be cut so`);
    return { model: model.sha256, done: job.done, total: job.total, notes, ...findings(classes, job.rows, between) };
  }
}

const ALL_CUTS: readonly CutKind[] = CUT_KINDS.filter((kind) => kind !== 'whole');

function forgotten(): ChairError {
  return new ChairError('PROFILE_CANCELLED', `nobody asked for the job for ${FORGOTTEN_MS / 1000} s, so it was ended`, {
    todo: 'Ask again: what was measured is kept, and it goes on there.',
  });
}

/** Frames run on another agent of the same machine: the processor is not the measured one's alone. */
function frameOnHost({ agent, hello }: AgentRecord, agents: readonly AgentRecord[]): boolean {
  if (hello.host === '') return false;
  return agents.some((other) => other.agent !== agent && other.hello.host === hello.host && (other.health?.framesPerSecond ?? 0) > 0);
}

/** Figures that are too long. */
function beside(rows: readonly JobRow[]): string[] {
  const busy = rows.flatMap(({ measured }) => (measured?.busy === true ? [measured.agent] : []));
  if (busy.length === 0) return [];
  const where = [...new Set(busy)].join(', ');
  return [
    `${busy.length} of ${rows.length} were measured while frames ran on ${where} or beside it, and are too long: plans use them until they are measured at rest, which the next profile does; what was measured at rest before stays in use`,
  ];
}

function unwritten(cache: ProfileCache): string[] {
  return cache.unwritten === undefined ? [] : [`the gateway cannot keep it beyond its end: ${cache.unwritten}`];
}

/** What the reader must know before believing the figures. */
function disturbed(rows: readonly JobRow[]): string[] {
  const wild = rows.flatMap(({ measured }) => (measured === undefined || isCalm(measured) ? [] : [measured.agent]));
  if (wild.length === 0) return [];
  const where = [...new Set(wild)].join(', ');
  return [
    `${wild.length} of ${rows.length} measurements vary by more than 15 %: something else runs on ${where}; measure again with --fresh when it rests`,
  ];
}

/** As many parts as agents that could hold one; of many, the powers of two. */
function usualParts(agents: readonly AgentRecord[]): number[] {
  const most = Math.max(2, Math.min(MOST_PARTS, agents.filter(({ state }) => state === 'ready').length));
  return Array.from({ length: most }, (_, i) => i + 1).filter((n) => n <= 8 || Number.isInteger(Math.log2(n)) || n === most);
}

/** A model with other input shapes is another one to measure. */
function keyOf({ sha256, inputs }: LoadedModel): string {
  return createHash('sha256')
    .update(JSON.stringify([sha256, inputs]))
    .digest('hex')
    .slice(0, 32);
}

function checkRequest({ job, cuts, parts, threads, runs, budgetMs }: ProfileRequest): void {
  const wrong = (expected: string, came: string): ChairError =>
    new ChairError('PROFILE_INVALID', 'a request for profiles is wrong', { expected, came });
  if (job === '' || job.length > 100) throw wrong('a name of at most 100 characters for the job', `${job.length} characters`);
  const unknown = cuts.filter((cut) => !ALL_CUTS.some((kind) => kind === cut));
  if (unknown.length > 0) throw wrong(`cuts ${ALL_CUTS.join(', ')}`, unknown.join(', '));
  if (parts.some((n) => n < 1 || n > MOST_PARTS)) throw wrong(`1 to ${MOST_PARTS} parts`, parts.join(', '));
  if (threads.some((n) => n < 1 || n > 256)) throw wrong('1 to 256 threads', threads.join(', '));
  if (runs < 1 || runs > 1000 || !(budgetMs >= 1 && budgetMs <= 60_000))
    throw wrong('1 to 1000 runs within 1 to 60000 ms', `${runs} runs, ${budgetMs} ms`);
}

/** Ready agents by class. Threads beyond a device's cores are left out. Throws AGENT_UNKNOWN, NO_AGENTS, PROFILE_INVALID. */
export function classesFor(
  { agents: named, threads }: Pick<ProfileRequest, 'agents' | 'threads'>,
  agents: readonly AgentRecord[],
): JobClass[] {
  const unknown = named.filter((name) => !agents.some(({ agent }) => agent === name));
  if (unknown.length > 0) {
    const known = agents.map(({ agent }) => agent).join(', ') || 'none';
    throw new ChairError('AGENT_UNKNOWN', `no agent is called ${unknown.join(', ')}`, { todo: `Known agents: ${known}.` });
  }
  const able = agents.filter(({ agent, state }) => state === 'ready' && (named.length === 0 || named.includes(agent)));
  if (able.length === 0) throw new ChairError('NO_AGENTS', 'no ready agent can be measured', { came: `${agents.length} agents known` });
  const groups = new Map<string, AgentRecord[]>();
  for (const record of able) {
    const key = `${record.hello.fingerprint} ${record.hello.engineThreads}`;
    groups.set(key, [...(groups.get(key) ?? []), record]);
  }
  return [...groups.values()].flatMap((group): JobClass[] => {
    const hello = group[0]?.hello;
    if (hello === undefined) return [];
    const { fingerprint, engine, engineVersion, cores, cpuLimit, cpu, memoryBytes, engineThreads } = hello;
    const wanted = threads.length > 0 ? threads.filter((n) => n <= Math.max(cores, engineThreads)) : [engineThreads];
    if (wanted.length === 0) {
      throw new ChairError('PROFILE_INVALID', `no device of the class of ${hello.agent} has so many cores`, {
        expected: `1 to ${cores} threads`,
        came: threads.join(', '),
      });
    }
    const quota = cpuLimit > 0 ? `, limited to ${Number(cpuLimit.toFixed(2))}` : '';
    const text = `${cpu}, ${cores} core${cores === 1 ? '' : 's'}${quota}, ${Math.round(memoryBytes / 2 ** 20)} MiB, ${engine} ${engineVersion}`;
    const names = group.map(({ agent }) => agent).sort();
    return [
      {
        fingerprint,
        engine,
        engineVersion,
        text,
        agents: names,
        threads: [...new Set(wanted)].sort((a, b) => a - b),
        serving: engineThreads,
      },
    ];
  });
}

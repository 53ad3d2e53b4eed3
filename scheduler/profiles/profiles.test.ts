import { mkdirSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ChairError } from '../../broker/errors.js';
import type { Hello, Profile, ProfileReport, ProfileRequest, ProfileResult } from '../../broker/messages.js';
import { OUR_SCHEMAS } from '../../broker/schema/version.js';
import { PROFILE_DEFAULTS } from '../deploy-defaults.js';
import type { LoadedModel, ModelSource, SlicePart } from '../model-source.js';
import { chain } from '../planners/chain-model.js';
import { profiledMs } from '../planners/profile-table.js';
import { Problems } from '../problems.js';
import type { AgentRecord, AgentState } from '../registry.js';
import { ProfileCache } from './cache.js';
import { measuredParts, needsOf } from './needs.js';
import { classesFor, Profiles, type ProfilesOptions } from './profiles.js';

const MS_PER_MMAC = 2;
const RUN_MS = 0.5;
const BLOCKS = [10, 20, 5, 40].map((mmacs) => ({ macs: mmacs * 1e6, weightBytes: 1e6, rows: 96 }));
const facts = chain(BLOCKS, 96);

function record(agent: string, hello: Partial<Hello> = {}, state: AgentState = 'ready'): AgentRecord {
  const all: Hello = {
    ...{
      agent,
      nonce: '1',
      ...OUR_SCHEMAS,
      softwareVersion: '0',
      term: 0,
      scheduler: '',
      addresses: [],
      lanePort: 0,
      cores: 4,
      host: agent,
      hostCores: 4,
    },
    ...{
      cpuLimit: 0,
      cpuPeriodMs: 0,
      engineThreads: 4,
      memoryBytes: 1e9,
      arch: 'arm64',
      engine: 'e',
      engineVersion: '1',
      cpu: 'board',
      fingerprint: 'aaa',
    },
    ...{
      probeMacsPerSecond: 1e9,
      probeBytesPerSecond: 0,
      probeSmallRunMs: 0,
      storeBytesFree: 1e9,
      slices: [],
      healthMs: 1000,
      connection: 0,
      encrypted: false,
    },
    ...hello,
  };
  return { agent, nonce: '1', state, why: '', hello: all, health: null, seenMs: 0 };
}

const undo: (() => Promise<unknown>)[] = [];
let directory: string;
let agents: AgentRecord[];
/** Which agents were asked for which slice, in order. */
let asked: string[];
let logged: string[];
/** What an agent does with a slice; undefined = as the formula says. */
let behave: (agent: string, part: SlicePart) => Partial<ProfileResult> | undefined;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'chair-profiles-'));
  undo.push(() => rm(directory, { recursive: true, force: true }));
  agents = [record('a'), record('b')];
  asked = [];
  logged = [];
  behave = () => undefined;
});
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
});

const loaded: LoadedModel = {
  sha256: 'the model',
  inputs: [],
  outputs: [],
  facts,
  describe: (start, end) => `blocks ${start} to ${end}`,
  slice: async (part) => ({
    graph: { sha256: JSON.stringify(part), sizeBytes: 10 },
    blobs: [],
    macs: 0,
    weightBytes: 0,
    activationBytes: 0,
  }),
  ...({} as Pick<LoadedModel, 'write' | 'verify' | 'meter'>),
};

/** run + work, as the profiled device of these tests behaves exactly. */
function msOf({ nodes, parts }: SlicePart): number {
  const macs = BLOCKS.slice(...nodes).reduce((sum, block) => sum + block.macs, 0);
  return RUN_MS + (MS_PER_MMAC * macs) / 1e6 / parts;
}

function profiles(more: Partial<ProfilesOptions> = {}): Profiles {
  const made = new Profiles({
    directory,
    source: { load: async () => loaded } as unknown as ModelSource,
    agents: () => agents,
    patience: { forMs: 2000, everyMs: 2 },
    measure: async ({ agent, hello }, { slice, threads }: Profile) => {
      const part = JSON.parse(slice.graph.sha256) as SlicePart;
      asked.push(`${agent} ${part.nodes.join('-')} ${part.cut} ${part.parts}`);
      const told = behave(agent, part);
      const ms = msOf(part);
      const samplesMs = [ms, ms, ms];
      const { engine, engineVersion, fingerprint } = hello;
      const peaks = { emptyBytes: 1e8, loadPeakBytes: 2e6, runPeakBytes: 3e6 };
      return { engine, engineVersion, fingerprint, threads, loadMs: 5, samplesMs, ...peaks, busy: false, ...told };
    },
    during: (work) => work(),
    log: (_kind, text) => logged.push(text),
    now: () => performance.now(),
    ...more,
  });
  undo.push(() => made.stop());
  return made;
}

let jobs = 0;
const request = (more: Partial<ProfileRequest> = {}): ProfileRequest => ({
  ...PROFILE_DEFAULTS,
  ...{ job: `job ${jobs++}`, model: 'm', parts: [1, 2, 3, 4], cuts: ['rows'], cancel: false },
  ...more,
});

async function finished(one: Profiles, question: ProfileRequest): Promise<ProfileReport> {
  for (;;) {
    const report = await one.request(question);
    if (report.state !== 'running') return report;
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

describe('what is measured', () => {
  it('is 1, 2, 4, 8, ... and the largest number of parts', () => {
    expect(measuredParts([1, 2, 3, 4, 5, 6])).toEqual([1, 2, 4, 6]);
    expect(measuredParts([3])).toEqual([1, 3]);
    expect(measuredParts([])).toEqual([1]);
  });

  it('is every block whole and cut, the model, its halves and thirds, and a run of nothing; the parts between only on the heaviest blocks', () => {
    const { needs, between, notPossible } = needsOf(facts, { cuts: ['rows', 'channels'], parts: [1, 2, 3, 4] }, () => 'x');
    const texts = needs.map(({ what, nodes, cut, parts, check }) => `${what} ${nodes.join('-')} ${cut} ${parts}${check ? ' check' : ''}`);
    for (const b of [0, 1, 2, 3]) for (const parts of [2, 4]) expect(texts).toContain(`block ${b}-${b + 1} rows ${parts}`);
    expect(texts).toContain('model 0-4 whole 1');
    expect(texts).toEqual(expect.arrayContaining(['run 0-0 whole 1', 'range 0-2 whole 1', 'range 2-4 whole 1']));
    expect(texts.filter((text) => text.endsWith('check')).sort()).toEqual([0, 1, 3].map((b) => `block ${b}-${b + 1} rows 3 check`));
    expect(between.map(({ nodes, parts }) => [...nodes, parts])).toEqual([[2, 3, 3]]);
    expect(notPossible).toBe(12);
  });

  it('is asked of classes of device: equal fingerprints and threads; never of those that are not ready', () => {
    const all = [record('a'), record('b'), record('c', { fingerprint: 'bbb' }), record('d', { engineThreads: 1 }), record('e', {}, 'lost')];
    expect(classesFor({ agents: [], threads: [] }, all).map((one) => one.agents)).toEqual([['a', 'b'], ['c'], ['d']]);
    expect(classesFor({ agents: ['b'], threads: [1, 2, 9] }, all)).toMatchObject([{ agents: ['b'], threads: [1, 2] }]);
    expect(() => classesFor({ agents: ['x'], threads: [] }, all)).toThrow(expect.objectContaining({ code: 'AGENT_UNKNOWN' }));
    expect(() => classesFor({ agents: ['e'], threads: [] }, all)).toThrow(expect.objectContaining({ code: 'NO_AGENTS' }));
    expect(() => classesFor({ agents: [], threads: [64] }, all)).toThrow(expect.objectContaining({ code: 'PROFILE_INVALID' }));
  });
});

describe('a profile job', () => {
  it('measures one agent of a class, and gives planners a table for all of them', async () => {
    const one = profiles();
    const report = await finished(one, request());
    expect(report).toMatchObject({ state: 'done', code: '', model: 'the model' });
    expect(new Set(asked.map((text) => text.split(' ')[0]))).toEqual(new Set(['a']));
    const table = one.tableFor(loaded, record('b'));
    expect(table?.runMs).toBeCloseTo(RUN_MS, 9);
    for (const nodes of [
      [0, 4],
      [1, 3],
      [0, 3],
    ] as const) {
      const spec = { nodes, cut: 'whole' } as const;
      expect(table && profiledMs(table, spec, 1)).toBeCloseTo(msOf({ ...spec, parts: 1, part: 0 }), 6);
    }
    expect(one.tableFor(loaded, record('c', { fingerprint: 'another' }))).toBeUndefined();
    expect(one.tableFor(loaded, record('b', { engineThreads: 1 }))).toBeUndefined();
  });

  it('says what it interpolated, and how wrong that was where it was measured all the same', async () => {
    // A device that does not follow the line: three parts take twice as long as they should.
    behave = (_agent, part) => (part.parts === 3 ? { samplesMs: [2, 2, 2].map((k) => k * msOf(part)) } : undefined);
    const report = await finished(profiles(), request());
    const between = report.rows.filter(({ from }) => from === 'interpolated');
    expect(between.map(({ startNode, parts }) => [startNode, parts])).toEqual([[2, 3]]);
    expect(between[0]?.ms).toBeCloseTo(RUN_MS + (MS_PER_MMAC * 5) / 3, 4);
    const errors = report.checks.filter(({ what }) => what === 'interpolation').map((check) => check.predictedMs / check.measuredMs);
    expect(errors).toHaveLength(3);
    for (const error of errors) expect(error).toBeCloseTo(0.5, 4);
    const sums = report.checks.filter(({ what }) => what === 'sum');
    expect(sums.map(({ label }) => label)).toContain('the whole model');
    for (const { predictedMs, measuredMs } of sums) expect(predictedMs).toBeCloseTo(measuredMs, 6);
  });

  it('goes on with another agent of the class when one vanishes in the middle', async () => {
    behave = (agent) => {
      if (agent !== 'a' || asked.length < 5) return undefined;
      agents = agents.map((one) => (one.agent === 'a' ? { ...one, state: 'lost' } : one));
      throw new ChairError('AGENT_UNKNOWN', 'agent a is gone: no health for 3 s');
    };
    const report = await finished(profiles(), request());
    expect(report.state).toBe('done');
    expect(report.rows.every(({ code }) => code === '')).toBe(true);
    expect(new Set(report.rows.map(({ agent }) => agent).filter(Boolean))).toEqual(new Set(['a', 'b']));
    expect(report.notes.join()).toContain('a was left out: AGENT_UNKNOWN');
  });

  it('goes on with the only agent of a class when it is started again, and not with one that came back as another device', async () => {
    agents = [record('a'), record('z', { fingerprint: 'zzz' })];
    const back = (agent: string, hello: Partial<Hello>): void => {
      agents = agents.map((one) => (one.agent === agent ? { ...one, state: 'lost' } : one));
      setTimeout(() => {
        agents = agents.map((one) => (one.agent === agent ? { ...record(agent, hello), nonce: '2' } : one));
      }, 20);
      throw new ChairError('AGENT_UNKNOWN', `agent ${agent} is gone: its connection to the broker broke`);
    };
    const count = (agent: string): number => asked.filter((text) => text.startsWith(agent)).length;
    behave = (agent) => {
      if (agent === 'a' && count('a') === 3) back('a', {});
      // Its quota was changed meanwhile: what it measures is of another class.
      if (agent === 'z' && count('z') === 3) back('z', { fingerprint: 'yyy' });
      return undefined;
    };
    const report = await finished(profiles(), request({ parts: [1] }));
    const codes = (fingerprint: string) => report.rows.filter((row) => row.fingerprint === fingerprint).map(({ code }) => code);
    expect(new Set(codes('aaa'))).toEqual(new Set(['']));
    expect(new Set(codes('zzz').slice(2))).toEqual(new Set(['AGENT_UNKNOWN']));
    // Classes are measured side by side: which one ends last is chance.
    const last = report.rows.findLast(({ fingerprint }) => fingerprint === 'zzz');
    expect(last?.message).toContain('came back as a device of another class');
    expect(count('z')).toBe(3);
  });

  it('tries a slice that agents vanish with three times, and goes on with the others', async () => {
    agents = [record('a')];
    let lives = 1;
    behave = (_agent, part) => {
      if (part.nodes.join() !== '2,3') return undefined;
      agents = [{ ...record('a'), nonce: String(++lives) }];
      throw new ChairError('AGENT_UNKNOWN', 'agent a is gone: it died');
    };
    const report = await finished(profiles(), request({ parts: [1] }));
    expect(asked.filter((text) => text.includes(' 2-3 '))).toHaveLength(3);
    expect(report.rows.filter(({ code }) => code !== '').map(({ startNode }) => startNode)).toEqual([2]);
  });

  it('gives a slice as long as its work takes on a slow agent, and takes one that is too slow for a finding of that slice', async () => {
    agents = [record('a', { probeMacsPerSecond: 1e6 })];
    const deadlines = new Map<string, number>();
    const report = await finished(
      profiles({
        measure: async ({ hello }, { slice, threads }, deadlineMs) => {
          const part = JSON.parse(slice.graph.sha256) as SlicePart;
          deadlines.set(part.nodes.join('-'), deadlineMs);
          if (part.nodes.join() === '3,4') throw new ChairError('PROFILE_FAILED', 'a measurement took too long and was given up');
          const { engine, engineVersion, fingerprint } = hello;
          const peaks = { emptyBytes: 1e8, loadPeakBytes: 2e6, runPeakBytes: 3e6 };
          return { engine, engineVersion, fingerprint, threads, loadMs: 5, samplesMs: [1], ...peaks, busy: false };
        },
      }),
      request({ parts: [1] }),
    );
    // 20 million MACs at a million a second: a run takes 20 s, and one that warms up as long.
    expect(deadlines.get('1-2')).toBeGreaterThan(2 * 20_000 + 60_000);
    expect(deadlines.get('0-0')).toBeLessThan(100_000);
    expect(report.rows.filter(({ code }) => code !== '').map(({ code, startNode }) => [code, startNode])).toEqual([['PROFILE_FAILED', 3]]);
  });

  it('ends what agents measure at once when it is given up, also while it waits for its turn behind another job', async () => {
    const given: unknown[] = [];
    const slow = profiles({
      measure: (_record, _profile, _deadlineMs, signal) =>
        new Promise((_, reject) => {
          signal.addEventListener('abort', () => {
            given.push(signal.reason);
            reject(signal.reason);
          });
        }),
    });
    const [first, second] = [request(), request()];
    for (const one of [first, second]) await slow.request(one);
    await expect.poll(async () => (await slow.request(first)).current).toContain('on a');
    for (const one of [second, first]) {
      await slow.request({ ...one, cancel: true });
      await expect.poll(async () => (await slow.request(one)).state).toBe('failed');
      expect(await slow.request(one)).toMatchObject({ code: 'PROFILE_CANCELLED' });
      expect(given).toHaveLength(one === first ? 1 : 0);
    }
  });

  it('marks what was measured while frames ran on the same machine, and does not put it in the place of what was measured at rest', async () => {
    agents = [record('a', { host: 'h' }), record('b', { host: 'h', fingerprint: 'bbb' })];
    const one = profiles();
    await finished(one, request({ agents: ['a'], parts: [1] }));
    const before = one.tableFor(loaded, record('a'));
    const health = { framesPerSecond: 3 } as AgentRecord['health'];
    agents = agents.map((each) => (each.agent === 'b' ? { ...each, health } : each));
    behave = (_agent, part) => ({ samplesMs: [1, 1, 1].map((k) => 3 * k * msOf(part)) });
    const report = await finished(one, request({ agents: ['a'], parts: [1], fresh: true }));
    expect(report.rows.every(({ busy }) => busy)).toBe(true);
    expect(report.notes.join()).toMatch(/^(\d+) of \1 were measured while frames ran on a or beside it/);
    expect(one.tableFor(loaded, record('a'))?.rows).toEqual(before?.rows);
    // Where nothing was measured at rest it is used, and plans say what it is worth.
    behave = () => ({ busy: true });
    agents.push(record('c', { fingerprint: 'ccc' }));
    await finished(one, request({ agents: ['c'], parts: [1] }));
    expect(one.tableFor(loaded, record('c', { fingerprint: 'ccc' }))?.name).toMatch(
      /(\d+) measurements, \1 of them too long, as frames ran/,
    );
  });

  it('takes a measurement at rest before a calmer one beside frames', async () => {
    let tries = 0;
    behave = (_agent, part) => {
      if (part.nodes.join() !== '3,4') return undefined;
      return tries++ === 0 ? { samplesMs: [90, 120, 190], busy: true } : { samplesMs: [50, 80, 150] };
    };
    const report = await finished(profiles(), request({ parts: [1] }));
    expect(report.rows.find((row) => row.startNode === 3 && row.parts === 1)).toMatchObject({ ms: 80, busy: false });
  });

  it('has a coded row for what no agent of the class could measure, and measures the other classes', async () => {
    agents = [record('a'), record('z', { fingerprint: 'zzz' })];
    behave = (agent) => {
      if (agent === 'z') throw new ChairError('REQUEST_TIMEOUT', 'no reply');
      return undefined;
    };
    const one = profiles();
    const report = await finished(one, request());
    expect(report.state).toBe('done');
    const rows = (fingerprint: string) => report.rows.filter((row) => row.fingerprint === fingerprint && row.from !== 'interpolated');
    expect(rows('aaa').every(({ code }) => code === '')).toBe(true);
    expect(rows('zzz').every(({ code }) => code === 'REQUEST_TIMEOUT' || code === 'AGENT_UNKNOWN')).toBe(true);
    // Asked once, not for each of the measurements.
    expect(asked.filter((text) => text.startsWith('z'))).toHaveLength(1);
    expect(one.tableFor(loaded, record('z', { fingerprint: 'zzz' }))).toBeUndefined();
  });

  it('takes a slice that does not fit as a finding, asks no other agent for it, and goes on', async () => {
    behave = (_agent, part) => {
      if (part.nodes.join() === '0,4') throw new ChairError('AGENT_OUT_OF_MEMORY', 'killed');
      return undefined;
    };
    const report = await finished(profiles(), request());
    expect(report.rows.find(({ what }) => what === 'model')).toMatchObject({ code: 'AGENT_OUT_OF_MEMORY', ms: 0 });
    expect(asked.filter((text) => text.includes('0-4'))).toHaveLength(1);
    expect(report.notes).toEqual([]);
  });

  it('refuses an answer of another engine than the class has', async () => {
    behave = () => ({ engineVersion: '2' });
    const report = await finished(profiles(), request());
    expect(new Set(report.rows.map(({ code }) => code))).toEqual(new Set(['PROFILE_INVALID', 'AGENT_UNKNOWN']));
    expect(report.rows.at(-1)?.message).toContain('a: PROFILE_INVALID');
  });

  it('measures a disturbed slice again and keeps the calmest', async () => {
    let tries = 0;
    behave = (_agent, part) =>
      part.nodes.join() === '3,4' && part.parts === 1 ? { samplesMs: tries++ === 1 ? [80, 81, 82] : [90, 120, 190] } : undefined;
    const report = await finished(profiles(), request({ parts: [1] }));
    expect(tries).toBe(2);
    expect(report.rows.find((row) => row.startNode === 3 && row.parts === 1)?.ms).toBe(81);
  });

  it('says that a device was disturbed, and tries three times before it does', async () => {
    behave = (_agent, part) => (part.nodes.join() === '3,4' && part.parts === 1 ? { samplesMs: [90, 120, 190] } : undefined);
    const report = await finished(profiles(), request({ parts: [1] }));
    expect(asked.filter((text) => text === 'a 3-4 whole 1')).toHaveLength(3);
    expect(report.notes.join()).toMatch(/^1 of \d+ measurements vary .* something else runs on a;/);
  });

  it('knows on whom it measures, while it does: nothing else is timed there meanwhile', async () => {
    agents = [record('a'), record('b')];
    const seen = new Set<string>();
    behave = () => {
      seen.add(['a', 'b'].filter((agent) => made.isMeasuring(agent)).join());
      return undefined;
    };
    const made = profiles();
    expect(made.isMeasuring('a')).toBe(false);
    expect((await finished(made, request())).state).toBe('done');
    expect([...seen]).toEqual(['a']);
    expect(made.isMeasuring('a')).toBe(false);
  });

  it('does not measure agents of one host at the same time, and others side by side', async () => {
    agents = [record('a', { host: 'h' }), record('b', { host: 'h', fingerprint: 'bbb' }), record('c', { host: 'k', fingerprint: 'ccc' })];
    const at = new Map<string, number>();
    let most = 0;
    let together = 0;
    const slow = profiles({
      measure: async ({ agent, hello }, { slice, threads }) => {
        at.set(hello.host, (at.get(hello.host) ?? 0) + 1);
        most = Math.max(most, ...at.values());
        together = Math.max(
          together,
          [...at.values()].reduce((sum, n) => sum + n, 0),
        );
        await new Promise((resolve) => setTimeout(resolve, 1));
        at.set(hello.host, (at.get(hello.host) ?? 0) - 1);
        asked.push(agent);
        const ms = msOf(JSON.parse(slice.graph.sha256) as SlicePart);
        const { engine, engineVersion, fingerprint } = hello;
        return {
          engine,
          engineVersion,
          fingerprint,
          threads,
          loadMs: 1,
          samplesMs: [ms],
          emptyBytes: 0,
          loadPeakBytes: 0,
          runPeakBytes: 0,
          busy: false,
        };
      },
    });
    await finished(slow, request());
    expect(most).toBe(1);
    expect(together).toBe(2);
  });

  it.each<[string, Partial<ProfileResult>]>([
    ['a time without end', { samplesMs: [Number.POSITIVE_INFINITY] }],
    ['a time of 1e300 ms', { samplesMs: [1e300] }],
    ['no time to load', { loadMs: Number.NaN }],
    ['a negative peak', { loadPeakBytes: -1 }],
  ])('leaves out an agent that says %s, measures on another one, and keeps a cache that can be read again', async (_, lie) => {
    behave = (agent) => (agent === 'a' ? lie : undefined);
    const { state, notes, rows } = await finished(profiles(), request());
    expect(state).toBe('done');
    expect(rows.filter(({ code }) => code !== '')).toEqual([]);
    expect(notes).toEqual([expect.stringContaining('a was left out: PROFILE_INVALID')]);
    asked = [];
    await finished(profiles(), request());
    expect(asked).toEqual([]);
    expect(logged.filter((line) => line.includes('cannot be used'))).toEqual([]);
  });

  it('measures nothing twice and nothing at the same time for two who ask at once', async () => {
    agents = [record('a', { host: 'h' }), record('b', { host: 'h', fingerprint: 'bbb' })];
    let at = 0;
    let most = 0;
    const measured: string[] = [];
    const one = profiles({
      measure: async ({ agent, hello }, { slice, threads }) => {
        measured.push(`${agent} ${slice.graph.sha256}`);
        most = Math.max(most, ++at);
        await new Promise((resolve) => setTimeout(resolve, 1));
        at--;
        const { engine, engineVersion, fingerprint } = hello;
        const peaks = { emptyBytes: 1e8, loadPeakBytes: 2e6, runPeakBytes: 3e6 };
        return { engine, engineVersion, fingerprint, threads, loadMs: 5, samplesMs: [5, 5, 5], ...peaks, busy: false };
      },
    });
    const reports = await Promise.all([finished(one, request()), finished(one, request())]);
    for (const { state, done, total } of reports) expect([state, done]).toEqual(['done', total]);
    expect(most).toBe(1);
    expect(new Set(measured).size).toBe(measured.length);
  });

  it('ends when its client cancels it, and refuses a request that makes no sense', async () => {
    const question = request();
    const one = profiles();
    await one.request(question);
    await one.request({ ...question, cancel: true });
    expect(await finished(one, question)).toMatchObject({ state: 'failed', code: 'PROFILE_CANCELLED' });
    for (const wrong of [{ cuts: ['stripes'] }, { parts: [0] }, { runs: 0 }, { budgetMs: Number.NaN }, { job: '' }]) {
      await expect(one.request(request(wrong))).rejects.toMatchObject({ code: 'PROFILE_INVALID' });
    }
  });
});

describe('the cache', () => {
  const measuredAgain = async (): Promise<number> => {
    asked = [];
    await finished(profiles(), request());
    return asked.length;
  };

  it('survives a restart: nothing is measured twice, and planners have their tables', async () => {
    await finished(profiles(), request());
    expect(asked.length).toBeGreaterThan(10);
    expect(await measuredAgain()).toBe(0);
    const again = profiles();
    await finished(again, request());
    expect(again.tableFor(loaded, record('b'))?.rows.length).toBeGreaterThan(10);
  });

  it('measures again what it is told to, what is new, and what was measured while frames ran', async () => {
    behave = (_agent, part) => (part.nodes[0] === 1 && part.parts === 2 ? { busy: true } : undefined);
    await finished(profiles(), request());
    const all = asked.length;
    behave = () => undefined;
    expect(await measuredAgain()).toBe(1);
    asked = [];
    await finished(profiles(), request({ fresh: true }));
    expect(asked.length).toBe(all);
    agents = [record('new', { fingerprint: 'ccc' })];
    expect(await measuredAgain()).toBe(all);
  });

  it('says that it cannot be written, goes on in memory, and is written when it can be', async () => {
    const file = join(directory, 'aaa.json');
    // A folder in its place, as nothing else is refused to root.
    behave = () => {
      if (asked.length === 1) mkdirSync(file);
      return undefined;
    };
    const problems = new Problems();
    const one = profiles({ problems });
    const report = await finished(one, request());
    expect(report.state).toBe('done');
    expect(report.notes.join()).toMatch(/the gateway cannot keep it beyond its end: .*EISDIR|ENOTEMPTY|EEXIST/);
    expect(problems.all().join()).toContain('profiles could not be written to');
    expect(one.tableFor(loaded, record('b'))?.rows.length).toBeGreaterThan(10);
    // Whoever asks while it is tried again hears it, too.
    const both = await Promise.all([1, 2].map(() => finished(one, request({ fresh: true }))));
    for (const { notes } of both) expect(notes.join()).toContain('cannot keep it');
    await rm(file, { recursive: true });
    await one.stop();
    expect(problems.all()).toEqual([]);
    expect(await measuredAgain()).toBe(0);
  });

  it('does not take the figures of another version of the engine', async () => {
    await finished(profiles(), request());
    const all = asked.length;
    agents = [record('a', { engineVersion: '2' })];
    expect(await measuredAgain()).toBe(all);
  });

  it('does not believe a figure that was changed by something else, and says so as long as it lasts', async () => {
    await finished(profiles(), request());
    const file = join(directory, 'aaa.json');
    const good = await readFile(file, 'utf8');
    // The last digit of a time, as one flipped bit makes it.
    const changed = good.replace(/("samplesMs":\[[\d.]*)(\d)/, (_, head: string, digit: string) => `${head}${Number(digit) ^ 1}`);
    expect(changed).not.toBe(good);
    await writeFile(file, changed);
    const problems = new Problems();
    expect((await ProfileCache.open({ directory, log: (error) => logged.push(error.message), problems })).revision).toBe(0);
    expect(problems.all().join()).toContain('put aside');
    expect(await measuredAgain()).toBeGreaterThan(10);
  });

  it.each([
    ['is torn', '{"format":2,"finger'],
    ['is of another format', '{"format":99,"fingerprint":"aaa","engine":"e","engineVersion":"1","entries":{}}'],
    ['has nonsense in it', '{"format":2,"fingerprint":"aaa","engine":"e","engineVersion":"1","entries":{"x":{"slice":1}}}'],
    ['is of another device', '{"format":2,"fingerprint":"bbb","engine":"e","engineVersion":"1","entries":{}}'],
  ])('puts a file aside that %s, says so, and measures', async (_what, content) => {
    await mkdir(directory, { recursive: true });
    await writeFile(join(directory, 'aaa.json'), content);
    expect(await measuredAgain()).toBeGreaterThan(10);
    expect(logged.join('\n')).toContain('PROFILE_INVALID');
    expect((await readdir(directory)).sort()).toEqual(['aaa.json', 'aaa.json.unusable']);
    expect(await readFile(join(directory, 'aaa.json.unusable'), 'utf8')).toBe(content);
  });
});

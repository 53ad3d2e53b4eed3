import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ChairError } from '../broker/errors.js';
import { createFakeBroker } from '../broker/fake-bus.js';
import type { Profile } from '../broker/messages.js';
import type { BlobFetcher } from './fetch.js';
import { cpuModel, type DeviceTraits, fingerprintOf } from './fingerprint.js';
import { giveUpWhenCutOff, type Measure, type Measurement, Profiler, type ProfilerOptions } from './profiling.js';
import { BlobStore } from './store.js';
import { blob, folder } from './test-world.js';

const MIB = 2 ** 20;
const graph = blob('a slice');
const job: Profile = {
  slice: { graph: graph.ref, blobs: [], macs: 1, weightBytes: 10 * MIB, activationBytes: MIB },
  threads: 0,
  runs: 5,
  budgetMs: 100,
};
const found: Measurement = { loadMs: 3, samplesMs: [1, 2, 3], emptyBytes: 100, loadPeakBytes: 20, runPeakBytes: 30 };

const undo: (() => unknown)[] = [];
let store: BlobStore;
let fetches: string[];
let frames: number;
beforeEach(async () => {
  fetches = [];
  frames = 0;
  store = await BlobStore.open({ directory: await folder(undo), limitBytes: 1e6, diskFreeBytes: async () => 1e9 });
  undo.push(() => store.close());
});
afterEach(async () => {
  for (const u of undo.splice(0).reverse()) await u();
});

function profiler(measure: Measure | undefined, more: Partial<ProfilerOptions> = {}): Profiler {
  const fetchAll: BlobFetcher['fetchAll'] = async (refs) => {
    for (const ref of refs) fetches.push(ref.sha256);
  };
  return new Profiler({
    store,
    fetcher: { fetchAll } as BlobFetcher,
    measure,
    memory: () => ({ limitBytes: 1000 * MIB, usedBytes: 100 * MIB }),
    activity: () => frames,
    isBusy: () => false,
    device: () => ({ engine: 'toy', engineVersion: '1', fingerprint: 'f' }),
    threads: 2,
    cores: 4,
    batchMs: 10,
    cpuLimit: 0,
    prepack: false,
    ...more,
  });
}

/** Measures until it is told to end; rejects as a killed process would. */
function hanging(): { measure: Measure; started: Promise<void> } {
  let begun = (): void => undefined;
  const started = new Promise<void>((resolve) => {
    begun = resolve;
  });
  const measure: Measure = (_file, _options, signal) =>
    new Promise((_, reject) => {
      begun();
      signal.addEventListener('abort', () => reject(new Error('killed')));
    });
  return { measure, started };
}

describe('profiling on an agent', () => {
  it('fetches the slice, measures it with the threads it serves with, and says what device it is', async () => {
    const asked: unknown[] = [];
    const one = profiler(async (file, options) => {
      asked.push([file, options.threads]);
      return found;
    });
    expect(await one.run('1', job, 0)).toEqual({ engine: 'toy', engineVersion: '1', fingerprint: 'f', threads: 2, ...found, busy: false });
    expect(fetches).toEqual([graph.ref.sha256]);
    expect(asked).toEqual([[store.path(graph.ref.sha256), 2]]);
  });

  it('measures once for a command that comes twice, during and after', async () => {
    let runs = 0;
    const one = profiler(async () => {
      runs++;
      return found;
    });
    const [a, b] = await Promise.all([one.run('1', job, 0), one.run('1', job, 0)]);
    expect(a).toBe(b);
    expect(await one.run('1', job, 0)).toBe(a);
    expect(runs).toBe(1);
  });

  it('measures one slice at a time', async () => {
    let at = 0;
    let most = 0;
    const one = profiler(async () => {
      most = Math.max(most, ++at);
      await new Promise((resolve) => setTimeout(resolve, 5));
      at--;
      return found;
    });
    await Promise.all(['1', '2', '3'].map((id) => one.run(id, job, 0)));
    expect(most).toBe(1);
  });

  it('says plainly when frames ran meanwhile', async () => {
    const one = profiler(async () => {
      frames++;
      return found;
    });
    expect((await one.run('1', job, 0)).busy).toBe(true);
    expect((await profiler(async () => found, { isBusy: () => true }).run('1', job, 0)).busy).toBe(true);
  });

  it('refuses a slice that cannot fit before anything is started', async () => {
    const one = profiler(async () => found, { memory: () => ({ limitBytes: 200 * MIB, usedBytes: 100 * MIB }) });
    await expect(one.run('1', job, 0)).rejects.toMatchObject({ code: 'AGENT_OUT_OF_MEMORY' });
  });

  it('ends at its deadline, and goes on with the next', async () => {
    const { measure } = hanging();
    let first = true;
    const one = profiler((...args) => {
      if (!first) return Promise.resolve(found);
      first = false;
      return measure(...args);
    });
    await expect(one.run('1', job, 30)).rejects.toMatchObject({ code: 'PROFILE_FAILED' });
    expect((await one.run('2', job, 0)).samplesMs).toEqual(found.samplesMs);
  });

  it('is given up when the agent drains: what runs, what waits, and what comes later', async () => {
    const { measure, started } = hanging();
    const one = profiler(measure);
    const jobs = ['1', '2'].map((id) => one.run(id, job, 0));
    await started;
    await one.stop('it drains');
    for (const under of jobs) await expect(under).rejects.toMatchObject({ code: 'PROFILE_CANCELLED' });
    await expect(one.run('3', job, 0)).rejects.toMatchObject({ code: 'PROFILE_CANCELLED' });
  });

  it('is given up one by one, under way or waiting, and measures what comes after', async () => {
    const { measure, started } = hanging();
    let times = 0;
    const one = profiler((...args) => (times++ === 0 ? measure(...args) : Promise.resolve(found)));
    const [under, waiting, kept] = ['1', '2', '3'].map((id) => one.run(id, job, 0));
    await started;
    one.giveUp('2', 'nobody waits for it any more');
    one.giveUp('1', 'nobody waits for it any more');
    one.giveUp('1', 'twice');
    one.giveUp('unknown', 'never asked for');
    for (const given of [under, waiting]) await expect(given).rejects.toMatchObject({ code: 'PROFILE_CANCELLED' });
    expect((await kept)?.samplesMs).toEqual(found.samplesMs);
    expect(times).toBe(2);
    one.giveUp('3', 'it is over');
    expect((await one.run('4', job, 0)).samplesMs).toEqual(found.samplesMs);
  });

  it('is given up when the broker stays away, not when it is back soon', async () => {
    const bus = createFakeBroker().bus('a');
    undo.push(() => bus.stop());
    const { measure, started } = hanging();
    const one = profiler(measure);
    const given: string[] = [];
    const giveUpAll = (why: string): void => {
      given.push(why);
      one.giveUpAll(why);
    };
    undo.push(giveUpWhenCutOff(bus, { giveUpAll }, 200));
    const under = one.run('1', job, 0);
    await started;
    bus.lose();
    bus.restore();
    await delay(400);
    expect(given).toEqual([]);
    bus.lose();
    await expect(under).rejects.toMatchObject({ code: 'PROFILE_CANCELLED', message: expect.stringContaining('the broker has been away') });
    expect(given).toHaveLength(1);
  });

  it('passes on what the measuring process failed with', async () => {
    const one = profiler(async () => {
      throw new ChairError('ENGINE_LOAD_FAILED', 'no such operator');
    });
    await expect(one.run('1', job, 0)).rejects.toMatchObject({ code: 'ENGINE_LOAD_FAILED' });
  });

  it('refuses what cannot be measured: no engine, more threads than cores, no runs', async () => {
    await expect(profiler(undefined).run('1', job, 0)).rejects.toMatchObject({ code: 'PROFILE_FAILED' });
    const one = profiler(async () => found);
    await expect(one.run('1', { ...job, threads: 5 }, 0)).rejects.toMatchObject({ code: 'PROFILE_INVALID' });
    await expect(one.run('2', { ...job, runs: 0 }, 0)).rejects.toMatchObject({ code: 'PROFILE_INVALID' });
  });

  it('takes no more than it can remember to do', async () => {
    const { measure, started } = hanging();
    const one = profiler(measure);
    const jobs = Array.from({ length: 8 }, (_, i) => one.run(String(i), job, 0).catch(() => undefined));
    await started;
    await expect(one.run('9', job, 0)).rejects.toMatchObject({ code: 'AGENT_BUSY' });
    await one.stop('the test is over');
    await Promise.all(jobs);
  });
});

describe('fingerprints', () => {
  const pi: DeviceTraits = {
    ...{ cpu: 'Raspberry Pi 4 Model B Rev 1.4', maxKhz: 1_500_000, arch: 'arm64', cores: 4, cpuLimit: 0, memoryBytes: 3.9e9 },
    ...{ engine: 'onnxruntime', engineVersion: '1.30.0', prepack: false },
  };

  it('are equal for boards that differ by what firmware keeps of the memory', () => {
    expect(fingerprintOf({ ...pi, memoryBytes: 3.95e9 })).toBe(fingerprintOf(pi));
    expect(fingerprintOf(pi)).toMatch(/^[0-9a-f]{12}$/);
  });

  it('differ by everything that run times depend on', () => {
    const others: Partial<DeviceTraits>[] = [
      { cpu: 'Raspberry Pi 5' },
      { maxKhz: 2_000_000 },
      { arch: 'x64' },
      { cores: 2 },
      { cpuLimit: 0.18 },
      { memoryBytes: 1e9 },
      { engine: 'other' },
      { engineVersion: '1.31.0' },
      { prepack: true },
    ];
    expect(new Set([pi, ...others.map((other) => ({ ...pi, ...other }))].map(fingerprintOf)).size).toBe(others.length + 1);
  });

  it('name the board where the firmware does', () => {
    expect(cpuModel(() => 'Raspberry Pi 4 Model B Rev 1.4\0')).toBe('Raspberry Pi 4 Model B Rev 1.4');
    expect(cpuModel(() => '')).not.toBe('');
  });
});

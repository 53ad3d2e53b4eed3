import { describe, expect, it } from 'vitest';
import type { Engine, Session } from './engine.js';
import { withSmallRuns } from './probe.js';

/** An engine whose runs take the CPU that `next` says; and the clock of that CPU. */
function scripted(next: (run: number) => number): { readonly engine: Engine; readonly cpuMs: () => number } {
  let [usedMs, runs] = [0, 0];
  const session: Session = {
    ...{ inputs: [], outputs: [], warmUp: async () => undefined, dispose: async () => undefined },
    run: async () => {
      usedMs += next(runs++);
      return { outputs: {}, runMs: 0 };
    },
  };
  const engine: Engine = { name: 'scripted', version: '1', load: async () => session, dispose: async () => undefined };
  return { engine, cpuMs: () => usedMs };
}

const probeSmallRunMs = (engine: Engine, cpuMs: () => number, looks = 1): Promise<number> =>
  withSmallRuns(
    engine,
    async (runs) => {
      for (let i = 0; i < looks; i++) await runs.look();
      return runs.ms;
    },
    cpuMs,
  );

describe('the probe of a small run', () => {
  it('says how fast the processor is, not how often a quota has paused it: runs after a pause find the caches taken', async () => {
    // As seen on 0.09 core: most runs of one start follow a pause, few of another.
    const paused = scripted((run) => (run % 7 === 0 ? 0.036 : 0.44));
    const free = scripted((run) => (run % 7 === 0 ? 0.44 : 0.036));
    expect(await probeSmallRunMs(paused.engine, paused.cpuMs)).toBeCloseTo(0.036, 6);
    expect(await probeSmallRunMs(free.engine, free.cpuMs)).toBeCloseTo(0.036, 6);
  });

  it('says what the quietest look found, where others kept the machine busy in the rest', async () => {
    const beside = scripted((run) => (run > 200 && run < 300 ? 0.04 : 0.16));
    expect(await probeSmallRunMs(beside.engine, beside.cpuMs, 5)).toBeCloseTo(0.04, 6);
    expect(await probeSmallRunMs(beside.engine, beside.cpuMs)).toBeCloseTo(0.16, 6);
  });

  it('says that a processor is slow when all runs are', async () => {
    const slow = scripted((run) => 0.3 + (run % 3) / 100);
    expect(await probeSmallRunMs(slow.engine, slow.cpuMs)).toBeCloseTo(0.3, 6);
  });

  it('counts all runs together where the clock counts in ticks and most take none', async () => {
    const ticks = scripted((run) => (run % 20 === 19 ? 4 : 0));
    expect(await probeSmallRunMs(ticks.engine, ticks.cpuMs)).toBeCloseTo(0.2, 6);
  });
});

/** A short seeded run of chaos, as it is run for ten minutes by hand: what must hold is what must hold there. */
import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { compiled, compiledCli } from '../e2e/compiled.js';
import { DEFAULT_DEVICE } from '../testbed/devices.js';
import { type ChaosRecord, failuresOf, longestGap } from './figures.js';
import { recordText } from './record.js';
import { runChaos } from './run.js';
import { setStage } from './stage.js';

describe('chaos', () => {
  it('breaks nothing that must hold in a few rounds of a known seed: two lose their power within a second, all do, and one hangs while another is killed', async () => {
    const lines: string[] = [];
    const note = (line: string): void => void lines.push(line);
    const stage = await setStage({ agents: 4, spares: 1, cli: compiledCli(), device: { ...DEFAULT_DEVICE, cpu: 0.3 } });
    try {
      const record = await runChaos(stage, {
        seed: 268,
        forMs: 400_000,
        rounds: 3,
        kinds: ['kill', 'rot', 'hang', 'lie', 'broker-kill'],
        note,
      });
      expect(record.violations, lines.join('\n')).toEqual([]);
      expect(record.rounds.map(({ kinds }) => kinds.toSorted().join())).toEqual(['kill,kill', 'kill,kill,kill,kill', 'hang,kill,lie']);
      expect(record.frames).toBeGreaterThan(50);
      expect(record.maxRelDiff).toBeGreaterThan(0);
      expect(recordText(record)).toMatch(/Everything that must hold held/);
    } finally {
      await stage.stop();
    }
  }, 600_000);

  it('refuses options that make no sense, before anything is started', () => {
    const [node = '', main = ''] = compiled(new URL('./main.ts', import.meta.url));
    const run = (...args: string[]) => spawnSync(node, [main, ...args], { encoding: 'utf8' });
    const wrong = [
      ['--minutes', 'x'],
      ['--seed', '-1'],
      ['--kinds', 'kill,flood'],
      ['--agents', '1'],
      ['--mintues', '1'],
    ];
    for (const args of wrong) {
      const { status, stderr } = run(...args);
      expect({ args, status }).toEqual({ args, status: 2 });
      expect(stderr).toMatch(/^USAGE: /m);
    }
  }, 60_000);
});

describe('the record of a chaos run', () => {
  const outcome = (deployment: string, endedMs: number, code = '') => ({
    ...{ deployment, endedMs, code, sentMs: 0, message: '', attempts: 1, maxRelDiff: 0, wrong: '' },
  });

  it('has the longest time without a result of each deployment, and the codes of those that failed', () => {
    const outcomes = [
      outcome('a', 100),
      outcome('b', 0),
      outcome('a', 400),
      outcome('a', 300, 'FRAME_FAILED'),
      outcome('b', 50),
      outcome('a', 450),
    ];
    expect(longestGap(outcomes, 'a', 50, 500)).toEqual({ ms: 300, fromMs: 100 });
    expect(longestGap(outcomes, 'b', 0, 1000)).toEqual({ ms: 950, fromMs: 50 });
    expect(longestGap([], 'a', 200, 900)).toEqual({ ms: 700, fromMs: 200 });
    expect(failuresOf(outcomes)).toEqual({ FRAME_FAILED: 1 });
  });

  it('names every violation', () => {
    const conditions = { isolation: 'processes', why: 'not root', agents: [] } as unknown as ChaosRecord['conditions'];
    const none = {
      rounds: [],
      events: 0,
      frames: 0,
      failures: {},
      reissued: 0,
      maxRelDiff: 0,
      accepted: 0,
      refused: 0,
      refusals: { TERM_STALE: 3 },
      restarts: [],
      requests: [],
      peaks: [],
    };
    const record: ChaosRecord = { seed: 5, conditions, seconds: 1, ...none, violations: [{ invariant: 'this holds', text: 'it did not' }] };
    expect(recordText(record)).toMatch(/3 TERM_STALE.*BROKEN, 1 times:\n- this holds: it did not/s);
  });
});

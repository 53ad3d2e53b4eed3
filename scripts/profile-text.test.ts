import { describe, expect, it } from 'vitest';
import type { ProfileMeasure, ProfileReport } from '../broker/messages.js';
import { profileText, shortLabel } from './profile-text.js';

const CLASS = { fingerprint: 'f', text: 'Raspberry Pi 4, 4 cores, onnxruntime 1.30.0', agents: ['pi-1', 'pi-2'], threads: 1, runMs: 0.05 };

function row(block: number, cut: string, parts: number, over: Partial<ProfileMeasure> = {}): ProfileMeasure {
  const ms = (20 * (block + 1)) / parts;
  return {
    ...{
      fingerprint: 'f',
      threads: 1,
      what: 'block',
      label: `Conv conv${block} to MaxPool pool${block}`,
      startNode: block,
      endNode: block + 1,
    },
    ...{
      cut,
      parts,
      macs: 1e8,
      weightBytes: 2e6,
      from: 'measured',
      agent: 'pi-1',
      ms,
      lowMs: 0.95 * ms,
      highMs: 1.05 * ms,
      samplesMs: [ms],
    },
    ...{ loadMs: 12, loadPeakBytes: 5e6, runPeakBytes: 7e6, busy: false, code: '', message: '' },
    ...over,
  };
}

function report(parts: number, more: readonly ProfileMeasure[] = []): ProfileReport {
  const counts = Array.from({ length: parts }, (_, i) => i + 1);
  const rows = [0, 1].flatMap((block) =>
    counts.flatMap((n) => (n === 1 ? [row(block, 'whole', 1)] : [row(block, 'rows', n), row(block, 'channels', n)])),
  );
  return {
    ...{ job: 'j', state: 'done', code: '', message: '', model: 'm', done: 1, total: 1, current: '', checks: [], notes: [] },
    classes: [CLASS],
    rows: [...rows, ...more],
  };
}

const longest = (text: string): number => Math.max(...text.split('\n').map((line) => line.length));

describe('the table of a profile', () => {
  it('says everything in one table where there is room', () => {
    const text = profileText(report(2), 120);
    expect(text).toMatch(/# +block from +cut +ms whole +in 2 +load +peak load +peak run/);
    expect(text).toMatch(/0 +Conv conv0 +rows +20\.0 ±1\.00 +10\.0 ±0\.50 +12\.0 ms +5\.0 MB +7\.0 MB/);
    expect(text).toContain('median ± half the distance of the quartiles');
    expect(text).toContain('agents pi-1, pi-2; measured on pi-1');
  });

  it.each([60, 80, 120])('is never wider than %i columns, whatever the number of parts, and leaves out no time', (width) => {
    for (const parts of [2, 4, 8, 16]) {
      const text = profileText(report(parts), width);
      expect(longest(text)).toBeLessThanOrEqual(width);
      for (let n = 1; n <= parts; n++) expect(text).toContain(n === 1 ? 'ms whole' : `in ${n}`);
      expect(text).toContain('peak run');
    }
  });

  it('says how far quartiles are off in all, where there is no room to say it of each', () => {
    expect(profileText(report(8), 80)).toContain('± 5 % as a rule, 5 % at most');
  });

  it('marks what could not be measured, and says below why', () => {
    const over = { code: 'AGENT_OUT_OF_MEMORY', message: 'the slice does not fit', ms: 0, lowMs: 0, highMs: 0, agent: '' };
    const text = profileText(report(2, [row(2, 'whole', 1, over), row(2, 'rows', 2)]), 80);
    expect(text).toMatch(/2 +Conv conv2 +rows +\(a\)/);
    expect(text).toContain('(a) AGENT_OUT_OF_MEMORY: the slice does not fit');
    expect(longest(text)).toBeLessThanOrEqual(80);
  });

  it('claims no spread of what ran once', () => {
    const once = { ms: 61_000, lowMs: 61_000, highMs: 61_000, samplesMs: [61_000] };
    const text = profileText(report(2, [row(2, 'whole', 1, once)]), 120);
    expect(text).toMatch(/2 +Conv conv2 +61000 +/);
    expect(text).toContain('without ±: one run, as it took long');
    expect(profileText(report(2), 120)).not.toContain('without ±');
  });

  it('keeps the end of a long name: neighbours begin alike', () => {
    expect(shortLabel({ label: 'Conv conv1 to MaxPool pool1' })).toBe('Conv conv1');
    const long = shortLabel({ label: 'Conv /model.22/cv2.0/cv2.0.0/conv/Conv_17 to Relu x' });
    expect(long).toHaveLength(24);
    expect(long).toMatch(/^Conv ….*\/Conv_17$/);
  });
});

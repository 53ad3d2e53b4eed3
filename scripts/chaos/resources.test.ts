import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { growing, outOfBounds, type Sample, sizeOf } from './resources.js';

const MIB = 2 ** 20;
const one = (extra: Partial<Sample> = {}): Sample => ({
  ...{ name: 'agent-1', pid: 7, atMs: 0, anonymousBytes: 80 * MIB, sockets: 10, descriptors: 40, timers: 12, storeBytes: 0 },
  ...extra,
});
const bounds = { peers: 10, storeBytes: () => 50e6, memoryBytes: () => 2 ** 30 };

describe('what processes hold', () => {
  it('is within bounds as long as each count is; a process that did not answer says nothing of its timers', () => {
    expect(outOfBounds(one({ timers: Number.NaN }), bounds)).toEqual([]);
    const text = (extra: Partial<Sample>) => outOfBounds(one(extra), bounds).map((violation) => violation.text);
    expect(text({ sockets: 57 })).toEqual(['agent-1 has 57 sockets, at most 56 are expected']);
    expect(text({ timers: 101 })).toHaveLength(1);
    expect(text({ storeBytes: 60e6, anonymousBytes: 2 * 2 ** 30 })).toHaveLength(2);
  });

  it('must not grow with time; a new process begins anew', () => {
    const run = (bytesAt: (i: number) => number, pid: (i: number) => number = () => 7) =>
      growing(Array.from({ length: 12 }, (_, i) => one({ atMs: i * 30_000, anonymousBytes: bytesAt(i), pid: pid(i) })));
    expect(run((i) => (80 + i) * MIB)).toEqual([]);
    expect(run((i) => (80 + 15 * i) * MIB)).toMatchObject([{ text: 'anonymous memory of agent-1 grew from 95 MiB to 215 MiB in 330 s' }]);
    expect(
      run(
        (i) => (80 + 15 * i) * MIB,
        (i) => Math.floor(i / 4),
      ),
    ).toEqual([]);
  });

  it('includes every file in its folder, but not what a test filled the disk with', () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'chaos-store-'));
    try {
      mkdirSync(path.join(folder, 'blobs'));
      writeFileSync(path.join(folder, 'blobs', 'a'), Buffer.alloc(1000));
      writeFileSync(path.join(folder, 'term'), '12');
      writeFileSync(path.join(folder, '.ballast'), Buffer.alloc(5000));
      expect(sizeOf(folder)).toBe(1002);
      expect(sizeOf(path.join(folder, 'nothing'))).toBe(0);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

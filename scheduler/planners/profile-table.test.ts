import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ProfileRow, ProfileTable } from './problem.js';
import { leastWorkMs, overlappedMs, profiledMs, profiledPeaks } from './profile-table.js';

const row = (start: number, end: number, ms: number, more: Partial<ProfileRow> = {}): ProfileRow => ({
  nodes: [start, end],
  cut: 'whole',
  parts: 1,
  ms,
  ...more,
});
const whole = (start: number, end: number) => ({ nodes: [start, end], cut: 'whole' }) as const;

/** A device that behaves exactly as the formula says: run + boundary x bytes + work. */
const RUN = 0.4;
const PER_BYTE = 1e-6;
const WORK = [10, 20, 5, 40];
const BYTES = [1e6, 4e6, 2e6, 1e6, 1e3];
const alone = (from: number, to: number, share = 1): number =>
  RUN + PER_BYTE * ((BYTES[from] ?? 0) + (BYTES[to] ?? 0)) * share + WORK.slice(from, to).reduce((a, b) => a + b, 0) * share;
const blockRow = (b: number, more: Partial<ProfileRow> = {}, share = 1): ProfileRow =>
  row(b, b + 1, alone(b, b + 1, share), {
    inBytes: (BYTES[b] ?? 0) * share,
    outBytes: (BYTES[b + 1] ?? 0) * share,
    macs: (WORK[b] ?? 0) * 1e6 * share,
    ...more,
  });
const blocks = WORK.map((_, b) => blockRow(b));
const table: ProfileTable = { name: 'exact', rows: blocks, runMs: RUN, boundaryMsPerByte: PER_BYTE };

describe('profiledMs', () => {
  it('says of a measured range what was measured', () => {
    expect(profiledMs({ ...table, rows: [...blocks, row(0, 4, 70)] }, whole(0, 4), 1)).toBe(70);
  });

  it('puts a range together from its blocks without paying the run and the inner boundaries twice', () => {
    for (const [from, to] of [
      [0, 4],
      [1, 3],
      [2, 4],
      [0, 2],
    ] as const)
      expect(profiledMs(table, whole(from, to), 1)).toBeCloseTo(alone(from, to), 9);
  });

  it('would be too long by just these costs if the blocks were only added', () => {
    const { name, rows } = table;
    const inner = PER_BYTE * 2 * (4e6 + 2e6 + 1e6);
    expect(profiledMs({ name, rows }, whole(0, 4), 1)).toBeCloseTo(alone(0, 4) + 3 * RUN + inner, 9);
  });

  it('prefers the longest measured ranges', () => {
    const rows = [...blocks, row(0, 3, 30, { inBytes: 1e6, outBytes: 1e6, macs: 35e6 })];
    const core = alone(3, 4) - RUN - PER_BYTE * (1e6 + 1e3);
    expect(profiledMs({ ...table, rows }, whole(0, 4), 1)).toBeCloseTo(30 - PER_BYTE * 1e6 + PER_BYTE * 1e3 + core, 9);
  });

  it('never lets a block take less than no time, however wrong the fixed costs are', () => {
    const ms = profiledMs({ ...table, runMs: 1000 }, whole(0, 4), 1) ?? 0;
    expect(ms).toBeGreaterThanOrEqual(1000);
  });

  it('is undefined where the table does not reach, and for a cut that was not measured', () => {
    expect(profiledMs(table, whole(0, 5), 1)).toBeUndefined();
    expect(profiledMs(table, { nodes: [0, 4], cut: 'rows' }, 0.5)).toBeUndefined();
    expect(profiledMs({ name: 'empty', rows: [] }, whole(0, 1), 1)).toBeUndefined();
  });

  const cut = (parts: number, halo = 0): ProfileRow[] =>
    WORK.map((_, b) => blockRow(b, { cut: 'rows', parts }, 1 / parts + (parts > 1 ? halo : 0)));

  it('is exact between measured parts for work that grows with the share, halos included', () => {
    const rows = [...blocks, ...cut(2, 0.05), ...cut(4, 0.05)];
    // Three parts with the same halo: a third and 0.05 of the work.
    const share = 1 / 3 + 0.05;
    expect(profiledMs({ ...table, rows }, { nodes: [1, 2], cut: 'rows' }, 1 / 3, 20e6 * share)).toBeCloseTo(alone(1, 2, share), 9);
    expect(profiledMs({ ...table, rows }, { nodes: [0, 4], cut: 'rows' }, 1 / 3, 75e6 * share)).toBeCloseTo(alone(0, 4, share), 9);
  });

  it('goes below the smallest part on its line when it knows the fixed cost, and not at all when it does not', () => {
    const rows = [...blocks, ...cut(2), ...cut(4)];
    const spec = { nodes: [1, 2], cut: 'rows' } as const;
    expect(profiledMs({ ...table, rows }, spec, 1 / 8)).toBeCloseTo(alone(1, 2, 1 / 8), 9);
    expect(profiledMs({ name: '', rows }, spec, 1 / 8)).toBeUndefined();
  });

  it('grows with the share, for any measurements that do', () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: 0.1, max: 50, noNaN: true }), { minLength: 3, maxLength: 3 }), (ms) => {
        const [quarter = 0, half = 0, all = 0] = ms.sort((a, b) => a - b);
        const rows = [row(0, 1, all), row(0, 1, half, { cut: 'rows', parts: 2 }), row(0, 1, quarter, { cut: 'rows', parts: 4 })];
        const one: ProfileTable = { name: '', rows, runMs: 0.05 };
        const at = [0.1, 0.2, 0.25, 0.3, 0.5, 0.7, 1].map((share) => profiledMs(one, { nodes: [0, 1], cut: 'rows' }, share) ?? Number.NaN);
        for (let i = 1; i < at.length; i++) expect(at[i]).toBeGreaterThanOrEqual((at[i - 1] ?? 0) - 1e-9);
      }),
    );
  });
});

describe('leastWorkMs', () => {
  const nodes = blocks.map((one) => ({ nodes: one.nodes }));
  const halves = (factor: number): ProfileRow[] =>
    WORK.map((_, b) => blockRow(b, { cut: 'rows', parts: 2, ms: (factor * alone(b, b + 1)) / 2 }));

  it('is the whole model, as long as parts do not cost clearly less together', () => {
    expect(leastWorkMs(table, nodes)).toBeCloseTo(alone(0, 4), 9);
    expect(leastWorkMs({ ...table, rows: [...blocks, ...halves(0.95)] }, nodes)).toBeCloseTo(alone(0, 4), 9);
    // A whole that swaps.
    expect(leastWorkMs({ ...table, rows: [...blocks, ...halves(0.5)] }, nodes)).toBeUndefined();
  });

  it('is not known of a table that was published, or lacks a block', () => {
    expect(leastWorkMs({ name: '', rows: blocks }, nodes)).toBeUndefined();
    expect(leastWorkMs({ ...table, rows: blocks.slice(1) }, nodes)).toBeUndefined();
  });
});

describe('profiledPeaks', () => {
  const MIB = 2 ** 20;
  const rows = [
    row(0, 1, 1, { weightBytes: 100 * MIB, loadPeakBytes: 130 * MIB, runPeakBytes: 150 * MIB }),
    row(1, 2, 1, { weightBytes: 10 * MIB, loadPeakBytes: 30 * MIB, runPeakBytes: 90 * MIB }),
    row(0, 1, 1, { cut: 'rows', parts: 2, weightBytes: 100 * MIB, loadPeakBytes: 120 * MIB, runPeakBytes: 125 * MIB }),
  ];
  const measured: ProfileTable = { name: '', rows };

  it('holds all weights of a range beside the most that one of its blocks needs', () => {
    expect(profiledPeaks(measured, whole(0, 2), 1)).toEqual({ loadPeakBytes: 140 * MIB, runPeakBytes: 190 * MIB });
  });

  it('takes the next larger part for one that was not measured, and says nothing without figures', () => {
    const spec = { nodes: [0, 1], cut: 'rows' } as const;
    expect(profiledPeaks(measured, spec, 0.3)).toMatchObject({ loadPeakBytes: 120 * MIB, runPeakBytes: 125 * MIB });
    expect(profiledPeaks(measured, spec, 0.7)).toMatchObject({ loadPeakBytes: 130 * MIB, runPeakBytes: 150 * MIB });
    expect(profiledPeaks({ name: '', rows: [row(0, 1, 1)] }, whole(0, 1), 1)).toBeUndefined();
  });
});

describe('overlappedMs', () => {
  /** Two blocks of three nodes each: 10 and 20 ms of work. */
  const rows = [row(0, 3, RUN + 10, { macs: 10e6 }), row(3, 6, RUN + 20, { macs: 20e6 }), row(0, 6, RUN + 30, { macs: 30e6 })];
  const measured: ProfileTable = { name: 'blocks of three nodes', rows, runMs: RUN };

  it('takes of the measured runs around a stage the part that its work is of theirs', () => {
    expect(overlappedMs(measured, whole(1, 5), 1, 12e6)).toBeCloseTo(RUN + 12, 9);
    expect(overlappedMs(measured, { nodes: [1, 5], cut: 'rows' }, 1 / 3, 4e6)).toBeCloseTo(RUN + 4, 9);
  });

  it('looks at the shortest runs that cover the stage only', () => {
    expect(overlappedMs(measured, whole(4, 5), 1, 5e6)).toBeCloseTo(RUN + 5, 9);
  });

  it('goes by nodes and share where nothing is multiplied', () => {
    expect(overlappedMs(measured, { nodes: [1, 3], cut: 'rows' }, 0.5, 0)).toBeCloseTo(RUN + (10 * (0.5 * 2)) / 3, 9);
  });

  it('never says more than the runs themselves take', () => {
    expect(overlappedMs(measured, whole(1, 2), 1, 1e12)).toBeCloseTo(RUN + 10, 9);
  });

  it('says nothing over a hole, nor of tables that were not measured block by block', () => {
    expect(overlappedMs(measured, whole(5, 7), 1, 1e6)).toBeUndefined();
    expect(overlappedMs({ name: 'published', rows }, whole(1, 2), 1, 1e6)).toBeUndefined();
  });
});

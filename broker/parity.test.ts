import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { codedInputs, isParity, recover } from './parity.js';
import type { Wire } from './plan.js';
import { type Box, boxDims, copyBox, elementCount } from './tensor.js';

/** Consecutive boxes of these lengths along `axis` of a tensor `[outer, ..., inner]`. */
function boxesOf(dims: readonly number[], axis: number, lengths: readonly number[]): Box[] {
  let at = 0;
  return lengths.map((length) => {
    const start = dims.map((_, i) => (i === axis ? at : 0));
    at += length;
    return { start, end: dims.map((d, i) => (i === axis ? at : d)) };
  });
}

const wire = (fromPart: number, box: Box, input = 0): Wire => {
  return { fromStage: 0, fromPart, output: 0, toStage: 1, toPart: 0, input, box, encoding: 'raw' };
};

describe('recover', () => {
  it('gives the missing part back, along any axis, however uneven the parts are', () => {
    const cases = fc.record({
      lengths: fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 5 }),
      axis: fc.nat({ max: 2 }),
      other: fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 3 })),
      values: fc.array(fc.integer({ min: -1000, max: 1000 }), { minLength: 1, maxLength: 40 }),
      pick: fc.nat({ max: 100 }),
      dtype: fc.constantFrom('float32' as const, 'float64' as const),
      // The port may be a piece of the tensor that does not begin at its origin.
      shift: fc.nat({ max: 3 }),
    });
    fc.assert(
      fc.property(cases, ({ lengths, axis, other, values, pick, dtype, shift }) => {
        const extent = lengths.reduce((a, b) => a + b, 0);
        const dims: number[] = [...other];
        dims.splice(axis, 0, extent);
        const along = (axis + 1) % 3;
        const moved = (box: Box): Box => ({
          start: box.start.map((s, i) => (i === along ? s + shift : s)),
          end: box.end.map((e, i) => (i === along ? e + shift : e)),
        });
        const holder = moved({ start: dims.map(() => 0), end: dims });
        const parts = boxesOf(dims, axis, lengths).map(moved);
        const make = (n: number) => (dtype === 'float32' ? new Float32Array(n) : new Float64Array(n));
        const full = make(elementCount(dims)).map((_, i) => values[i % values.length] ?? 0);
        const bytes = new Uint8Array(full.buffer);
        const longest = Math.max(...lengths);
        const sumDims = dims.map((d, i) => (i === axis ? longest : d));
        const sum = make(elementCount(sumDims));
        const inner = elementCount(dims.slice(axis + 1));
        for (const part of parts) {
          const own = make(elementCount(boxDims(part)));
          copyBox(bytes, holder, new Uint8Array(own.buffer), part, part, own.BYTES_PER_ELEMENT);
          const row = (boxDims(part)[axis] ?? 1) * inner;
          own.forEach((value, i) => {
            const to = Math.floor(i / row) * longest * inner + (i % row);
            sum[to] = (sum[to] ?? 0) + value;
          });
        }
        const missing = parts[pick % parts.length] ?? holder;
        const target = full.slice();
        const hole = make(elementCount(boxDims(missing))).fill(Number.NaN);
        copyBox(new Uint8Array(hole.buffer), missing, new Uint8Array(target.buffer), holder, missing, hole.BYTES_PER_ELEMENT);
        recover({
          ...{ dtype, axis, holder, missing, target: new Uint8Array(target.buffer), parity: new Uint8Array(sum.buffer) },
          others: parts.filter((part) => part !== missing),
        });
        // Whole numbers: no rounding, so the very same.
        expect([...target]).toEqual([...full]);
      }),
    );
  });

  it('sums in double precision, so that other parts of far larger values do not drown it', () => {
    const target = new Float32Array([0, 1e7, -1e7, 1e7]);
    const parity = new Float32Array([1e7 + 1]);
    const box = (at: number): Box => ({ start: [at], end: [at + 1] });
    recover({
      ...{ dtype: 'float32', axis: 0, holder: { start: [0], end: [4] }, missing: box(0), others: [box(1), box(2), box(3)] },
      ...{ target: new Uint8Array(target.buffer), parity: new Uint8Array(parity.buffer) },
    });
    expect(target[0]).toBe(1);
  });

  it('is for float32 and float64', () => {
    const box: Box = { start: [0], end: [1] };
    const bytes = new Uint8Array(2);
    const wrong = () => recover({ dtype: 'float16', axis: 0, holder: box, missing: box, others: [], target: bytes, parity: bytes });
    expect(wrong).toThrow(/float16/);
  });
});

describe('codedInputs', () => {
  const stages = [{ parts: [0, 1, 2], redundancy: 1 }, { parts: [0] }];
  const [left, right] = boxesOf([2, 5], 1, [3, 2]);
  const parity: Box = { start: [0, 0], end: [2, 3] };
  const wires = [wire(0, left ?? parity), wire(1, right ?? parity), wire(2, parity)];

  it('finds the wires that belong together, the axis, and the parity', () => {
    expect(codedInputs(stages, wires, 1, 0)).toEqual([{ input: 0, fromStage: 0, axis: 1, parts: [0, 1], parity: 2 }]);
    expect(codedInputs(stages, wires, 1, 1)).toEqual([]);
    expect(isParity(stages[0], 2)).toBe(true);
    expect(isParity(stages[0], 1)).toBe(false);
    expect(isParity(stages[1], 0)).toBe(false);
    expect(isParity(undefined, 0)).toBe(false);
  });

  it('leaves out an input that no parity comes to', () => {
    expect(codedInputs(stages, wires.slice(0, 2), 1, 0)).toEqual([]);
  });

  it.each<[string, readonly Wire[]]>([
    ['a part that sends nothing', [wire(0, left ?? parity), wire(2, parity)]],
    ['two parities', [...wires, wire(2, parity)]],
    ['a parity that is too short', [...wires.slice(0, 2), wire(2, { start: [0, 0], end: [2, 2] })]],
    ['a parity of other rows', [...wires.slice(0, 2), wire(2, { start: [1, 0], end: [2, 3] })]],
    ['parts that overlap in other rows', [wire(0, left ?? parity), wire(1, { start: [1, 3], end: [2, 5] }), wire(2, parity)]],
  ])('refuses %s', (_, given) => {
    expect(() => codedInputs(stages, given, 1, 0)).toThrow(expect.objectContaining({ code: 'PLAN_INVALID' }));
  });

  it('any wires give groups or PLAN_INVALID', () => {
    const box = fc.tuple(fc.nat({ max: 3 }), fc.nat({ max: 3 }), fc.nat({ max: 3 }), fc.nat({ max: 3 })).map(([a, b, c, d]): Box => {
      return { start: [Math.min(a, b), Math.min(c, d)], end: [Math.max(a, b), Math.max(c, d)] };
    });
    const any = fc.array(
      fc.tuple(fc.nat({ max: 3 }), box).map(([part, b]) => wire(part, b)),
      { maxLength: 6 },
    );
    fc.assert(
      fc.property(any, (given) => {
        try {
          for (const group of codedInputs(stages, given, 1, 0)) expect(group.parts.length).toBeGreaterThan(0);
        } catch (error) {
          expect(error).toMatchObject({ code: 'PLAN_INVALID' });
        }
      }),
    );
  });
});

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Weight } from '../model.js';
import { inlineNumbers, readSelection, readWeight, type Selection, weightChunks, wholeSelection } from './weights.js';

let directory = '';
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'chair-weights-'));
});
afterAll(() => rm(directory, { recursive: true }));

function numbers(count: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => i);
}

function inline(dims: readonly number[]): Weight {
  const data = numbers(dims.reduce((a, b) => a * b, 1));
  return { name: 'w', dtype: 'float32', dims, bytes: { kind: 'inline', bytes: new Uint8Array(data.buffer) } };
}

/** The same weight in a file, behind 12 bytes that are not its own. */
async function inFile(dims: readonly number[], name = 'w'): Promise<Weight> {
  const { bytes } = inline(dims);
  if (bytes.kind !== 'inline') throw new Error('unreachable');
  const path = join(directory, name);
  await writeFile(path, Buffer.concat([Buffer.alloc(12, 255), bytes.bytes]));
  return { name: 'w', dtype: 'float32', dims, bytes: { kind: 'file', path, sha256: '', offset: 12, length: bytes.bytes.length } };
}

/** Element by element, as the definition says. */
function expected(dims: readonly number[], selection: Selection): number[] {
  const taken = selection.map((intervals) => intervals.flatMap(([a, b]) => Array.from({ length: b - a }, (_, i) => a + i)));
  const walk = (axis: number, base: number): number[] =>
    axis === dims.length ? [base] : (taken[axis] ?? []).flatMap((i) => walk(axis + 1, base * (dims[axis] ?? 1) + i));
  return walk(0, 0);
}

const cases = fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 0, maxLength: 4 }).chain((dims) =>
  fc.record({
    dims: fc.constant(dims),
    selection: fc.tuple(
      ...dims.map((d) =>
        fc.array(
          fc
            .tuple(fc.integer({ min: 0, max: d }), fc.integer({ min: 0, max: d }))
            .map(([a, b]): [number, number] => [Math.min(a, b), Math.max(a, b)]),
          { minLength: 1, maxLength: 3 },
        ),
      ),
    ),
  }),
);

describe('weights', () => {
  it('reads any selection, from memory and from a file alike', async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ({ dims, selection }) => {
        const want = expected(dims, selection);
        for (const weight of [inline(dims), await inFile(dims)]) {
          const bytes = await readSelection(weight, selection);
          expect([...new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)]).toEqual(want);
        }
      }),
      { numRuns: 150 },
    );
  });

  it('streams a large selection in chunks of at most a mebibyte', async () => {
    const weight = await inFile([700, 1024], 'large');
    let bytes = 0;
    for await (const chunk of weightChunks(weight, [[[0, 700]], [[0, 512]]])) {
      expect(chunk.length).toBeLessThanOrEqual(1 << 20);
      bytes += chunk.length;
    }
    expect(bytes).toBe(700 * 512 * 4);
    expect(Buffer.compare(await readSelection(weight, wholeSelection(weight.dims)), await readWeight(weight))).toBe(0);
  });

  it('tells which weight is missing when its file is gone or short', async () => {
    const weight = await inFile([4]);
    if (weight.bytes.kind !== 'file') throw new Error('unreachable');
    const gone = { ...weight, bytes: { ...weight.bytes, path: join(directory, 'gone') } };
    await expect(readWeight(gone)).rejects.toMatchObject({ code: 'MODEL_WEIGHTS_MISSING', message: expect.stringContaining('weight w') });
    await writeFile(weight.bytes.path, Buffer.alloc(20));
    await expect(readWeight(weight)).rejects.toMatchObject({ code: 'MODEL_WEIGHTS_MISSING' });
  });

  it('refuses a selection that leaves the weight', async () => {
    await expect(readSelection(inline([4]), [[[2, 5]]])).rejects.toMatchObject({ code: 'TENSOR_INVALID' });
  });

  it('shows small constants as numbers', () => {
    const bytes = new Uint8Array(BigInt64Array.of(1n, -1n).buffer);
    expect(inlineNumbers({ name: 'shape', dtype: 'int64', dims: [2], bytes: { kind: 'inline', bytes } })).toEqual([1, -1]);
  });
});

/** The weights of a parity: parts of one weight added up, shorter ones padded with zeros. Streamed: about two megabytes are held whatever the weight's size. */
import { elementCount, itemBytes } from '../../broker/tensor.js';
import type { Weight } from '../model.js';
import { readSelection } from './weights.js';

/** About so many bytes are added up at a time (in double precision). */
const BLOCK_BYTES = 1 << 20;

type Pair = readonly [number, number];

/** Intervals of one axis of a weight, to be added up. */
export interface WeightSum {
  readonly axis: number;
  readonly intervals: readonly (readonly [number, number])[];
  /** Of a convolution's weights `[M, C / groups, ...]`, axis 0: the sum is `[longest, C, ...]`, and each row stands at the input channels of its group. */
  readonly dense?: { readonly groups: number; readonly inPerGroup: number; readonly outPerGroup: number };
}

/** Dims of the sum: as long as the longest interval. */
export function sumDims(dims: readonly number[], { axis, intervals, dense }: WeightSum): number[] {
  const longest = intervals.reduce((most, [start, end]) => Math.max(most, end - start), 0);
  return dims.map((d, i) => (i === axis ? longest : i === 1 && dense !== undefined ? d * dense.groups : d));
}

/** The bytes of the sum in row-major order, each element summed in double precision and rounded once. float32 and float64. Errors as `readWeight`. */
export async function* weightSum(weight: Weight, sum: WeightSum): AsyncGenerator<Uint8Array> {
  const dims = sumDims(weight.dims, sum);
  const rows = dims[0] ?? 0;
  const perRow = elementCount(dims.slice(1));
  const step = Math.max(1, Math.floor(BLOCK_BYTES / Math.max(1, perRow * itemBytes(weight.dtype))));
  for (let start = 0; start < rows; start += step) {
    const end = Math.min(rows, start + step);
    const total = new Float64Array((end - start) * perRow);
    for (const interval of sum.intervals) await add(total, weight, sum, interval, [start, end]);
    const rounded = weight.dtype === 'float64' ? total : Float32Array.from(total);
    yield new Uint8Array(rounded.buffer);
  }
}

/** Adds rows `[start, end)` (of the sum's axis 0) of one interval to `total`. */
async function add(total: Float64Array, weight: Weight, sum: WeightSum, interval: Pair, [start, end]: Pair): Promise<void> {
  const { axis, dense } = sum;
  const rows: Pair = axis === 0 ? [interval[0] + start, Math.min(interval[0] + end, interval[1])] : [start, end];
  if (rows[1] <= rows[0]) return;
  const selection = weight.dims.map((d, i) => [i === 0 ? rows : i === axis ? interval : ([0, d] as const)]);
  const bytes = await readSelection(weight, selection);
  const values = weight.dtype === 'float64' ? new Float64Array(bytes.buffer) : new Float32Array(bytes.buffer);
  // Runs of `length` values: run r goes to `at(r)`.
  let length = values.length;
  let at = (_run: number): number => 0;
  if (axis > 0) {
    const inner = elementCount(weight.dims.slice(axis + 1));
    const wide = (sumDims(weight.dims, sum)[axis] ?? 0) * inner;
    length = (interval[1] - interval[0]) * inner;
    at = (run) => run * wide;
  } else if (dense !== undefined) {
    const row = elementCount(weight.dims.slice(1));
    length = row;
    at = (run) => (run * dense.groups + Math.floor((rows[0] + run) / dense.outPerGroup)) * row;
  }
  for (let run = 0; run * length < values.length; run++) {
    const to = at(run);
    for (let i = 0; i < length; i++) total[to + i] = (total[to + i] ?? 0) + (values[run * length + i] ?? 0);
  }
}

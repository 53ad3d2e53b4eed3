/** The check of the check: when a message is lost (zeroed), the output must differ. Otherwise equality showed nothing. */
import type { Tensor } from '../../broker/tensor.js';
import { compare, TOLERANCE } from './compare.js';
import type { WrittenPartition } from './partition.js';
import type { PartitionRunner } from './run.js';

/** A drop counts as noticed when the output changes by so many times the tolerance. */
const NOTICED_ABOVE = 5 * TOLERANCE;

export interface DropReport {
  /** Messages that were zeroed, one run each. */
  readonly wires: number;
  /** Smallest relative change of the output among those that were noticed. */
  readonly smallestChange: number;
  /** Messages that held nothing but zeros: dropping them is no loss. Indices into `partition.wires`. */
  readonly zeros: readonly number[];
  /** Messages with data whose loss did not show. */
  readonly unnoticed: readonly { readonly wire: number; readonly tensor: string; readonly change: number }[];
  readonly problem?: string;
}

export async function dropEachWire(
  runner: PartitionRunner,
  written: WrittenPartition,
  sample: { readonly inputs: Readonly<Record<string, Tensor>>; readonly expected: Readonly<Record<string, Tensor>> },
): Promise<DropReport> {
  const { wires, stages, outputs } = written.partition;
  const zeros: number[] = [];
  const unnoticed: { wire: number; tensor: string; change: number }[] = [];
  let smallestChange = Number.POSITIVE_INFINITY;
  for (const [i, wire] of wires.entries()) {
    let nothing = false;
    const run = await runner.run(sample.inputs, { zeroWire: i, onZeroed: (bytes) => (nothing = bytes.every((b) => b === 0)) });
    const { maxRelDiff } = compare(sample.expected, run.outputs);
    const tensor =
      (wire.toStage < 0 ? outputs[wire.input]?.name : stages[wire.toStage]?.parts[wire.toPart]?.inputs[wire.input]?.tensor) ?? '';
    if (nothing) zeros.push(i);
    else if (maxRelDiff > NOTICED_ABOVE) smallestChange = Math.min(smallestChange, maxRelDiff);
    else unnoticed.push({ wire: i, tensor, change: maxRelDiff });
  }
  const first = unnoticed[0];
  return {
    wires: wires.length,
    smallestChange: Number.isFinite(smallestChange) ? smallestChange : 0,
    zeros,
    unnoticed,
    ...(first === undefined
      ? {}
      : {
          problem: `${unnoticed.length} of ${wires.length} messages can be lost unnoticed, the first is wire ${first.wire} with ${first.tensor}`,
        }),
  };
}

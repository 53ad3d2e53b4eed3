/**
 * What wire encodings cost in accuracy, measured: the slices of a partition run one after another, once with raw wires and then with wires encoded, on the
 * same inputs. The error is that of `compare`, as everywhere else here: the largest difference of an output over the largest magnitude of that output,
 * the largest over outputs and inputs. Errors of several wires do not add up (they cancel, saturate, are amplified by what follows), so nothing is
 * predicted from parts: every assignment that is taken was run as a whole.
 */
import type { Encoding } from '../../broker/plan.js';
import type { Tensor } from '../../broker/tensor.js';
import type { Engine } from '../engine/engine.js';
import { compare } from './compare.js';
import type { WrittenPartition } from './partition.js';
import { type Carry, PartitionRunner } from './run.js';

type Tensors = Readonly<Record<string, Tensor>>;

/** Outputs of two inputs closer than this (relative) are called the same: then equality shows nothing. */
const VARIES_ABOVE = 1e-3;

export interface PrecisionMeter {
  /**
   * Error of these encodings (one per wire of the partition). Once an input gives more than `limit` the rest is not run. Infinite when an output is not
   * finite where it should be. Means nothing when `varies` is false.
   */
  error(encodings: readonly Encoding[], limit: number): Promise<number>;
  /** How many inputs are tried. */
  readonly inputs: number;
  /** False: all inputs give the same output, so no error can be seen. */
  readonly varies: boolean;
  /** Idempotent. */
  dispose(): Promise<void>;
}

/** Runs the raw partition on every input. `carry` is the wires' codec. Errors as `PartitionRunner.run`. */
export async function openPrecisionMeter(
  written: WrittenPartition,
  engine: Engine,
  inputs: readonly Tensors[],
  carry: Carry,
): Promise<PrecisionMeter> {
  const runner = new PartitionRunner(written, engine);
  try {
    const samples: { readonly given: Tensors; readonly expected: Tensors }[] = [];
    for (const given of inputs) samples.push({ given, expected: (await runner.run(given)).outputs });
    const [first, ...others] = samples;
    const varies =
      first !== undefined &&
      (others.length === 0 || others.some((other) => compare(first.expected, other.expected).maxRelDiff > VARIES_ABOVE));
    return {
      inputs: samples.length,
      varies,
      dispose: () => runner.dispose(),
      error: async (encodings, limit) => {
        if (encodings.every((encoding) => encoding === 'raw')) return 0;
        let worst = 0;
        for (const { given, expected } of samples) {
          const { outputs } = await runner.run(given, { encodings, carry });
          const { maxRelDiff, comparable } = compare(expected, outputs);
          worst = Math.max(worst, comparable ? maxRelDiff : Number.POSITIVE_INFINITY);
          if (worst > limit) break;
        }
        return worst;
      },
    };
  } catch (error) {
    await runner.dispose();
    throw error;
  }
}

/** Wires that are decided together: those between two stages. */
export interface WireGroup {
  /** Indices into the partition's wires. */
  readonly wires: readonly number[];
  /** Encodings worth trying, the shortest first. */
  readonly candidates: readonly Exclude<Encoding, 'raw'>[];
}

export interface GroupChoice {
  readonly encoding: Encoding;
  /** Of this encoding on these wires alone; 0 for raw. */
  readonly error: number;
  /** What was tried first and not taken; '' when the first candidate was. */
  readonly why: string;
}

export interface EncodingChoice {
  /** One per wire. */
  readonly encodings: readonly Encoding[];
  /** Of all of them at once; at most `maxError`. */
  readonly error: number;
  /** In the order of the groups that were given. */
  readonly groups: readonly GroupChoice[];
}

/**
 * Gives every group the shortest of its candidates that the budget allows, in the order of the groups: put those first whose links lose most time.
 * A candidate is measured alone, then together with all that was taken before; when that is too much it is given back and the next candidate tried.
 */
export async function chooseEncodings(
  measure: (encodings: readonly Encoding[]) => Promise<number>,
  wires: number,
  groups: readonly WireGroup[],
  maxError: number,
): Promise<EncodingChoice> {
  const raw: readonly Encoding[] = new Array<Encoding>(wires).fill('raw');
  let taken = raw;
  let error = 0;
  const choices: GroupChoice[] = [];
  for (const group of groups) {
    const failed: string[] = [];
    let choice: GroupChoice | undefined;
    for (const candidate of group.candidates) {
      const alone = await measure(assigned(raw, group.wires, candidate));
      if (alone > maxError) {
        failed.push(`${candidate} alone gives ${sayError(alone)}`);
        continue;
      }
      const together = assigned(taken, group.wires, candidate);
      const all = taken === raw ? alone : await measure(together);
      if (all > maxError) {
        failed.push(`${candidate} with the others gives ${sayError(all)}`);
        continue;
      }
      taken = together;
      error = all;
      choice = { encoding: candidate, error: alone, why: failed.join(', ') };
      break;
    }
    choices.push(choice ?? { encoding: 'raw', error: 0, why: failed.join(', ') });
  }
  return { encodings: taken, error, groups: choices };
}

export function assigned(encodings: readonly Encoding[], wires: readonly number[], encoding: Encoding): readonly Encoding[] {
  const changed = [...encodings];
  for (const wire of wires) changed[wire] = encoding;
  return changed;
}

/** `0.0042`; an error that cannot be told as what it is. */
export function sayError(error: number): string {
  return Number.isFinite(error) ? String(Number(error.toPrecision(2))) : 'no usable output';
}

/** The check of the check: when a message is lost (zeroed), the output must differ. Otherwise equality showed nothing. */
import { type DType, itemBytes, type Tensor } from '../../broker/tensor.js';
import { createRandom, randomTensor } from '../random.js';
import { compare, TOLERANCE, tensorValues } from './compare.js';
import type { WrittenPartition } from './partition.js';
import type { PartitionRunner } from './run.js';

/** A drop counts as noticed when the output changes by so many times the tolerance. */
const NOTICED_ABOVE = 5 * TOLERANCE;
/** Further random inputs that a loss may show on: on one image the rows around a band's border may be of no consequence. */
const MORE_SAMPLES = 3;
/** Different corruptions that are tried: a single one may fall on the flat side of a ReLU. */
const CORRUPTIONS = 6;

type Tensors = Readonly<Record<string, Tensor>>;

interface QuietWire {
  readonly wire: number;
  readonly tensor: string;
  /** Relative change of the output, the largest over the inputs tried. */
  readonly change: number;
}

export interface DropReport {
  /** Messages that were zeroed, one run each. */
  readonly wires: number;
  /** Smallest relative change of the output among those that were noticed. */
  readonly smallestChange: number;
  /** Messages that held nothing but zeros: dropping them is no loss. Indices into `partition.wires`. */
  readonly zeros: readonly number[];
  /** Messages whose loss no input showed, but whose corruption shows: the network itself flattens the difference (gates, saturated outputs). */
  readonly masked: readonly QuietWire[];
  /** Messages that neither loss nor corruption of shows: nothing here proves that they matter. */
  readonly unnoticed: readonly QuietWire[];
  readonly problem?: string;
}

/** Zeroes each wire in turn: one run each, and a few more for those whose loss does not show at once. */
export async function dropEachWire(runner: PartitionRunner, written: WrittenPartition, inputs: Tensors): Promise<DropReport> {
  return new Dropper(runner, written, inputs).drop();
}

class Dropper {
  readonly #runner: PartitionRunner;
  readonly #written: WrittenPartition;
  /** Inputs with what the undisturbed partition makes of them; further ones are made when they are needed. */
  readonly #samples: { readonly inputs: Tensors; readonly outputs: Promise<Tensors> }[] = [];

  constructor(runner: PartitionRunner, written: WrittenPartition, inputs: Tensors) {
    this.#runner = runner;
    this.#written = written;
    this.#add(inputs);
  }

  async drop(): Promise<DropReport> {
    const { wires } = this.#written.partition;
    const zeros: number[] = [];
    const masked: QuietWire[] = [];
    const unnoticed: QuietWire[] = [];
    let smallestChange = Number.POSITIVE_INFINITY;
    for (const wire of wires.keys()) {
      let empty = true;
      const lost = (bytes: Uint8Array) => {
        empty &&= bytes.every((b) => b === 0);
        return bytes.fill(0);
      };
      let change = 0;
      for (const without of this.#losses(wire)) {
        for (let sample = 0; sample <= MORE_SAMPLES && change <= NOTICED_ABOVE; sample++) {
          change = Math.max(change, await this.#change(wire, sample, lost, without));
        }
      }
      const quiet = { wire, tensor: this.#tensorOf(wire), change };
      if (change > NOTICED_ABOVE) smallestChange = Math.min(smallestChange, change);
      else if (empty) zeros.push(wire);
      else if (await this.#showsCorruption(wire)) masked.push(quiet);
      else unnoticed.push(quiet);
    }
    const [first] = unnoticed;
    return {
      wires: wires.length,
      smallestChange: Number.isFinite(smallestChange) ? smallestChange : 0,
      zeros,
      masked,
      unnoticed,
      ...(first === undefined
        ? {}
        : {
            problem: `${unnoticed.length} of ${wires.length} messages can be lost unnoticed, the first is wire ${first.wire} with ${first.tensor}`,
          }),
    };
  }

  #add(inputs: Tensors): void {
    this.#samples.push({ inputs, outputs: this.#runner.run(inputs).then((run) => run.outputs) });
  }

  async #showsCorruption(wire: number): Promise<boolean> {
    for (const without of this.#losses(wire)) {
      for (let seed = 1; seed <= CORRUPTIONS; seed++) {
        if ((await this.#change(wire, 0, (bytes, dtype) => corrupt(bytes, dtype, seed), without)) > NOTICED_ABOVE) return true;
      }
    }
    return false;
  }

  async #change(
    wire: number,
    sample: number,
    rewrite: (bytes: Uint8Array, dtype: DType) => Uint8Array,
    lost: ReadonlySet<string>,
  ): Promise<number> {
    const known = Object.entries(this.#samples[0]?.inputs ?? {});
    while (this.#samples.length <= sample) {
      const seed = 1000 + this.#samples.length;
      this.#add(Object.fromEntries(known.map(([name, like]) => [name, randomTensor({ ...like, name }, seed)])));
    }
    const { inputs, outputs } = this.#samples[sample] ?? { inputs: {}, outputs: Promise.resolve({}) };
    const undisturbed = await outputs;
    const run = await this.#runner.run(inputs, { zeroWire: wire, rewrite, lost });
    const { maxRelDiff, comparable } = compare(undisturbed, run.outputs);
    return comparable ? maxRelDiff : Number.POSITIVE_INFINITY;
  }

  /**
   * Parts to leave out, in turn, so that the loss of this message may show. A parity, and what comes to one, matters only where a part of its stage is missing; of a
   * coded stage's parts some consumers need one only to recover another.
   */
  #losses(index: number): ReadonlySet<string>[] {
    const { wires, stages } = this.#written.partition;
    const { fromStage = -1, fromPart = 0, toStage = -1, toPart = 0 } = wires[index] ?? {};
    const ownOf = (stage: number): string[] => {
      const { parts = [], spec } = stages[stage] ?? {};
      return parts.slice(0, parts.length - (spec?.redundancy ?? 0)).map((_, part) => `${stage}/${part}`);
    };
    const isCoded = (stage: number): boolean => stages[stage]?.spec.redundancy === 1;
    const own = `${fromStage}/${fromPart}`;
    const from = isCoded(fromStage) ? ownOf(fromStage).filter((part) => part !== own) : [];
    const fromOptions =
      from.length > 0 && !ownOf(fromStage).includes(own) ? from.map((part) => [part]) : [[], ...from.map((part) => [part])];
    const toOptions = isCoded(toStage) && !ownOf(toStage).includes(`${toStage}/${toPart}`) ? ownOf(toStage).map((part) => [part]) : [[]];
    return fromOptions.flatMap((lost) => toOptions.map((also) => new Set([...lost, ...also])));
  }

  #tensorOf(index: number): string {
    const { wires, stages, outputs } = this.#written.partition;
    const wire = wires[index];
    if (wire === undefined) return '';
    return (wire.toStage < 0 ? outputs[wire.input]?.name : stages[wire.toStage]?.parts[wire.toPart]?.inputs[wire.input]?.tensor) ?? '';
  }
}

/** Random floats, by the seed from ten times to a million times as large as those that were there; other types with all bits turned. */
function corrupt(bytes: Uint8Array, dtype: DType, seed: number): Uint8Array {
  if (dtype !== 'float32')
    return bytes.map((b, i) => (dtype.startsWith('float') && i % itemBytes(dtype) === itemBytes(dtype) - 1 ? b : b ^ 0xff));
  let largest = 1;
  for (const value of tensorValues({ dtype, dims: [bytes.length / 4], bytes }) as Float32Array)
    largest = Math.max(largest, Math.abs(value));
  const random = createRandom(seed);
  return new Uint8Array(Float32Array.from({ length: bytes.length / 4 }, () => (random() * 2 - 1) * largest * 10 ** seed).buffer);
}

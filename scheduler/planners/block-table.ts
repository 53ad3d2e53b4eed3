/**
 * The model as a table: what each run of blocks costs, whole or cut, by share. A planner looks at hundreds of thousands of stages; cutting for each would
 * take minutes. A range is cut at most twice per kind, in 2 parts and in `MANY`, and what a part of another share costs lies on the line through both: work,
 * weights and bytes of a part are its share of the whole plus a constant (halo, bias, what every part repeats), up to rounding to rows and channels.
 * Chosen plans are cut for real and estimated anew, so the error of the line decides between near-equals only.
 */

import { boxDims, tensorBytes } from '../../broker/tensor.js';
import type { CutKind, StageSpec } from '../../models/slicing/partition.js';
import { isRefusal, type ModelFacts, type PartFacts } from './problem.js';
import { mixed } from './roofline.js';

/** What a part costs; ports are not known, only their bytes. */
export interface TablePart extends PartFacts {
  readonly inBytes: number;
  readonly outBytes: number;
  readonly nodes: number;
  readonly movedBytes: number;
}

type Mutable = { -readonly [K in keyof TablePart]: TablePart[K] };

export type TableCut = Exclude<CutKind, 'whole'>;

const MANY = 6;
const FIGURES = ['macs', 'weightBytes', 'activationBytes', 'inBytes', 'outBytes', 'nodes', 'movedBytes'] as const;

const tables = new WeakMap<ModelFacts, BlockTable>();

export class BlockTable {
  readonly #facts: ModelFacts;
  readonly #lines = new Map<string, readonly [TablePart, TablePart] | undefined>();
  readonly #wholes = new Map<number, TablePart>();
  readonly #single: readonly TablePart[];

  /** One table for each model: what was cut once is remembered. */
  static of(facts: ModelFacts): BlockTable {
    const known = tables.get(facts) ?? new BlockTable(facts);
    tables.set(facts, known);
    return known;
  }

  constructor(facts: ModelFacts) {
    this.#facts = facts;
    this.#single = facts.blocks.map((block, b): TablePart => {
      const inBytes = this.bytesAt(b);
      const parts = facts.stage({ nodes: block.nodes, cut: 'whole', shares: [1] });
      const part = isRefusal(parts) ? undefined : parts[0];
      return {
        ...{ inputs: [], outputs: [], macs: block.macs, weightBytes: block.weightBytes, inBytes, outBytes: block.outBytes },
        activationBytes: part?.activationBytes ?? inBytes + block.outBytes,
        nodes: part?.nodes ?? 1,
        movedBytes: part?.movedBytes ?? 0,
        ...(part?.ladder === undefined ? {} : { ladder: part.ladder }),
      };
    });
  }

  get length(): number {
    return this.#facts.blocks.length;
  }

  /** Bytes that cross before block `at`; at the model's ends its inputs and outputs. */
  bytesAt(at: number): number {
    return at === 0 ? this.#facts.inputBytes : (this.#facts.blocks[at - 1]?.outBytes ?? 0);
  }

  spec(from: number, end: number, cut: CutKind, shares: readonly number[] = [1]): StageSpec {
    return { nodes: [this.#facts.blocks[from]?.nodes[0] ?? 0, this.#facts.blocks[end - 1]?.nodes[1] ?? 0], cut, shares };
  }

  whole(from: number, end: number): TablePart {
    const key = from * 4096 + end;
    const known = this.#wholes.get(key);
    if (known !== undefined) return known;
    const last = this.#single[end - 1];
    const before = end - from > 1 ? this.whole(from, end - 1) : undefined;
    if (last === undefined) throw new RangeError(`there is no block ${end - 1}`);
    const made: TablePart =
      before === undefined
        ? last
        : {
            ...last,
            inBytes: before.inBytes,
            macs: before.macs + last.macs,
            weightBytes: before.weightBytes + last.weightBytes,
            activationBytes: Math.max(before.activationBytes, last.activationBytes),
            nodes: before.nodes + last.nodes,
            movedBytes: before.movedBytes + last.movedBytes,
            ...laddersOf(before, last, (a, b) => a + b),
          };
    this.#wholes.set(key, made);
    return made;
  }

  /** The part of a share in (0, 1); undefined where the range cannot be cut so. */
  part(from: number, end: number, cut: TableCut, share: number): TablePart | undefined {
    const line = this.#line(from, end, cut);
    if (line === undefined) return undefined;
    const at = (share - 1 / MANY) / (1 / 2 - 1 / MANY);
    const [many, two] = line;
    const onLine = (a: number, b: number): number => Math.max(0, a + at * (b - a));
    const made: Mutable = { ...two, ...laddersOf(many, two, onLine) };
    for (const figure of FIGURES) made[figure] = onLine(many[figure], two[figure]);
    return made;
  }

  #line(from: number, end: number, cut: TableCut): readonly [TablePart, TablePart] | undefined {
    const key = `${from}-${end} ${cut}`;
    if (this.#lines.has(key)) return this.#lines.get(key);
    const many = this.#largest(from, end, cut, MANY);
    const two = many === undefined ? undefined : this.#largest(from, end, cut, 2);
    const line = many === undefined || two === undefined ? undefined : ([many, two] as const);
    this.#lines.set(key, line);
    return line;
  }

  /** Of each figure the largest of all parts of an even cut. */
  #largest(from: number, end: number, cut: TableCut, parts: number): TablePart | undefined {
    const cuts = this.#facts.stage(this.spec(from, end, cut, new Array<number>(parts).fill(1)));
    if (isRefusal(cuts) || cuts.length < 2) return undefined;
    const rows = cuts.map(
      (part): TablePart => ({
        ...part,
        nodes: part.nodes ?? 1,
        movedBytes: part.movedBytes ?? 0,
        inBytes: portBytes(part.inputs),
        outBytes: portBytes(part.outputs),
      }),
    );
    const [first] = rows;
    if (first === undefined) return undefined;
    let made: Mutable = { ...first };
    for (const row of rows) made = { ...made, ...laddersOf(made, row, Math.max) };
    for (const figure of FIGURES) made[figure] = Math.max(...rows.map((row) => row[figure]));
    return made;
  }
}

function laddersOf(a: TablePart, b: TablePart, mix: (a: number, b: number) => number): Pick<PartFacts, 'ladder'> {
  return a.ladder === undefined || b.ladder === undefined ? {} : { ladder: mixed(a.ladder, b.ladder, mix) };
}

function portBytes(ports: PartFacts['inputs']): number {
  return ports.reduce((sum, port) => sum + tensorBytes(port.dtype, boxDims(port.box)), 0);
}

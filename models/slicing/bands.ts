/**
 * Which axis of each tensor is the rows (columns, channels) of the image: found once per model and kind. Operators with a natural axis anchor it, and
 * it is carried from tensor to tensor both ways by the rules: through a Transpose it moves, in a Flatten it becomes blocks, at a barrier it stops.
 */
import type { Model } from '../model.js';
import { type Band, compatible, extentOf, plainBand } from './interval.js';
import { indexOf, type ModelIndex } from './model-index.js';
import type { CutKind } from './partition.js';
import { type Banding, type Reducing, type Rule, RuleRefusal } from './rules/rule.js';

/** What is cut into intervals. `channels` serves the cuts channels, inputs and pair. */
export type BandKind = 'rows' | 'columns' | 'channels';

export function bandKindOf(cut: Exclude<CutKind, 'whole'>): BandKind {
  return cut === 'rows' || cut === 'columns' ? cut : 'channels';
}

/** Result of asking a rule: the way to do it, or the reason why not. */
export type Asked<T> = T | { readonly refusal: string };

export function refused<T extends object>(asked: Asked<T>): asked is { readonly refusal: string } {
  return 'refusal' in asked;
}

/** Calls a rule; its refusal becomes a value. */
export function ask<T extends object>(question: () => T): Asked<T> {
  try {
    return question();
  } catch (error) {
    if (error instanceof RuleRefusal) return { refusal: error.message };
    throw error;
  }
}

export class Bands {
  readonly #index: ModelIndex;
  readonly #kind: BandKind;
  readonly #bands = new Map<string, Band>();
  readonly #blocks: [string, Band][] = [];
  #blocksToo = false;
  readonly #bandings = new Map<string, Asked<Banding>>();
  readonly #reducings = new Map<string, Asked<Reducing>>();

  constructor(index: ModelIndex, kind: BandKind) {
    this.#index = index;
    this.#kind = kind;
    this.#findAnchors();
    this.#carryBlocks();
    this.#findDefaults();
    this.#carryBlocks();
  }

  /** The band axis of an activation; undefined when it has none (or only one unit of it). */
  band(tensor: string): Band | undefined {
    return this.#bands.get(tensor);
  }

  /** How output `output` of a node is made in bands of its own band axis. */
  banding(node: number, output: number): Asked<Banding> {
    const key = `${node}:${output}`;
    let asked = this.#bandings.get(key);
    if (asked === undefined) {
      const band = this.band(this.#index.model.nodes[node]?.outputs[output] ?? '');
      asked = band === undefined ? { refusal: `its output has no ${this.#kind}` } : this.#ask(node, output, band);
      this.#bandings.set(key, asked);
    }
    return asked;
  }

  /** How a node reduces over `band` of its input `input`. */
  reducing(node: number, input: number, band: Band): Asked<Reducing> {
    const key = `${node}:${input}:${band.axis}:${band.outer}:${band.inner}`;
    let asked = this.#reducings.get(key);
    if (asked === undefined) {
      const rule = this.#index.rules[node];
      const view = this.#index.views[node];
      const reduce = rule?.reduce;
      asked = reduce === undefined || view === undefined ? { refusal: 'it makes no partials' } : ask(() => reduce(view, input, band));
      this.#reducings.set(key, asked);
    }
    return asked;
  }

  #ask(node: number, output: number, band: Band): Asked<Banding> {
    const rule = this.#index.rules[node];
    const view = this.#index.views[node];
    if (rule === undefined || view === undefined) return { refusal: 'no rule for this operator' };
    return ask(() => rule.band(view, output, band));
  }

  /** Names a band of a tensor unless it has one (the first wins) or it would have a single unit; then carries it on. */
  #set(tensor: string, band: Band, pending: string[]): void {
    const dims = this.#index.model.tensors.get(tensor)?.dims;
    if (dims === undefined || this.#bands.has(tensor) || band.axis < 0 || band.axis >= dims.length) return;
    const extent = extentOf(band, dims);
    if (extent <= 1 || !Number.isInteger(extent)) return;
    // Blocks cannot enter or leave a stage: a tensor has them only when nothing gives it a plain band (behind a channel shuffle, say).
    if (band.outer !== 1 && !this.#blocksToo) {
      this.#blocks.push([tensor, band]);
      return;
    }
    this.#bands.set(tensor, band);
    pending.push(tensor);
  }

  #carryBlocks(): void {
    this.#blocksToo = true;
    for (const [tensor, band] of this.#blocks.splice(0)) {
      const pending: string[] = [];
      this.#set(tensor, band, pending);
      this.#carry(pending);
    }
    this.#blocksToo = false;
  }

  #findAnchors(): void {
    const { model, rules, views } = this.#index;
    const axis = this.#kind === 'columns' ? 3 : 2;
    // Outputs first: where two anchors disagree, what an operator makes counts more than what it reads.
    for (const side of ['output', 'input'] as const) {
      model.nodes.forEach((node, i) => {
        const view = views[i];
        const asked = ask(() => (view && rules[i]?.anchors?.(view)) ?? {});
        if (refused(asked)) return;
        const anchors: ReturnType<NonNullable<Rule['anchors']>> = asked;
        const pending: string[] = [];
        const name = (side === 'output' ? node.outputs[0] : node.inputs[0]) ?? '';
        if (this.#kind === 'channels') {
          const band = anchors.channels?.[side];
          if (band !== undefined) this.#anchor(name, band, pending);
        } else if (anchors.spatial?.[side].includes(0)) {
          this.#set(name, plainBand(axis), pending);
        }
        this.#carry(pending);
      });
    }
  }

  /** An anchor behind a Flatten counts in whole channels, not in single elements, so that it is a band before the Flatten too. */
  #anchor(tensor: string, band: Band, pending: string[]): void {
    const producer = this.#index.producer.get(tensor) ?? -1;
    const view = this.#index.views[producer];
    const source = view?.node.inputs[0] ?? '';
    const before = view && !this.#bands.has(tensor) ? this.#index.rules[producer]?.backward?.(view, band) : undefined;
    if (before !== undefined) {
      this.#anchor(source, before, pending);
      this.#carry(pending);
    }
    this.#set(tensor, band, pending);
  }

  /** Tensors that no anchor reaches: axis 2 for rows, 3 for columns, 1 for channels, as in NCHW. */
  #findDefaults(): void {
    const axis = { rows: 2, columns: 3, channels: 1 }[this.#kind];
    const pending: string[] = [];
    for (const input of this.#index.model.inputs) {
      this.#set(input.name, plainBand(axis), pending);
      this.#carry(pending);
    }
    for (const node of this.#index.model.nodes) {
      for (const name of node.outputs) this.#set(name, plainBand(axis), pending);
      this.#carry(pending);
    }
  }

  #carry(pending: string[]): void {
    for (let tensor = pending.pop(); tensor !== undefined; tensor = pending.pop()) {
      const band = this.#bands.get(tensor);
      if (band === undefined) continue;
      this.#carryBack(tensor, band, pending);
      for (const node of this.#index.consumers.get(tensor) ?? []) this.#carryOn(node, tensor, band, pending);
    }
  }

  #carryBack(tensor: string, band: Band, pending: string[]): void {
    const producer = this.#index.producer.get(tensor);
    if (producer === undefined) return;
    const node = this.#index.model.nodes[producer];
    const asked = this.#ask(producer, node?.outputs.indexOf(tensor) ?? 0, band);
    if (refused(asked)) return;
    asked.inputs.forEach((input, j) => {
      if (typeof input === 'object') this.#set(node?.inputs[j] ?? '', input.band, pending);
    });
  }

  #carryOn(index: number, tensor: string, band: Band, pending: string[]): void {
    const node = this.#index.model.nodes[index];
    const rule = this.#index.rules[index];
    const view = this.#index.views[index];
    if (node === undefined || view === undefined || rule === undefined) return;
    node.inputs.forEach((name, j) => {
      if (name !== tensor) return;
      node.outputs.forEach((output, o) => {
        const dims = this.#index.model.tensors.get(output)?.dims;
        if (dims === undefined || this.#bands.has(output)) return;
        const found = rule.forward?.(view, j, band, o) ?? this.#search(index, o, j, band, dims.length);
        if (found !== undefined) this.#set(output, found, pending);
      });
    });
  }

  /** The band of an output that needs `band` of input `j`. */
  #search(node: number, output: number, j: number, band: Band, rank: number): Band | undefined {
    for (let axis = 0; axis < rank; axis++) {
      const candidate = { ...band, axis };
      const asked = this.#ask(node, output, candidate);
      if (refused(asked)) continue;
      const input = asked.inputs[j];
      if (typeof input === 'object' && compatible(input.band, band)) return candidate;
    }
    return undefined;
  }
}

const found = new WeakMap<Model, Map<BandKind, Bands>>();

/** The bands of a model, computed once per kind. */
export function bandsOf(model: Model, kind: BandKind): Bands {
  let kinds = found.get(model);
  if (kinds === undefined) {
    kinds = new Map();
    found.set(model, kinds);
  }
  let bands = kinds.get(kind);
  if (bands === undefined) {
    bands = new Bands(indexOf(model), kind);
    kinds.set(kind, bands);
  }
  return bands;
}

/**
 * Walks a stage's nodes in order and decides for each output how the parts make it: in bands, as partials of the whole, or whole in every part.
 * Nothing here depends on shares: regions (`region.ts`) and cuts (`demand.ts`) of any shares start from the same walk.
 */
import type { Model } from '../model.js';
import { type Asked, ask, type Bands, bandKindOf, bandsOf, refused } from './bands.js';
import { type Band, compatible, isPlain } from './interval.js';
import { contracts, notLinear } from './linear.js';
import { indexOf, type ModelIndex, readsOf, USED_BY_MODEL } from './model-index.js';
import type { CutKind } from './partition.js';
import { codedGroups } from './rules/conv.js';
import type { Banding, InputNeed, MergeOp, Reducing } from './rules/rule.js';

/** A tensor that its stage left as partials: every name is one of them, each of the tensor's full dims, merged by `merge`. */
export interface PartialHold {
  readonly merge: MergeOp;
  /** `tensor/partial:i` */
  readonly names: readonly string[];
}

/** Tensors of earlier stages that are held as partials; all others are held as boxes. */
export type Held = ReadonlyMap<string, PartialHold>;

/** How the parts of a stage hold a tensor that the stage makes. */
export type Holding =
  | { readonly kind: 'band'; readonly band: Band }
  | { readonly kind: 'whole' }
  | { readonly kind: 'partial'; readonly merge: MergeOp };

/** How one output of one node (all of them, when whole) is made. */
export type Making = { readonly node: number } & (
  | { readonly kind: 'band'; readonly output: number; readonly band: Band; readonly banding: Banding }
  | { readonly kind: 'partial'; readonly band: Band; readonly reducing: Reducing }
  | { readonly kind: 'whole' }
);

/** What a making costs whole, and what parts of it are reckoned from. */
export interface MakingCost {
  readonly macs: number;
  /** Units of the band that is made, or summed over. */
  readonly units: number;
  readonly weights: readonly {
    readonly name: string;
    readonly bytes: number;
    readonly need: Exclude<InputNeed, 'drop'>;
    /** Units of the weight's own band; 1 where all of it is needed. */
    readonly units: number;
    /** May be read more than once: a part holds it once. */
    readonly shared: boolean;
  }[];
}

export interface Obstacle {
  readonly node: number;
  readonly reason: string;
}

/** dtypes that ONNX Sum takes. */
const SUMMABLE = new Set(['float32', 'float16', 'float64', 'bfloat16']);

export class StageWalk {
  readonly index: ModelIndex;
  readonly cut: CutKind;
  readonly start: number;
  readonly makings: Making[] = [];
  /** By index of `makings`: parts of all shares reckon with the same; filled as they are asked for (demand.ts). */
  readonly costs: MakingCost[] = [];
  readonly holdings = new Map<string, Holding>();
  readonly #held: Held;
  readonly #bands: Bands | undefined;
  /** The node after which an `inputs` or `pair` stage is complete. */
  #last: number | undefined;
  #contractions = 0;
  #end: number;
  /** Of a coded stage: why a node that contracts is not coded. */
  #notCoded: string | undefined;

  constructor(
    model: Model,
    cut: CutKind,
    start: number,
    held: Held,
    /** 1: a coded stage. Its parts compute everything whole up to nodes that are linear in their weights, which are cut by outputs and end the stage. */
    readonly redundancy = 0,
  ) {
    this.index = indexOf(model);
    this.cut = cut;
    this.start = start;
    this.#end = start;
    this.#held = held;
    this.#bands = cut === 'whole' ? undefined : bandsOf(model, bandKindOf(cut));
  }

  /** Nodes walked so far: `[start, end)`. */
  get end(): number {
    return this.#end;
  }

  get held(): Held {
    return this.#held;
  }

  /** Takes the next node into the stage; returns what is in the way when it cannot be in it. Walking on after that is not possible. */
  step(): Obstacle | undefined {
    const node = this.index.model.nodes[this.#end];
    if (node === undefined) return { node: this.#end, reason: 'the model ends' };
    const reason = this.#bands === undefined ? this.#whole(this.#end) : this.#cutNode(this.#end, this.#bands);
    if (reason !== undefined) return { node: this.#end, reason: `${nameOf(node)}: ${reason}` };
    this.#end++;
    return undefined;
  }

  /** What forbids the stage to end here; undefined when it may. */
  obstacle(): Obstacle | undefined {
    const at = Math.max(this.start, this.#end - 1);
    if (this.cut === 'whole') return this.#leavingWithoutShape(at);
    if ((this.cut === 'inputs' || this.cut === 'pair') && this.#last === undefined) {
      const want = this.cut === 'inputs' ? 'a Conv, Gemm or MatMul' : 'two Conv, Gemm or MatMul';
      return { node: at, reason: `a stage cut by ${this.cut} ends with its sum: ${want} with constant weights is missing` };
    }
    if (this.redundancy > 0) return this.#codedObstacle(at);
    let cut = false;
    for (const [tensor, holding] of this.holdings) {
      if (holding.kind !== 'whole') cut = true;
      if (!this.leaves(tensor)) continue;
      if (holding.kind === 'band' && holding.band.outer !== 1) {
        return {
          node: this.index.producer.get(tensor) ?? at,
          reason: `${tensor} is flattened over the ${this.cut}: its bands are no boxes`,
        };
      }
      if (holding.kind === 'partial' && this.index.lastUse.get(tensor) === USED_BY_MODEL) {
        return { node: this.index.producer.get(tensor) ?? at, reason: `${tensor} is an output of the model and would be left as partials` };
      }
    }
    if (!cut && this.redundancy > 0) {
      return {
        node: at,
        reason: `a coded stage ends with a Conv, Gemm or MatMul of constant weights${this.#notCoded ?? ': there is none'}`,
      };
    }
    if (!cut)
      return {
        node: this.start,
        reason: `no tensor of the stage has ${this.cut === 'rows' || this.cut === 'columns' ? this.cut : 'channels'} to cut`,
      };
    return this.#leavingWithoutShape(at);
  }

  /** A coded stage may only leave behind what can be recovered. */
  #codedObstacle(at: number): Obstacle | undefined {
    const holdings = [...this.holdings];
    if (!holdings.some(([, { kind }]) => kind === 'band')) {
      const none = 'there is no Conv, Gemm or MatMul of constant weights that could be coded';
      return { node: at, reason: this.#notCoded ?? none };
    }
    const whole = holdings.find(([tensor, { kind }]) => kind === 'whole' && this.leaves(tensor))?.[0];
    if (whole === undefined) return undefined;
    const node = this.index.producer.get(whole) ?? at;
    return { node, reason: `${whole} is needed later, and would be lost with the one agent that sends it` };
  }

  /** True when a later stage or the model's end reads a tensor made in this stage. */
  leaves(tensor: string): boolean {
    return (this.index.lastUse.get(tensor) ?? -1) >= this.#end;
  }

  #leavingWithoutShape(at: number): Obstacle | undefined {
    for (const tensor of this.holdings.keys()) {
      if (this.leaves(tensor) && !this.index.model.tensors.has(tensor)) {
        return {
          node: this.index.producer.get(tensor) ?? at,
          reason: `${tensor} is no tensor of a fixed-size type: it cannot cross a cut`,
        };
      }
    }
    return undefined;
  }

  /** Every part makes the node whole. */
  #whole(index: number): string | undefined {
    const node = this.index.model.nodes[index];
    for (const name of node === undefined ? [] : readsOf(node)) {
      if (name !== '' && this.#isCut(name)) return `needs all of ${name}, of which each part has only its own`;
      if (name !== '' && !this.holdings.has(name) && !this.index.model.tensors.has(name) && !this.index.model.weights.has(name)) {
        return `${name} is no tensor of a fixed-size type: it cannot cross a cut`;
      }
    }
    this.makings.push({ node: index, kind: 'whole' });
    for (const name of node?.outputs ?? []) if (name !== '') this.holdings.set(name, { kind: 'whole' });
    return undefined;
  }

  #isCut(tensor: string): boolean {
    const holding = this.holdings.get(tensor);
    return holding !== undefined && holding.kind !== 'whole';
  }

  #cutNode(index: number, bands: Bands): string | undefined {
    const node = this.index.model.nodes[index];
    if (node === undefined) return 'no such node';
    if (this.#last !== undefined) return `the stage ended with the sum of ${nameOf(this.index.model.nodes[this.#last])}`;
    if (this.index.rules[index] === undefined) {
      return node.captured.length > 0 ? 'a node with subgraphs is run whole' : `no rule says how ${node.op} is cut`;
    }
    for (const name of node.inputs) {
      const holding = this.holdings.get(name);
      if (holding?.kind === 'partial') return `reads ${name}, of which each part has a partial sum: it is merged in the next stage`;
    }
    if (this.redundancy > 0) return this.#codedNode(index, bands);
    const contracts = this.#contraction(index);
    if (contracts && (this.cut === 'inputs' || (this.cut === 'pair' && this.#contractions === 1))) {
      const reason = this.#reduce(index, bands);
      if (reason === undefined) this.#last = index;
      return reason;
    }
    if (contracts) this.#contractions++;
    let whole: string | undefined;
    for (let output = 0; output < node.outputs.length; output++) {
      const name = node.outputs[output] ?? '';
      if (name === '' || !this.index.lastUse.has(name)) continue;
      const reason = this.#band(index, output, bands);
      if (reason === undefined) continue;
      whole = bands.band(name) === undefined || node.outputs.length > 1 ? '' : reason;
      if (whole !== '') break;
    }
    if (whole === undefined) return undefined;
    return this.#reduceOrWhole(index, bands, whole, contracts);
  }

  /** Of a coded stage: in bands where a parity can be made of them, whole in every part as long as nothing is. */
  #codedNode(index: number, bands: Bands): string | undefined {
    const node = this.index.model.nodes[index];
    const view = this.index.views[index];
    const reads = node?.inputs.some((name) => this.#isCut(name)) === true;
    if (!reads && !contracts(node)) return this.#whole(index);
    const grouped = ask(() => ({ banding: view && codedGroups(view) }));
    const banding = refused(grouped) ? grouped : (grouped.banding ?? bands.banding(index, 0));
    const reason = refused(banding) ? banding.refusal : this.#coded(index, banding, bands);
    if (reason === undefined || reads) return reason;
    this.#notCoded = `${nameOf(node)}: ${reason}`;
    return this.#whole(index);
  }

  #coded(index: number, banding: Banding, bands: Bands): string | undefined {
    const name = this.index.model.nodes[index]?.outputs[0] ?? '';
    const band = bands.band(name);
    const reason = notLinear(this.index, index, banding, (tensor) => this.#isCut(tensor)) ?? this.#available(index, banding.inputs);
    if (reason !== undefined) return reason;
    if (band === undefined || !isPlain(band)) return 'its channels lie in blocks';
    this.makings.push({ node: index, kind: 'band', output: 0, band, banding });
    this.holdings.set(name, { kind: 'band', band });
    return undefined;
  }

  /** For outputs that have no band: partials where the node reduces over a band, else whole; `reason` is not '' when whole is out of the question. */
  #reduceOrWhole(index: number, bands: Bands, reason: string, contracts: boolean): string | undefined {
    const spatial = this.cut === 'rows' || this.cut === 'columns';
    if ((spatial || !contracts) && this.#reduce(index, bands) === undefined) return undefined;
    return reason === '' ? this.#whole(index) : reason;
  }

  #contraction(index: number): boolean {
    const view = this.index.views[index];
    const rule = this.index.rules[index];
    const asked = ask(() => (view && rule?.contraction?.(view)) ?? { refusal: 'no contraction' });
    return !refused(asked);
  }

  /** Tries to make an output in bands of its band axis. */
  #band(index: number, output: number, bands: Bands): string | undefined {
    const node = this.index.model.nodes[index];
    const name = node?.outputs[output] ?? '';
    const banding = bands.banding(index, output);
    if (refused(banding)) return banding.refusal;
    const reason = this.#available(index, banding.inputs);
    if (reason !== undefined) return reason;
    const band = bands.band(name);
    if (band === undefined) return 'no band';
    this.makings.push({ node: index, kind: 'band', output, band, banding });
    this.holdings.set(name, { kind: 'band', band });
    return undefined;
  }

  /** Tries to make partials by reducing over the band of an input. */
  #reduce(index: number, bands: Bands): string | undefined {
    const node = this.index.model.nodes[index];
    const output = node?.outputs[0] ?? '';
    const dtype = this.index.model.tensors.get(output)?.dtype;
    let reason = 'it reduces over no band';
    for (const [j, name] of (node?.inputs ?? []).entries()) {
      const band = this.#bandOf(name, bands);
      if (band === undefined) continue;
      const reducing: Asked<Reducing> = bands.reducing(index, j, band);
      if (refused(reducing)) {
        reason = reducing.refusal;
        continue;
      }
      if (dtype === undefined || !SUMMABLE.has(dtype)) return `partials of ${dtype ?? 'an unknown type'} cannot be merged`;
      const missing = this.#available(index, reducing.inputs);
      if (missing !== undefined) return missing;
      this.makings.push({ node: index, kind: 'partial', band, reducing });
      this.holdings.set(output, { kind: 'partial', merge: reducing.merge });
      return undefined;
    }
    return reason;
  }

  /** The band in which parts hold a tensor of this stage, or may ask for a tensor that enters. */
  #bandOf(tensor: string, bands: Bands): Band | undefined {
    const holding = this.holdings.get(tensor);
    if (holding !== undefined) return holding.kind === 'band' ? holding.band : undefined;
    const band = bands.band(tensor);
    return band?.outer === 1 ? band : undefined;
  }

  /** What of a node's needs the parts do not have: tensors that enter and weights can be had in any interval. */
  #available(index: number, needs: readonly InputNeed[]): string | undefined {
    const node = this.index.model.nodes[index];
    for (const [j, need] of needs.entries()) {
      const name = node?.inputs[j] ?? '';
      const holding = this.holdings.get(name);
      if (need === 'drop' || holding === undefined || holding.kind === 'whole') {
        if (typeof need === 'object' && need.band.outer !== 1 && holding === undefined && !this.index.model.weights.has(name)) {
          return `${name} would enter in bands that are no boxes`;
        }
        continue;
      }
      if (need === 'all') return `needs all of ${name}, of which each part has only its own`;
      if (holding.kind !== 'band' || !compatible(holding.band, need.band)) return `needs ${name} along another axis`;
    }
    return undefined;
  }
}

/** A node for people: operator and name (or output). */
export function nameOf(node: Model['nodes'][number] | undefined): string {
  if (node === undefined) return 'the end of the model';
  const name = node.name === '' ? (node.outputs[0] ?? '') : node.name;
  return `${node.op} ${name}`.trim();
}

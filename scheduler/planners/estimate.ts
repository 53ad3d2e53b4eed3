/**
 * What a seated cut would do on these devices, by the costs of cost.ts. Resources are each agent's CPU, each host's CPU (agents on one host share its
 * cores), both directions of each link, the dispatcher's included, and the way between two ends that are slower with each other than with others. Throughput = 1 / the busiest resource; latency = one frame alone in the system;
 * memory = weights + live activations + what waits in joins + the engine's constant.
 * Long, because latency, throughput, memory and what could be divided otherwise are told from the same flows and seats.
 */
import { encodedItemBytes } from '../../broker/encoding.js';
import { SINK, SOURCE, type Wire } from '../../broker/plan.js';
import { boxDims, boxElements, itemBytes, tensorBytes } from '../../broker/tensor.js';
import { DISPATCHER } from '../../broker/topics.js';
import type { StageSpec } from '../../models/slicing/partition.js';
import { aroundMs, busy, CODED_COPIES, computeMs, ENGINE_BYTES, seatBytes } from './cost.js';
import { Ends, type MessageBytes, type PartBytes, partBytes } from './ends.js';
import { type CutFacts, classKeys, type Device, type Links, MOST_LISTED_PAIRS, type PartFacts, type SeatedStage } from './problem.js';

export interface SeatEstimate {
  readonly stage: number;
  readonly replica: number;
  readonly part: number;
  readonly agent: string;
  readonly macs: number;
  readonly weightBytes: number;
  /** Inside the engine. */
  readonly ms: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
}

/** `pair`: the way from one end to another, slower than the links of both; `who` is then `from>to`. */
export type Resource = 'compute' | 'host' | 'link' | 'pair';

export interface Estimate {
  /** One frame alone, on the slowest way that it may take. */
  readonly latencyMs: number;
  /** The same on the way that it takes when nothing else is under way: with replicas of different speed the fastest, in turn the mean of all; absent = the ways are equally long. */
  readonly usualLatencyMs?: number;
  readonly fps: number;
  /** The busiest resource and how long each frame keeps it, ms. */
  readonly bottleneck: { readonly kind: Resource; readonly who: string; readonly ms: number };
  readonly seats: readonly SeatEstimate[];
  /** Of each stage, the fraction of frames that each replica takes. */
  readonly weights: readonly (readonly number[])[];
  /** Bytes per frame; agents or the dispatcher; nothing for what stays on an agent. */
  readonly links: readonly {
    readonly from: string;
    readonly to: string;
    readonly bytesPerFrame: number;
    readonly rawBytesPerFrame: number;
  }[];
  readonly memory: readonly { readonly agent: string; readonly needBytes: number; readonly haveBytes: number }[];
}

/** Where it is encoded, the CPU of each end handles its raw bytes besides (see CODED_COPIES). */
interface Flow extends MessageBytes {
  readonly wire: Wire;
  readonly rawBytes: number;
}

/** How long one frame alone takes this way, and which part of all frames goes it. */
interface Way {
  readonly ms: number;
  readonly taken: number;
}

/** Undefined where none is taken. */
function meanOf(ways: readonly Way[]): number | undefined {
  const taken = ways.reduce((sum, way) => sum + way.taken, 0);
  return taken > 0 ? ways.reduce((sum, way) => sum + way.ms * way.taken, 0) / taken : undefined;
}

export function estimate(
  cut: CutFacts,
  stages: readonly SeatedStage[],
  devices: readonly Device[],
  links: Links,
  inFlight: number,
): Estimate {
  return estimator(cut, stages, devices, links)(inFlight);
}

/** The same for any number of frames in flight: only memory, and what it leaves of the throughput, is counted anew for each. */
export function estimator(
  cut: CutFacts,
  stages: readonly SeatedStage[],
  devices: readonly Device[],
  links: Links,
): (inFlight: number) => Estimate {
  const judge = new Estimator(cut, stages, devices, links);
  return (inFlight) => judge.estimate(inFlight);
}

/** Who has how much to do, and what of it could go to another replica. */
export interface Burdens {
  /** Every resource and how long each frame of the deployment keeps it, ms. */
  readonly loads: ReadonlyMap<string, number>;
  /** Of each stage, the fraction of frames that each replica takes. */
  readonly weights: readonly (readonly number[])[];
  /** `[stage][replica]`: how long a frame that goes this way keeps what belongs to its agents, ms: their CPU and both directions of their links. */
  readonly replicas: readonly (readonly ReadonlyMap<string, number>[])[];
}

export function burdens(cut: CutFacts, stages: readonly SeatedStage[], devices: readonly Device[], links: Links): Burdens {
  return new Estimator(cut, stages, devices, links).burdens();
}

/** The agent of a part: parts are seated by the share that they were made of, so that bands stay where they are from stage to stage. */
export function seatOf(cut: CutFacts, stages: readonly SeatedStage[], stage: number, replica: number, part: number): string {
  const share = cut.stages[stage]?.partShares[part] ?? part;
  return stages[stage]?.agents[replica]?.[share] ?? '';
}

/** What a wire costs an agent at one of its ends: link ms per frame of the deployment, and which part of frames crosses it. */
interface EndLoad {
  readonly replica: number;
  readonly agent: string;
  readonly ms: number;
  readonly frames: number;
}

/** The gateway takes all frames, as does a stage of one replica. */
const ONE: readonly number[] = [1];

/** What the resources of an end are called in loads. */
interface Keys {
  readonly compute: string;
  readonly up: string;
  readonly down: string;
}

/** What holds for every plan of the same devices and links. */
interface Surroundings {
  readonly byName: ReadonlyMap<string, Device>;
  readonly ends: Ends;
  /** Of each device the number of its class. */
  readonly classes: ReadonlyMap<string, number>;
  /** By end; filled as they are asked for. */
  readonly keys: Map<string, Keys>;
}

/** Planners judge thousands of plans of one problem: with a thousand devices most of the time would go here. Both keys are never changed. */
const SURROUNDINGS = new WeakMap<readonly Device[], WeakMap<Links, Surroundings>>();

function surroundingsOf(devices: readonly Device[], links: Links): Surroundings {
  const known = SURROUNDINGS.get(devices)?.get(links);
  if (known !== undefined) return known;
  // Numbers, as these are put together for each replica of each plan, and keys are long.
  const numbers = new Map<string, number>();
  const made = {
    byName: new Map(devices.map((device) => [device.agent, device])),
    ends: new Ends(devices, links),
    classes: new Map<string, number>(),
    keys: new Map<string, Keys>(),
  };
  for (const [d, key] of classKeys(devices, links).entries()) {
    const number = numbers.get(key) ?? numbers.size;
    numbers.set(key, number);
    made.classes.set(devices[d]?.agent ?? '', number);
  }
  const byLinks = SURROUNDINGS.get(devices) ?? new WeakMap<Links, Surroundings>();
  SURROUNDINGS.set(devices, byLinks.set(links, made));
  return made;
}

const RESOURCES: readonly Resource[] = ['compute', 'host', 'pair'];

/** A replica and its part of all frames. */
interface End {
  readonly replica: number;
  readonly weight: number;
}

interface PairLoad {
  readonly key: string;
  readonly ms: number;
  readonly from: End;
  readonly to: End;
}

/** All but what the number of frames in flight decides. */
interface Judged {
  /** Of the ways of frames, each as often as it is taken. */
  readonly meanMs: number;
  readonly unlimited: Omit<Estimate, 'fps' | 'memory'>;
}

class Estimator {
  readonly #cut: CutFacts;
  readonly #stages: readonly SeatedStage[];
  readonly #devices: ReadonlyMap<string, Device>;
  readonly #links: Links;
  readonly #ends: Ends;
  readonly #classes: ReadonlyMap<string, number>;
  readonly #keys: Map<string, Keys>;
  readonly #flows: readonly Flow[];
  readonly #out = new Map<number, Flow[]>();
  /** Of each stage, bytes that come to and leave each part. */
  readonly #bytesIn: readonly Float64Array[];
  readonly #bytesOut: readonly Float64Array[];
  /** Of each stage, how many of its parts are no parities. */
  readonly #plainParts: readonly number[];
  /** Of each stage, the sum of its shares. */
  readonly #shareTotals: readonly number[];
  /** What waits beside the ports of a part. */
  readonly #parityBytes = new Map<string, number>();
  /** Of each stage, the fraction of frames that each replica takes: the faster ones take more, unless the plan says otherwise. */
  readonly #weights: readonly (readonly number[])[];
  /** ms of each seat, by stage: a row of its parts for each replica. Filled as they are asked for. */
  readonly #ms: readonly Float64Array[];
  #rows: SeatEstimate[] | undefined;
  #judged: Judged | undefined;

  constructor(cut: CutFacts, stages: readonly SeatedStage[], devices: readonly Device[], links: Links) {
    this.#cut = cut;
    this.#stages = stages;
    const { byName, ends, classes, keys } = surroundingsOf(devices, links);
    this.#devices = byName;
    this.#links = links;
    this.#ends = ends;
    this.#classes = classes;
    this.#keys = keys;
    this.#ms = stages.map(({ agents }, s) => new Float64Array(agents.length * this.#parts(s).length).fill(Number.NaN));
    this.#bytesIn = cut.stages.map(({ parts }) => new Float64Array(parts.length));
    this.#bytesOut = cut.stages.map(({ parts }) => new Float64Array(parts.length));
    this.#plainParts = cut.stages.map(({ parts, spec }) => parts.length - (spec.redundancy ?? 0));
    this.#shareTotals = cut.stages.map(({ spec }) => spec.shares.reduce((sum, share) => sum + share, 0));
    this.#flows = cut.wires.map((wire) => flowOf(cut, wire));
    for (const flow of this.#flows) {
      const { fromStage, fromPart, toStage, toPart } = flow.wire;
      const leaving = this.#out.get(fromStage);
      if (leaving === undefined) this.#out.set(fromStage, [flow]);
      else leaving.push(flow);
      addAt(this.#bytesOut[fromStage], fromPart, flow.bytes);
      addAt(this.#bytesIn[toStage], toPart, flow.bytes);
      if (this.#isParity(fromStage, fromPart)) add(this.#parityBytes, `${toStage}/${toPart}`, flow.bytes);
    }
    this.#weights = stages.map((stage, s) => {
      const takes = stage.inTurn === true ? stage.agents.map(() => 1) : (stage.weights ?? this.#speeds(s));
      const total = takes.reduce((sum, take) => sum + take, 0);
      return takes.map((take) => take / total);
    });
  }

  /** Of each replica of a stage how many frames its slowest part takes in a millisecond, messages and all: the router gives the next frame to who has room for it. */
  #speeds(s: number): number[] {
    const { agents = [] } = this.#stages[s] ?? {};
    if (agents.length === 1) return [1];
    const bytes = this.#parts(s).map((part, p) => this.#encoded(s, p, partBytes(part)));
    const [isFirst, isLast] = [s === 0, s === this.#stages.length - 1];
    return agents.map((_, r) => {
      let slowest = 0;
      for (const [p, each] of bytes.entries()) {
        const agent = this.#seat(s, r, p);
        const ms = this.#runMs(s, r, p) + aroundMs(this.#devices.get(agent));
        slowest = Math.max(slowest, this.#ends.frameMs(agent, ms, each, isFirst, isLast));
      }
      return 1 / slowest;
    });
  }

  /** What a part takes in and puts out, as long as encodings make it. */
  #encoded(s: number, p: number, raw: PartBytes): PartBytes {
    const coded = this.#flows.filter(({ wire }) => wire.encoding !== 'raw');
    if (coded.length === 0) return raw;
    const into = coded.filter(({ wire }) => wire.toStage === s && wire.toPart === p);
    const outOf = coded.filter(({ wire }) => wire.fromStage === s && wire.fromPart === p);
    return {
      into: raw.into.map((message, i) =>
        encodedAs(
          into.filter(({ wire }) => wire.input === i),
          message,
        ),
      ),
      outOf: raw.outOf.map((message, o) =>
        encodedAs(
          outOf.filter(({ wire }) => wire.output === o),
          message,
        ),
      ),
    };
  }

  estimate(inFlight: number): Estimate {
    const { meanMs, unlimited } = this.#judged ?? this.#judge();
    // Little's law: frames in flight are frames per second times the mean of what each takes.
    const fps = Math.min(1000 / unlimited.bottleneck.ms, (inFlight * 1000) / meanMs);
    return { ...unlimited, fps, memory: this.#memory(inFlight) };
  }

  /** What does not depend on how many frames are in flight. */
  #judge(): Judged {
    const replicas = Math.max(1, ...this.#stages.map((stage) => stage.agents.length));
    const ways: Way[] = [];
    // Replicas on equal devices take equally long: one of each kind is enough.
    const seen = new Map<string, number>();
    const most = this.#weights.reduce((widest, weights) => (weights.length > widest.length ? weights : widest), [1] as readonly number[]);
    for (let r = 0; r < replicas; r++) {
      const kind = this.#kindOf(r);
      const ms = seen.get(kind) ?? this.#latencyMs(this.#stages.map((_, s) => Math.min(r, this.#lastReplica(s))));
      seen.set(kind, ms);
      ways.push({ ms, taken: most[r] ?? 0 });
    }
    const latencyMs = Math.max(...ways.map(({ ms }) => ms));
    const meanMs = meanOf(ways) ?? latencyMs;
    const usual = seen.size > 1 ? { usualLatencyMs: this.#aloneMs(ways, meanMs) } : {};
    const rest = { bottleneck: this.#busiest(), seats: this.#seats(), weights: this.#weights, links: this.#linkRows() };
    this.#judged = { meanMs, unlimited: { latencyMs, ...usual, ...rest } };
    return this.#judged;
  }

  /** One frame that finds nobody busy goes where frames are quickest, of several stages to the replica of each that takes the most (router.ts); or where they go in turn to any. */
  #aloneMs(ways: readonly Way[], meanMs: number): number {
    if (this.#stages.some(({ inTurn }) => inTurn === true)) return meanMs;
    if (this.#stages.length === 1) return Math.min(...ways.map(({ ms }) => ms));
    return this.#latencyMs(this.#weights.map((weights) => weights.indexOf(Math.max(...weights))));
  }

  /** One frame alone, through these replicas of each stage. */
  #latencyMs(route: readonly number[]): number {
    const clocks = new Clocks();
    const arrivals = this.#cut.stages.map(({ parts }) => new Float64Array(parts.length));
    let end = this.#leave(SOURCE, [this.#links.gatewayFrameMs ?? 0], route, clocks, arrivals);
    for (let s = 0; s < this.#stages.length; s++) {
      const mine = route[s] ?? 0;
      const finished = this.#parts(s).map((_, p) => {
        const agent = this.#seat(s, mine, p);
        const ms = this.#runMs(s, mine, p) + aroundMs(this.#devices.get(agent));
        return this.#ran(clocks, agent, arrivals[s]?.[p] ?? 0, ms);
      });
      end = Math.max(end, this.#leave(s, finished, route, clocks, arrivals), ...finished.slice(0, this.#plainParts[s]));
    }
    return end;
  }

  /** Sends what leaves a stage whose parts were done at `doneMs`, in the order of the wires; returns when the last of it came to the gateway, 0 when none does. */
  #leave(stage: number, doneMs: readonly number[], route: readonly number[], clocks: Clocks, arrivals: readonly Float64Array[]): number {
    let end = 0;
    for (const flow of this.#out.get(stage) ?? []) {
      const { fromPart, toStage, toPart } = flow.wire;
      const readyMs = doneMs[fromPart] ?? 0;
      const from = this.#end(stage, route[stage] ?? 0, fromPart);
      const to = this.#end(toStage, route[toStage] ?? 0, toPart);
      const at = from === to ? readyMs : this.#sent(clocks, from, to, flow, readyMs);
      // What a parity stands in for comes by itself in the end: a frame that waits for all the parts waits longest.
      if (this.#isParity(stage, fromPart)) continue;
      if (toStage === SINK) end = Math.max(end, at);
      const there = arrivals[toStage];
      if (there !== undefined) there[toPart] = Math.max(there[toPart] ?? 0, at);
    }
    return end;
  }

  /** What one agent does follows each other, as its quota allows; agents of one host divide its cores. */
  #ran(clocks: Clocks, agent: string, fromMs: number, ms: number): number {
    const { host, hostShare = 1, quota } = this.#devices.get(agent) ?? {};
    // Nothing was done yet: whoever has a quota has all of it.
    const { freeMs, doneMs } = busy(quota, clocks.cpu.get(agent) ?? Number.NEGATIVE_INFINITY, fromMs, ms);
    const hostMs = host === undefined ? Number.NEGATIVE_INFINITY : take(clocks.host, host, fromMs, ms * hostShare);
    clocks.cpu.set(agent, Math.max(freeMs, hostMs));
    return Math.max(doneMs, hostMs);
  }

  /** Encoding or placing a message: beside a run, on another core, but out of the same quota where there is one. */
  #handled(clocks: Clocks, end: string, fromMs: number, bytes: number): number {
    const ms = this.#ends.cpuMs(end, bytes);
    return this.#devices.get(end)?.quota === undefined ? fromMs + ms : this.#ran(clocks, end, fromMs, ms);
  }

  /** A message is encoded, then leaves and arrives as a stream: both links carry it and the receiver places it at the same time. */
  #sent(clocks: Clocks, from: string, to: string, { bytes, handledBytes }: Flow, readyMs: number): number {
    const ends = this.#ends;
    const up = ends.linkMs(from, 'up', to, bytes);
    let left = take(clocks.up, from, this.#handled(clocks, from, readyMs, handledBytes), up);
    const medium = ends.mediumMs(bytes);
    if (medium > 0) left = Math.max(left, take(clocks.medium, 'all', left - up, medium));
    const latency = ends.latencyMs(from, to);
    const begins = left - up + latency;
    const pair = ends.pairMs(from, to, bytes);
    return Math.max(
      left + latency,
      pair > 0 ? take(clocks.pair, pairKey(from, to), begins, pair) : 0,
      take(clocks.down, to, begins, ends.linkMs(to, 'down', from, bytes)),
      this.#handled(clocks, to, begins, handledBytes),
    );
  }

  /** Every resource and how long each frame keeps it, ms. Keys: `compute a`, `host h`, `link a up`, `pair a>b`, `medium all`; a and b may be the dispatcher. */
  loads(): Map<string, number> {
    const loads = new Map<string, number>();
    const compute = (agent: string, ms: number): void => {
      add(loads, this.#keysOf(agent).compute, ms);
      const { host, hostShare = 1 } = this.#devices.get(agent) ?? {};
      if (host !== undefined) add(loads, `host ${host}`, ms * hostShare);
    };
    compute(DISPATCHER, this.#links.gatewayFrameMs ?? 0);
    for (const { agent, ms, stage, replica } of this.#seats()) {
      compute(agent, (ms + aroundMs(this.#devices.get(agent))) * (this.#weights[stage]?.[replica] ?? 1));
    }
    for (const { wire, bytes, handledBytes } of this.#flows) {
      for (const side of ['up', 'down'] as const) {
        for (const { agent, ms, frames } of this.#endLoads(wire, bytes, side)) {
          add(loads, this.#keysOf(agent)[side], ms);
          compute(agent, this.#ends.cpuMs(agent, handledBytes) * frames);
          if (side === 'up') add(loads, 'medium all', this.#ends.mediumMs(bytes) * frames);
        }
      }
      for (const { key, ms, from, to } of this.#pairLoads(wire, bytes)) add(loads, key, ms * from.weight * to.weight);
    }
    return loads;
  }

  burdens(): Burdens {
    const replicas = this.#weights.map((weights) => weights.map(() => new Map<string, number>()));
    for (const { agent, ms, stage, replica } of this.#seats()) {
      const row = replicas[stage]?.[replica];
      if (row !== undefined) add(row, this.#keysOf(agent).compute, ms + aroundMs(this.#devices.get(agent)));
    }
    for (const { wire, bytes, handledBytes } of this.#flows) {
      for (const side of ['up', 'down'] as const) {
        const stage = side === 'up' ? wire.fromStage : wire.toStage;
        for (const { replica, agent, ms, frames } of this.#endLoads(wire, bytes, side)) {
          const row = replicas[stage]?.[replica];
          const weight = this.#weights[stage]?.[replica] ?? 0;
          if (row === undefined || weight <= 0) continue;
          add(row, this.#keysOf(agent)[side], ms / weight);
          add(row, this.#keysOf(agent).compute, (this.#ends.cpuMs(agent, handledBytes) * frames) / weight);
        }
      }
      for (const { key, ms, from, to } of this.#pairLoads(wire, bytes)) {
        const [near, far] = [replicas[wire.fromStage]?.[from.replica], replicas[wire.toStage]?.[to.replica]];
        if (near !== undefined) add(near, key, ms * to.weight);
        if (far !== undefined) add(far, key, ms * from.weight);
      }
    }
    return { loads: this.loads(), weights: this.#weights, replicas };
  }

  /** What one wire costs each agent at one of its ends. */
  #endLoads(wire: Wire, bytes: number, side: 'up' | 'down'): readonly EndLoad[] {
    const [stage, part] = side === 'up' ? [wire.fromStage, wire.fromPart] : [wire.toStage, wire.toPart];
    const [farStage, farPart] = side === 'up' ? [wire.toStage, wire.toPart] : [wire.fromStage, wire.fromPart];
    const [own, others] = [this.#weights[stage] ?? ONE, this.#weights[farStage] ?? ONE];
    // Most stages have one replica, and cut ones the most wires.
    if (own.length === 1 && others.length === 1) {
      const [agent, other] = [this.#end(stage, 0, part), this.#end(farStage, 0, farPart)];
      return agent === other ? [] : [{ replica: 0, agent, ms: this.#ends.linkMs(agent, side, other, bytes), frames: 1 }];
    }
    const far = others.map((weight, r) => ({ agent: this.#end(farStage, r, farPart), weight }));
    const rows: EndLoad[] = [];
    const share = new Map<string, number>();
    for (const { agent, weight } of far) add(share, agent, weight);
    for (const [r, mine] of own.entries()) {
      const agent = this.#end(stage, r, part);
      const frames = mine * Math.max(0, 1 - (share.get(agent) ?? 0));
      if (frames <= 0) continue;
      if (!this.#ends.isQuick(agent))
        rows.push({ replica: r, agent, ms: frames * this.#ends.linkMs(agent, side, undefined, bytes), frames });
      else {
        let ms = 0;
        for (const [other, weight] of share) if (other !== agent) ms += mine * weight * this.#ends.linkMs(agent, side, other, bytes);
        rows.push({ replica: r, agent, ms, frames });
      }
    }
    return rows;
  }

  #keysOf(agent: string): Keys {
    const known = this.#keys.get(agent);
    if (known !== undefined) return known;
    const made = { compute: `compute ${agent}`, up: `link ${agent} up`, down: `link ${agent} down` };
    this.#keys.set(agent, made);
    return made;
  }

  /** The slow pairs that one wire crosses, with the part of frames that each of their ends has: how long a message keeps the way between them, ms. */
  #pairLoads({ fromStage, fromPart, toStage, toPart }: Wire, bytes: number): readonly PairLoad[] {
    if (!this.#ends.hasSlow) return [];
    const rows: PairLoad[] = [];
    const receivers = new Map<string, End[]>();
    for (const [replica, weight] of (this.#weights[toStage] ?? ONE).entries()) {
      const agent = this.#end(toStage, replica, toPart);
      receivers.set(agent, [...(receivers.get(agent) ?? []), { replica, weight }]);
    }
    for (const [replica, weight] of (this.#weights[fromStage] ?? ONE).entries()) {
      const agent = this.#end(fromStage, replica, fromPart);
      for (const far of this.#ends.slowFrom(agent)) {
        const ms = this.#ends.pairMs(agent, far, bytes);
        for (const to of receivers.get(far) ?? []) rows.push({ key: pairKey(agent, far), ms, from: { replica, weight }, to });
      }
    }
    return rows;
  }

  #busiest(): Estimate['bottleneck'] {
    let busiest: Estimate['bottleneck'] = { kind: 'compute', who: '', ms: 1e-6 };
    for (const [key, ms] of this.loads()) {
      if (ms <= busiest.ms) continue;
      const space = key.indexOf(' ');
      const kind = RESOURCES.find((one) => key.startsWith(one)) ?? 'link';
      busiest = { kind, who: key.slice(space + 1), ms };
    }
    return busiest;
  }

  #seats(): SeatEstimate[] {
    if (this.#rows !== undefined) return this.#rows;
    const rows: SeatEstimate[] = [];
    for (const [s, stage] of this.#stages.entries()) {
      for (let r = 0; r < stage.agents.length; r++) {
        for (const [p, part] of this.#parts(s).entries()) {
          const agent = this.#seat(s, r, p);
          const [bytesIn, bytesOut] = [this.#bytesIn[s]?.[p] ?? 0, this.#bytesOut[s]?.[p] ?? 0];
          const { macs, weightBytes } = part;
          rows.push({ stage: s, replica: r, part: p, agent, macs, weightBytes, ms: this.#runMs(s, r, p), bytesIn, bytesOut });
        }
      }
    }
    this.#rows = rows;
    return rows;
  }

  /** What each pair of seats exchanges, over all replicas that a frame may take. */
  #linkRows(): Estimate['links'] {
    const rows = new Map<string, Map<string, LinkRow>>();
    const inOrder: LinkRow[] = [];
    for (const { wire, bytes, rawBytes } of this.#flows) {
      const [fromWeights, toWeights] = [this.#weights[wire.fromStage] ?? ONE, this.#weights[wire.toStage] ?? ONE];
      if (fromWeights.length * toWeights.length > MOST_LISTED_PAIRS) continue;
      for (let i = 0; i < fromWeights.length; i++) {
        const from = this.#end(wire.fromStage, i, wire.fromPart);
        for (let j = 0; j < toWeights.length; j++) {
          const to = this.#end(wire.toStage, j, wire.toPart);
          if (from === to) continue;
          const row = rowOf(rows, inOrder, from, to);
          const share = (fromWeights[i] ?? 0) * (toWeights[j] ?? 0);
          row.bytesPerFrame = Math.round(row.bytesPerFrame + bytes * share);
          row.rawBytesPerFrame = Math.round(row.rawBytesPerFrame + rawBytes * share);
        }
      }
    }
    return inOrder;
  }

  #memory(inFlight: number): Estimate['memory'] {
    const need = new Map<string, number>();
    const activations = new Map<string, number>();
    for (const [s, stage] of this.#stages.entries()) {
      for (let r = 0; r < stage.agents.length; r++) {
        for (const [p, part] of this.#parts(s).entries()) {
          const agent = this.#seat(s, r, p);
          const ports = part.inputs.reduce((sum, port) => sum + tensorBytes(port.dtype, boxDims(port.box)), 0);
          const waiting = ports + (this.#parityBytes.get(`${s}/${p}`) ?? 0);
          // Of the frames in flight a replica gets its share, and one more when they come unevenly.
          const mine = Math.min(inFlight, Math.ceil(inFlight * (this.#weights[s]?.[r] ?? 1)) + 1);
          const { held, peak } = seatBytes(this.#devices.get(agent), part, this.#shareOf(s, p), waiting, mine);
          add(need, agent, held);
          // Runs of one agent follow each other: the largest counts.
          activations.set(agent, Math.max(activations.get(agent) ?? 0, peak));
        }
      }
    }
    return [...need].map(([agent, bytes]) => ({
      agent,
      needBytes: Math.round(bytes + (activations.get(agent) ?? 0) + ENGINE_BYTES),
      haveBytes: this.#devices.get(agent)?.memoryBytes ?? 0,
    }));
  }

  #parts(stage: number): readonly PartFacts[] {
    return this.#cut.stages[stage]?.parts ?? [];
  }

  #seat(stage: number, replica: number, part: number): string {
    return seatOf(this.#cut, this.#stages, stage, replica, part);
  }

  #end(stage: number, replica: number, part: number): string {
    return stage < 0 ? DISPATCHER : this.#seat(stage, Math.min(replica, this.#lastReplica(stage)), part);
  }

  #lastReplica(stage: number): number {
    return (this.#stages[stage]?.agents.length ?? 1) - 1;
  }

  #runMs(stage: number, replica: number, p: number): number {
    const at = replica * this.#parts(stage).length + p;
    const known = this.#ms[stage]?.[at] ?? Number.NaN;
    if (!Number.isNaN(known)) return known;
    const device = this.#devices.get(this.#seat(stage, replica, p));
    const part = this.#parts(stage)[p];
    const { spec, share } = this.#shareOf(stage, p);
    const ms = device === undefined || part === undefined ? Number.POSITIVE_INFINITY : computeMs(device, part, spec, share);
    const row = this.#ms[stage];
    if (row !== undefined) row[at] = ms;
    return ms;
  }

  /** The stage of a part, and its fraction of it. */
  #shareOf(stage: number, p: number): { readonly spec: StageSpec; readonly share: number } {
    const cut = this.#cut.stages[stage];
    const spec = cut?.spec ?? { nodes: [0, 0], cut: 'whole', shares: [1] };
    // A parity is as long as the longest part.
    const share = this.#isParity(stage, p) ? Math.max(...spec.shares) : spec.shares[cut?.partShares[p] ?? p];
    return { spec, share: (share ?? 0) / (this.#shareTotals[stage] ?? 1) };
  }

  #isParity(stage: number, part: number): boolean {
    return part >= (this.#plainParts[stage] ?? Number.POSITIVE_INFINITY);
  }

  /** Replicas of one kind have the same devices at every stage and part, by all that matters to latency. */
  #kindOf(r: number): string {
    if (this.#stages.every((stage) => stage.agents.length === 1)) return '0';
    const names = this.#stages.map((stage, s) => {
      const agents = stage.agents[Math.min(r, this.#lastReplica(s))] ?? [];
      const before = s > 0 ? (this.#stages[s - 1]?.agents[Math.min(r, this.#lastReplica(s - 1))] ?? []) : [];
      return agents.map((agent) => `${this.#classes.get(agent)} ${before.indexOf(agent)}`);
    });
    return JSON.stringify(names);
  }
}

/** Until when what is in the way of one frame is busy, ms: by agent (links also of the dispatcher), by host, by slow pair of ends, and the one medium. */
class Clocks {
  readonly cpu = new Map<string, number>();
  readonly host = new Map<string, number>();
  readonly up = new Map<string, number>();
  readonly down = new Map<string, number>();
  readonly pair = new Map<string, number>();
  readonly medium = new Map<'all', number>();
}

const pairKey = (from: string, to: string): string => `pair ${from}>${to}`;

/** Keeps a resource for `ms` from `fromMs` on, or from when it is free; returns until when. */
function take<K extends string>(clock: Map<K, number>, resource: K, fromMs: number, ms: number): number {
  const until = Math.max(fromMs, clock.get(resource) ?? 0) + ms;
  clock.set(resource, until);
  return until;
}

function add(map: Map<string, number>, key: string, value: number): void {
  map.set(key, (map.get(key) ?? 0) + value);
}

type LinkRow = { -readonly [K in keyof Estimate['links'][number]]: Estimate['links'][number][K] };

/** The row of a pair of ends; a new one comes last `inOrder`. */
function rowOf(rows: Map<string, Map<string, LinkRow>>, inOrder: LinkRow[], from: string, to: string): LinkRow {
  const mine = rows.get(from) ?? new Map<string, LinkRow>();
  const known = mine.get(to);
  if (known !== undefined) return known;
  const made = { from, to, bytesPerFrame: 0, rawBytesPerFrame: 0 };
  rows.set(from, mine.set(to, made));
  inOrder.push(made);
  return made;
}

/** Nothing where there is no such list, as of the gateway's ends. */
function addAt(values: Float64Array | undefined, at: number, value: number): void {
  if (values !== undefined) values[at] = (values[at] ?? 0) + value;
}

function flowOf(cut: CutFacts, wire: Wire): Flow {
  const rawBytes = boxElements(wire.box) * wireItemBytes(cut, wire);
  const bytes = wire.encoding === 'raw' ? rawBytes : wireBytes(cut, wire);
  return { wire, bytes, rawBytes, handledBytes: wire.encoding === 'raw' ? bytes : bytes + CODED_COPIES * rawBytes };
}

/** A message of a port, if these flows are what leaves or reaches it. */
function encodedAs(flows: readonly Flow[], message: MessageBytes): MessageBytes {
  const total = (of: 'bytes' | 'rawBytes' | 'handledBytes'): number => flows.reduce((sum, flow) => sum + flow[of], 0);
  const raw = total('rawBytes');
  if (raw === 0) return message;
  return { bytes: (message.bytes * total('bytes')) / raw, handledBytes: (message.handledBytes * total('handledBytes')) / raw };
}

/** Bytes that a wire carries per frame, as it is encoded. */
export function wireBytes(cut: CutFacts, wire: Wire): number {
  return boxElements(wire.box) * encodedItemBytes(wire.encoding, wireItemBytes(cut, wire));
}

/** Bytes of one element, as the slices hold it. */
function wireItemBytes(cut: CutFacts, wire: Wire): number {
  const dtype =
    wire.fromStage === SOURCE
      ? cut.inputs[wire.output]?.dtype
      : cut.stages[wire.fromStage]?.parts[wire.fromPart]?.outputs[wire.output]?.dtype;
  return itemBytes(dtype ?? 'float32');
}

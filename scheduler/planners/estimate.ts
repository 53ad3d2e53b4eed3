/**
 * The first cost model: what a seated cut would do on these devices. Compute = MACs / probed MACs per second + a fixed cost per run;
 * a transfer = latency + bytes / bandwidth, one after another on each end; memory = weights + live activations + what waits in joins +
 * the engine's constant. Throughput = 1 / the busiest resource; latency = one frame alone in the system.
 */
import { SINK, SOURCE, type Wire } from '../../broker/plan.js';
import { boxDims, tensorBytes } from '../../broker/tensor.js';
import { DISPATCHER } from '../../broker/topics.js';
import type { CutFacts, Device, Link, Links, PartFacts, SeatedStage } from './problem.js';

/** Starting a run and collecting it, ms. */
export const RUN_OVERHEAD_MS = 0.5;
/** Encoding, sending and decoding one message, ms, besides its bytes. */
export const MESSAGE_OVERHEAD_MS = 0.2;
/** A process with an engine and no model: 112 MiB seen. */
export const ENGINE_BYTES = 112 * 2 ** 20;

export interface SeatEstimate {
  readonly stage: number;
  readonly replica: number;
  readonly part: number;
  readonly agent: string;
  readonly macs: number;
  readonly weightBytes: number;
  readonly ms: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
}

export interface Estimate {
  readonly latencyMs: number;
  readonly fps: number;
  /** The busiest resource and how long each frame keeps it, ms. */
  readonly bottleneck: { readonly kind: 'compute' | 'link'; readonly who: string; readonly ms: number };
  readonly seats: readonly SeatEstimate[];
  /** Bytes per frame; agents or the dispatcher; nothing for what stays on an agent. */
  readonly links: readonly { readonly from: string; readonly to: string; readonly bytesPerFrame: number }[];
  readonly memory: readonly { readonly agent: string; readonly needBytes: number; readonly haveBytes: number }[];
}

interface Flow {
  readonly wire: Wire;
  readonly bytes: number;
}

export function estimate(
  cut: CutFacts,
  stages: readonly SeatedStage[],
  devices: readonly Device[],
  links: Links,
  inFlight: number,
): Estimate {
  return new Estimator(cut, stages, devices, links).estimate(inFlight);
}

/** The agent of a part: parts are seated by the share that they were made of, so that bands stay where they are from stage to stage. */
export function seatOf(cut: CutFacts, stages: readonly SeatedStage[], stage: number, replica: number, part: number): string {
  const share = cut.stages[stage]?.partShares[part] ?? part;
  return stages[stage]?.agents[replica]?.[share] ?? '';
}

class Estimator {
  readonly #cut: CutFacts;
  readonly #stages: readonly SeatedStage[];
  readonly #devices: ReadonlyMap<string, Device>;
  readonly #links: Links;
  readonly #flows: readonly Flow[];
  /** Of each stage, the fraction of frames that each replica takes: the faster ones take more. */
  readonly #weights: readonly (readonly number[])[];

  constructor(cut: CutFacts, stages: readonly SeatedStage[], devices: readonly Device[], links: Links) {
    this.#cut = cut;
    this.#stages = stages;
    this.#devices = new Map(devices.map((d) => [d.agent, d]));
    this.#links = links;
    this.#flows = cut.wires.map((wire) => ({ wire, bytes: wireBytes(cut, wire) }));
    this.#weights = stages.map((stage, s) => {
      const slowest = stage.agents.map((_, r) => Math.max(...this.#parts(s).map((part, p) => this.#runMs(part, this.#seat(s, r, p)))));
      const total = slowest.reduce((sum, ms) => sum + 1 / ms, 0);
      return slowest.map((ms) => 1 / ms / total);
    });
  }

  estimate(inFlight: number): Estimate {
    const replicas = Math.max(1, ...this.#stages.map((stage) => stage.agents.length));
    let latencyMs = 0;
    for (let r = 0; r < replicas; r++) latencyMs = Math.max(latencyMs, this.#latencyMs(r));
    const bottleneck = this.#busiest();
    const fps = Math.min(1000 / bottleneck.ms, (inFlight * 1000) / latencyMs);
    return { latencyMs, fps, bottleneck, seats: this.#seats(), links: this.#linkRows(), memory: this.#memory(inFlight) };
  }

  /** One frame alone, through replica `r` of each stage (the last one where there are fewer). */
  #latencyMs(r: number): number {
    const free = new Map<string, number>();
    const arrivals = new Map<string, number>();
    let end = 0;
    const take = (resource: string, fromMs: number, ms: number): number => {
      const until = Math.max(fromMs, free.get(resource) ?? 0) + ms;
      free.set(resource, until);
      return until;
    };
    const send = (flow: Flow, readyMs: number): void => {
      const { wire } = flow;
      const from = this.#end(wire.fromStage, r, wire.fromPart);
      const to = this.#end(wire.toStage, r, wire.toPart);
      let at = readyMs;
      if (from !== to) {
        const link = this.#link(from, to);
        const ms = MESSAGE_OVERHEAD_MS + (flow.bytes / link.bytesPerSecond) * 1000;
        const left = take(`up ${from}`, readyMs, ms);
        at = Math.max(left + link.latencyMs, take(`down ${to}`, left - ms + link.latencyMs, ms));
      }
      const key = `${wire.toStage}/${wire.toPart}`;
      arrivals.set(key, Math.max(arrivals.get(key) ?? 0, at));
      if (wire.toStage === SINK) end = Math.max(end, at);
    };
    for (const flow of this.#flows) if (flow.wire.fromStage === SOURCE) send(flow, 0);
    for (let s = 0; s < this.#stages.length; s++) {
      const finished = this.#parts(s).map((part, p) => {
        const agent = this.#seat(s, Math.min(r, this.#lastReplica(s)), p);
        return take(`cpu ${agent}`, arrivals.get(`${s}/${p}`) ?? 0, this.#runMs(part, agent));
      });
      for (const flow of this.#flows) if (flow.wire.fromStage === s) send(flow, finished[flow.wire.fromPart] ?? 0);
      end = Math.max(end, ...finished);
    }
    return end;
  }

  #busiest(): Estimate['bottleneck'] {
    const compute = new Map<string, number>();
    for (const seat of this.#seats()) {
      add(compute, seat.agent, seat.ms * (this.#weights[seat.stage]?.[seat.replica] ?? 1));
    }
    const transfer = new Map<string, number>();
    for (const { from, to, bytes, share, messages } of this.#traffic()) {
      const ms = messages * MESSAGE_OVERHEAD_MS + (bytes / this.#link(from, to).bytesPerSecond) * 1000;
      add(transfer, `${from} up`, ms * share);
      add(transfer, `${to} down`, ms * share);
    }
    let busiest: Estimate['bottleneck'] = { kind: 'compute', who: '', ms: 1e-6 };
    for (const [who, ms] of compute) if (ms > busiest.ms) busiest = { kind: 'compute', who, ms };
    for (const [who, ms] of transfer) if (ms > busiest.ms) busiest = { kind: 'link', who, ms };
    return busiest;
  }

  /** What each pair of seats exchanges, with the share of frames that take this pair. */
  *#traffic(): Generator<{ from: string; to: string; bytes: number; share: number; messages: number }> {
    for (const { wire, bytes } of this.#flows) {
      const fromWeights = this.#weights[wire.fromStage] ?? [1];
      const toWeights = this.#weights[wire.toStage] ?? [1];
      for (const [i, a] of fromWeights.entries()) {
        for (const [j, b] of toWeights.entries()) {
          const from = this.#end(wire.fromStage, i, wire.fromPart);
          const to = this.#end(wire.toStage, j, wire.toPart);
          if (from !== to) yield { from, to, bytes, share: a * b, messages: 1 };
        }
      }
    }
  }

  #seats(): SeatEstimate[] {
    const rows: SeatEstimate[] = [];
    for (const [s, stage] of this.#stages.entries()) {
      for (let r = 0; r < stage.agents.length; r++) {
        for (const [p, part] of this.#parts(s).entries()) {
          const agent = this.#seat(s, r, p);
          const bytesIn = this.#sum((w) => w.toStage === s && w.toPart === p);
          const bytesOut = this.#sum((w) => w.fromStage === s && w.fromPart === p);
          const { macs, weightBytes } = part;
          rows.push({ stage: s, replica: r, part: p, agent, macs, weightBytes, ms: this.#runMs(part, agent), bytesIn, bytesOut });
        }
      }
    }
    return rows;
  }

  #linkRows(): Estimate['links'] {
    const rows = new Map<string, { from: string; to: string; bytesPerFrame: number }>();
    for (const { from, to, bytes, share } of this.#traffic()) {
      const key = `${from}>${to}`;
      rows.set(key, { from, to, bytesPerFrame: Math.round((rows.get(key)?.bytesPerFrame ?? 0) + bytes * share) });
    }
    return [...rows.values()];
  }

  #memory(inFlight: number): Estimate['memory'] {
    const need = new Map<string, number>();
    const activations = new Map<string, number>();
    for (const [s, stage] of this.#stages.entries()) {
      for (let r = 0; r < stage.agents.length; r++) {
        for (const [p, part] of this.#parts(s).entries()) {
          const agent = this.#seat(s, r, p);
          const waiting = part.inputs.reduce((sum, port) => sum + tensorBytes(port.dtype, boxDims(port.box)), 0);
          add(need, agent, part.weightBytes + inFlight * waiting);
          // Runs of one agent follow each other: the largest counts.
          activations.set(agent, Math.max(activations.get(agent) ?? 0, part.activationBytes));
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

  #runMs(part: PartFacts, agent: string): number {
    return RUN_OVERHEAD_MS + (part.macs / (this.#devices.get(agent)?.macsPerSecond ?? 1)) * 1000;
  }

  #link(from: string, to: string): Link {
    return this.#links.between.get(`${from}>${to}`) ?? this.#links.usual;
  }

  #sum(which: (wire: Wire) => boolean): number {
    return this.#flows.reduce((sum, flow) => sum + (which(flow.wire) ? flow.bytes : 0), 0);
  }
}

function add(map: Map<string, number>, key: string, value: number): void {
  map.set(key, (map.get(key) ?? 0) + value);
}

/** Bytes that a wire carries per frame, raw. */
export function wireBytes(cut: CutFacts, wire: Wire): number {
  const dtype =
    wire.fromStage === SOURCE
      ? cut.inputs[wire.output]?.dtype
      : cut.stages[wire.fromStage]?.parts[wire.fromPart]?.outputs[wire.output]?.dtype;
  return tensorBytes(dtype ?? 'float32', boxDims(wire.box));
}

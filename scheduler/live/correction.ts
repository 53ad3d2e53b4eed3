/**
 * How real frames run, against what was predicted: of each agent, and of each stage (nodes and cut) on it. Changes only by `observe` and `reset`; no clock.
 *
 * The ratio measured / predicted is kept as a logarithm, exponentially weighted. One observation moves it by a bounded step, so an outlier changes a plan by a few
 * per cent and a real change (heat, throttling, another program) has its way within about fifteen seconds. It counts in full only after some frames, and
 * fades when nothing is seen any more: what an hour ago was hot is cold now.
 */
import type { CutKind } from '../../models/slicing/partition.js';
import type { Correction } from '../planners/problem.js';

export interface Observation {
  readonly agent: string;
  /** The process: another one begins anew. */
  readonly nonce: string;
  /** What the prediction stood on (`basis` of planning): what a probe got wrong says nothing of a profile. */
  readonly basis: string;
  /** Whose nodes these are. */
  readonly model: string;
  readonly nodes: readonly [number, number];
  readonly cut: CutKind;
  /** Without any correction, ms; > 0. */
  readonly predictedMs: number;
  /** Mean of recent runs, ms. */
  readonly measuredMs: number;
  /** How much quicker a run may have been because its device had rested: one period of its CPU quota; default 0. Predictions are of long work. */
  readonly restedMs?: number;
  /** Frames run since the last observation of this stage; > 0. */
  readonly frames: number;
}

interface Track {
  /** Natural logarithm of measured / predicted. */
  log: number;
  frames: number;
  atMs: number;
}

interface StageTrack extends Track {
  readonly model: string;
  readonly nodes: readonly [number, number];
  readonly cut: CutKind;
}

interface BasisTrack {
  readonly all: Track;
  readonly stages: Map<string, StageTrack>;
}

interface AgentTrack {
  readonly nonce: string;
  /** The one heard of last is the last. */
  readonly bases: Map<string, BasisTrack>;
}

/** A track over a restart: its age stands in the place of its time, as no clock outlives its process. */
interface SavedTrack {
  readonly log: number;
  readonly frames: number;
  readonly ageMs: number;
}

/** All that is known of one process of an agent, by what its predictions stood on. */
export interface SavedCorrection {
  readonly agent: string;
  readonly nonce: string;
  readonly bases: readonly {
    readonly basis: string;
    readonly all: SavedTrack;
    readonly stages: readonly (SavedTrack & Pick<StageTrack, 'model' | 'nodes' | 'cut'>)[];
  }[];
}

/** Weight of one frame, and the most that one observation can weigh however many frames it tells of. */
const FRAME_WEIGHT = 0.1;
const MOST_WEIGHT = 0.3;
/** The step of one observation is that of a ratio of at most e^0.25. */
const STEP = 0.25;
/** Never below a quarter of what was predicted, never above eight times that. */
export const LEAST_FACTOR = 0.25;
export const MOST_FACTOR = 8;
/** Frames after which a ratio counts half. */
const HALF_TRUST_FRAMES = 5;
/** Silence after which it counts half. */
const HALF_LIFE_MS = 10 * 60_000;
/** Factors are rounded to steps of 5 %: like devices stay alike for planners, and what is within the noise is none. */
const ROUNDING = 0.05;
const MOST_STAGES = 200;
const MOST_BASES = 16;
const MOST_AGENTS = 5000;
/** Agents that are kept over a restart. */
const MOST_SAVED = 500;

export class LiveCorrection {
  readonly #agents = new Map<string, AgentTrack>();

  /** Figures that make no ratio are left out. */
  observe(seen: Observation, nowMs: number): void {
    const { agent, nonce, basis, model, nodes, cut, predictedMs, measuredMs, restedMs = 0, frames } = seen;
    if (!(predictedMs > 0 && measuredMs > 0 && frames > 0) || !Number.isFinite(predictedMs + measuredMs)) return;
    const known = this.#agents.get(agent);
    const { bases } = known?.nonce === nonce ? known : { bases: new Map<string, BasisTrack>() };
    putLast(this.#agents, agent, { nonce, bases }, MOST_AGENTS);
    const track = bases.get(basis) ?? { all: newTrack(nowMs), stages: new Map<string, StageTrack>() };
    putLast(bases, basis, track, MOST_BASES);
    const key = stageKey(model, nodes, cut);
    const stage = track.stages.get(key) ?? { ...newTrack(nowMs), model, nodes, cut };
    putLast(track.stages, key, stage, MOST_STAGES);
    for (const each of [track.all, stage]) {
      // Within what a rest explains nothing is learned.
      const expectedMs = predictedMs * Math.exp(each.log);
      const longMs = Math.min(measuredMs + restedMs, Math.max(measuredMs, expectedMs));
      move(each, Math.log(longMs / predictedMs), frames, nowMs);
    }
  }

  /** Everything, to be kept: of the agents heard of last, oldest first. */
  saved(nowMs: number): SavedCorrection[] {
    const save = ({ log, frames, atMs }: Track): SavedTrack => ({ log, frames, ageMs: Math.max(0, nowMs - atMs) });
    return [...this.#agents].slice(-MOST_SAVED).map(([agent, { nonce, bases }]) => ({
      agent,
      nonce,
      bases: [...bases].map(([basis, { all, stages }]) => ({
        basis,
        all: save(all),
        stages: [...stages.values()].map((stage) => ({ ...save(stage), model: stage.model, nodes: stage.nodes, cut: stage.cut })),
      })),
    }));
  }

  /** What was kept, before anything is observed. */
  restore(rows: readonly SavedCorrection[], nowMs: number): void {
    const track = ({ log, frames, ageMs }: SavedTrack): Track => ({ log, frames, atMs: nowMs - ageMs });
    for (const { agent, nonce, bases } of rows) {
      const tracks = bases.map(({ basis, all, stages }): [string, BasisTrack] => {
        const known = stages.map((stage): [string, StageTrack] => {
          const { model, nodes, cut } = stage;
          return [stageKey(model, nodes, cut), { ...track(stage), model, nodes, cut }];
        });
        return [basis, { all: track(all), stages: new Map(known) }];
      });
      putLast(this.#agents, agent, { nonce, bases: new Map(tracks) }, MOST_AGENTS);
    }
  }

  /** The agent is gone or another process. */
  reset(agent: string): void {
    this.#agents.delete(agent);
  }

  /** What planners multiply predictions of this model on this agent with, when they stand on `basis`; undefined = nothing to correct. */
  correction(agent: string, model: string, basis: string, nowMs: number): Correction | undefined {
    const track = this.#agents.get(agent)?.bases.get(basis);
    if (track === undefined) return undefined;
    const all = factorOf(track.all, nowMs);
    const stages = [...track.stages.values()]
      .filter((stage) => stage.model === model)
      .map((stage) => ({ nodes: stage.nodes, cut: stage.cut, factor: factorOf(stage, nowMs) }))
      .filter(({ factor }) => factor !== all)
      .sort((a, b) => a.nodes[0] - b.nodes[0] || a.nodes[1] - b.nodes[1] || (a.cut < b.cut ? -1 : 1));
    return all === 1 && stages.length === 0 ? undefined : { all, stages };
  }

  /** Of all that was seen there last, for people. */
  latest(agent: string, nowMs: number): number {
    const track = [...(this.#agents.get(agent)?.bases.values() ?? [])].at(-1);
    return track === undefined ? 1 : factorOf(track.all, nowMs);
  }
}

/** As `computeMs` of planners/cost.ts applies it. */
export function factorIn(correction: Correction | undefined, nodes: readonly [number, number], cut: CutKind): number {
  if (correction === undefined) return 1;
  const same = correction.stages.find((stage) => stage.cut === cut && stage.nodes[0] === nodes[0] && stage.nodes[1] === nodes[1]);
  return same?.factor ?? correction.all;
}

function stageKey(model: string, nodes: readonly [number, number], cut: CutKind): string {
  return `${model} ${nodes[0]}-${nodes[1]} ${cut}`;
}

/** Sets it as the newest, and drops the oldest beyond `most`. */
function putLast<T>(map: Map<string, T>, key: string, value: T, most: number): void {
  map.delete(key);
  map.set(key, value);
  const first = map.keys().next().value;
  if (map.size > most && first !== undefined) map.delete(first);
}

function newTrack(nowMs: number): Track {
  return { log: 0, frames: 0, atMs: nowMs };
}

function move(track: Track, log: number, frames: number, nowMs: number): void {
  // What has faded is not found again at its full height.
  track.log *= fading(track, nowMs);
  const weight = Math.min(MOST_WEIGHT, 1 - (1 - FRAME_WEIGHT) ** frames);
  const step = Math.max(-STEP, Math.min(STEP, log - track.log));
  const next = track.log + weight * step;
  track.log = Math.max(Math.log(LEAST_FACTOR), Math.min(Math.log(MOST_FACTOR), next));
  track.frames += frames;
  track.atMs = nowMs;
}

function fading({ atMs }: Track, nowMs: number): number {
  return 0.5 ** (Math.max(0, nowMs - atMs) / HALF_LIFE_MS);
}

function factorOf(track: Track, nowMs: number): number {
  const trust = track.frames / (track.frames + HALF_TRUST_FRAMES);
  const log = track.log * trust * fading(track, nowMs);
  const factor = Math.exp(Math.round(log / ROUNDING) * ROUNDING);
  return factor === 1 ? 1 : Number(factor.toFixed(4));
}

/**
 * How real frames run, against what was predicted: of each agent, of each model on it, and of each stage (nodes and cut) of that. Changes only by `observe` and `reset`; no clock.
 *
 * What is wrong from the start is wrong with the prediction of these layers (memory bandwidth of fully connected ones, say), and says nothing of another model's. What
 * changes while the same stage goes on running is the device (heat, another program): as much of it as all stages that run there have in common is the device's, and other
 * models are corrected by that alone.
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

interface ModelTrack extends Track {
  readonly model: string;
}

interface StageTrack extends Track {
  /** As `log`, but never fading, so that it can be compared with what it was. */
  level: number;
  /** Observations so far. */
  seen: number;
  /** The least level since it has settled; undefined = it has not. */
  usual: number | undefined;
  readonly model: string;
  readonly nodes: readonly [number, number];
  readonly cut: CutKind;
}

interface BasisTrack {
  readonly all: Track;
  readonly models: Map<string, ModelTrack>;
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
    readonly models: readonly (SavedTrack & { readonly model: string })[];
    readonly stages: readonly (SavedTrack &
      Pick<StageTrack, 'model' | 'nodes' | 'cut' | 'level' | 'seen'> & { readonly usual: number | null })[];
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
/** Stages that ran so shortly before the last one met the device as it is. */
const LATELY_MS = 60_000;
/** Factors are rounded to steps of 5 %: like devices stay alike for planners, and what is within the noise is none. */
const ROUNDING = 0.05;
/** Observations after which a stage runs as it usually does: the bounded steps have come to any factor by then. */
const SETTLED = 30;
/** A stage that runs so much slower than usual (logarithm) does so by chance. */
const CHANCE = 0.1;
const MOST_STAGES = 200;
const MOST_MODELS = 50;
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
    const track = bases.get(basis) ?? {
      all: newTrack(nowMs),
      models: new Map<string, ModelTrack>(),
      stages: new Map<string, StageTrack>(),
    };
    putLast(bases, basis, track, MOST_BASES);
    const whole = track.models.get(model) ?? { ...newTrack(nowMs), model };
    putLast(track.models, model, whole, MOST_MODELS);
    const key = stageKey(model, nodes, cut);
    const stage = track.stages.get(key) ?? { ...newTrack(nowMs), model, nodes, cut, level: 0, seen: 0, usual: undefined };
    putLast(track.stages, key, stage, MOST_STAGES);
    // Within what a rest explains nothing is learned.
    const against = (log: number): number => {
      const expectedMs = predictedMs * Math.exp(log);
      return Math.log(Math.min(measuredMs + restedMs, Math.max(measuredMs, expectedMs)) / predictedMs);
    };
    for (const each of [track.all, whole, stage]) move(each, against(each.log), frames, nowMs);
    stage.level = stepped(stage.level, against(stage.level), frames);
    stage.seen++;
    if (stage.seen >= SETTLED) stage.usual = Math.min(stage.usual ?? stage.level, stage.level);
  }

  /** Everything, to be kept: of the agents heard of last, oldest first. */
  saved(nowMs: number): SavedCorrection[] {
    const save = ({ log, frames, atMs }: Track): SavedTrack => ({ log, frames, ageMs: Math.max(0, nowMs - atMs) });
    return [...this.#agents].slice(-MOST_SAVED).map(([agent, { nonce, bases }]) => ({
      agent,
      nonce,
      bases: [...bases].map(([basis, { all, models, stages }]) => ({
        basis,
        all: save(all),
        models: [...models.values()].map((track) => ({ ...save(track), model: track.model })),
        stages: [...stages.values()].map(({ model, nodes, cut, level, seen, usual = null, ...track }) => ({
          ...save(track),
          ...{ model, nodes, cut, level, seen, usual },
        })),
      })),
    }));
  }

  /** What was kept, before anything is observed. */
  restore(rows: readonly SavedCorrection[], nowMs: number): void {
    const track = ({ log, frames, ageMs }: SavedTrack): Track => ({ log, frames, atMs: nowMs - ageMs });
    for (const { agent, nonce, bases } of rows) {
      const tracks = bases.map(({ basis, all, models, stages }): [string, BasisTrack] => {
        const wholes = models.map((saved): [string, ModelTrack] => [saved.model, { ...track(saved), model: saved.model }]);
        const known = stages.map((saved): [string, StageTrack] => {
          const { model, nodes, cut, level, seen, usual } = saved;
          return [stageKey(model, nodes, cut), { ...track(saved), model, nodes, cut, level, seen, usual: usual ?? undefined }];
        });
        return [basis, { all: track(all), models: new Map(wholes), stages: new Map(known) }];
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
    const own = track.models.get(model);
    const device = slowedBy(
      [...track.stages.values()].filter((stage) => stage.model !== model),
      nowMs,
    );
    const all = own === undefined ? rounded(device) : rounded(known(own, nowMs) * own.log + (1 - known(own, nowMs)) * device);
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
  track.log = stepped(track.log * fading(track, nowMs), log, frames);
  track.frames += frames;
  track.atMs = nowMs;
}

/** A bounded step from what was found so far towards what so many frames say. */
function stepped(from: number, to: number, frames: number): number {
  const weight = Math.min(MOST_WEIGHT, 1 - (1 - FRAME_WEIGHT) ** frames);
  const next = from + weight * Math.max(-STEP, Math.min(STEP, to - from));
  return Math.max(Math.log(LEAST_FACTOR), Math.min(Math.log(MOST_FACTOR), next));
}

/** How much slower than usual the device is, as a logarithm: what all stages have in common that have run there of late. 0 = nothing that they agree on. */
function slowedBy(stages: readonly StageTrack[], nowMs: number): number {
  const settled = stages.filter(({ usual }) => usual !== undefined);
  const latestMs = settled.reduce((latest, { atMs }) => Math.max(latest, atMs), Number.NEGATIVE_INFINITY);
  const slower = settled.filter(({ atMs }) => atMs >= latestMs - LATELY_MS).map(({ level, usual = level }) => level - usual);
  const least = slower.length === 0 ? 0 : Math.min(...slower);
  return least > CHANCE ? least * fading({ atMs: latestMs }, nowMs) : 0;
}

function fading({ atMs }: Pick<Track, 'atMs'>, nowMs: number): number {
  return 0.5 ** (Math.max(0, nowMs - atMs) / HALF_LIFE_MS);
}

/** Which part of what was found counts: few frames and old ones say little. */
function known(track: Track, nowMs: number): number {
  return (track.frames / (track.frames + HALF_TRUST_FRAMES)) * fading(track, nowMs);
}

function factorOf(track: Track, nowMs: number): number {
  return rounded(track.log * known(track, nowMs));
}

function rounded(log: number): number {
  const factor = Math.exp(Math.round(log / ROUNDING) * ROUNDING);
  return factor === 1 ? 1 : Number(factor.toFixed(4));
}

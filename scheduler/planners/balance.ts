/**
 * Divides frames among replicas whose agents have other seats, too. By speed alone an agent that holds a part of a large layer besides would get as many frames as
 * one that has nothing else to do, and be the busiest by far. Here each replica takes what its agents have room for beside the rest: all agents that can help are
 * equally busy then, which no other division beats. One stage after the other, as what one takes is what the next finds taken. Pure.
 */
import { burdens } from './estimate.js';
import type { CutFacts, Device, Links, SeatedStage } from './problem.js';

/** With several replicated stages each is divided anew as the others have moved. */
const ROUNDS = 4;
/** Of the search for the time that each frame may keep an agent: halving it so often leaves nothing to find. */
const HALVINGS = 40;
/** A replica that would take less than this part of an even share stays out: its frames would take several times as long as others, and it costs memory for little. */
const LEAST_SHARE = 0.2;
/** What cannot go elsewhere counts so much more: all frames pass it, and where it waits because its agent was given too much besides, everybody waits. */
const RESERVE = 1.1;
/** Digits of a weight: what plan files show. */
const DIGITS = 4;

/** The same stages with weights, and without replicas that would hardly take a frame. Stages whose replicas go strictly in turn stay as they are. */
export function balanced(cut: CutFacts, stages: readonly SeatedStage[], devices: readonly Device[], links: Links): readonly SeatedStage[] {
  const free = [...stages.keys()].filter((s) => (stages[s]?.agents.length ?? 0) > 1 && stages[s]?.inTurn !== true);
  if (free.length === 0) return stages;
  const { replicas } = burdens(cut, stages, devices, links);
  let current = stages;
  for (let round = 0; round < (free.length > 1 ? ROUNDS : 1); round++) {
    for (const s of free) {
      const { loads, weights } = burdens(cut, current, devices, links);
      const rows = (replicas[s] ?? []).map((keeps, r) => roomOf(keeps, loads, weights[s]?.[r] ?? 0));
      current = current.map((stage, at) => (at === s ? { ...stage, weights: divided(rows) } : stage));
    }
  }
  const useful = current.map((stage, s) => (free.includes(s) ? withoutIdle(stage) : stage));
  // What is left takes a little more.
  return useful.some((stage, s) => stage !== current[s]) ? balanced(cut, useful, devices, links) : current;
}

/** Of one resource: how long a frame of this replica keeps it, and how long all else does, ms per frame of the deployment. */
interface Room {
  readonly ms: number;
  readonly elseMs: number;
}

function roomOf(keeps: ReadonlyMap<string, number>, loads: ReadonlyMap<string, number>, weight: number): readonly Room[] {
  return [...keeps]
    .filter(([, ms]) => ms > 0)
    .map(([resource, ms]) => ({ ms, elseMs: RESERVE * Math.max(0, (loads.get(resource) ?? 0) - weight * ms) }));
}

/** The weights with which the busiest resource is kept for the shortest time. */
function divided(replicas: readonly (readonly Room[])[]): number[] {
  const takes = (limitMs: number): number[] =>
    replicas.map((rooms) => rooms.reduce((least, { ms, elseMs }) => Math.max(0, Math.min(least, (limitMs - elseMs) / ms)), 1));
  // So long, any one replica could take all frames.
  let high = Math.max(...replicas.flat().map(({ ms, elseMs }) => ms + elseMs));
  let low = 0;
  for (let step = 0; step < HALVINGS; step++) {
    const middle = (low + high) / 2;
    if (sum(takes(middle)) >= 1) high = middle;
    else low = middle;
  }
  const found = takes(high);
  const total = sum(found);
  return found.map((take) => Number((take / total).toFixed(DIGITS)));
}

function withoutIdle(stage: SeatedStage): SeatedStage {
  const { agents, weights = [] } = stage;
  const least = (LEAST_SHARE * sum(weights)) / agents.length;
  const kept = [...agents.keys()].filter((r) => (weights[r] ?? 0) >= least);
  if (kept.length === agents.length) return stage;
  return { ...stage, agents: kept.map((r) => agents[r] ?? []), weights: kept.map((r) => weights[r] ?? 0) };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

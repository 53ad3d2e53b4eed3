/**
 * From measured pairs to what planners take: what each end's own link carries, and the few pairs that this does not explain. Pure.
 *
 * Throughput of a pair is the lesser of the sender's way up and the receiver's way down, so an end can do at least the best that was measured with it, and exactly
 * that when its counterpart was seen to do more with somebody else, or when two counterparts came to the same. Of what only one counterpart bounds, the
 * dispatcher is held to be the limit (it takes part in most measurements); the other end is taken to be as the others that are known, else as links usually
 * are. Such hope costs little: what a draft then uses is measured before it is deployed.
 *
 * Ends within the noise of measuring are made equal, so that devices stay in classes and planning stays quick.
 */
import { DISPATCHER } from '../../broker/topics.js';
import { MESSAGE_OVERHEAD_MS } from '../planners/cost.js';
import type { AccessLink, Link, Links } from '../planners/problem.js';
import { type LinkEntry, pairKey } from './table.js';

export interface LinkModel {
  readonly gateway: AccessLink | undefined;
  readonly agents: ReadonlyMap<string, AccessLink>;
  readonly between: ReadonlyMap<string, Link>;
}

/** Speeds nearer than this are one. */
const NOISE = 0.15;
/** A pair beyond this from what its ends say is named by itself. */
const DEVIATION = 1.35;
/** And in latency: beyond so many ms and by half. */
const LATENCY_DEVIATION_MS = 1;
const LEAST_LATENCY_MS = 0.01;

/** `sameHost`: what two agents of one machine measure says nothing of their links to others. */
export function linkModel(entries: readonly LinkEntry[], usual: Link, sameHost: (a: string, b: string) => boolean): LinkModel {
  const rows = entries.map((row) => ({
    ...row,
    bytesPerSecond: row.doubt === undefined ? row.bytesPerSecond : row.doubt.bytesPerSecond,
    latencyMs: Math.max(LEAST_LATENCY_MS, row.latencyMs - MESSAGE_OVERHEAD_MS),
  }));
  const outside = new Set(rows.flatMap(({ from, to }) => (sameHost(from, to) ? [] : [from, to])));
  // Where all ends are on one machine, that is their network.
  const within = (from: string, to: string): boolean => sameHost(from, to) && (outside.has(from) || outside.has(to));
  const network = rows.filter(({ from, to, lane }) => lane !== 'relay' && !within(from, to));
  const up = capacities(
    network.map(({ from, to, bytesPerSecond }) => ({ end: from, far: to, bytesPerSecond })),
    usual,
  );
  const down = capacities(
    network.map(({ from, to, bytesPerSecond }) => ({ end: to, far: from, bytesPerSecond })),
    usual,
  );
  const latency = latencies(network, usual);
  const ends = new Map<string, AccessLink>();
  for (const name of new Set(rows.flatMap(({ from, to }) => [from, to]))) {
    ends.set(name, {
      upBytesPerSecond: up.get(name) ?? usual.bytesPerSecond,
      downBytesPerSecond: down.get(name) ?? usual.bytesPerSecond,
      latencyMs: latency.get(name) ?? usual.latencyMs / 2,
    });
  }
  const between = new Map<string, Link>();
  for (const { from, to, bytesPerSecond, latencyMs } of rows) {
    const [a, b] = [ends.get(from), ends.get(to)];
    if (a === undefined || b === undefined) continue;
    const said = { bytesPerSecond: Math.min(a.upBytesPerSecond, b.downBytesPerSecond), latencyMs: a.latencyMs + b.latencyMs };
    if (deviates(said, { bytesPerSecond, latencyMs })) between.set(pairKey(from, to), { bytesPerSecond, latencyMs });
  }
  const gateway = ends.get(DISPATCHER);
  ends.delete(DISPATCHER);
  return { gateway, agents: ends, between };
}

/** The model within what the gateway was told. */
export function linksOf(model: LinkModel, told: Links): Links {
  return {
    ...told,
    ...(model.gateway === undefined ? {} : { gateway: model.gateway }),
    between: new Map([...told.between, ...model.between]),
  };
}

function deviates(said: Link, seen: Link): boolean {
  const ratio = seen.bytesPerSecond / said.bytesPerSecond;
  const later = Math.abs(seen.latencyMs - said.latencyMs);
  return ratio > DEVIATION || ratio < 1 / DEVIATION || (later > LATENCY_DEVIATION_MS && later > said.latencyMs / 2);
}

interface Sample {
  readonly end: string;
  readonly far: string;
  readonly bytesPerSecond: number;
}

/** Of one direction: what each end's own link carries. */
function capacities(samples: readonly Sample[], usual: Link): Map<string, number> {
  const top = new Map<string, number>();
  const farTop = new Map<string, number>();
  for (const { end, far, bytesPerSecond } of samples) {
    top.set(end, Math.max(top.get(end) ?? 0, bytesPerSecond));
    farTop.set(far, Math.max(farTop.get(far) ?? 0, bytesPerSecond));
  }
  const known = new Map<string, number>();
  for (const [end, most] of top) {
    const near = samples.filter((sample) => sample.end === end && sample.bytesPerSecond >= most * (1 - NOISE));
    const bounded = near.some(({ far }) => (farTop.get(far) ?? 0) * (1 - NOISE) > most);
    if (end === DISPATCHER || bounded || near.length > 1) known.set(end, most);
  }
  const others = [...known].filter(([end]) => end !== DISPATCHER).map(([, value]) => value);
  const all = new Map([...top].map(([end, most]) => [end, known.get(end) ?? hoped(most, others, usual)]));
  return grouped(all, NOISE, 0);
}

/** An end that did at least `most`. */
function hoped(most: number, others: readonly number[], usual: Link): number {
  const like = others.filter((value) => value >= most * (1 - NOISE)).sort((a, b) => a - b);
  return Math.max(most, like[Math.floor((like.length - 1) / 2)] ?? usual.bytesPerSecond);
}

/** Of each end so that the sums over pairs fit: half of the dispatcher's shortest is its own. */
function latencies(rows: readonly LinkEntry[], usual: Link): Map<string, number> {
  const near = new Map<string, number>();
  for (const { from, to, latencyMs } of rows) {
    for (const [end, far] of [
      [from, to],
      [to, from],
    ] as const) {
      if (far === DISPATCHER) near.set(end, Math.min(near.get(end) ?? Number.POSITIVE_INFINITY, latencyMs));
    }
  }
  const own = near.size === 0 ? usual.latencyMs / 2 : Math.min(...near.values()) / 2;
  const found = new Map([...near].map(([end, ms]) => [end, Math.max(LEAST_LATENCY_MS, ms - own)]));
  found.set(DISPATCHER, own);
  for (const { from, to, latencyMs } of rows) {
    for (const end of [from, to]) if (!found.has(end)) found.set(end, latencyMs / 2);
  }
  return grouped(found, 0.3, 0.15);
}

/** Values that are near each other, in ratio or in difference, become their median. */
function grouped(values: ReadonlyMap<string, number>, ratio: number, difference: number): Map<string, number> {
  const sorted = [...values].sort((a, b) => a[1] - b[1]);
  const result = new Map<string, number>();
  for (let i = 0; i < sorted.length; ) {
    const first = sorted[i]?.[1] ?? 0;
    const limit = Math.max(first / (1 - ratio), first + difference);
    const group = sorted.slice(i).filter(([, value]) => value <= limit);
    const middle = group[Math.floor((group.length - 1) / 2)]?.[1] ?? first;
    for (const [name] of group) result.set(name, middle);
    i += group.length;
  }
  return result;
}

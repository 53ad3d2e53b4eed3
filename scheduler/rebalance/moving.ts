/** What it takes to get from one plan to another: bytes to fetch, slices to load, and the agents whose memory does not hold both. Pure. */
import { ENGINE_BYTES } from '../planners/cost.js';
import type { AccessLink, Links, PlanDraft } from '../planners/problem.js';

/** Loading and warming up: a fixed time, and weights at a rate, on one core (AlexNet's 233 MiB: 0.64 s with 0.18 core). */
const LOAD_MS = 50;
const LOAD_BYTES_PER_SECOND = 2e9;

export interface AgentMove {
  readonly agent: string;
  /** Weights that are new to it: most that it may have to fetch. */
  readonly bytes: number;
  readonly loadMs: number;
  /** Its seats of both plans do not fit into its memory. */
  readonly tight: boolean;
}

export interface MoveInput {
  readonly from: PlanDraft;
  readonly to: PlanDraft;
  /** Of one core or more: 1. */
  readonly cpuOf: (agent: string) => number;
}

/** Every agent of the new plan, and what is new there. */
export function agentMoves({ from, to, cpuOf }: MoveInput): AgentMove[] {
  const before = seatsOf(from);
  const needBefore = new Map(from.estimate.memory.map(({ agent, needBytes }) => [agent, needBytes]));
  const moves: AgentMove[] = [];
  for (const [agent, seats] of seatsOf(to)) {
    const old = before.get(agent);
    let bytes = 0;
    let fresh = 0;
    let kept = 0;
    for (const [key, weightBytes] of seats) {
      if (old?.has(key) === true) kept += weightBytes;
      else {
        bytes += weightBytes;
        fresh++;
      }
    }
    const loadMs = fresh * LOAD_MS + (1000 * bytes) / (LOAD_BYTES_PER_SECOND * cpuOf(agent));
    const memory = to.estimate.memory.find((row) => row.agent === agent);
    const together = (memory?.needBytes ?? 0) + Math.max(0, (needBefore.get(agent) ?? ENGINE_BYTES) - ENGINE_BYTES) - kept;
    const tight = fresh > 0 && old !== undefined && memory !== undefined && memory.haveBytes > 0 && together > memory.haveBytes;
    moves.push({ agent, bytes, loadMs, tight });
  }
  return moves;
}

/** How long preparing takes: blobs come from the gateway, whose link all share; agents load side by side. */
export function prepareMs(moves: readonly AgentMove[], links: Links, access: ReadonlyMap<string, AccessLink>): number {
  const upBytesPerSecond = links.gateway?.upBytesPerSecond ?? links.usual.bytesPerSecond;
  const all = moves.reduce((sum, { bytes }) => sum + bytes, 0);
  const each = moves.map(({ agent, bytes, loadMs }) => {
    const down = access.get(agent)?.downBytesPerSecond ?? links.usual.bytesPerSecond;
    return (1000 * bytes) / down + loadMs;
  });
  return Math.max((1000 * all) / Math.min(upBytesPerSecond, links.sharedBytesPerSecond ?? Number.POSITIVE_INFINITY), 0, ...each);
}

/** Of each agent the slices that it holds, with their weights: equal ones are one. */
function seatsOf({ stages, cut, estimate }: PlanDraft): Map<string, Map<string, number>> {
  const seats = new Map<string, Map<string, number>>();
  for (const { stage, part, agent, weightBytes } of estimate.seats) {
    const spec = stages[stage]?.spec;
    if (spec === undefined) continue;
    const share = cut.stages[stage]?.partShares[part] ?? part;
    const total = spec.shares.reduce((sum, value) => sum + value, 0);
    const start = spec.shares.slice(0, share).reduce((sum, value) => sum + value, 0) / total;
    const end = start + (spec.shares[share] ?? 0) / total;
    const mine = seats.get(agent) ?? new Map<string, number>();
    mine.set(`${spec.nodes.join('-')} ${spec.cut} ${start.toFixed(6)}-${end.toFixed(6)}`, weightBytes);
    seats.set(agent, mine);
  }
  return seats;
}

/** Equal for plans that seat the same slices on the same agents and send the same bytes. */
export function planKey({ stages, cut, inFlight }: PlanDraft): string {
  const seats = stages.map(({ spec, agents }) => {
    const total = spec.shares.reduce((sum, share) => sum + share, 0);
    return [spec.nodes, spec.cut, spec.shares.map((share) => (share / total).toFixed(6)), agents];
  });
  return JSON.stringify([seats, cut.wires.map(({ encoding }) => encoding), inFlight]);
}

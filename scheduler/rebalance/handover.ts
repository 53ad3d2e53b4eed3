/**
 * Old and new seats do not fit together on some agents: there the old ones go first. Which agents change before the new plan is switched to, in which order, and how
 * long no frame can run meanwhile. Pure.
 *
 *   one by one, as long as the old plan has a route without them  ->  the rest of what the new plan needs for one route, together: a pause  ->  switch
 *   ->  the old plan has drained: all others
 */

/** `groups[stage][replica]`: the agents that hold its parts. */
export type Groups = readonly (readonly (readonly string[])[])[];

export function groupsOf({ stages }: { readonly stages: readonly { readonly agents: Groups[number] }[] }): Groups {
  return stages.map(({ agents }) => agents);
}

export interface HandoverInput {
  readonly from: Groups;
  readonly to: Groups;
  /** Agents that cannot hold both, and how long each loads, ms. */
  readonly tight: ReadonlyMap<string, number>;
  /** How long frames under way take to leave, ms. */
  readonly drainMs: number;
}

export interface Handover {
  /** Each group lets go of its old seats, then prepares the new ones; then the next. Agents that nobody misses are groups of one. */
  readonly before: readonly (readonly string[])[];
  /** After the switch, when the old plan has drained. */
  readonly after: readonly string[];
  /** No frame can run for about so long. */
  readonly pauseMs: number;
}

export const NO_HANDOVER: Handover = { before: [], after: [], pauseMs: 0 };

/** Routes of the new plan that are looked at. */
const MOST_ROUTES = 2000;

export function handover({ from, to, tight, drainMs }: HandoverInput): Handover {
  const used = new Set(to.flat(2));
  const all = [...tight.keys()].filter((agent) => used.has(agent));
  if (all.length === 0) return NO_HANDOVER;
  let best: Handover | undefined;
  for (const need of neededSets(to, tight)) {
    const found = inOrder(from, [...need], all, tight, drainMs);
    if (best === undefined || found.pauseMs < best.pauseMs || (found.pauseMs === best.pauseMs && count(found) < count(best))) best = found;
    if (best.pauseMs === 0 && best.before.length === 0) break;
  }
  return best ?? NO_HANDOVER;
}

/** These agents must change before the switch. Those first that the old plan can spare. */
function inOrder(
  from: Groups,
  need: readonly string[],
  all: readonly string[],
  tight: ReadonlyMap<string, number>,
  drainMs: number,
): Handover {
  const before: string[][] = [];
  const gone = new Set<string>();
  let rest = [...need];
  for (;;) {
    const next = rest.find((agent) => routeWithout(from, new Set([...gone, agent])));
    if (next === undefined) break;
    gone.add(next);
    before.push([next]);
    rest = rest.filter((agent) => agent !== next);
  }
  const pauseMs = rest.length === 0 ? 0 : drainMs + Math.max(...rest.map((agent) => tight.get(agent) ?? 0));
  if (rest.length > 0) before.push(rest);
  return { before, after: all.filter((agent) => !need.includes(agent)), pauseMs };
}

/** The tight agents of each route of the new plan: what must be there before it can serve. Of many routes, those with few. */
function neededSets(to: Groups, tight: ReadonlyMap<string, number>): Set<string>[] {
  let sets: Set<string>[] = [new Set()];
  for (const replicas of to) {
    const next: Set<string>[] = [];
    for (const set of sets) {
      for (const replica of replicas) next.push(new Set([...set, ...replica.filter((agent) => tight.has(agent))]));
    }
    const distinct = new Map(next.map((set) => [[...set].sort().join(' '), set]));
    sets = [...distinct.values()].sort((a, b) => a.size - b.size).slice(0, MOST_ROUTES);
  }
  return sets;
}

function routeWithout(plan: Groups, gone: ReadonlySet<string>): boolean {
  return plan.every((replicas) => replicas.some((agents) => !agents.some((agent) => gone.has(agent))));
}

function count({ before }: Handover): number {
  return before.reduce((sum, group) => sum + group.length, 0);
}

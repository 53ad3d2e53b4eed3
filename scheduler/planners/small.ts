/** Few blocks on few devices: nothing is left out. */

import type { Layout } from './cells.js';
import { slowdown } from './cost.js';
import { best, draft, nameOf, score, within } from './draft.js';
import { exact } from './exact.js';
import { everyLayout, FEW_DEVICES } from './options.js';
import { classKeys, type Device, type PlanDraft, type PlanProblem, type PlanRefusal } from './problem.js';

/** Of so many blocks on FEW_DEVICES, all plans are searched. */
const FEW_BLOCKS = 8;
/**
 * Over which layouts (`quarters`: whole, replicated, or cut in shares of quarters; `lean`: in shares by speed, too; `all`: with the devices the other way round, too), and how widely. Narrow ones
 * first: what they find is the bound of the next, which then drops so much more that it sees further with the same effort. What looks bad early may be all that fits, so the last is
 * the widest. Quarters are searched by themselves only where blocks are few: of more there are too many plans to see most of them, and it would take twice as long.
 */
const PASSES = [
  { over: 'quarters', width: 100, effort: 100_000 },
  { over: 'quarters', width: 300, effort: 100_000 },
  { over: 'quarters', width: 1000, effort: 100_000 },
  { over: 'lean', width: 1000, effort: 100_000 },
  { over: 'all', width: 1000, effort: 100_000 },
  { over: 'quarters', width: 3000, effort: 200_000 },
] as const;
const QUARTERED_BLOCKS = 6;
/** With more blocks there are more plans than can be looked at anyway: each pass gets this part of its effort, so that planning stays near a second. */
const LESS = 0.3;
/** Of a plan's score: a smaller gain is within any error of the costs. */
const WORTH = 0.003;

export function isSmall({ devices, facts }: PlanProblem): boolean {
  return devices.length <= FEW_DEVICES && facts.blocks.length <= FEW_BLOCKS;
}

/**
 * Few blocks on few devices: a search over all stages and layouts there are (exact.ts), again and again with what was found as the value to beat, until one of them has seen
 * everything. A gain of less than `WORTH` is not looked for.
 */
export function small(problem: PlanProblem, known: readonly PlanDraft[]): (PlanDraft | PlanRefusal)[] {
  const keys = new Map(classKeys(problem.devices, problem.links).map((key, d) => [problem.devices[d]?.agent ?? '', key]));
  // Equal devices beside each other: the search tries one for all of them.
  const devices = [...problem.devices].sort(
    (a, b) => speed(b) - speed(a) || (keys.get(a.agent) ?? '').localeCompare(keys.get(b.agent) ?? '') || (a.agent < b.agent ? -1 : 1),
  );
  const found: (PlanDraft | PlanRefusal)[] = [];
  const { objective } = problem;
  const done = new Set<string>();
  const share = problem.facts.blocks.length > QUARTERED_BLOCKS ? LESS : 1;
  const layouts = {
    quarters: quarters(devices, objective),
    lean: everyLayout(devices, objective, true),
    all: everyLayout(devices, objective, false),
  };
  for (const { over, width, effort } of PASSES) {
    if (done.has(over) || (over === 'quarters' && problem.facts.blocks.length > QUARTERED_BLOCKS)) continue;
    const incumbent = best([...known, ...within(problem, found)], objective);
    const bound = incumbent === undefined ? Number.POSITIVE_INFINITY : score(incumbent.estimate, objective) * (1 - WORTH);
    const limits = { bound, finalists: 20, width, effort: share * effort };
    const { plans, complete } = exact({ ...problem, devices }, layouts[over], limits);
    found.push(...plans.map(({ stages }) => draft(problem, nameOf(stages), stages)));
    if (complete) done.add(over);
    if (complete && over === 'all') break;
  }
  return found;
}

function quarters(devices: readonly Device[], objective: PlanProblem['objective']): Layout[] {
  return everyLayout(devices, objective, true).filter(({ shares }) => shares.every((share) => Number.isInteger(4 * share)));
}

function speed(device: Device): number {
  return device.macsPerSecond / slowdown(device);
}

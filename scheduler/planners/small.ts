/** Few blocks on few devices: nothing is left out. */

import type { Layout } from './cells.js';
import { ENGINE_BYTES, slowdown } from './cost.js';
import { best, draft, nameOf, score, within } from './draft.js';
import { exact } from './exact.js';
import { everyLayout, FEW_DEVICES } from './options.js';
import { classKeys, type Device, type PlanDraft, type PlanProblem, type PlanRefusal } from './problem.js';

/** Of so many blocks on FEW_DEVICES, all plans are searched. */
const FEW_BLOCKS = 8;
const PASSES = [
  { lean: true, width: 1000, effort: 100_000 },
  { lean: false, width: 1000, effort: 100_000 },
  { lean: true, width: Number.POSITIVE_INFINITY, effort: 250_000 },
];
/** Only so few blocks are searched as widely as the last pass, and only where memory is tight. */
const WIDE_BLOCKS = 6;
/** With more blocks there are more plans than can be looked at anyway: each pass gets this part of its effort, so that planning stays near a second. */
const LESS = 0.3;
/** Of a plan's score: a smaller gain is within any error of the costs. */
const WORTH = 0.003;

export function isSmall({ devices, facts }: PlanProblem): boolean {
  return devices.length <= FEW_DEVICES && facts.blocks.length <= FEW_BLOCKS;
}

/**
 * Few blocks on few devices: a search over all stages and layouts there are (exact.ts), again and again with what was found as the value to beat: over few
 * layouts, over all of them, and where the first did not see everything, wider.
 * A gain of less than `WORTH` is not looked for.
 */
export function small(problem: PlanProblem, known: readonly PlanDraft[]): (PlanDraft | PlanRefusal)[] {
  const keys = new Map(classKeys(problem.devices, problem.links).map((key, d) => [problem.devices[d]?.agent ?? '', key]));
  // Equal devices beside each other: the search tries one for all of them.
  const devices = [...problem.devices].sort(
    (a, b) => speed(b) - speed(a) || (keys.get(a.agent) ?? '').localeCompare(keys.get(b.agent) ?? '') || (a.agent < b.agent ? -1 : 1),
  );
  const found: (PlanDraft | PlanRefusal)[] = [];
  const { objective } = problem;
  let all = false;
  const share = problem.facts.blocks.length > WIDE_BLOCKS ? LESS : 1;
  for (const { lean, width, effort } of PASSES) {
    if (all && lean) continue;
    if (width > 1000 && (problem.facts.blocks.length > WIDE_BLOCKS || !isTight(problem))) continue;
    const incumbent = best([...known, ...within(problem, found)], objective);
    const bound = incumbent === undefined ? Number.POSITIVE_INFINITY : score(incumbent.estimate, objective) * (1 - WORTH);
    const { plans, complete } = exact(
      { ...problem, devices },
      width > 1000 ? quarters(devices, objective) : everyLayout(devices, objective, lean),
      {
        ...{ bound, finalists: 20, width, effort: share * effort },
      },
    );
    found.push(...plans.map(({ stages }) => draft(problem, nameOf(stages), stages)));
    if (complete) all ||= lean;
    if (complete && !lean) break;
  }
  return found;
}

/** Few layouts, but followed without a width as long as the effort lasts: what looks bad early may be all that fits. */
function quarters(devices: readonly Device[], objective: PlanProblem['objective']): Layout[] {
  return everyLayout(devices, objective, true).filter(({ shares }) => shares.every((share) => Number.isInteger(4 * share)));
}

/** Some device cannot hold the model: then the best beginnings may leave no room for what follows, and more of them must be kept. */
function isTight({ devices, facts }: PlanProblem): boolean {
  const weights = facts.blocks.reduce((sum, block) => sum + block.weightBytes, 0);
  return devices.some(({ memoryBytes }) => memoryBytes > 0 && memoryBytes < weights + ENGINE_BYTES);
}

function speed(device: Device): number {
  return device.macsPerSecond / slowdown(device);
}

/** More blocks or devices than can be searched whole: teams for latency, groups of devices that each have all of the model, and a beam search over the block table. */
import type { BlockTable } from './block-table.js';
import { best, draft, nameOf, score, within } from './draft.js';
import { improve } from './improve.js';
import { FEW_DEVICES } from './options.js';
import { bySpeed, classesOf, type Device, type PlanDraft, type PlanProblem, type PlanRefusal, type SeatedStage } from './problem.js';
import { search } from './search.js';
import { teams } from './teams.js';

/** More devices than this: the fastest of each class stand for all; the states would be too many. */
const SEARCHED_DEVICES = 16;
/** Roughly how many stages the beam search may price. */
const SEARCH_EFFORT = 40_000;
/** Roughly how many wires may be made to improve what was found. */
const IMPROVE_EFFORT = 2000;
const MOST_GROUPS = 8;

/** The best teams by the table, cut and estimated, and the best of them improved. */
export function teamed(problem: PlanProblem, table: BlockTable): (PlanDraft | PlanRefusal)[] {
  const devices = bySpeed(problem.devices).slice(0, SEARCHED_DEVICES);
  const judged = teams(problem, table, devices, 2).map((stages) => draft(problem, nameOf(stages), stages));
  // Those for latency are refined by who asked (refine.ts).
  const quickest = problem.objective === 'latency' ? undefined : best(within(problem, judged), problem.objective);
  return [...judged, ...(quickest === undefined ? [] : improved(problem, table, devices, [quickest]))];
}

/** As many frames at a time as there are groups: each group has a team's plan, with the same shares, as its devices are alike. */
export function grouped(problem: PlanProblem, table: BlockTable): (PlanDraft | PlanRefusal)[] {
  const sorted = bySpeed(problem.devices);
  const found: (PlanDraft | PlanRefusal)[] = [];
  for (let count = 2; count <= Math.min(MOST_GROUPS, sorted.length / 2); count++) {
    const size = Math.floor(sorted.length / count);
    if (size > SEARCHED_DEVICES) continue;
    // Dealt like cards, fastest first, so that each group has some of all kinds; the first one has the fastest of each round, so it is the last that is planned for.
    const groups = Array.from({ length: count }, (_, g) =>
      Array.from({ length: size }, (_, i) => sorted[i * count + g]).filter((d) => d !== undefined),
    );
    const [stages] = teams(problem, table, groups.at(-1) ?? [], 1);
    if (stages === undefined) continue;
    const seat = new Map((groups.at(-1) ?? []).map(({ agent }, i) => [agent, i]));
    const all = stages.map(
      ({ spec, agents }): SeatedStage => ({
        spec,
        agents: groups.map((group) => (agents[0] ?? []).map((agent) => group[seat.get(agent) ?? 0]?.agent ?? agent)),
      }),
    );
    found.push(draft(problem, `groups:${count}`, all));
  }
  return found;
}

function improved(problem: PlanProblem, table: BlockTable, devices: readonly Device[], starts: readonly PlanDraft[]): PlanDraft[] {
  return starts.map((plan) => {
    const budget = { left: Math.min(40, Math.floor(IMPROVE_EFFORT / Math.max(1, plan.cut.wires.length))) };
    const better = improve(problem, table, devices, plan, budget);
    return { ...better, planner: nameOf(better.stages) };
  });
}

/** The dynamic program, its finalists cut and estimated; of many devices those that represent the classes best. */
export function beam(problem: PlanProblem, table: BlockTable, known: readonly PlanDraft[]): (PlanDraft | PlanRefusal)[] {
  const devices = representatives(problem);
  const incumbent = best(known, problem.objective);
  const bound = incumbent === undefined ? Number.POSITIVE_INFINITY : score(incumbent.estimate, problem.objective);
  const options = devices.length <= FEW_DEVICES ? 60 : 20;
  const pricing = ((table.length * (table.length + 1)) / 2) * options * Math.max(1, devices.length / 4);
  const width = Math.floor(SEARCH_EFFORT / pricing);
  if (width < 2 || devices.length < 2) return [];
  // The table takes every stage to begin when all of the one before has arrived: what it puts a little above the bound may be below it in truth.
  const found = search(problem, table, devices, { width, finalists: 6, bound: bound * 1.02 });
  const judged = found.map((stages) => draft(problem, nameOf(stages), stages));
  const starts = [...within(problem, judged), ...known].sort(
    (a, b) => score(a.estimate, problem.objective) - score(b.estimate, problem.objective),
  );
  return [...judged, ...improved(problem, table, devices, starts.slice(0, 2))];
}

/** The fastest of each class in turn, so that all kinds are there. */
function representatives(problem: PlanProblem): Device[] {
  const devices = bySpeed(problem.devices);
  if (devices.length <= SEARCHED_DEVICES) return devices;
  const classes = classesOf(devices, problem.links);
  const taken: Device[] = [];
  for (let round = 0; taken.length < SEARCHED_DEVICES; round++) {
    for (const members of classes) {
      const device = members[round];
      if (device !== undefined && taken.length < SEARCHED_DEVICES) taken.push(device);
    }
  }
  return taken;
}

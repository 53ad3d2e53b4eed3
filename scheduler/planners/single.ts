/** The whole model on the one device that does it best: the latency plan to beat. */
import { best, bottleneckLine, draft, refuse, seated, wholeSpec } from './draft.js';
import { bySpeed, classesOf, isRefusal, type PlanDraft, type PlanProblem, type PlanRefusal } from './problem.js';

export function single(problem: PlanProblem): PlanDraft | PlanRefusal {
  const spec = wholeSpec(problem.facts);
  const first = classesOf(bySpeed(problem.devices), problem.links).flatMap((devices) => devices.slice(0, 1));
  const drafts = first.map((device) => draft(problem, 'single', [seated(spec, [device])]));
  const found = best(drafts, problem.objective);
  if (found !== undefined) return { ...found, why: `${bottleneckLine(found.estimate)}\nwould change it: a faster agent` };
  return drafts.find(isRefusal) ?? refuse('single: there is no agent');
}

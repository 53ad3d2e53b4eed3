/** A plan from a file: this planner only judges it. */
import { bottleneckLine, draft, formatMs, meets, refuse } from './draft.js';
import { isRefusal, type PlanDraft, type PlanProblem, type PlanRefusal } from './problem.js';

/** As a draft's planner: what follows a file to the letter, and is not ours to change. */
export const FILED = 'file';

export function filed(problem: PlanProblem): PlanDraft | PlanRefusal {
  const { seated } = problem;
  if (seated === undefined) return refuse('file: no plan was given');
  const plan = draft(problem, FILED, seated.stages);
  if (isRefusal(plan)) return plan;
  // It is deployed as it is; that it cannot do what it asks for must not be left unsaid.
  const late = meets(problem, plan)
    ? ''
    : `\nlater than its objective allows: ${formatMs(plan.estimate.latencyMs)} instead of ${problem.maxLatencyMs} ms`;
  return { ...plan, why: `the plan was given as a file, made by ${seated.by} and perhaps edited\n${bottleneckLine(plan.estimate)}${late}` };
}

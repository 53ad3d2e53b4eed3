/** A cut made by hand, such as `rows:4`: this planner only seats it, the largest shares on the fastest agents. */
import { coded } from './coded.js';
import { bottleneckLine, draft, refuse, seated } from './draft.js';
import { pipeline } from './pipeline.js';
import { bySpeed, isRefusal, type PlanDraft, type PlanProblem, type PlanRefusal } from './problem.js';
import { replicas } from './replicas.js';

export function manual(problem: PlanProblem): PlanDraft | PlanRefusal {
  const wanted = problem.manual;
  if (wanted === undefined) return refuse('manual: no cut was given');
  if (problem.redundancy !== undefined) return coded(problem, manual);
  const { kind, parts } = wanted;
  const name = `${kind}:${parts}`;
  if (parts > problem.devices.length) {
    return refuse(`${name} needs ${parts} agents, ${problem.devices.length} can take part; ask for fewer parts or start more agents`);
  }
  if (kind === 'stages') return renamed(pipeline(problem), name);
  if (kind === 'replicas') return renamed(replicas(problem), name);
  const devices = bySpeed(problem.devices).slice(0, parts);
  const shares = wanted.shares.length > 0 ? [...wanted.shares].sort((a, b) => b - a) : new Array<number>(parts).fill(1);
  if (shares.length !== parts) return refuse(`${name} with ${shares.length} shares; give ${parts}`);
  const specs = problem.facts.cover(kind, shares);
  if (isRefusal(specs)) return specs;
  const plan = draft(
    problem,
    name,
    specs.map((spec) => seated(spec, devices)),
  );
  if (isRefusal(plan)) return plan;
  return { ...plan, why: `the cut ${name} was given by hand\n${bottleneckLine(plan.estimate)}` };
}

function renamed(plan: PlanDraft | PlanRefusal, name: string): PlanDraft | PlanRefusal {
  if (isRefusal(plan)) return plan;
  return { ...plan, planner: name, why: `the cut ${name} was given by hand\n${bottleneckLine(plan.estimate)}` };
}

/** The whole model on every device that can hold it, a frame to each in turn: the throughput plan to beat. */
import { bottleneckLine, draft, refuse, seated, wholeSpec } from './draft.js';
import { bySpeed, classesOf, isRefusal, type PlanDraft, type PlanProblem, type PlanRefusal } from './problem.js';

export function replicas(problem: PlanProblem): PlanDraft | PlanRefusal {
  const spec = wholeSpec(problem.facts);
  const classes = classesOf(bySpeed(problem.devices), problem.links);
  const alone = classes.map((devices) => ({ devices, plan: draft(problem, 'replicas', [seated(spec, devices.slice(0, 1))]) }));
  const fitting = bySpeed(alone.filter(({ plan }) => !isRefusal(plan)).flatMap(({ devices }) => devices));
  const wanted = problem.manual?.kind === 'replicas' ? problem.manual.parts : fitting.length;
  if (fitting.length === 0) return alone.map(({ plan }) => plan).find(isRefusal) ?? refuse('replicas: there is no agent');
  if (wanted > fitting.length)
    return refuse(`replicas: ${wanted} wanted, the model fits on ${fitting.length} of ${problem.devices.length} agents`);
  const found = draft(problem, 'replicas', [{ spec, agents: fitting.slice(0, wanted).map((device) => [device.agent]) }]);
  if (isRefusal(found)) return found;
  return { ...found, why: `${bottleneckLine(found.estimate)}\nwould change it: one more agent that holds the whole model` };
}

/** Of what all replicas reach, this part must be reached by fewer. */
const AS_GOOD = 0.99;

/**
 * The fewest of the fastest replicas that are as good as `all`, when something else than computing (the gateway's link, say) limits them: ten thousand
 * devices behind one link do what a dozen do. Undefined when all are needed.
 */
export function fewerReplicas(problem: PlanProblem, all: PlanDraft | PlanRefusal): PlanDraft | undefined {
  if (isRefusal(all) || all.estimate.bottleneck.kind === 'compute') return undefined;
  const [stage] = all.stages;
  if (stage === undefined || stage.agents.length < 2) return undefined;
  let fewest: PlanDraft | undefined;
  let [low, high] = [1, stage.agents.length];
  while (low < high) {
    const count = Math.floor((low + high) / 2);
    const plan = draft(problem, `replicas:${count}`, [{ spec: stage.spec, agents: stage.agents.slice(0, count) }]);
    if (!isRefusal(plan) && plan.estimate.fps >= AS_GOOD * all.estimate.fps) {
      fewest = plan;
      high = count;
    } else low = count + 1;
  }
  return fewest;
}

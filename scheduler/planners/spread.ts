/**
 * For throughput where no agent can hold the model. What makes a network too large is often a small part of its work: VGG16's first fully connected layer has three
 * quarters of the weights and under a hundredth of the MACs. Plans that give such a layer agents of its own leave them idle nearly all the time. So: a plan that fits,
 * then its stages with the most work on every agent that has room beside what it holds, with frames divided by what each has left (balance.ts).
 */
import { boxDims, tensorBytes } from '../../broker/tensor.js';
import { balanced } from './balance.js';
import { ENGINE_BYTES } from './cost.js';
import { draft, meets, nameOf, score, seatedDraft } from './draft.js';
import { packed } from './musical-chair-2018.js';
import { sizes } from './options.js';
import { bySpeed, type Device, isRefusal, type PlanDraft, type PlanProblem, type PlanRefusal, type SeatedStage } from './problem.js';

/** Beyond it plans of whole stages are near the bound, and each plan takes long to judge. */
const MOST_DEVICES = 64;
/** Of plans that are known already: the best few. */
const MOST_KNOWN = 3;
/** Of a plan: the stages with the most work. */
const MOST_STAGES = 3;
/** Less is within any error of the costs, and not worth the memory. */
const WORTH = 0.02;
/** Frames that wait at a new seat, until `seatedDraft` counts what is in flight in truth. */
const WAITING = 3;

/** Plans with stages on more agents than they were made for, of those that are known and of the fewest stages that fit, divided as far as each number of agents allows. */
export function spread(problem: PlanProblem, known: readonly PlanDraft[]): (PlanDraft | PlanRefusal)[] {
  const count = problem.devices.length;
  if (count < 2 || count > MOST_DEVICES) return [];
  const sorted = { ...problem, devices: bySpeed(problem.devices) };
  const made = [...new Map(sizes(count).flatMap((parts) => startOf(sorted, parts))).values()];
  const best = known.toSorted((a, b) => score(a.estimate, problem.objective) - score(b.estimate, problem.objective)).slice(0, MOST_KNOWN);
  return [...made, ...best].flatMap((start) => wider(sorted, start) ?? []);
}

/** By its stages, as other numbers of parts may come to the same. */
function startOf(problem: PlanProblem, parts: number): [string, PlanDraft][] {
  const stages = packed(problem, parts);
  const plan = stages === undefined ? undefined : draft(problem, nameOf(stages), stages);
  return plan === undefined || isRefusal(plan) ? [] : [[JSON.stringify(stages), plan]];
}

/** Undefined when nothing is gained. */
function wider(problem: PlanProblem, start: PlanDraft): PlanDraft | undefined {
  const work = start.cut.stages.map(({ parts }) => parts[0]?.macs ?? 0);
  const whole = [...start.stages.keys()].filter((s) => start.stages[s]?.spec.cut === 'whole');
  const order = whole.sort((a, b) => (work[b] ?? 0) - (work[a] ?? 0)).slice(0, MOST_STAGES);
  let current = start;
  for (const s of order) {
    const stages = balanced(current.cut, onMore(problem, current, s), problem.devices, problem.links);
    const next = seatedDraft(problem, nameOf(stages), current.cut, stages);
    if (!isRefusal(next) && meets(problem, next) && next.estimate.fps > current.estimate.fps * (1 + WORTH)) current = next;
  }
  return current === start ? undefined : current;
}

/** The plan's stages, one of them also on every agent that has room for it. */
function onMore({ devices }: PlanProblem, { stages, cut, estimate }: PlanDraft, at: number): SeatedStage[] {
  const held = new Map(estimate.memory.map(({ agent, needBytes }) => [agent, needBytes]));
  const part = cut.stages[at]?.parts[0];
  const seated = new Set(stages[at]?.agents.flat());
  const need = (part?.weightBytes ?? 0) + (part?.activationBytes ?? 0) + WAITING * inputBytes(cut, at);
  const fits = ({ agent, memoryBytes }: Device): boolean =>
    !seated.has(agent) && (memoryBytes === 0 || (held.get(agent) ?? ENGINE_BYTES) + need <= memoryBytes);
  const more = devices.filter(fits).map(({ agent }) => [agent]);
  return stages.map((stage, s) => {
    if (s !== at) return stage;
    const { weights: _, ...rest } = stage;
    return { ...rest, agents: [...stage.agents, ...more] };
  });
}

function inputBytes(cut: PlanDraft['cut'], stage: number): number {
  const inputs = cut.stages[stage]?.parts[0]?.inputs ?? [];
  return inputs.reduce((sum, { dtype, box }) => sum + tensorBytes(dtype, boxDims(box)), 0);
}

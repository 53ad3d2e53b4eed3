/** Is all well? What is not, in sentences, the worst first. Pure: for the screen's first line, and for the exit status of `dashboard --once`. */
import type { AgentStatus, DeploymentStatus, StatusReport } from '../../broker/messages.js';
import { type History, isGone } from './history.js';
import { byName } from './lanes.js';
import { throttledNow } from './throttling.js';

/** A Raspberry Pi slows down from here on. */
const HOT_CELSIUS = 80;

export interface Verdict {
  /** `well`, or something is to be looked at. */
  readonly state: 'well' | 'degraded';
  /** One for each thing that is not well. */
  readonly reasons: readonly string[];
}

export function verdictOf(report: StatusReport, history: History): Verdict {
  const agents = [...report.agents].sort((a, b) => byName(a.agent, b.agent));
  const states = new Map(agents.map(({ agent, state }) => [agent, state]));
  const ready = agents.filter(({ state }) => state === 'ready' || state === 'suspect').length;
  const reasons = [
    ...(ready > 0 ? [] : [agents.length === 0 ? 'no agent has joined yet' : 'no agent is ready']),
    ...report.deployments.flatMap((one) => deploymentReasons(one, states, history)),
    ...agents.flatMap(agentReasons),
    ...report.problems,
  ];
  return { state: reasons.length === 0 ? 'well' : 'degraded', reasons };
}

function deploymentReasons({ name, state, why, plan }: DeploymentStatus, states: ReadonlyMap<string, string>, history: History): string[] {
  const failed = (history.deployments.get(name)?.failures ?? []).reduce((sum, { count }) => sum + count, 0);
  const gone = new Set((plan?.seats ?? []).flatMap(({ agent }) => (isGone(states.get(agent) ?? 'lost') ? [agent] : [])));
  return [
    ...(state === 'serving' ? [] : [`${name} is not served: ${state}${why === '' ? '' : `, ${why}`}`]),
    ...(gone.size === 0 || state === 'restoring' ? [] : [`${name} has seats at ${[...gone].sort(byName).join(', ')}, which is not there`]),
    ...(failed === 0 ? [] : [`${name}: ${failed} ${failed === 1 ? 'frame' : 'frames'} failed within the last minute`]),
  ];
}

function agentReasons({ agent, state, why, heldMs, health }: AgentStatus): string[] {
  if (state === 'lost' || state === 'suspect' || state === 'refused') return [`${agent} is ${state}: ${why}`];
  if (heldMs > 0) return [`${agent} gets no seats for ${Math.ceil(heldMs / 1000)} s: ${why}`];
  if (health === null || isGone(state)) return [];
  const throttled = throttledNow(health.throttled);
  if (throttled.length > 0) return [`${agent}: ${throttled.join('; ')}`];
  return health.temperature >= HOT_CELSIUS ? [`${agent} is at ${Math.round(health.temperature)} degrees: it will slow down`] : [];
}

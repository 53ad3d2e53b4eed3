/**
 * Why this plan and no other: what every planner would have done with the same devices, and what this planner would do if something were different. Nothing
 * is guessed: each row is a plan of its own.
 */
import { isChairError } from '../../broker/errors.js';
import type { PlanAlternative, PlanDetails } from '../../broker/messages.js';
import { meets, score, seatsKey } from './draft.js';
import { alternativeOf } from './explain.js';
import { faster } from './faster.js';
import {
  type AccessLink,
  type Alternative,
  bySpeed,
  type Device,
  isRefusal,
  type Link,
  type PlanDraft,
  type Planner,
  type PlanProblem,
  type PlanRefusal,
} from './problem.js';

/** Asked of a planner, perhaps elsewhere. */
export type Solve = (planner: Planner, problem: PlanProblem) => Promise<PlanDraft | PlanRefusal>;

interface Change {
  readonly name: string;
  readonly problem: PlanProblem;
}

const FASTER = 10;
/** Instead of a planner's name: the plan that is explained. */
const SAME_PLAN = 'this plan';

/** `planner` made `chosen`; `planners` are those to compare with, by name. */
export async function explained(
  problem: PlanProblem,
  chosen: PlanDraft,
  planner: Planner,
  planners: ReadonlyMap<string, Planner>,
  solve: Solve,
): Promise<Pick<PlanDetails, 'alternatives' | 'changes'>> {
  const answerOf = async (asked: Planner, question: PlanProblem): Promise<PlanDraft | PlanRefusal> => {
    try {
      return await solve(asked, question);
    } catch (error) {
      // A planner that fails here costs its row, not the explanation.
      if (isChairError(error, 'PLANNER_FAILED')) return { refused: true, reason: error.message };
      throw error;
    }
  };
  const answers: Answer[] = [];
  for (const [name, other] of planners) {
    if (other !== planner) answers.push({ name, answer: await answerOf(other, problem) });
  }
  const alternatives = rowsOf(problem, chosen, answers);
  // What the planner itself compared with, but for what is there already.
  for (const considered of chosen.alternatives ?? []) {
    if (alternatives.every((other) => !alike(other, considered)))
      alternatives.push({ name: considered.planner, ...considered, refused: '' });
  }
  const changes: PlanAlternative[] = [];
  for (const { name, problem: changed } of changesOf(problem, chosen)) {
    const answer = await answerOf(planner, changed);
    // Each change only adds: the plan of now stays possible, and a search with bounds may miss it.
    const worse = !isRefusal(answer) && score(answer.estimate, problem.objective) > score(chosen.estimate, problem.objective);
    changes.push(rowOf(name, worse ? chosen : answer));
  }
  return { alternatives, changes };
}

interface Answer {
  readonly name: string;
  readonly answer: PlanDraft | PlanRefusal;
}

/** What other planners answered: a row for each plan, under the names of all who came to it. One that comes too late is none. */
function rowsOf(problem: PlanProblem, chosen: PlanDraft, answers: readonly Answer[]): PlanAlternative[] {
  const rows: PlanAlternative[] = [];
  const byPlan = new Map<string, Answer[]>();
  for (const { name, answer } of answers) {
    if (isRefusal(answer)) rows.push(rowOf(name, answer));
    else if (!meets(problem, answer)) {
      const reason = `a frame takes ${Math.ceil(answer.estimate.latencyMs)} ms, more than the ${problem.maxLatencyMs} allowed`;
      rows.push(rowOf(name, { refused: true, reason }));
    } else {
      const key = seatsKey(answer.stages);
      byPlan.set(key, [...(byPlan.get(key) ?? []), { name, answer }]);
    }
  }
  const own = seatsKey(chosen.stages);
  for (const [key, same] of byPlan) {
    // Who made it is said with the plan itself.
    const names = same.map(({ name }) => name).filter((name) => key !== own || name !== chosen.planner);
    const [first] = same;
    if (first === undefined || names.length === 0) continue;
    const row = rowOf(names.join(', '), first.answer);
    rows.push(key === own ? { ...row, planner: SAME_PLAN } : row);
  }
  return rows;
}

function alike(a: Alternative, b: Alternative): boolean {
  return a.agents === b.agents && Math.abs(a.latencyMs - b.latencyMs) < 1e-6 && Math.abs(a.fps - b.fps) < 1e-6;
}

function rowOf(name: string, answer: PlanDraft | PlanRefusal): PlanAlternative {
  if (isRefusal(answer)) return { name, planner: '', agents: 0, latencyMs: 0, fps: 0, refused: answer.reason };
  return { name, ...alternativeOf(answer), refused: '' };
}

/** What people can change: links, memory, devices, where agents run. Only what there is to change. */
export function changesOf(problem: PlanProblem, chosen: Pick<PlanDraft, 'estimate'>): Change[] {
  const { devices, links } = problem;
  const { kind, who } = chosen.estimate.bottleneck;
  const over = (name: string, some: Partial<PlanProblem>): Change => ({ name, problem: { ...problem, ...some } });
  const each = (name: string, change: (device: Device) => Device): Change => over(name, { devices: devices.map(change) });
  const [fastest] = bySpeed(devices);
  const shared = devices.some((device) => device.host !== undefined && (device.hostShare ?? 1) > 0 && sharesHost(device, devices));
  const limited = devices.some((device) => device.memoryBytes > 0);
  return [
    ...(fastest === undefined ? [] : [over(`one more agent like ${fastest.agent}`, { devices: [...devices, oneMore(fastest, devices)] })]),
    ...(kind === 'compute' && devices.length > 1
      ? [each(`${who} twice as fast`, (device) => (device.agent === who ? faster(device, 2) : device))]
      : []),
    ...(shared ? [each('every agent on a machine of its own', ({ host, hostShare, ...device }) => device)] : []),
    ...(limited ? [each('twice the memory for every agent', (device) => ({ ...device, memoryBytes: 2 * device.memoryBytes }))] : []),
    {
      name: 'links ten times as fast',
      problem: {
        ...problem,
        devices: devices.map((device) => (device.link === undefined ? device : { ...device, link: fasterAccess(device.link) })),
        links: {
          ...links,
          usual: fasterLink(links.usual),
          between: new Map([...links.between].map(([pair, link]) => [pair, fasterLink(link)])),
          ...(links.gateway === undefined ? {} : { gateway: fasterAccess(links.gateway) }),
          ...(links.sharedBytesPerSecond === undefined ? {} : { sharedBytesPerSecond: FASTER * links.sharedBytesPerSecond }),
        },
      },
    },
    {
      name: 'links with a tenth of the latency',
      problem: {
        ...problem,
        devices: devices.map((device) =>
          device.link === undefined ? device : { ...device, link: { ...device.link, latencyMs: device.link.latencyMs / FASTER } },
        ),
        links: {
          ...links,
          usual: { ...links.usual, latencyMs: links.usual.latencyMs / FASTER },
          between: new Map([...links.between].map(([pair, link]) => [pair, { ...link, latencyMs: link.latencyMs / FASTER }])),
          ...(links.gateway === undefined ? {} : { gateway: { ...links.gateway, latencyMs: links.gateway.latencyMs / FASTER } }),
        },
      },
    },
  ];
}

function sharesHost(device: Device, devices: readonly Device[]): boolean {
  return devices.some((other) => other !== device && other.host === device.host);
}

/** On a machine of its own, with nothing else to do. */
function oneMore({ host, hostShare, otherDeployments, correction, ...device }: Device, devices: readonly Device[]): Device {
  let agent = `${device.agent}-more`;
  while (devices.some((other) => other.agent === agent)) agent = `${agent}-more`;
  return { ...device, agent };
}

function fasterLink(link: Link): Link {
  return { ...link, bytesPerSecond: FASTER * link.bytesPerSecond };
}

function fasterAccess(link: AccessLink): AccessLink {
  return { ...link, upBytesPerSecond: FASTER * link.upBytesPerSecond, downBytesPerSecond: FASTER * link.downBytesPerSecond };
}

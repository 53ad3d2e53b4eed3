/** What would follow the loss of each one agent of a plan in force, for people who want to know before they sleep. Pure but for what `holdings` answers. */
import type { LossRow } from '../broker/messages.js';
import type { PlanStage, SliceRef } from '../broker/plan.js';
import type { Device, Links } from './planners/problem.js';
import { type Ahead, type Holdings, missingBytes, pauseBy } from './repair-ahead.js';
import { hasRoute } from './router.js';

/** What was worked out ahead for a plan, and by which figures; or why nothing was. */
export type WorkedOut = { readonly none: string } | { readonly ahead: Ahead; readonly devices: readonly Device[]; readonly links: Links };

export interface LossQuestion {
  readonly stages: readonly Pick<PlanStage, 'agents' | 'redundancy'>[];
  /** Agents of the plan that are lost already. */
  readonly gone: ReadonlySet<string>;
  /** Undefined = not yet. */
  readonly worked: WorkedOut | undefined;
  /** Of seats and of what stands by. */
  readonly holdings: Holdings;
}

export function lossRows({ stages, gone, worked, holdings }: LossQuestion): LossRow[] {
  const agents = [...new Set(stages.flatMap((stage) => stage.agents.flat()))].filter((agent) => !gone.has(agent));
  const pauseMs = worked === undefined || 'none' in worked ? () => 0 : pauseBy(holdings, worked.devices, worked.links);
  return agents.map((agent): LossRow => {
    const row = { agent, outcome: 'unknown', takers: [] as string[], missingBytes: 0, pauseMs: 0, why: '' };
    if (hasRoute(stages, (other) => other === agent || gone.has(other))) return { ...row, outcome: 'goes-on' };
    if (gone.size > 0) return { ...row, why: `${[...gone].join(', ')} is lost: that comes first` };
    if (worked === undefined) return { ...row, why: 'it is being worked out' };
    if ('none' in worked) return { ...row, why: worked.none };
    const repair = worked.ahead.repairs.get(agent);
    if (repair === undefined) {
      const why = worked.ahead.open.get(agent);
      return why === undefined ? { ...row, why: 'it is worked out when it happens' } : { ...row, outcome: 'plan', why };
    }
    const needed = new Map<string, SliceRef[]>();
    for (const { to, slice } of repair.moves) needed.set(to, [...(needed.get(to) ?? []), slice]);
    const missing = [...needed].reduce((sum, [to, slices]) => sum + missingBytes(holdings, to, slices), 0);
    const pause = [...needed].reduce((most, [to, slices]) => Math.max(most, pauseMs(to, slices)), 0);
    return { ...row, outcome: missing === 0 ? 'repair' : 'fetching', takers: [...needed.keys()], missingBytes: missing, pauseMs: pause };
  });
}

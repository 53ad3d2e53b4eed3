import { describe, expect, it } from 'vitest';
import { ChairError } from '../broker/errors.js';
import type { Deployment } from './deployment.js';
import { PlanMaking, type PlanMakingOptions, type PlanMakingParts } from './plan-making.js';
import { deployment } from './test-deployment.js';

/** A deployment that serves over one stage; each replica has its agents. `left`: those that gave up their seats. */
function serving(
  replicas: readonly (readonly string[])[],
  { left = [], redundancy = 0 }: { left?: readonly string[]; redundancy?: number } = {},
) {
  const made: Deployment = deployment('m', replicas.flat());
  const placed = made.serving;
  if (placed === undefined) throw new Error('it serves');
  const stages = [{ cut: 'rows', parts: [], agents: replicas.map((agents) => [...agents]), redundancy }];
  made.serving = { ...placed, plan: { ...placed.plan, stages }, vacated: new Map(left.map((agent) => [agent, 'left' as const])) };
  made.state = 'serving';
  return made;
}

/** What becomes of it when no plan is found: its state, and why frames were turned away, if they were. */
function withoutPlan(of: Deployment, gone: readonly string[] = []) {
  const withdrawn: string[] = [];
  const options = {
    registry: { serves: (agent: string) => !gone.includes(agent) },
    dispatcher: { withdraw: (name: string, why: string) => withdrawn.push(`${name}: ${why}`) },
    log: () => undefined,
  } as unknown as PlanMakingOptions;
  new PlanMaking(options, {} as PlanMakingParts).wait(of, new ChairError('NO_AGENTS', 'nobody is left'));
  return { state: of.state, withdrawn: withdrawn.length };
}

const SERVES = { state: 'serving', withdrawn: 0 };
const WAITS = { state: 'waiting', withdrawn: 1 };

describe('a deployment for which no plan is found', () => {
  it('serves on while frames find a way through the plan in force', () => {
    expect(withoutPlan(serving([['a'], ['b']]))).toEqual(SERVES);
    expect(withoutPlan(serving([['a'], ['b']]), ['a'])).toEqual(SERVES);
    expect(withoutPlan(serving([['a'], ['b']]), ['a', 'b'])).toEqual(WAITS);
    expect(withoutPlan(serving([['a', 'b', 'c']], { redundancy: 1 }), ['c'])).toEqual(SERVES);
  });

  it('takes agents that gave up their seats for none, though they are there: their frames wait', () => {
    expect(withoutPlan(serving([['a', 'b']], { left: ['b'] }))).toEqual(WAITS);
    expect(withoutPlan(serving([['a'], ['b']], { left: ['b'] }))).toEqual(SERVES);
    expect(withoutPlan(serving([['a'], ['b']], { left: ['b'] }), ['a'])).toEqual(WAITS);
    expect(withoutPlan(serving([['a', 'b', 'c']], { left: ['c'], redundancy: 1 }))).toEqual(SERVES);
    expect(withoutPlan(serving([['a', 'b', 'c']], { left: ['c'], redundancy: 1 }), ['b'])).toEqual(WAITS);
  });

  it('waits when it never had one', () => {
    const never = serving([['a']]);
    never.serving = undefined;
    expect(withoutPlan(never)).toEqual(WAITS);
  });
});

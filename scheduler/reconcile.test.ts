import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Plan } from '../broker/plan.js';
import { type AgentsView, type DeploymentView, type Placement, reconcile, type SeatProgress } from './reconcile.js';

const PLAN: Plan = {
  ...{ deployment: 'm', model: '', term: 1, epoch: 1, planner: '', why: '', inputs: [], outputs: [], slices: {}, stages: [], wires: [] },
  ...{ predictedLatencyMs: 0, predictedFps: 0 },
};
function placement(seats: Record<string, SeatProgress>): Placement {
  const agents = Object.keys(seats);
  return { plan: PLAN, nonces: new Map(agents.map((agent) => [agent, `${agent}1`])), seats: new Map(Object.entries(seats)) };
}
const view = (over: Partial<DeploymentView> = {}): DeploymentView => ({
  ...{ removing: false, planning: false, stuck: false, recovering: false, serving: undefined, next: undefined },
  ...over,
});
const agents = (here: string[], draining: string[] = []): AgentsView => ({
  serves: (agent, nonce) => here.includes(agent) && nonce === `${agent}1`,
  draining: (agent) => draining.includes(agent),
});
const serving = placement({ a: 'committed', b: 'committed' });
const dos = (deployment: DeploymentView, world: AgentsView) => reconcile(deployment, world).map((step) => step.do);

describe('reconcile', () => {
  it('goes from plan over prepare and commit to the switch, each when all agents have done the one before', () => {
    const world = agents(['a', 'b']);
    expect(dos(view(), world)).toEqual(['plan']);
    expect(dos(view({ planning: true }), world)).toEqual([]);
    expect(dos(view({ next: placement({ a: 'wanted', b: 'wanted' }) }), world)).toEqual(['prepare', 'prepare']);
    expect(dos(view({ next: placement({ a: 'asked', b: 'prepared' }) }), world)).toEqual([]);
    expect(dos(view({ next: placement({ a: 'prepared', b: 'prepared' }) }), world)).toEqual(['commit', 'commit']);
    expect(dos(view({ next: placement({ a: 'committing', b: 'committed' }) }), world)).toEqual([]);
    expect(dos(view({ next: placement({ a: 'committed', b: 'committed' }) }), world)).toEqual(['switch']);
  });

  it('leaves alone what serves', () => {
    expect(dos(view({ serving }), agents(['a', 'b']))).toEqual([]);
  });

  it('repairs when an agent of the plan is lost or restarted, plans after that, and plans when one leaves', () => {
    expect(reconcile(view({ serving }), agents(['a']))).toEqual([{ do: 'repair', why: 'agent b was lost' }]);
    const restarted: AgentsView = { serves: (agent, nonce) => agent === 'a' || nonce === 'b2', draining: () => false };
    expect(dos(view({ serving }), restarted)).toEqual(['repair']);
    expect(dos(view({ serving, repaired: true }), agents(['a', 'b']))).toEqual(['plan']);
    expect(dos(view({ serving, repaired: true }), agents(['a']))).toEqual(['repair']);
    expect(reconcile(view({ serving }), agents(['a', 'b'], ['a']))).toEqual([{ do: 'plan', why: 'agent a leaves' }]);
  });

  it('repairs around an agent whose link is slow, unless nobody can take over; not the repair itself, and sooner than a better plan', () => {
    const slow = (...names: string[]): AgentsView => ({ ...agents(['a', 'b', 'c']), slow: (agent) => names.includes(agent) });
    expect(reconcile(view({ serving }), slow('b'))).toEqual([{ do: 'repair', why: 'the link of agent b is slow' }]);
    expect(dos(view({ serving, unavoidable: true }), slow('b'))).toEqual([]);
    expect(dos(view({ serving }), slow('c'))).toEqual([]);
    expect(dos(view({ serving, planning: true }), slow('b'))).toEqual([]);
    expect(dos(view({ serving, planning: true, optional: true }), slow('b'))).toEqual(['repair']);
    const next = placement({ a: 'wanted', c: 'wanted' });
    expect(dos(view({ serving, next: { ...next, optional: true } }), slow('b'))).toEqual(['abandon']);
    expect(dos(view({ serving, next }), slow('b'))).toEqual(['prepare']);
  });

  it('plans again when an agent comes after a loss, but does not try in vain what failed', () => {
    expect(dos(view({ serving, recovering: true }), agents(['a', 'b']))).toEqual(['plan']);
    expect(dos(view({ serving, unmeasured: true }), agents(['a', 'b']))).toEqual(['plan']);
    expect(dos(view({ serving, stuck: true }), agents(['a']))).toEqual([]);
    expect(dos(view({ stuck: true }), agents([]))).toEqual([]);
  });

  it('prepares one agent after another beside frames that go on, also without the one part that a parity stands in for', () => {
    const four = placement({ a: 'committed', b: 'committed', c: 'committed', d: 'committed' });
    const next = placement({ a: 'wanted', b: 'wanted', c: 'wanted' });
    const prepares = (spare: string[], here: string[]) =>
      dos(view({ serving: { ...four, spare: new Set(spare) }, next }), agents(here)).length;
    expect(prepares([], ['a', 'b', 'c', 'd'])).toBe(1);
    expect(prepares(['d'], ['a', 'b', 'c'])).toBe(1);
    expect(prepares([], ['a', 'b', 'c'])).toBe(3);
    const two = placement({ a: 'committed', d: 'committed', e: 'committed' });
    expect(dos(view({ serving: { ...two, spare: new Set(['d', 'e']) }, next }), agents(['a', 'b', 'c'])).length).toBe(3);
  });

  it('abandons a plan whose agent is lost while it prepares', () => {
    expect(dos(view({ serving, next: placement({ a: 'asked', b: 'prepared' }) }), agents(['a']))).toEqual(['abandon']);
  });

  it('gives up a better plan that is planned or fetched for a repair of the one in force, but not one that is ready or follows a loss', () => {
    const better = (progress: SeatProgress): Placement => ({ ...placement({ a: progress, c: 'prepared' }), optional: true });
    const left = agents(['a', 'c']);
    expect(dos(view({ serving, next: better('asked') }), left)).toEqual(['abandon']);
    expect(dos(view({ serving, next: better('prepared') }), left)).toEqual(['commit', 'commit']);
    expect(dos(view({ serving, next: { ...better('asked'), optional: false } }), left)).toEqual([]);
    expect(dos(view({ serving, planning: true, optional: true }), left)).toEqual(['repair']);
    expect(dos(view({ serving, planning: true, optional: true }), agents(['a', 'b']))).toEqual([]);
    expect(dos(view({ serving, planning: true, optional: false }), left)).toEqual([]);
  });

  it('lets a quarter of the agents prepare at once while another plan serves, and half when somebody waits to leave', () => {
    const names = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
    const next = placement(Object.fromEntries(names.map((name) => [name, 'wanted'])));
    const steps = (world: AgentsView): unknown => reconcile(view({ serving, next }), world).map((step) => 'agent' in step && step.agent);
    expect(steps(agents(names))).toEqual(['a', 'b']);
    expect(steps(agents(names, ['b']))).toEqual(['a', 'b', 'c', 'd']);
    // One of the plan that served is gone: frames wait.
    const others = placement(Object.fromEntries(names.slice(2).map((name) => [name, 'wanted'])));
    expect(reconcile(view({ serving, next: others }), agents(names.slice(1))).length).toBe(6);
  });

  it('has agents that cannot hold both vacate their old seats before they prepare, in their order, and the others after the switch', () => {
    const seats = new Map<string, SeatProgress>(['a', 'b', 'c'].map((name) => [name, 'wanted']));
    const vacated = new Map<string, 'leaving' | 'left'>();
    const handover = { before: [['a'], ['b']], after: ['c'], pauseMs: 0 };
    const world = agents(['a', 'b', 'c']);
    const old = { ...placement({ a: 'committed', b: 'committed', c: 'committed' }), vacated };
    let deployment = view({ serving: old, next: { ...old, seats, handover } });
    const done: string[] = [];
    for (let turn = 0; turn < 20; turn++) {
      for (const step of reconcile(deployment, world)) {
        const agent = 'agent' in step ? step.agent : '';
        done.push(`${step.do} ${agent}`.trim());
        if (step.do === 'vacate') vacated.set(agent, 'left');
        else if (step.do === 'prepare') seats.set(agent, 'prepared');
        else if (step.do === 'commit') seats.set(agent, 'committed');
        else deployment = view({ serving: { ...old, seats, handover, vacated: new Map(), settled: false } });
      }
    }
    expect(done).toEqual(['vacate a', 'prepare a', 'vacate b', 'prepare b', 'commit a', 'commit b', 'switch']);
    // The old epoch is released everywhere.
    deployment = view({ serving: { ...old, seats, handover, vacated: new Map(), settled: true } });
    expect(reconcile(deployment, world)).toEqual([{ do: 'prepare', agent: 'c' }]);
    seats.set('c', 'prepared');
    expect(reconcile(deployment, world)).toEqual([{ do: 'commit', agent: 'c' }]);
    seats.set('c', 'committed');
    expect(reconcile(deployment, world)).toEqual([]);
  });

  it('has them fetch what they will need before the first of them lets go, two at a time, unless frames wait already', () => {
    const seats = new Map<string, SeatProgress>(['a', 'b', 'c', 'd'].map((name) => [name, 'wanted']));
    const fetched = new Map<string, 'asked' | 'done'>();
    const vacated = new Map<string, 'leaving' | 'left'>();
    const handover = { before: [['a'], ['b', 'c']], after: ['d'], pauseMs: 700 };
    const old = { ...placement({ a: 'committed', b: 'committed', c: 'committed', d: 'committed' }), vacated };
    const deployment = view({ serving: old, next: { ...old, seats, handover, fetched } });
    const world = agents(['a', 'b', 'c', 'd']);
    expect(reconcile(deployment, world)).toEqual(['a', 'b'].map((agent) => ({ do: 'fetch', agent })));
    fetched.set('a', 'asked').set('b', 'asked');
    expect(reconcile(deployment, world)).toEqual([]);
    fetched.set('b', 'done');
    expect(reconcile(deployment, world)).toEqual([{ do: 'fetch', agent: 'c' }]);
    fetched.set('a', 'done').set('c', 'asked');
    expect(reconcile(deployment, world)).toEqual([]);
    fetched.set('c', 'done');
    expect(reconcile(deployment, world)).toEqual([{ do: 'vacate', agent: 'a' }]);
    vacated.set('a', 'left');
    // It let go of its seats before it was found that another one has to, too.
    fetched.delete('a');
    expect(reconcile(deployment, world)).toEqual([{ do: 'prepare', agent: 'a' }]);
    fetched.clear();
    vacated.clear();
    const broken = { ...old, nonces: new Map([...old.nonces, ['e', 'e1'] as const]) };
    expect(reconcile(view({ serving: broken, next: { ...old, seats, handover, fetched } }), world)).toEqual([{ do: 'vacate', agent: 'a' }]);
  });

  it('plans again when seats were given up for a plan that did not come about, and when the objective changed', () => {
    const world = agents(['a', 'b']);
    expect(dos(view({ serving: { ...serving, vacated: new Map([['a', 'left']]) } }), world)).toEqual(['plan']);
    expect(dos(view({ serving, retargeted: true }), world)).toEqual(['plan']);
  });

  it('does nothing for a deployment that goes', () => {
    expect(dos(view({ removing: true, serving }), agents([]))).toEqual([]);
  });

  it('comes to rest with a switch in any order of replies, and never commits before all have prepared', () => {
    const names = ['a', 'b', 'c', 'd'];
    fc.assert(
      fc.property(fc.array(fc.nat(3), { minLength: 60, maxLength: 60 }), (order) => {
        const seats = new Map<string, SeatProgress>(names.map((name) => [name, 'wanted']));
        const next: Placement = { plan: PLAN, nonces: new Map(names.map((n) => [n, `${n}1`])), seats };
        const world = agents(names);
        let switched = false;
        const drive = () => {
          for (const step of reconcile(view({ next }), world)) {
            if (step.do === 'prepare') seats.set(step.agent, 'asked');
            else if (step.do === 'commit') {
              expect([...seats.values()].every((progress) => progress !== 'wanted' && progress !== 'asked')).toBe(true);
              seats.set(step.agent, 'committing');
            } else if (step.do === 'switch') switched = true;
          }
        };
        const reply = (name: string) => {
          const progress = seats.get(name);
          if (progress === 'asked') seats.set(name, 'prepared');
          if (progress === 'committing') seats.set(name, 'committed');
          drive();
        };
        drive();
        for (const i of order) reply(names[i] ?? 'a');
        for (const name of [...names, ...names]) reply(name);
        expect(switched).toBe(true);
      }),
    );
  });
});

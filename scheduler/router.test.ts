import { describe, expect, it } from 'vitest';
import { Router } from './router.js';

describe('router', () => {
  it('gives a replica of half the speed half the frames', () => {
    const router = new Router({ epoch: 1, stages: [{ agents: [['fast'], ['slow']] }] });
    const takes = [10, 20];
    const running: { route: readonly number[]; endsMs: number }[] = [];
    const counts = [0, 0];
    for (let now = 0; now < 3000; now++) {
      for (const done of running.filter((r) => r.endsMs <= now)) {
        running.splice(running.indexOf(done), 1);
        router.ended(done.route, takes[done.route[0] ?? 0] ?? 0);
      }
      while (running.length < 2) {
        const route = router.pick((agent) => running.some((r) => (r.route[0] === 0 ? 'fast' : 'slow') === agent));
        if (route === undefined) break;
        router.started(route);
        const replica = route[0] ?? 0;
        counts[replica] = (counts[replica] ?? 0) + 1;
        running.push({ route, endsMs: now + (takes[replica] ?? 0) });
      }
    }
    expect((counts[0] ?? 0) / (counts[1] ?? 1)).toBeCloseTo(2, 1);
  });

  it('in a plan of several stages, where the latency of a frame says little of one of them, goes by what the plan says that each takes', () => {
    const stages = [{ agents: [['fast'], ['slow']] }, { agents: [['other']] }];
    const shares = (weights?: readonly (readonly number[])[]): number => {
      const router = new Router({ epoch: 1, stages, ...(weights === undefined ? {} : { weights }) });
      const counts = [0, 0];
      const running: (readonly number[])[] = [];
      for (let frame = 0; frame < 600; frame++) {
        const route = router.pick(() => false) ?? [];
        router.started(route);
        running.push(route);
        counts[route[0] ?? 0] = (counts[route[0] ?? 0] ?? 0) + 1;
        // Whatever way they went, frames wait for the last stage most of the time.
        if (running.length === 10) router.ended(running.shift() ?? [], 1000);
      }
      return (counts[0] ?? 0) / (counts[1] ?? 1);
    };
    expect(shares()).toBeCloseTo(1, 1);
    expect(shares([[0.8, 0.2], [1]])).toBeGreaterThan(3);
  });

  it('gives a frame to each replica of a stage in turn where the plan says so, also to one that is slow and far behind', () => {
    const stages = [{ agents: [['fast'], ['slow'], ['other']] }, { agents: [['end']] }];
    const router = new Router({ epoch: 1, stages, weights: [[1, 0.01, 1], [1]], inTurn: [true, false] });
    const taken: number[] = [];
    for (let frame = 0; frame < 9; frame++) {
      const route = router.pick(() => false) ?? [];
      router.started(route);
      taken.push(route[0] ?? -1);
      // Nothing ever comes back from the slow one.
      if (route[0] !== 1) router.ended(route, 1);
    }
    expect(taken).toEqual([0, 1, 2, 0, 1, 2, 0, 1, 2]);
    // Whoever is to be avoided is left out, and the turn goes on after the one that took it.
    const route = router.pick((agent) => agent === 'fast') ?? [];
    expect(route).toEqual([1, 0]);
    router.started(route);
    expect(router.pick(() => false)).toEqual([2, 0]);
    // A look at what would be possible takes no turn.
    expect(router.pick(() => false)).toEqual([2, 0]);
  });

  it('takes each stage on its own and finds no route when a stage has no replica left', () => {
    const router = new Router({ epoch: 1, stages: [{ agents: [['a'], ['b']] }, { agents: [['c', 'd']] }] });
    expect(router.pick((agent) => agent === 'a')).toEqual([1, 0]);
    expect(router.pick((agent) => agent === 'd')).toBeUndefined();
    expect(router.hasRoute((agent) => agent === 'a')).toBe(true);
    expect(router.hasRoute((agent) => agent === 'd')).toBe(false);
    expect([...router.agentsOf([1, 0])]).toEqual(['b', 'c', 'd']);
  });
});

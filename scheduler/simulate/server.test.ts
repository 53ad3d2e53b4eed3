import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Clock, Heap } from './events.js';
import { type Discipline, Server } from './server.js';

interface Job {
  readonly atMs: number;
  readonly work: number;
  readonly urgent?: boolean;
  readonly owner?: number;
}

/** When each job is done; undefined = never. */
function run(discipline: Discipline, jobs: readonly Job[], also: (clock: Clock, server: Server) => void = () => undefined) {
  const clock = new Clock();
  const server = new Server(clock, discipline);
  const done: (number | undefined)[] = jobs.map(() => undefined);
  for (const [i, { atMs, work, urgent = false, owner = 0 }] of jobs.entries()) {
    clock.at(atMs, () => {
      server.add(
        owner,
        work,
        () => {
          done[i] = clock.nowMs;
        },
        undefined,
        urgent,
      );
    });
  }
  also(clock, server);
  clock.run(() => false, Number.POSITIVE_INFINITY);
  return { done, busyMs: server.busyMs };
}

describe('a resource', () => {
  it('does one job after the other, or all at once', () => {
    const jobs = [
      { atMs: 0, work: 10 },
      { atMs: 5, work: 10 },
    ];
    expect(run('fifo', jobs).done).toEqual([10, 20]);
    // From 5 to 15 both have half; the second has 5 left then.
    expect(run('fair', jobs).done).toEqual([15, 20]);
  });

  it('lets urgent jobs go first, and goes on where it was', () => {
    const jobs = [
      { atMs: 0, work: 10 },
      { atMs: 4, work: 3, urgent: true },
      { atMs: 5, work: 1, urgent: true },
    ];
    expect(run('fifo', jobs).done).toEqual([14, 7, 8]);
  });

  it('changes its speed in the middle of a job, and stops at 0', () => {
    const slower = run('fifo', [{ atMs: 0, work: 10 }], (clock, server) => clock.at(4, () => server.setSpeed(0.5)));
    expect(slower.done).toEqual([16]);
    const paused = run('fifo', [{ atMs: 0, work: 10 }], (clock, server) => {
      clock.at(4, () => server.setSpeed(0));
      clock.at(100, () => server.setSpeed(2));
    });
    expect(paused.done).toEqual([103]);
  });

  it('drops the jobs of one owner only', () => {
    const jobs = [
      { atMs: 0, work: 10, owner: 1 },
      { atMs: 0, work: 10, owner: 2 },
      { atMs: 0, work: 10, owner: 1 },
      { atMs: 0, work: 10, owner: 2 },
    ];
    const { done } = run('fifo', jobs, (clock, server) => clock.at(5, () => server.drop(1)));
    expect(done).toEqual([undefined, 15, undefined, 25]);
  });

  it('does all work, neither more nor less, in any order and by any discipline', () => {
    const job = fc.record({
      atMs: fc.integer({ min: 0, max: 50 }),
      work: fc.integer({ min: 0, max: 20 }),
      urgent: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(job, { minLength: 1, maxLength: 20 }), fc.constantFrom('fifo' as const, 'fair' as const), (jobs, discipline) => {
        const { done, busyMs } = run(discipline, jobs);
        const total = jobs.reduce((sum, { work }) => sum + work, 0);
        expect(busyMs).toBeCloseTo(total, 6);
        for (const [i, at] of done.entries()) expect(at).toBeGreaterThanOrEqual((jobs[i]?.atMs ?? 0) + (jobs[i]?.work ?? 0) - 1e-6);
        // The last is done when a resource that never idles while it has work would be done.
        let free = 0;
        for (const { atMs, work } of [...jobs].sort((a, b) => a.atMs - b.atMs)) free = Math.max(free, atMs) + work;
        expect(Math.max(...done.map((at) => at ?? Number.NaN))).toBeCloseTo(Math.max(free, ...jobs.map(({ atMs }) => atMs)), 6);
      }),
    );
  });
});

describe('a heap', () => {
  it('gives the least first, equal ones in order of insertion, whatever is taken out', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 9 }), { maxLength: 60 }), fc.integer({ min: 0, max: 9 }), (keys, removed) => {
        const heap = new Heap<{ key: number; order: number }>(({ key }) => key);
        for (const [order, key] of keys.entries()) heap.push({ key, order });
        heap.remove(({ key }) => key === removed);
        const expected = keys
          .map((key, order) => ({ key, order }))
          .filter(({ key }) => key !== removed)
          .sort((a, b) => a.key - b.key || a.order - b.order);
        const taken = [];
        for (let item = heap.pop(); item !== undefined; item = heap.pop()) taken.push(item);
        expect(taken).toEqual(expected);
      }),
    );
  });
});

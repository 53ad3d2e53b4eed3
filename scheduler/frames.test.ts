import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type Answer,
  ATTEMPTS,
  FRAME_LIMITS,
  type FrameEffect,
  type FrameLimits,
  type InForce,
  type Issue,
  MOST_DEADLINE_MS,
} from './frame-types.js';
import { FrameTable } from './frames.js';

type Effect = FrameEffect<string, string>;
const LIMITS: FrameLimits = { ...FRAME_LIMITS, queueFrames: 4 };
const BUDGET = { budget: 2, expectedMs: 10 };
const one = (epoch: number, ...agents: string[]): InForce => ({ ...BUDGET, epoch, stages: [{ agents: [agents] }] });
const replicated = (epoch: number, ...agents: string[]): InForce => ({ ...BUDGET, epoch, stages: [{ agents: agents.map((a) => [a]) }] });

function table(limits: Partial<FrameLimits> = {}, network: InForce | undefined = one(1, 'a')) {
  const frames = new FrameTable<string, string>({ ...LIMITS, ...limits });
  if (network !== undefined) frames.install(network, 0);
  return frames;
}
const submission = (sequence: number, deadlineMs = 0) => ({ client: 'c', sequence, input: `in${sequence}`, bytes: 10, deadlineMs });
const issues = (effects: readonly Effect[]) => effects.filter((e): e is Issue<string> => e.kind === 'issue');
const answers = (effects: readonly Effect[]) => effects.filter((e): e is Answer<string> => e.kind === 'answer');
const lost = (frame: number, attempt: number, peer = 'a') => ({ frame, attempt, agent: 'x', peer, code: 'LANE_DOWN', message: 'no lane' });

describe('frames', () => {
  it('issues within the budget, queues beyond it and refuses beyond the queue', () => {
    const frames = table();
    const effects = [1, 2, 3, 4, 5, 6, 7].flatMap((n) => frames.submit(submission(n), 0));
    expect(issues(effects).map((e) => e.frame)).toEqual([1, 2]);
    expect(frames.queued).toBe(4);
    expect(answers(effects)).toMatchObject([{ sequence: 7, error: { code: 'FRAME_REFUSED' } }]);
    const next = frames.complete(1, 1, 'out', 3, 5);
    expect(answers(next)).toMatchObject([{ sequence: 1, output: 'out', attempts: 1, latencyMs: 5 }]);
    expect(issues(next).map((e) => e.frame)).toEqual([3]);
    expect(frames.lowWater).toBe(2);
  });

  it('says which attempts something may still be sent for', () => {
    const frames = table({ pauseMs: 0 }, replicated(1, 'a', 'b'));
    frames.submit(submission(1), 0);
    expect([frames.isLive(1, 1), frames.isLive(1, 2), frames.isLive(2, 1)]).toEqual([true, false, false]);
    frames.trouble(lost(1, 1), 1);
    expect([frames.isLive(1, 1), frames.isLive(1, 2)]).toEqual([false, true]);
    frames.complete(1, 2, 'out', 3, 2);
    expect(frames.isLive(1, 2)).toBe(false);
  });

  it('issues again at once, when a plan without a suspect agent comes into force, what counts on that agent; its result is still welcome', () => {
    const suspects = new Set<string>();
    const frames = new FrameTable<string, string>(LIMITS, 1, suspects);
    frames.install(one(1, 'a', 'b'), 0);
    frames.submit(submission(1), 0);
    expect(issues(frames.install(one(2, 'a', 'b'), 100))).toEqual([]);
    suspects.add('b');
    expect(issues(frames.install(one(3, 'a', 'b'), 200))).toEqual([]);
    expect(issues(frames.install(one(4, 'a', 'c'), 300))).toMatchObject([{ frame: 1, attempt: 2, epoch: 4 }]);
    expect(answers(frames.complete(1, 1, 'out', 3, 400))).toMatchObject([{ output: 'out' }]);
  });

  it('gives a resubmitted frame the stored answer, until the client acknowledged it', () => {
    const frames = table();
    frames.submit(submission(1), 0);
    expect(frames.submit(submission(1), 1)).toEqual([]);
    frames.complete(1, 1, 'out', 3, 2);
    expect(answers(frames.submit(submission(1), 3))).toMatchObject([{ output: 'out' }]);
    expect(frames.complete(1, 1, 'again', 3, 4)).toEqual([]);
    expect(frames.duplicates).toBe(1);
    frames.acknowledge('c', 1);
    expect(issues(frames.submit(submission(1), 5))).toHaveLength(1);
  });

  it('takes another replica at once when one cannot be reached', () => {
    const frames = table({}, replicated(1, 'a', 'b'));
    const first = issues(frames.submit(submission(1), 0))[0];
    const failing = first?.route[0] === 0 ? 'a' : 'b';
    const again = frames.trouble(lost(1, 1, failing), 1);
    expect(again.map((e) => e.kind)).toEqual(['cancel', 'issue']);
    expect(issues(again)[0]).toMatchObject({ attempt: 2, route: [first?.route[0] === 0 ? 1 : 0] });
  });

  it('ends every frame, also one for which somebody says that he waits for ever', () => {
    const frames = table();
    frames.withdraw('nobody is there');
    for (const [i, deadlineMs] of [Number.POSITIVE_INFINITY, Number.MAX_VALUE, Number.NaN].entries())
      frames.submit(submission(i, deadlineMs), 0);
    expect(answers(frames.tick(LIMITS.deadlineMs))).toMatchObject([{ sequence: 2, error: { code: 'FRAME_DEADLINE' } }]);
    expect(answers(frames.tick(MOST_DEADLINE_MS)).map(({ sequence }) => sequence)).toEqual([0, 1]);
  });

  it('waits before the only route is tried again, and not at all when a new plan comes', () => {
    const frames = table();
    frames.submit(submission(1), 0);
    expect(issues(frames.trouble(lost(1, 1), 0))).toEqual([]);
    expect(issues(frames.tick(1000))).toEqual([]);
    expect(issues(frames.tick(1300))).toMatchObject([{ attempt: 2 }]);
    frames.trouble(lost(1, 2), 1400);
    expect(issues(frames.install(one(2, 'b'), 1500))).toMatchObject([{ attempt: 3, epoch: 2 }]);
  });

  it('does not spend attempts while no plan is in force', () => {
    const frames = table();
    frames.submit(submission(1), 0);
    expect(frames.agentLost('a', 10).map((e) => e.kind)).toEqual(['cancel']);
    for (let now = 20; now < 9000; now += 500) expect(frames.tick(now)).toEqual([]);
    expect(issues(frames.install(one(2, 'b'), 9000))).toMatchObject([{ attempt: 2, epoch: 2 }]);
  });

  it('fails a frame after three attempts and says what the last one met', () => {
    const frames = table();
    frames.submit(submission(1), 0);
    const broken = (attempt: number) => ({ ...lost(1, attempt, ''), agent: 'a', code: 'ENGINE_RUN_FAILED', message: 'boom' });
    expect(issues(frames.trouble(broken(1), 1))).toMatchObject([{ attempt: 2 }]);
    expect(issues(frames.trouble(broken(2), 2))).toMatchObject([{ attempt: 3 }]);
    const end = answers(frames.trouble(broken(3), 3));
    expect(end).toMatchObject([{ attempts: 3, error: { code: 'FRAME_FAILED' } }]);
    expect(end[0]?.error?.message).toContain('boom');
  });

  it('re-issues an attempt that was overtaken and takes too long, counts it, and takes whichever result comes first', () => {
    const frames = table({ attemptFloorMs: 100 });
    frames.submit(submission(1), 0);
    frames.submit(submission(2), 5);
    frames.complete(2, 1, 'overtook', 1, 20);
    expect(frames.tick(99)).toEqual([]);
    expect(issues(frames.tick(100))).toMatchObject([{ frame: 1, attempt: 2 }]);
    expect(frames.inFlight).toBe(2);
    expect(issues(frames.submit(submission(3), 110))).toEqual([]);
    const done = frames.complete(1, 1, 'late but right', 1, 120);
    expect(done.map((e) => e.kind)).toEqual(['cancel', 'answer', 'issue']);
    expect(frames.complete(1, 2, 'dup', 1, 130)).toEqual([]);
  });

  describe('while an agent is suspect', () => {
    const suspects = new Set<string>();
    const started = (network: InForce, limits: Partial<FrameLimits> = {}) => {
      suspects.clear();
      const frames = new FrameTable<string, string>({ ...LIMITS, queueFrames: 64, ...limits }, 1, suspects);
      frames.install(network, 0);
      return frames;
    };

    it('sends new frames by other replicas, until it is heard again', () => {
      const frames = started({ ...replicated(1, 'a', 'b'), budget: 100 });
      suspects.add('b');
      const ways = (from: number) => Array.from({ length: 8 }, (_, i) => issues(frames.submit(submission(from + i), 0))[0]?.route[0]);
      expect(new Set(ways(1))).toEqual(new Set([0]));
      suspects.delete('b');
      expect(ways(10)).toContain(1);
    });

    it('takes it where there is no other way, and before the one that just failed this frame', () => {
      const alone = started(one(1, 'a'));
      suspects.add('a');
      expect(issues(alone.submit(submission(1), 0))).toMatchObject([{ route: [0] }]);
      const frames = started(replicated(1, 'a', 'b'));
      suspects.add('b');
      frames.submit(submission(1), 0);
      expect(issues(frames.trouble(lost(1, 1, 'a'), 1))).toMatchObject([{ attempt: 2, route: [1] }]);
    });

    it('issues what is under way there again once it takes longer than usual, and takes whichever result comes first', () => {
      const frames = started({ ...replicated(1, 'a', 'b'), budget: 10 });
      const first = [1, 2].flatMap((n) => issues(frames.submit(submission(n), 0)));
      const frameOn = (issued: readonly Issue<string>[], replica: number) => issued.find((e) => e.route[0] === replica)?.frame ?? -1;
      frames.complete(frameOn(first, 0), 1, 'out', 1, 30);
      const then = [3, 4, 5, 6].flatMap((n) => issues(frames.submit(submission(n), 31)));
      const [older, younger] = [frameOn(first, 1), frameOn(then, 1)];
      suspects.add('b');
      expect(issues(frames.tick(40))).toMatchObject([{ frame: older, attempt: 2, route: [0] }]);
      const later = issues(frames.tick(61));
      expect(later.map((e) => e.frame)).toContain(younger);
      expect(later.every((e) => e.attempt === 2 && e.route[0] === 0)).toBe(true);
      expect(issues(frames.tick(200))).toEqual([]);
      // It was only slow.
      suspects.delete('b');
      expect(answers(frames.complete(older, 1, 'late', 1, 210))).toMatchObject([{ output: 'late', attempts: 2 }]);
      expect(frames.complete(older, 2, 'again', 1, 220)).toEqual([]);
    });

    it('waits for what is there where every way leads through it, and keeps the last attempt for a loss', () => {
      const alone = started(one(1, 'a'));
      alone.submit(submission(1), 0);
      suspects.add('a');
      for (let now = 50; now < 4000; now += 50) expect(issues(alone.tick(now))).toEqual([]);
      const frames = started(replicated(1, 'a', 'b', 'c'));
      frames.submit(submission(1), 0);
      for (const agent of ['a', 'b']) suspects.add(agent);
      // Wherever it began, and wherever it goes then, falls silent.
      frames.tick(100);
      suspects.add('c');
      suspects.delete('a');
      for (let now = 150; now < 4000; now += 50) frames.tick(now);
      expect(frames.reissued).toBeLessThanOrEqual(1);
      expect(answers(['a', 'b', 'c'].flatMap((agent) => frames.agentLost(agent, 4000)))).toEqual([]);
    });

    it('counts what is issued again against the budget', () => {
      const frames = started({ ...replicated(1, 'a', 'b'), budget: 4 });
      for (let n = 1; n <= 12; n++) frames.submit(submission(n), 0);
      suspects.add('a');
      frames.tick(100);
      const twice = frames.reissued;
      expect(twice).toBeGreaterThan(0);
      expect(frames.inFlight).toBe(4 + twice);
      // One is done, and nothing new is admitted yet.
      expect(issues(frames.complete(1, 1, 'out', 1, 101))).toEqual([]);
      expect(frames.queued).toBe(8);
    });
  });

  it('is patient while nothing at all comes back: more attempts would make a slow cluster slower', () => {
    const frames = table({ attemptFloorMs: 100 });
    frames.submit(submission(1), 0);
    expect(frames.tick(399)).toEqual([]);
    expect(issues(frames.tick(400))).toMatchObject([{ frame: 1, attempt: 2 }]);
  });

  it('says at the deadline what the frame waited for', () => {
    const frames = table({}, undefined);
    frames.withdraw('no agent is ready');
    frames.submit(submission(1, 50), 0);
    expect(answers(frames.tick(60))[0]?.error).toMatchObject({
      code: 'FRAME_DEADLINE',
      message: expect.stringContaining('no agent is ready'),
    });
  });

  it('answers every unfinished frame when the deployment is removed', () => {
    const frames = table();
    for (const n of [1, 2, 3]) frames.submit(submission(n), 0);
    const gone = answers(frames.remove(5));
    expect(gone.map((a) => a.error?.code)).toEqual(['DEPLOYMENT_REMOVED', 'DEPLOYMENT_REMOVED', 'DEPLOYMENT_REMOVED']);
    expect(frames.inFlight + frames.queued).toBe(0);
    expect(answers(frames.submit(submission(9), 6))[0]?.error?.code).toBe('DEPLOYMENT_REMOVED');
  });

  it('bounds what it keeps by count, bytes and age', () => {
    const frames = table({ keptResults: 2, keptMs: 1000 }, { ...one(1, 'a'), budget: 9 });
    for (const n of [1, 2, 3]) frames.submit(submission(n), 0);
    for (const n of [1, 2, 3]) frames.complete(n, 1, `out${n}`, 1, 1);
    expect(issues(frames.submit(submission(1), 2))).toHaveLength(1);
    expect(answers(frames.submit(submission(3), 2))).toHaveLength(1);
    frames.tick(1500);
    expect(issues(frames.submit(submission(3), 1501))).toHaveLength(1);
  });

  it('gives exactly one answer per frame under any interleaving of results, troubles, losses, duplicates and new plans', () => {
    const step = fc.oneof(
      fc.record({ do: fc.constant('submit' as const), n: fc.integer({ min: 1, max: 6 }) }),
      fc.record({ do: fc.constantFrom('complete' as const, 'trouble' as const), n: fc.nat(9), attempt: fc.integer({ min: 1, max: 3 }) }),
      fc.record({ do: fc.constantFrom('lose' as const), agent: fc.constantFrom('a', 'b') }),
      fc.record({ do: fc.constantFrom('install' as const, 'withdraw' as const, 'tick' as const) }),
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(step, fc.integer({ min: 0, max: 800 })), { maxLength: 60 }), (steps) => {
        const frames = new FrameTable<string, string>({ ...LIMITS, attemptFloorMs: 1500, deadlineMs: 6000 });
        const submitted = new Set<number>();
        const answered = new Map<number, number>();
        const live = new Map<number, Set<number>>();
        let now = 0;
        let epoch = 0;
        const see = (effects: readonly Effect[], stored = false): void => {
          for (const effect of effects) {
            if (effect.kind === 'issue') {
              expect(effect.attempt).toBeLessThanOrEqual(ATTEMPTS);
              expect(live.get(effect.frame)?.has(effect.attempt) ?? false).toBe(false);
              live.set(effect.frame, (live.get(effect.frame) ?? new Set()).add(effect.attempt));
            } else if (effect.kind === 'answer' && !stored) answered.set(effect.sequence, (answered.get(effect.sequence) ?? 0) + 1);
          }
        };
        for (const [action, passed] of steps) {
          now += passed;
          if (action.do === 'submit') {
            const first = !submitted.has(action.n);
            submitted.add(action.n);
            see(frames.submit(submission(action.n), now), !first);
          } else if (action.do === 'complete') {
            if (live.get(action.n)?.has(action.attempt)) see(frames.complete(action.n, action.attempt, 'o', 1, now));
          } else if (action.do === 'trouble') see(frames.trouble(lost(action.n, action.attempt, 'b'), now));
          else if (action.do === 'lose') see(frames.agentLost(action.agent, now));
          else if (action.do === 'install') see(frames.install(replicated(++epoch, 'a', 'b'), now));
          else if (action.do === 'withdraw') frames.withdraw('test');
          else see(frames.tick(now));
          expect(frames.inFlight).toBeGreaterThanOrEqual(0);
        }
        see(frames.tick(now + 10_000));
        for (const sequence of submitted) expect(answered.get(sequence)).toBe(1);
        expect(frames.inFlight + frames.queued).toBe(0);
        expect(frames.lowWater).toBe(frames.nextNumber);
      }),
      { numRuns: 300 },
    );
  });
});

/** Frames on coded stages: one missing part is nobody's loss, two are. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Answer, FRAME_LIMITS, type FrameEffect, type InForce, type Issue } from './frame-types.js';
import { FrameTable } from './frames.js';
import { hasRoute, Router } from './router.js';

type Effect = FrameEffect<string, string>;
const issues = (effects: readonly Effect[]) => effects.filter((e): e is Issue<string> => e.kind === 'issue');
const answers = (effects: readonly Effect[]) => effects.filter((e): e is Answer<string> => e.kind === 'answer');
const submission = (sequence: number) => ({ client: 'c', sequence, input: `in${sequence}`, bytes: 10, deadlineMs: 0 });
const broken = (agent: string, peer: string, frame = 1) => ({ frame, attempt: 1, agent, peer, code: 'LANE_DOWN', message: 'no lane' });

/** a, b and c with the parity on p, twice (the second stage in another order), then m, which merges. */
const STAGES = [
  { agents: [['a', 'b', 'c', 'p']], redundancy: 1 },
  { agents: [['c', 'b', 'a', 'p']], redundancy: 1 },
  { agents: [['m']], redundancy: 0 },
];
const CODED: InForce = { epoch: 1, stages: STAGES, budget: 4, expectedMs: 10 };

function table(network: InForce = CODED) {
  const frames = new FrameTable<string, string>(FRAME_LIMITS);
  frames.install(network, 0);
  frames.submit(submission(1), 0);
  return frames;
}

describe('an attempt through coded stages', () => {
  it.each(['a', 'b', 'c', 'p'])('goes on when %s is lost, and so do new ones, without counting on it', (agent) => {
    const frames = table();
    expect(frames.agentLost(agent, 1)).toEqual([]);
    const [next] = issues(frames.submit(submission(2), 2));
    expect(next).toMatchObject({ attempt: 1, without: new Set([agent]) });
    expect(answers(frames.complete(1, 1, 'out', 3, 4))).toMatchObject([{ attempts: 1, output: 'out' }]);
    expect(answers(frames.complete(2, 1, 'out', 3, 5))).toMatchObject([{ attempts: 1 }]);
    expect(frames.reissued).toBe(0);
  });

  it('ends when a second part of a stage is lost, or the seat that merges', () => {
    for (const also of ['b', 'p', 'm']) {
      const frames = table();
      frames.agentLost('a', 1);
      expect(frames.agentLost(also, 2).map((e) => e.kind)).toEqual(['cancel']);
      expect(issues(frames.submit(submission(2), 3))).toEqual([]);
    }
  });

  it('does not mind what is said of a part that cannot be reached, fails, or does not reach the others', () => {
    for (const troubles of [
      [broken('dispatcher', 'a'), broken('b', 'a'), broken('p', 'a'), broken('a', '')],
      [{ ...broken('a', ''), code: 'ENGINE_RUN_FAILED' }],
      // Its lanes to two consumers broke: it is one part that is missing, not two.
      [broken('a', 'b'), broken('a', 'm'), broken('a', 'c')],
    ]) {
      const frames = table();
      for (const trouble of troubles) expect(frames.trouble(trouble, 1)).toEqual([]);
      expect(frames.inFlight).toBe(1);
      expect(frames.reissued).toBe(0);
    }
  });

  it('ends when two parts cannot be reached, or the dispatcher cannot reach what is not coded', () => {
    const frames = table();
    expect(frames.trouble(broken('dispatcher', 'a'), 1)).toEqual([]);
    expect(frames.trouble(broken('dispatcher', 'b'), 1).map((e) => e.kind)).toEqual(['cancel']);
    expect(
      table()
        .trouble(broken('dispatcher', 'm'), 1)
        .map((e) => e.kind),
    ).toEqual(['cancel']);
    // Nobody on the route: who says so, and of whom, is not known.
    expect(table().trouble(broken('x', 'y'), 1)[0]?.kind).toBe('cancel');
    const both = table();
    expect(both.trouble(broken('a', 'm'), 1)).toEqual([]);
    expect(both.trouble(broken('b', 'm'), 1).map((e) => e.kind)).toEqual(['cancel']);
  });

  it('leaves an agent that is to be retired at once: new ones do not count on it', () => {
    const frames = table();
    frames.retire('b');
    expect(frames.usesAgent(1, 'b')).toBe(true);
    frames.submit(submission(2), 1);
    frames.complete(1, 1, 'out', 3, 2);
    expect(frames.usesAgent(1, 'b')).toBe(false);
    expect(frames.inFlight).toBe(1);
  });

  it('does not mind that an agent of a coded stage is suspect, and counts on it all the same', () => {
    const suspects = new Set(['b']);
    const frames = new FrameTable<string, string>(FRAME_LIMITS, 1, suspects);
    frames.install(CODED, 0);
    expect(issues(frames.submit(submission(1), 0))).toMatchObject([{ without: new Set() }]);
    for (let now = 50; now < 4000; now += 50) expect(frames.tick(now)).toEqual([]);
    expect(frames.inFlight).toBe(1);
  });

  it('counts on an agent again that was only silent', () => {
    const frames = table();
    frames.agentLost('a', 1);
    frames.agentBack('a', 2);
    expect(issues(frames.submit(submission(2), 3))).toMatchObject([{ without: new Set() }]);
  });
});

describe('a route', () => {
  it('prefers the replica that lacks nothing, and takes one that lacks a part rather than none', () => {
    const stages = [
      {
        agents: [
          ['a', 'b', 'p'],
          ['c', 'd', 'q'],
        ],
        redundancy: 1,
      },
    ];
    const router = new Router({ epoch: 1, stages });
    const gone =
      (...names: string[]) =>
      (agent: string) =>
        names.includes(agent);
    for (let turn = 0; turn < 4; turn++) expect(router.pick(gone('d'))).toEqual([0]);
    for (let turn = 0; turn < 4; turn++) expect(router.pick(gone('a', 'b', 'q'))).toEqual([1]);
    expect(router.pick(gone('a', 'b', 'c', 'q'))).toBeUndefined();
  });

  it('is there exactly as long as every stage has a replica that lacks no more than it may', () => {
    const names = fc.constantFrom<string>('a', 'b', 'c', 'd', 'e');
    const stage = fc.record({
      agents: fc.array(fc.uniqueArray(names, { minLength: 3, maxLength: 3 }), { minLength: 1, maxLength: 3 }),
      redundancy: fc.integer({ min: 0, max: 1 }),
    });
    fc.assert(
      fc.property(fc.array(stage, { minLength: 1, maxLength: 4 }), fc.uniqueArray(names, { maxLength: 3 }), (stages, gone) => {
        const avoid = (agent: string) => gone.includes(agent);
        const router = new Router({ epoch: 1, stages });
        const route = router.pick(avoid);
        expect(route !== undefined).toBe(hasRoute(stages, avoid));
        if (route !== undefined) expect(router.survives(route, new Set(gone))).toBe(true);
      }),
    );
  });
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isChairError } from '../../broker/errors.js';
import { auto } from '../planners/auto.js';
import { type ChainBlock, chain } from '../planners/chain-model.js';
import { draft } from '../planners/draft.js';
import { manual } from '../planners/manual.js';
import { pipeline } from '../planners/pipeline.js';
import {
  type CpuQuota,
  type Device,
  isRefusal,
  type Links,
  type PlanDraft,
  type PlanProblem,
  type PlanRefusal,
  type SeatedStage,
} from '../planners/problem.js';
import { replicas } from '../planners/replicas.js';
import { single } from '../planners/single.js';
import type { SimulationOptions, SimulationResult } from './options.js';
import { simulatePlan } from './simulate.js';

const LINKS: Links = { usual: { bytesPerSecond: 12.5e6, latencyMs: 1 }, between: new Map() };
const FAST: Links = { usual: { bytesPerSecond: 1e12, latencyMs: 0 }, between: new Map() };
const BLOCKS: readonly ChainBlock[] = [
  { macs: 2e8, weightBytes: 1e6, rows: 80 },
  { macs: 1e8, weightBytes: 2e6, rows: 60 },
  { macs: 1e8, weightBytes: 1e6, rows: 20 },
];

/** Devices without fixed costs of runs, nodes and messages: times can be worked out in the head. */
function devices(...gmacs: readonly number[]): Device[] {
  return gmacs.map((g, i) => ({
    agent: `a${i}`,
    macsPerSecond: g * 1e9,
    memoryBytes: 0,
    memoryBytesPerSecond: 1e15,
    ...{ runMs: 0, nodeMs: 0, messageMs: 0, copyBytesPerSecond: 1e15 },
  }));
}

function problemOf(blocks: readonly ChainBlock[], fleet: readonly Device[], links: Links): PlanProblem {
  return { facts: chain(blocks), devices: fleet, links, objective: 'throughput', inFlight: 0 };
}

function drafted(answer: PlanDraft | PlanRefusal): PlanDraft {
  if (isRefusal(answer)) throw new Error(answer.reason);
  return answer;
}

const closed = (inFlight: number) => ({ kind: 'closed' as const, inFlight });

function bound(stages: readonly SeatedStage[], plan: PlanDraft): number {
  const rates = stages.map((stage, s) =>
    stage.agents.reduce((sum, _, r) => {
      const ms = plan.estimate.seats.filter((seat) => seat.stage === s && seat.replica === r).map((seat) => seat.ms);
      return sum + 1000 / Math.max(...ms);
    }, 0),
  );
  return Math.min(...rates);
}

describe('a plan in simulated time', () => {
  it('takes one device 400 ms a frame, one after the other', () => {
    const fleet = devices(1);
    const plan = drafted(single(problemOf(BLOCKS, fleet, FAST)));
    const result = simulatePlan({ draft: plan, devices: fleet, links: FAST, load: closed(1), frames: 5 });
    // 4e8 MACs at 1e9 a second, and two messages of 0.2 ms.
    for (const ms of result.latenciesMs) expect(ms).toBeCloseTo(400.4, 0);
    expect(result.fps).toBeCloseTo(1000 / 400.4, 2);
    expect(result.frames).toEqual({ sent: 5, completed: 5, failed: 0, reissued: 0 });
  });

  it('fills a pipeline: its slowest stage sets the pace, and a frame in a full pipe waits', () => {
    const fleet = devices(1, 1);
    const problem = problemOf(BLOCKS, fleet, FAST);
    const stages: SeatedStage[] = [
      { spec: { nodes: [0, 1], cut: 'whole', shares: [1] }, agents: [['a0']] },
      { spec: { nodes: [1, 3], cut: 'whole', shares: [1] }, agents: [['a1']] },
    ];
    const plan = drafted(draft(problem, 'test', stages));
    const result = simulatePlan({ draft: plan, devices: fleet, links: FAST, load: closed(3), budget: 3, frames: 50 });
    // Two stages of 200 ms; three frames in flight at 5 a second are 600 ms each.
    expect(result.fps).toBeCloseTo(5, 1);
    expect(result.latencyMs.p50).toBeCloseTo(600, -1);
    expect(
      result.resources
        .filter(({ kind }) => kind === 'compute')
        .slice(0, 2)
        .every(({ busy }) => busy > 0.98),
    ).toBe(true);
  });

  it('gives a device of twice the speed twice the frames', () => {
    const fleet = devices(2, 1);
    const plan = drafted(replicas(problemOf(BLOCKS, fleet, FAST)));
    const result = simulatePlan({ draft: plan, devices: fleet, links: FAST, load: closed(6), budget: 6, frames: 600, spans: 5000 });
    const runs = (who: string): number => result.spans.filter((span) => span.what === 'run' && span.who === who).length;
    expect(runs('a0') / runs('a1')).toBeGreaterThan(1.8);
    expect(runs('a0') / runs('a1')).toBeLessThan(2.2);
    expect(result.fps).toBeGreaterThan(0.95 * 7.5);
  });

  it('keeps uneven replicas of every stage busy in a plan of several stages', () => {
    const fleet = devices(4, 1, 4, 1);
    const problem = problemOf(BLOCKS, fleet, FAST);
    const stages: SeatedStage[] = [
      { spec: { nodes: [0, 1], cut: 'whole', shares: [1] }, agents: [['a0'], ['a1']] },
      { spec: { nodes: [1, 3], cut: 'whole', shares: [1] }, agents: [['a2'], ['a3']] },
    ];
    const plan = drafted(draft(problem, 'test', stages));
    const result = simulatePlan({ draft: plan, devices: fleet, links: FAST, load: closed(12), budget: 12, frames: 600 });
    // 200 ms of a device of speed 1 on 5 of them, at each stage.
    expect(result.fps / 25).toBeGreaterThan(0.93);
  });

  it.each([
    ['equal', [1, 1, 1, 1, 1, 1, 1, 1]],
    ['uneven', [1, 2, 4, 1, 2, 4]],
  ])('never lets %s replicas wait for their next frame, although no two runs take equally long', (kind, speeds) => {
    const fleet = devices(...speeds);
    const plan = drafted(replicas(problemOf(BLOCKS, fleet, LINKS)));
    const leastBusy = (budget: number): number => {
      const result = simulatePlan({ draft: plan, devices: fleet, links: LINKS, load: closed(64), budget, frames: 800, noise: 0.25 });
      const busy = result.resources.filter(({ kind, who }) => kind === 'compute' && who !== 'dispatcher').map((use) => use.busy);
      expect(busy).toHaveLength(speeds.length);
      return Math.min(...busy);
    };
    expect(leastBusy(plan.inFlight)).toBeGreaterThan(0.96);
    // Little's law and one more: too few where all are as slow as the slowest, of which that law speaks.
    if (kind === 'equal') expect(leastBusy(plan.inFlight - speeds.length + 1)).toBeLessThan(leastBusy(plan.inFlight) - 0.005);
  });

  it('is held up by the link of the gateway when that is the narrowest', () => {
    const fleet = devices(10, 10);
    const slow: Links = { usual: { bytesPerSecond: 1.024e6, latencyMs: 1 }, between: new Map() };
    const plan = drafted(replicas(problemOf(BLOCKS, fleet, slow)));
    const result = simulatePlan({ draft: plan, devices: fleet, links: slow, load: closed(8), budget: 8, frames: 100 });
    // Inputs of 102,400 bytes at 1.024 MB/s: 100 ms and 0.2 ms of overhead each.
    expect(result.fps).toBeCloseTo(1000 / 100.2, 1);
    expect(result.resources[0]).toMatchObject({ who: 'dispatcher', kind: 'up' });
    expect(result.resources[0]?.busy).toBeGreaterThan(0.99);
  });

  it('sends all bytes through the one medium of a radio', () => {
    const fleet = devices(10, 10);
    const radio: Links = { ...FAST, sharedBytesPerSecond: 1.024e6 };
    const plan = drafted(replicas(problemOf(BLOCKS, fleet, radio)));
    const result = simulatePlan({ draft: plan, devices: fleet, links: radio, load: closed(8), budget: 8, frames: 1000 });
    // 102,400 bytes in and 20,480 out.
    expect(result.fps / (1000 / 120.4)).toBeCloseTo(1, 2);
    expect(result.resources[0]).toMatchObject({ kind: 'medium' });
  });

  it('counts what the gateway does with each frame', () => {
    const fleet = devices(10, 10, 10);
    const busy: Links = { ...FAST, gatewayFrameMs: 50 };
    const plan = drafted(replicas(problemOf(BLOCKS, fleet, busy)));
    const result = simulatePlan({ draft: plan, devices: fleet, links: busy, load: closed(8), budget: 8, frames: 200 });
    expect(result.fps / 20).toBeCloseTo(1, 1);
    expect(result.resources[0]).toMatchObject({ who: 'dispatcher', kind: 'compute' });
  });

  it('lets agents of one host share its cores', () => {
    const fleet = devices(1, 1).map((device) => ({ ...device, host: 'board' }));
    const plan = drafted(replicas(problemOf(BLOCKS, devices(1, 1), FAST)));
    const both = simulatePlan({ draft: plan, devices: fleet, links: FAST, load: closed(4), budget: 4, frames: 100 });
    expect(both.fps).toBeCloseTo(2.5, 1);
    const halves = fleet.map((device) => ({ ...device, hostShare: 0.5 }));
    const apart = simulatePlan({ draft: plan, devices: halves, links: FAST, load: closed(4), budget: 4, frames: 100 });
    expect(apart.fps).toBeCloseTo(5, 1);
  });

  it('takes frames as they come: at a rate, or at random', () => {
    const fleet = devices(1);
    const plan = drafted(single(problemOf(BLOCKS, fleet, FAST)));
    const base = { draft: plan, devices: fleet, links: FAST, frames: 4000, limits: { deadlineMs: 1e9, queueFrames: 1e5 } };
    const steady = simulatePlan({ ...base, load: { kind: 'rate', framesPerSecond: 1.25 } });
    expect(steady.fps).toBeCloseTo(1.25, 2);
    expect(steady.latencyMs.p99).toBeCloseTo(400.4, 0);
    // M/D/1 at half load waits half a service time on average: 1.5 x 400 ms.
    const random = simulatePlan({ ...base, load: { kind: 'poisson', framesPerSecond: 1.25 } });
    expect(random.latencyMs.mean).toBeGreaterThan(570);
    expect(random.latencyMs.mean).toBeLessThan(630);
  });

  it('answers what cannot be served in time with an error, once each', () => {
    const fleet = devices(1);
    const plan = drafted(single(problemOf(BLOCKS, fleet, FAST)));
    const result = simulatePlan({
      ...{ draft: plan, devices: fleet, links: FAST, frames: 100, limits: { deadlineMs: 2000, queueFrames: 3 } },
      load: { kind: 'rate', framesPerSecond: 10 },
    });
    expect(result.frames.completed + result.frames.failed).toBe(100);
    expect(result.errors.FRAME_REFUSED).toBeGreaterThan(50);
  });

  it('is the same for the same seed, and another for another', () => {
    const fleet = devices(1, 2, 3);
    const plan = drafted(replicas(problemOf(BLOCKS, fleet, LINKS)));
    const go = (seed: number): SimulationResult =>
      simulatePlan({ draft: plan, devices: fleet, links: LINKS, load: { kind: 'poisson', framesPerSecond: 10 }, noise: 0.3, seed });
    expect(go(1)).toEqual(go(1));
    expect(go(1).endedAtMs).not.toEqual(go(2).endedAtMs);
  });

  it('scatters run times about their mean', () => {
    const fleet = devices(1);
    const plan = drafted(single(problemOf(BLOCKS, fleet, FAST)));
    const result = simulatePlan({ draft: plan, devices: fleet, links: FAST, load: closed(1), frames: 3000, noise: 0.25 });
    expect(result.latencyMs.mean).toBeGreaterThan(0.98 * 400.4);
    expect(result.latencyMs.mean).toBeLessThan(1.02 * 400.4);
    expect(result.latencyMs.p95 / result.latencyMs.p50).toBeGreaterThan(1.3);
  });

  it('has one outcome for each frame where nobody is left to answer', () => {
    const fleet = devices(1, 1, 1);
    const plan = drafted(replicas(problemOf(BLOCKS, fleet, FAST)));
    const incidents = fleet.map(({ agent }) => ({ kind: 'crash' as const, agent, atMs: 0 }));
    const { frames } = simulatePlan({ draft: plan, devices: fleet, links: FAST, load: closed(3), frames: 20, incidents });
    expect(frames).toMatchObject({ sent: 20, completed: 0, failed: 20 });
  });

  it.each([
    ['no frame in flight', { load: closed(0) }, 'CONFIG_INVALID'],
    ['a rate that is no number', { load: { kind: 'rate', framesPerSecond: Number.NaN } }, 'CONFIG_INVALID'],
    ['a frame in thirty years', { load: { kind: 'rate', framesPerSecond: 1e-9 } }, 'CONFIG_INVALID'],
    ['frames that come at random for thirty years', { load: { kind: 'poisson', framesPerSecond: 1e-9 } }, 'CONFIG_INVALID'],
    ['half a frame', { frames: 0.5 }, 'CONFIG_INVALID'],
    ['a speed of nothing', { incidents: [{ kind: 'speed', agent: 'a0', atMs: 1, factor: 0 }] }, 'CONFIG_INVALID'],
    ['an agent that nobody knows', { incidents: [{ kind: 'crash', agent: 'b', atMs: 1 }] }, 'AGENT_UNKNOWN'],
    ['a plan on other devices', { devices: [] }, 'AGENT_UNKNOWN'],
  ] as const)('refuses %s', (_, wrong, code) => {
    const fleet = devices(1);
    const plan = drafted(single(problemOf(BLOCKS, fleet, FAST)));
    const options: SimulationOptions = { draft: plan, devices: fleet, links: FAST, load: closed(1), ...wrong };
    let thrown: unknown;
    try {
      simulatePlan(options);
    } catch (error) {
      thrown = error;
    }
    expect(isChairError(thrown, code)).toBe(true);
  });
});

describe('incidents', () => {
  const fleet = devices(1, 1, 1, 1);
  const problem = problemOf(BLOCKS, fleet, LINKS);
  const base = {
    ...{ draft: drafted(pipeline(problem)), devices: fleet, links: LINKS, load: closed(6), frames: 400 },
    replan: (left: readonly Device[]) => pipeline({ ...problem, devices: left }),
  };

  it('an agent that crashes is known at once: its frames are issued again, a new plan follows, nothing is lost', () => {
    const result = simulatePlan({ ...base, incidents: [{ kind: 'crash', agent: 'a1', atMs: 10_000 }] });
    expect(result.frames).toMatchObject({ sent: 400, completed: 400, failed: 0 });
    expect(result.frames.reissued).toBeGreaterThan(0);
    const [interruption] = result.interruptions;
    expect(interruption?.noticedMs).toBeLessThan(10);
    expect(interruption?.replannedMs).toBeLessThan(2000);
    expect(interruption?.gapMs).toBeLessThan(2500);
  });

  it('one that vanishes is missed after its silence, as the registry has it', () => {
    const result = simulatePlan({ ...base, incidents: [{ kind: 'vanish', agent: 'a1', atMs: 10_000 }] });
    expect(result.frames).toMatchObject({ completed: 400, failed: 0 });
    const [interruption] = result.interruptions;
    expect(interruption?.noticedMs).toBeGreaterThan(2400);
    expect(interruption?.noticedMs).toBeLessThan(3800);
    expect(interruption?.gapMs).toBeGreaterThan(2400);
  });

  it('a new plan fetches only weights that an agent does not hold: bands of another height need none', () => {
    const heavy = problemOf(
      BLOCKS.map((block) => ({ ...block, weightBytes: 100e6 })),
      fleet,
      LINKS,
    );
    const bands = (left: readonly Device[]) =>
      manual({ ...heavy, devices: left, manual: { kind: 'rows', parts: left.length, shares: [] } });
    const crash = { kind: 'crash' as const, agent: 'a1', atMs: 5000 };
    const kept = simulatePlan({ ...base, draft: drafted(bands(fleet)), replan: bands, incidents: [crash] });
    expect(kept.interruptions[0]?.replannedMs).toBeLessThan(2000);
    const moved = simulatePlan({
      ...{ ...base, draft: drafted(pipeline(heavy)), limits: { deadlineMs: 1e9 } },
      replan: (left) => pipeline({ ...heavy, devices: left }),
      incidents: [crash],
    });
    // At least 100 MB at 12.5 MB/s.
    expect(moved.interruptions[0]?.replannedMs).toBeGreaterThan(8000);
  });

  it('the local repair that stands by serves first: nothing is fetched while frames wait', () => {
    const heavy = problemOf(
      BLOCKS.map((block) => ({ ...block, weightBytes: 100e6 })),
      fleet,
      LINKS,
    );
    const plan = drafted(pipeline(heavy));
    const [[victim = ''] = []] = plan.stages[1]?.agents ?? [];
    const result = simulatePlan({
      ...{ ...base, draft: plan, limits: { deadlineMs: 1e9 } },
      replan: (left) => pipeline({ ...heavy, devices: left }),
      incidents: [{ kind: 'crash', agent: victim, atMs: 50_000 }],
    });
    expect(result.frames).toMatchObject({ completed: 400, failed: 0 });
    expect(result.interruptions[0]?.replannedMs).toBeLessThan(1000);
    expect(result.events.some(({ text }) => text.includes(`local repair after the loss of ${victim}`))).toBe(true);
  });

  it('one that comes back gets seats again', () => {
    const result = simulatePlan({
      ...base,
      incidents: [
        { kind: 'crash', agent: 'a1', atMs: 5000 },
        { kind: 'return', agent: 'a1', atMs: 15_000 },
      ],
    });
    expect(result.frames.completed).toBe(400);
    // A repair first, which is no worse than the plan of three; with four there is a better one.
    const texts = result.events.map(({ text }) => text);
    expect(texts.filter((text) => text.includes('local repair after'))).toHaveLength(1);
    expect(texts.filter((text) => text.startsWith('planned again'))).toHaveLength(1);
    expect(result.interruptions[1]?.replannedMs).toBeLessThan(2000);
  });

  it('without a planner the plan stays: replicas that are left go on', () => {
    const plan = drafted(replicas(problem));
    const result = simulatePlan({ ...base, draft: plan, replan: () => ({ refused: true, reason: 'no' }), incidents: [] });
    const { replan: _, ...fixed } = base;
    const hurt = simulatePlan({ ...fixed, draft: plan, incidents: [{ kind: 'crash', agent: 'a1', atMs: 5000 }] });
    expect(hurt.frames.completed).toBe(400);
    expect(hurt.durationMs).toBeGreaterThan(1.2 * result.durationMs);
  });

  it('a device that slows down, or its link, slows the stream by as much', () => {
    const usual = simulatePlan(base);
    const slow = simulatePlan({ ...base, incidents: [{ kind: 'speed', agent: 'a0', atMs: 0, factor: 0.25 }] });
    expect(slow.fps).toBeCloseTo(usual.fps / 4, 1);
    const link = simulatePlan({ ...base, incidents: [{ kind: 'link', agent: 'a0', atMs: 0, factor: 0.01 }] });
    // 102,400 bytes at 0.125 MB/s.
    expect(link.fps).toBeLessThan(1.25);
  });
});

describe('for any chain on any devices', () => {
  const block = fc.record({
    macs: fc.integer({ min: 1e7, max: 5e8 }),
    weightBytes: fc.constant(1e6),
    rows: fc.integer({ min: 8, max: 200 }),
  });
  const cases = fc.record({
    blocks: fc.array(block, { minLength: 1, maxLength: 5 }),
    speeds: fc.array(fc.double({ min: 0.3, max: 4, noNaN: true }), { minLength: 1, maxLength: 5 }),
    rate: fc.double({ min: 1e6, max: 2e8, noNaN: true }),
    planner: fc.constantFrom('replicas', 'pipeline', 'rows', 'auto'),
    quota: fc.constantFrom(undefined, { periodMs: 50, fullSpeed: 0.2 }),
    seed: fc.integer({ min: 1, max: 1e6 }),
  });

  interface Made {
    readonly blocks: ChainBlock[];
    readonly speeds: number[];
    readonly rate: number;
    readonly planner: string;
    readonly quota?: CpuQuota | undefined;
  }

  function planOf({ blocks, speeds, rate, planner, quota }: Made) {
    const fleet = devices(...speeds).map((device): Device => (quota === undefined ? device : { ...device, quota }));
    const links: Links = { usual: { bytesPerSecond: rate, latencyMs: 0.5 }, between: new Map() };
    const problem = problemOf(blocks, fleet, links);
    const rows = { ...problem, manual: { kind: 'rows', parts: fleet.length, shares: [] } };
    const answer = {
      replicas: () => replicas(problem),
      pipeline: () => pipeline(problem),
      auto: () => auto(problem),
      rows: () => manual(rows),
    };
    const plan = answer[planner as keyof typeof answer]();
    return isRefusal(plan) ? undefined : { plan, fleet, links };
  }

  it('every frame is answered once, and never faster than the busiest resource allows', () => {
    fc.assert(
      fc.property(cases, ({ seed, ...rest }) => {
        const made = planOf(rest);
        if (made === undefined) return;
        const { plan, fleet, links } = made;
        const frames = 150;
        const load = closed(2 * plan.inFlight);
        const result = simulatePlan({ draft: plan, devices: fleet, links, load, frames, seed, limits: { deadlineMs: 1e9 } });
        expect(result.frames).toEqual({ sent: frames, completed: frames, failed: 0, reissued: 0 });
        expect(result.endedAtMs).toHaveLength(frames);
        for (const { busy } of result.resources) expect(busy).toBeLessThanOrEqual(1 + 1e-9);
        // Counted over a window of some 100 frames, the frames that were nearly done when it opened come on top, and what a turn of a quota computes, as one may begin with it.
        const most = bound(plan.stages, plan);
        const turn = ((rest.quota?.periodMs ?? 0) / 1000) * most;
        expect(result.fps).toBeLessThanOrEqual(most * (1 + (2 * plan.inFlight + plan.stages.length + turn) / 100));
      }),
      { numRuns: 60 },
    );
  });

  it('one frame alone takes as long as the planners say', () => {
    let worst = 0;
    fc.assert(
      fc.property(cases, (one) => {
        const made = planOf(one);
        if (made === undefined || one.planner === 'replicas') return;
        const { plan, fleet, links } = made;
        if (plan.stages.some((stage) => stage.agents.length > 1)) return;
        const result = simulatePlan({ draft: plan, devices: fleet, links, load: closed(1), frames: 1, limits: { deadlineMs: 1e9 } });
        const off = result.latencyMs.p50 / plan.estimate.latencyMs - 1;
        worst = Math.max(worst, Math.abs(off));
        expect(Math.abs(off)).toBeLessThan(0.05);
      }),
      { numRuns: 80 },
    );
    expect(worst).toBeLessThan(0.05);
  });

  it('crashes at any moment lose no frame', () => {
    fc.assert(
      fc.property(cases, fc.double({ min: 0, max: 5000, noNaN: true }), ({ seed, ...rest }, atMs) => {
        const made = planOf({ ...rest, speeds: [1, ...rest.speeds] });
        if (made === undefined) return;
        const { plan, fleet, links } = made;
        const problem = problemOf(rest.blocks, fleet, links);
        const result = simulatePlan({
          ...{ draft: plan, devices: fleet, links, load: closed(4), frames: 60, seed, limits: { deadlineMs: 1e9 } },
          incidents: [{ kind: seed % 2 === 0 ? 'crash' : 'vanish', agent: 'a1', atMs }],
          replan: (left) => replicas({ ...problem, devices: left }),
        });
        expect(result.frames).toMatchObject({ sent: 60, completed: 60, failed: 0 });
      }),
      { numRuns: 60 },
    );
  });
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createRandom } from '../../models/random.js';
import { Router } from '../../scheduler/router.js';
import { type Enough, laterHalf, type Results, STEPS, type SteadyCount, steadyCount } from './steady.js';

/** More by hand, to see the far end: `STEADY_LOOPS=8000`. */
const LOOPS = Number(process.env.STEADY_LOOPS ?? 60);

type Turns = 'in turn' | 'weighted' | 'free first';

interface Loop {
  /** Of each device, ms a frame. */
  readonly frameMs: readonly number[];
  readonly turns: Turns;
  /** Frames that the gateway admits, and those of the client: the others wait at the gateway. */
  readonly admitted: number;
  readonly inFlight: number;
  /** No two frames take equally long: this part of the time, at most. */
  readonly noise: number;
  readonly seed: number;
}

/** Who takes the next frame; called with who took the last one and how long that took when it has ended. */
function chooser({ frameMs, turns }: Loop): { pick: () => number; ended: (device: number, ms: number) => void } {
  if (turns === 'weighted') {
    // Smooth weighted turns by what was predicted: of every second device a third too much.
    const weights = frameMs.map((ms, i) => (i % 2 === 0 ? 1 : 1.33) / ms);
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    const due = weights.map(() => 0);
    const pick = (): number => {
      for (const [i, weight] of weights.entries()) due[i] = (due[i] ?? 0) + weight;
      const next = due.indexOf(Math.max(...due));
      due[next] = (due[next] ?? 0) - total;
      return next;
    };
    return { pick, ended: () => undefined };
  }
  const router = new Router({ epoch: 1, stages: [{ agents: frameMs.map((_, i) => [`d${i}`]) }], inTurn: [turns === 'in turn'] });
  const pick = (): number => {
    const route = router.pick(() => false) ?? [];
    router.started(route);
    return route[0] ?? 0;
  };
  return { pick, ended: (device, ms) => router.ended([device], ms) };
}

/** Results of the loop one after another, until `until` says that it is enough; then what is outstanding still ends. */
function run(loop: Loop, until: (results: Results) => boolean): Results {
  const next = createRandom(loop.seed);
  const [endedAtMs, latenciesMs]: [number[], number[]] = [[], []];
  const { pick, ended } = chooser(loop);
  const queues = loop.frameMs.map((): { sentMs: number; admittedMs: number }[] => []);
  const doneMs = loop.frameMs.map(() => Number.POSITIVE_INFINITY);
  const waiting = Array.from({ length: loop.inFlight }, () => 0);
  let admitted = 0;
  const begin = (i: number, nowMs: number): void => {
    doneMs[i] = nowMs + (loop.frameMs[i] ?? 0) * (1 + loop.noise * (2 * next() - 1));
  };
  const admit = (nowMs: number): void => {
    for (; admitted < loop.admitted && waiting.length > 0; admitted++) {
      const i = pick();
      queues[i]?.push({ sentMs: waiting.shift() ?? 0, admittedMs: nowMs });
      if (queues[i]?.length === 1) begin(i, nowMs);
    }
  };
  admit(0);
  let isOver = false;
  while (admitted > 0) {
    const nowMs = Math.min(...doneMs);
    const i = doneMs.indexOf(nowMs);
    const frame = queues[i]?.shift() ?? { sentMs: 0, admittedMs: 0 };
    admitted--;
    if ((queues[i]?.length ?? 0) > 0) begin(i, nowMs);
    else doneMs[i] = Number.POSITIVE_INFINITY;
    ended(i, nowMs - frame.admittedMs);
    endedAtMs.push(nowMs);
    latenciesMs.push(nowMs - frame.sentMs);
    isOver ||= until({ endedAtMs, latenciesMs });
    if (!isOver) waiting.push(nowMs);
    admit(nowMs);
  }
  return { endedAtMs, latenciesMs };
}

const enoughFor = ({ frameMs }: Loop): Enough => ({ frames: STEPS * frameMs.length, ms: STEPS * Math.max(...frameMs) });

/** Looks now and then, as a load does. */
function measured(loop: Loop): SteadyCount {
  let count = steadyCount({ endedAtMs: [], latenciesMs: [] }, enoughFor(loop));
  run(loop, (so) => {
    if (so.endedAtMs.length % 8 === 0) count = steadyCount(so, enoughFor(loop));
    return count.isEnough || so.endedAtMs.length > 20_000;
  });
  return count;
}

/** What it does for ever: of a long run the last three quarters. */
function trueFps(loop: Loop): number {
  const frames = 12_000;
  const { endedAtMs } = run(loop, (so) => so.endedAtMs.length >= frames);
  return ((frames / 2) * 1000) / ((endedAtMs[frames - 1] ?? 0) - (endedAtMs[frames / 2 - 1] ?? 0));
}

/** As it was counted before: five seconds' frames by the rate of the first ones, without as many as there are agents and the last outstanding ones. */
function before(loop: Loop): number {
  const first = run(loop, (so) => so.endedAtMs.length >= loop.inFlight).endedAtMs.slice(0, loop.inFlight);
  const rate = ((first.length - 2) * 1000) / ((first.at(-1) ?? 0) - (first[1] ?? 0));
  const frames = Math.min(120, Math.max(10, Math.round(rate * 5))) + loop.inFlight;
  const { endedAtMs } = run(loop, (so) => so.endedAtMs.length >= frames - loop.inFlight);
  const [skip, end] = [loop.frameMs.length - 1, endedAtMs.length - 1 - loop.inFlight];
  return ((end - skip) * 1000) / ((endedAtMs[end] ?? 0) - (endedAtMs[skip] ?? 0));
}

/** Speeds 1:2:4 twice, the slowest takes 1.5 s a frame: VGG16's convolutions on 0.1 core. */
const UNEVEN: Loop = { frameMs: [1500, 750, 375, 1500, 750, 375], turns: 'in turn', admitted: 13, inFlight: 24, noise: 0.05, seed: 1 };

describe('frames per second of a closed loop', () => {
  it('are what the loop does for ever, whoever takes turns how, on devices of any speeds', () => {
    const loop = fc
      .record({
        frameMs: fc.array(fc.constantFrom(50, 100, 150, 200, 400, 800), { minLength: 1, maxLength: 9 }),
        turns: fc.constantFrom<Turns>('in turn', 'weighted', 'free first'),
        more: fc.integer({ min: 0, max: 12 }),
        waiting: fc.integer({ min: 0, max: 16 }),
        noise: fc.constantFrom(0, 0.05, 0.1),
        seed: fc.integer({ min: 1, max: 1e6 }),
      })
      .map(({ more, waiting, ...rest }): Loop => {
        const admitted = 2 * rest.frameMs.length + more;
        return { ...rest, admitted, inFlight: admitted + waiting };
      });
    const errors = fc.sample(loop, LOOPS).map((one) => {
      const { fps, isEnough } = measured(one);
      expect(isEnough, JSON.stringify(one)).toBe(true);
      return { one, error: Math.abs(fps / trueFps(one) - 1) };
    });
    errors.sort((a, b) => a.error - b.error);
    const far = errors.filter(({ error }) => error > 0.025);
    // Of 8,000 such loops half are within 0.2 %, 99 % within 2 %, the worst 5.1 %: few steps of the slowest, noise, and who is sixteen times slower gets a frame now and then.
    expect(errors[LOOPS / 2]?.error).toBeLessThan(0.01);
    expect(far.length, JSON.stringify(far)).toBeLessThanOrEqual(LOOPS / 10);
    expect(errors.at(-1)?.error, JSON.stringify(errors.at(-1))).toBeLessThan(0.1);
  });

  it('are those of the later half, and said not to be enough, where the time is over', () => {
    const endedAtMs = [10, 20, 30, 40, 140, 240, 340, 440];
    expect(laterHalf({ endedAtMs })).toEqual({ from: 4, to: 7, fps: 10, isEnough: false });
  });

  it('were twice the true ones where slow devices had not had their turns yet', () => {
    expect(trueFps(UNEVEN)).toBeCloseTo(4, 0);
    expect(before(UNEVEN) / trueFps(UNEVEN)).toBeGreaterThan(1.5);
    expect(measured(UNEVEN).fps / trueFps(UNEVEN)).toBeCloseTo(1, 1);
  });
});

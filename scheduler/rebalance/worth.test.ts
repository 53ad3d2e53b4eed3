import { describe, expect, it } from 'vitest';
import { type Choice, decide, Moves, worthOf } from './worth.js';

const free = { prepareMs: 0, pauseMs: 0, bytes: 0 };
const choice = (over: Partial<Choice>): Choice => ({ current: 10, candidate: 12, cost: free, horizonMs: 600_000, recent: 0, ...over });

describe('a move', () => {
  it('must gain more than a prediction may be off', () => {
    expect(decide(choice({ candidate: 10.9 })).move).toBe(false);
    expect(decide(choice({ candidate: 11.1 })).move).toBe(true);
  });

  it('must save twice what it costs before the next change', () => {
    // 1/6 of ten minutes is saved: 100 s. Preparing costs half of its time.
    expect(decide(choice({ cost: { ...free, prepareMs: 90_000 } })).move).toBe(true);
    expect(decide(choice({ cost: { ...free, prepareMs: 110_000 } })).move).toBe(false);
    expect(decide(choice({ cost: { ...free, pauseMs: 51_000 } })).move).toBe(false);
    expect(decide(choice({ cost: { ...free, prepareMs: 90_000 }, horizonMs: 60_000 })).move).toBe(false);
  });

  it('must gain twice as much after each move of the last ten minutes', () => {
    const moves = new Moves();
    const needed: number[] = [];
    for (let n = 0; n < 4; n++) {
      const recent = moves.recent(n * 20_000);
      needed.push([1.11, 1.21, 1.41, 1.81, 2.61].find((gain) => decide(choice({ candidate: 10 * gain, recent })).move) ?? 0);
      moves.add(n * 20_000, true, `plan ${n}`);
    }
    expect(needed).toEqual([1.11, 1.21, 1.41, 1.81]);
    expect(moves.recent(60_000, 'plan 2')).toBe(5);
    expect(moves.recent(60_000 + 600_000, 'plan 2')).toBe(0);
  });

  it('is made from a plan that cannot work at all', () => {
    expect(decide(choice({ current: 0 })).move).toBe(true);
  });

  it('says what it gains, saves and costs', () => {
    const { why } = decide(choice({ cost: { ...free, prepareMs: 10_000 } }));
    expect(why).toBe('20 % better; it saves 100 s of the next 600 s and costs 5.0 s');
  });
});

describe('the horizon', () => {
  it('is ten minutes where little happens, and shorter where plans change often', () => {
    const moves = new Moves();
    expect(moves.horizonMs(0)).toBe(600_000);
    for (let n = 0; n < 10; n++) moves.add(n * 90_000, false, '');
    expect(moves.horizonMs(900_000)).toBe(90_000);
    expect(moves.recent(900_000)).toBe(0);
  });
});

describe('the worth of a plan', () => {
  const estimate = { latencyMs: 100, fps: 30 };
  it('is its rate: of frames in a row for latency, of many for throughput and while frames wait', () => {
    expect(worthOf(estimate, { objective: 'latency', pressed: false })).toBe(10);
    expect(worthOf(estimate, { objective: 'throughput', pressed: false })).toBe(30);
    expect(worthOf(estimate, { objective: 'latency', pressed: true })).toBe(30);
  });

  it('is less where its frames come later than they may', () => {
    expect(worthOf(estimate, { objective: 'throughput', maxLatencyMs: 50, pressed: false })).toBe(15);
    expect(worthOf(estimate, { objective: 'throughput', maxLatencyMs: 200, pressed: false })).toBe(30);
  });
});

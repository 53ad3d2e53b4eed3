import { describe, expect, it } from 'vitest';
import { createRandom } from '../../models/random.js';
import { balanced } from './balance.js';
import { chain } from './chain-model.js';
import { burdens, estimate } from './estimate.js';
import type { Device, Links, SeatedStage } from './problem.js';

const MIB = 2 ** 20;
const LINKS: Links = { usual: { bytesPerSecond: 1e9, latencyMs: 0.1 }, between: new Map() };

function device(agent: string, speed = 1): Device {
  return {
    agent,
    macsPerSecond: speed * 1e9,
    memoryBytes: 0,
    memoryBytesPerSecond: 1e15,
    runMs: 0,
    nodeMs: 0,
    messageMs: 0,
    copyBytesPerSecond: 1e15,
  };
}

const stage = (from: number, end: number, ...agents: string[]): SeatedStage => ({
  spec: { nodes: [from, end], cut: 'whole', shares: [1] },
  agents: agents.map((agent) => [agent]),
});

/** What balancing makes of the stages, and the busiest resource before and after, ms. */
function seen(gmacs: readonly number[], devices: readonly Device[], stages: readonly SeatedStage[], links = LINKS) {
  const cut = chain(
    gmacs.map((g) => ({ macs: g * 1e9, weightBytes: MIB, rows: 4 })),
    4,
  ).cut(stages.map(({ spec }) => spec));
  if ('refused' in cut) throw new Error(cut.reason);
  const after = balanced(cut, stages, devices, links);
  const busiest = (which: readonly SeatedStage[]): number => estimate(cut, which, devices, links, 100).bottleneck.ms;
  const loads = [...burdens(cut, after, devices, links).loads].filter(
    ([what]) => what.startsWith('compute') && !what.endsWith('dispatcher'),
  );
  return { after, before: busiest(stages), now: busiest(after), loads: loads.map(([, ms]) => ms) };
}

describe('frames among replicas', () => {
  it('go to each agent as far as its other seats leave room: all are about equally busy', () => {
    const devices = ['a', 'b', 'c', 'd'].map((name) => device(name));
    // 1,000 ms on four of them, and 200 ms more on d.
    const { after, before, now, loads } = seen([1, 0.2], devices, [stage(0, 1, 'a', 'b', 'c', 'd'), stage(1, 2, 'd')]);
    expect(before).toBeCloseTo(450, -1);
    // What d alone can do counts a tenth more, so that it is never the one for whom all others wait: 1,220 ms on four.
    expect(now).toBeCloseTo(305, 0);
    expect(loads.map(Math.round)).toEqual([305, 305, 305, 285]);
    expect(after[0]?.weights).toHaveLength(4);
    expect(after[1]?.weights).toBeUndefined();
  });

  it('leave out an agent that has enough to do as it is', () => {
    const { after, now } = seen(
      [0.3, 0.2],
      ['a', 'b', 'c'].map((name) => device(name)),
      [stage(0, 1, 'a', 'b', 'c'), stage(1, 2, 'c')],
    );
    expect(after[0]?.agents).toEqual([['a'], ['b']]);
    expect(now).toBeCloseTo(200, -1);
  });

  it('are divided by speed where there is nothing else to do, and stay in turn where they are to be', () => {
    const devices = [device('fast', 4), device('slow', 1)];
    expect(seen([1], devices, [stage(0, 1, 'fast', 'slow')]).after[0]?.weights?.map((weight) => Number(weight.toFixed(2)))).toEqual([
      0.8, 0.2,
    ]);
    const turns = [{ ...stage(0, 1, 'fast', 'slow'), inTurn: true }];
    const { after, before, now } = seen([1], devices, turns);
    expect(after).toBe(turns);
    // Half of the frames wait for the slow one.
    expect([before, now]).toEqual([500.1, 500.1].map((ms) => expect.closeTo(ms, 0)));
  });

  it('count the links that replicas send and receive over, too', () => {
    const far: Device = { ...device('far'), link: { upBytesPerSecond: 1e4, downBytesPerSecond: 1e4, latencyMs: 1 } };
    // 4 KiB take 410 ms of its link: it computes as fast as the other, but cannot be told of half of the frames.
    const { after, before, now } = seen(
      [0.1, 0.01],
      [device('near'), far, device('end')],
      [{ ...stage(0, 1, 'near', 'far'), weights: [1, 1] }, stage(1, 2, 'end')],
    );
    expect(now).toBeLessThan(0.5 * before);
    expect((after[0]?.weights?.[0] ?? 0) / (after[0]?.weights?.[1] ?? 1)).toBeGreaterThan(3);
  });

  it('make nobody busier than the busiest was, but for the reserve, whatever sits where', () => {
    const next = createRandom(5);
    for (let round = 0; round < 25; round++) {
      const devices = Array.from({ length: 2 + Math.floor(5 * next()) }, (_, i) => device(`n${i}`, 1 + Math.floor(4 * next())));
      const gmacs = Array.from({ length: 1 + Math.floor(4 * next()) }, () => 0.1 + next());
      const stages = gmacs.map((_, s) => {
        const some = devices.filter(() => next() < 0.6).map(({ agent }) => agent);
        return stage(s, s + 1, ...(some.length === 0 ? ['n0'] : some));
      });
      const { after, before, now } = seen(gmacs, devices, stages);
      expect(now, `round ${round}`).toBeLessThanOrEqual(before * 1.1);
      for (const { agents, weights } of after) {
        expect(agents.length).toBeGreaterThan(0);
        if (weights !== undefined) expect(weights).toHaveLength(agents.length);
        for (const weight of weights ?? []) expect(weight).toBeGreaterThan(0);
      }
    }
  });
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { LaneHealth, LinkMeasurement } from '../../broker/messages.js';
import { DISPATCHER } from '../../broker/topics.js';
import { classesOf, type Device, type Link } from '../planners/problem.js';
import { LinkKeeper, type LinkKeeperOptions, type Pair, pairsOf } from './keeper.js';
import { linkModel } from './model.js';
import { LinkTable } from './table.js';

const USUAL: Link = { bytesPerSecond: 110e6, latencyMs: 1 };
const apart = (): boolean => false;

function found(peer: string, up: number, down = up, extra: Partial<LinkMeasurement> = {}): LinkMeasurement {
  return {
    ...{ peer, lane: 'direct' as const, roundTripMs: 1, roundTripSpreadMs: 0.1, upBytesPerSecond: up, upSpread: 0.02 },
    ...{ downBytesPerSecond: down, downSpread: 0.02, bytes: 1e6, tookMs: 100 },
    ...extra,
  };
}

/** A world in which each end has its own speeds: what pairs of it would be measured as. */
function tableOf(pairs: readonly Pair[], speed: (end: string) => { up: number; down: number }, noise: () => number = () => 1): LinkTable {
  const table = new LinkTable();
  for (const [a, b] of pairs) {
    table.measured(a, found(b, Math.min(speed(a).up, speed(b).down) * noise(), Math.min(speed(b).up, speed(a).down) * noise()), 0);
  }
  return table;
}

const star = (agents: readonly string[]): Pair[] => agents.map((agent) => [DISPATCHER, agent]);
const every = (names: readonly string[]): Pair[] => names.flatMap((a, i) => names.slice(i + 1).map((b): Pair => [a, b]));

describe('the table of links', () => {
  it('holds both directions of a measurement, with its age', () => {
    const table = new LinkTable();
    table.measured('a', found('b', 10e6, 5e6), 1000);
    expect(table.get('a', 'b')).toMatchObject({ bytesPerSecond: 10e6, latencyMs: 0.5, source: 'measured' });
    expect(table.get('b', 'a')).toMatchObject({ bytesPerSecond: 5e6 });
    expect(table.status(4000)[0]).toMatchObject({ from: 'a', to: 'b', ageMs: 3000, source: 'measured', problem: '' });
    expect(table.isFresh('b', 'a', 4000, 3000)).toBe(true);
    expect(table.isFresh('b', 'a', 4001, 3000)).toBe(false);
  });

  it.each([0, -1, 1e-300, Number.NaN, Number.POSITIVE_INFINITY, 1e13])(
    'refuses a speed of %s with a code, keeps the last good one and says so',
    (speed) => {
      const table = new LinkTable();
      table.measured('a', found('b', 10e6), 0);
      expect(() => table.measured('a', found('b', speed), 1)).toThrow(expect.objectContaining({ code: 'LINK_IMPLAUSIBLE' }));
      expect(table.get('a', 'b')).toMatchObject({ bytesPerSecond: 10e6, problem: expect.stringContaining('LINK_IMPLAUSIBLE') });
      expect(() => table.measured('a', found('c', speed), 1)).toThrow(expect.objectContaining({ code: 'LINK_IMPLAUSIBLE' }));
      expect(table.get('a', 'c')).toBeUndefined();
      table.measured('a', found('b', 9e6), 2);
      expect(table.get('a', 'b')?.problem).toBe('');
    },
  );

  it('refuses absurd live figures the same way', () => {
    const table = new LinkTable();
    table.measured('a', found('b', 10e6), 0);
    expect(() => table.live('a', 'b', { bytesPerSecond: -1, roundTripMs: 0 }, 1)).toThrow(
      expect.objectContaining({ code: 'LINK_IMPLAUSIBLE' }),
    );
    expect(() => table.live('a', 'b', { bytesPerSecond: 1e6, roundTripMs: Number.NaN }, 1)).toThrow();
    expect(table.get('a', 'b')).toMatchObject({ bytesPerSecond: 10e6, latencyMs: 0.5 });
  });

  it('goes up with live traffic, doubts itself when that is slower, and is sure again after a measurement', () => {
    const table = new LinkTable();
    table.measured('a', found('b', 10e6), 0);
    for (let i = 0; i < 20; i++) table.live('a', 'b', { bytesPerSecond: 14e6, roundTripMs: 0 }, i);
    expect(table.get('a', 'b')?.source).toBe('live');
    expect(table.get('a', 'b')?.bytesPerSecond).toBeGreaterThan(12e6);
    table.live('a', 'b', { bytesPerSecond: 2e6, roundTripMs: 0 }, 30);
    expect(table.isFresh('a', 'b', 31, 1e9)).toBe(false);
    // Until then the slower figure counts.
    const { between, agents } = linkModel(table.all(), USUAL, apart);
    const said =
      between.get('a>b')?.bytesPerSecond ?? Math.min(agents.get('a')?.upBytesPerSecond ?? 0, agents.get('b')?.downBytesPerSecond ?? 0);
    expect(said).toBe(2e6);
    table.measured('a', found('b', 2e6, 10e6), 40);
    expect(table.isFresh('a', 'b', 41, 1e9)).toBe(true);
  });
});

describe('what links tell of their ends', () => {
  it('finds the slow one of many, and leaves the others one class', () => {
    const agents = ['a', 'b', 'c', 'd', 'e'];
    const speed = (end: string) => (end === 'c' ? { up: 1.2e6, down: 1.2e6 } : { up: 12e6, down: 12e6 });
    const model = linkModel(tableOf([...star(agents), ...every(['a', 'b', 'c'])], speed).all(), USUAL, apart);
    expect(model.between.size).toBe(0);
    expect(model.agents.get('c')).toMatchObject({ upBytesPerSecond: 1.2e6, downBytesPerSecond: 1.2e6 });
    expect(model.agents.get('a')).toMatchObject({ upBytesPerSecond: 12e6, downBytesPerSecond: 12e6 });
    const devices = agents.map(
      (agent): Device => ({
        agent,
        macsPerSecond: 1e9,
        memoryBytes: 0,
        link: model.agents.get(agent) ?? { upBytesPerSecond: 0, downBytesPerSecond: 0, latencyMs: 0 },
      }),
    );
    expect(
      classesOf(devices, { usual: USUAL, between: model.between })
        .map((members) => members.length)
        .sort(),
    ).toEqual([1, 4]);
  });

  it('takes the gateway for the limit when all agents are equally slow to it, and hopes for the rest', () => {
    const model = linkModel(
      tableOf(star(['a', 'b', 'c']), (end) => (end === DISPATCHER ? { up: 5e6, down: 5e6 } : { up: 1e9, down: 1e9 })).all(),
      USUAL,
      apart,
    );
    expect(model.gateway).toMatchObject({ upBytesPerSecond: 5e6, downBytesPerSecond: 5e6 });
    expect(model.agents.get('a')).toMatchObject({ upBytesPerSecond: USUAL.bytesPerSecond });
  });

  it('names a pair that its ends do not explain', () => {
    const table = tableOf([...star(['a', 'b', 'c']), ...every(['a', 'b', 'c'])], () => ({ up: 12e6, down: 12e6 }));
    table.measured('a', found('b', 2e6, 12e6), 1);
    const model = linkModel(table.all(), USUAL, apart);
    expect([...model.between.keys()]).toEqual(['a>b']);
    expect(model.agents.get('a')).toMatchObject({ upBytesPerSecond: 12e6 });
  });

  it('does not take what two agents of one machine do for their link to others', () => {
    const table = tableOf(star(['a', 'b', 'c']), () => ({ up: 12e6, down: 12e6 }));
    table.measured('a', found('b', 2e9), 1);
    const model = linkModel(table.all(), { ...USUAL, bytesPerSecond: 12e6 }, (x, y) => [x, y].sort().join() === 'a,b');
    expect(model.agents.get('a')?.upBytesPerSecond).toBeLessThan(20e6);
    expect([...model.between.keys()].sort()).toEqual(['a>b', 'b>a']);
  });

  it('predicts every measured pair of any world of ends within the noise, and every pair never too fast by what was measured', () => {
    const speeds = fc.record({ up: fc.integer({ min: 1, max: 100 }), down: fc.integer({ min: 1, max: 100 }) });
    fc.assert(
      fc.property(
        fc.array(speeds, { minLength: 3, maxLength: 7 }),
        fc.infiniteStream(fc.double({ min: 0.96, max: 1.04, noNaN: true })),
        (ends, noise) => {
          const names = [DISPATCHER, ...ends.slice(1).map((_, i) => `a${i}`)];
          const speed = (end: string) => {
            const { up, down } = ends[names.indexOf(end)] ?? { up: 1, down: 1 };
            return { up: up * 1e6, down: down * 1e6 };
          };
          const table = tableOf(every(names), speed, () => noise.next().value);
          const model = linkModel(table.all(), USUAL, apart);
          const end = (name: string) => (name === DISPATCHER ? model.gateway : model.agents.get(name));
          for (const { from, to, bytesPerSecond } of table.all()) {
            const said =
              model.between.get(`${from}>${to}`)?.bytesPerSecond ??
              Math.min(end(from)?.upBytesPerSecond ?? 0, end(to)?.downBytesPerSecond ?? 0);
            expect(said / bytesPerSecond).toBeGreaterThan(1 / 1.36);
            expect(said / bytesPerSecond).toBeLessThan(1.36);
          }
        },
      ),
    );
  });

  it('takes latencies apart into those of the ends', () => {
    const table = new LinkTable();
    const own: Record<string, number> = { [DISPATCHER]: 1, a: 1, b: 1, c: 21 };
    for (const [a, b] of every(Object.keys(own)))
      table.measured(a, found(b, 12e6, 12e6, { roundTripMs: 2 * ((own[a] ?? 0) + (own[b] ?? 0)) }), 0);
    const model = linkModel(table.all(), USUAL, apart);
    expect(model.agents.get('c')?.latencyMs).toBeGreaterThan(18);
    expect(model.agents.get('a')?.latencyMs).toBeLessThan(1.5);
    expect(model.between.size).toBe(0);
  });
});

describe('the keeper of links', () => {
  function keeper(options: Partial<LinkKeeperOptions> = {}) {
    const asked: string[] = [];
    const log: string[] = [];
    let nowMs = 0;
    const kept = new LinkKeeper({
      told: { usual: USUAL, between: new Map() },
      measure: async (from, to) => {
        asked.push(`${from}>${to}`);
        return found(to, 10e6);
      },
      isBusy: () => false,
      sameHost: apart,
      now: () => nowMs,
      log: (_, text) => log.push(text),
      ...options,
    });
    return { kept, asked, log, pass: (ms: number) => (nowMs += ms) };
  }
  const PAIRS: Pair[] = [
    ['a', DISPATCHER],
    ['a', 'b'],
  ];

  it('takes what an agent answers for the link that it was asked for, whatever peer it names', async () => {
    const { kept } = keeper({ measure: async () => found('c', 10e6) });
    await kept.ensure([['a', 'b']]);
    expect(kept.status().map(({ from, to }) => `${from}>${to}`)).toEqual(['a>b', 'b>a']);
  });

  it('measures what a draft uses once, and again when it is old', async () => {
    const { kept, asked, pass } = keeper();
    expect(await kept.ensure(PAIRS)).toBe(2);
    expect(asked).toEqual([`${DISPATCHER}>a`, 'a>b']);
    expect(await kept.ensure(PAIRS)).toBe(0);
    pass(11 * 60_000);
    expect(await kept.ensure(PAIRS)).toBe(2);
  });

  it('measures one pair at a time, whoever asks', async () => {
    let running = 0;
    let most = 0;
    const { kept } = keeper({
      measure: async (_, to) => {
        most = Math.max(most, ++running);
        await new Promise((resolve) => setTimeout(resolve, 5));
        running--;
        return found(to, 10e6);
      },
    });
    await Promise.all([kept.ensure(PAIRS), kept.ensure([['c', 'd']])]);
    expect(most).toBe(1);
  });

  it('leaves ends alone on which frames run, unless it is asked not to', async () => {
    const { kept, asked } = keeper({ isBusy: (end) => end === 'b' });
    expect(await kept.ensure(PAIRS)).toBe(1);
    expect(asked).toEqual([`${DISPATCHER}>a`]);
    expect(await kept.ensure(PAIRS, { budgetMs: 1000, maxAgeMs: 1e9, evenIfBusy: true })).toBe(1);
  });

  it('keeps what it knows when a measurement fails or is absurd, and does not try again at once', async () => {
    let speed = 10e6;
    const { kept, log, pass } = keeper({ measure: async (_, to) => found(to, speed) });
    await kept.ensure([['a', 'b']]);
    speed = 0;
    pass(11 * 60_000);
    expect(await kept.ensure([['a', 'b']])).toBe(0);
    expect(log.at(-1)).toContain('LINK_IMPLAUSIBLE');
    expect(kept.status().find(({ from }) => from === 'a')).toMatchObject({
      bytesPerSecond: 10e6,
      problem: expect.stringContaining('LINK_IMPLAUSIBLE'),
    });
    const lines = log.length;
    expect(await kept.ensure([['a', 'b']])).toBe(0);
    expect(log).toHaveLength(lines);
    speed = 8e6;
    pass(61_000);
    expect(await kept.ensure([['a', 'b']])).toBe(1);
  });

  it('stops starting measurements when its time is over', async () => {
    const clock = { ms: 0 };
    const { kept, asked } = keeper({
      now: () => clock.ms,
      measure: async (from, to) => {
        clock.ms += 900;
        asked.push(`${from}>${to}`);
        return found(to, 10e6);
      },
    });
    const many = Array.from({ length: 50 }, (_, i): Pair => [`a${i}`, `b${i}`]);
    await kept.ensure(many, { budgetMs: 3000, maxAgeMs: 1e9 });
    expect(asked).toHaveLength(4);
  });

  it('hears of links from health, and not twice of the same messages', async () => {
    const { kept, pass } = keeper();
    await kept.ensure([['a', 'b']]);
    const lane = (speed: number, samples: number): LaneHealth => ({
      ...{ peer: 'a', lane: 'direct', why: '', bytesSent: 0, messagesSent: 0, sendMs: 0, roundTripMs: 0 },
      ...{ receivedBytesPerSecond: speed, receivedSamples: samples },
      ...{ waitingBytes: 0, busyMs: 0, busyBytesPerSecond: 0, messagesDropped: 0 },
    });
    const speedOf = (): number | undefined => kept.status().find(({ from, to }) => from === 'a' && to === 'b')?.bytesPerSecond;
    pass(1000);
    kept.health({ agent: 'b', lanes: [lane(15e6, 3)] });
    const once = speedOf();
    expect(once).toBeGreaterThan(11e6);
    for (let i = 0; i < 10; i++) kept.health({ agent: 'b', lanes: [lane(15e6, 3)] });
    expect(speedOf()).toBe(once);
    kept.health({ agent: 'b', lanes: [lane(15e6, 4)] });
    expect(speedOf()).toBeGreaterThan(once ?? 0);
  });

  it.each([
    [0, 30e6, 'live traffic came at'],
    [17.5, 30e6, ''],
    [17.5, 20e6, 'live traffic came at'],
    [100, 20e6, ''],
  ])('with a sender whose turns are %s ms apart takes %s bytes/s of a link of 110e6 for: "%s"', async (turnMs, speed, problem) => {
    const { kept } = keeper({ measure: async (_, to) => found(to, 110e6), turnMs: (end) => (end === 'a' ? turnMs : 0) });
    await kept.ensure([['a', 'b']]);
    const lane: LaneHealth = {
      ...{ peer: 'a', lane: 'direct', why: '', bytesSent: 0, messagesSent: 0, sendMs: 0, roundTripMs: 0 },
      ...{ receivedBytesPerSecond: speed, receivedSamples: 9 },
      ...{ waitingBytes: 0, busyMs: 0, busyBytesPerSecond: 0, messagesDropped: 0 },
    };
    kept.health({ agent: 'b', lanes: [lane] });
    const said = kept.status().find(({ from }) => from === 'a')?.problem ?? 'no row';
    expect(said.slice(0, problem.length || undefined)).toBe(problem);
  });
});

describe('the pairs of a draft', () => {
  const row = (from: string, to: string, bytesPerFrame: number) => ({ from, to, bytesPerFrame });

  it('are those that carry bytes, both directions as one, the gateway first', () => {
    expect(pairsOf([row('a', 'b', 5), row('b', 'a', 5), row(DISPATCHER, 'a', 1), row('a', 'c', 20)])).toEqual([
      ['a', DISPATCHER],
      ['a', 'c'],
      ['a', 'b'],
    ]);
  });

  it('are few even where every agent talks to every other', () => {
    const names = Array.from({ length: 50 }, (_, i) => `a${i}`);
    const pairs = pairsOf(every(names).map(([a, b]) => row(a, b, 1)));
    expect(pairs.length).toBeLessThanOrEqual(100);
    for (const name of names) expect(pairs.some((pair) => pair.includes(name))).toBe(true);
  });
});

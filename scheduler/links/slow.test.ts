import { describe, expect, it } from 'vitest';
import { DISPATCHER } from '../../broker/topics.js';
import { type Busy, SlowLinks, type SlowStep, whoIsBehind } from './slow.js';

const READY = ['a', 'b', 'c', 'd', 'e', 'f'];
const FAST = 12e6;
const busy = (to: string, bytesPerSecond: number, busyMs = 2000, knownBytesPerSecond = FAST): Busy => ({
  ...{ to, bytesPerSecond, busyMs, knownBytesPerSecond },
});
const pairs = (...texts: string[]) => texts.map((text) => ({ from: text.split('>')[0] ?? '', to: text.split('>')[1] ?? '' }));
const dos = (steps: readonly SlowStep[]) => steps.flatMap((step) => (step.do === 'doubt' ? [] : [`${step.do} ${step.agent}`]));
const speed = (bytesPerSecond: number) => ({ upBytesPerSecond: bytesPerSecond, downBytesPerSecond: bytesPerSecond });

/** Agent `b` in the middle of a network cut over a, b and c. */
function slowB(links: SlowLinks, nowMs: number, rate = 0.2e6): void {
  links.see('a', [busy('b', rate)], nowMs);
  links.see('c', [busy('b', rate)], nowMs);
  links.see('b', [busy('a', rate), busy('c', rate)], nowMs);
}

describe('who is behind links that are slow', () => {
  it('is who has most counterparts; of a lone pair with the dispatcher the other end; of a lone pair of agents nobody knows', () => {
    const who = (...texts: string[]) => {
      const { behind, open } = whoIsBehind(pairs(...texts), pairs(...texts));
      return [behind.join(), open.map(({ from, to }) => `${from}>${to}`).join()];
    };
    expect(who()).toEqual(['', '']);
    expect(who('a>b', 'b>c')).toEqual(['b', '']);
    expect(who('b>a', 'a>b', 'c>b', `${DISPATCHER}>b`)).toEqual(['b', '']);
    expect(who(`${DISPATCHER}>a`)).toEqual(['a', '']);
    expect(who(`a>${DISPATCHER}`)).toEqual(['a', '']);
    expect(who('a>b', 'b>a')).toEqual(['', 'a>b,b>a']);
    expect(who('a>b', 'a>c', 'd>e', 'd>f')).toEqual(['a,d', '']);
    // The gateway's own link: nobody else's fault.
    expect(who(`${DISPATCHER}>a`, `${DISPATCHER}>b`, `c>${DISPATCHER}`)).toEqual(['', '']);
    // Two agents at once, and not the dispatcher, who talks with both.
    expect(who(`${DISPATCHER}>a`, `${DISPATCHER}>b`, 'a>b')).toEqual(['a,b', '']);
  });
});

describe('agents with slow links', () => {
  it('are avoided as soon as two ends say so in the middle of their transfers', () => {
    const links = new SlowLinks();
    slowB(links, 1000);
    const steps = links.steps(READY, 1000);
    expect(dos(steps)).toEqual(['avoid b']);
    expect(steps).toContainEqual({ do: 'doubt', from: 'a', to: 'b', bytesPerSecond: 0.2e6 });
    expect(steps.at(-1)).toMatchObject({ why: expect.stringMatching(/1\.60 Mbit\/s from \w to \w, where 96\.0 Mbit\/s are known/) });
    expect(dos(links.steps(READY, 1100))).toEqual([]);
  });

  it('are not those of who sends to many, or gets from many, or shares the air with all: together they carry what is known', () => {
    const seven = [...'bcdefgh'];
    const broadcast = new SlowLinks();
    broadcast.see(
      'a',
      seven.map((to) => busy(to, FAST / 7)),
      0,
    );
    expect(dos(broadcast.steps(READY, 0))).toEqual([]);
    const gather = new SlowLinks();
    for (const from of seven) gather.see(from, [busy('a', FAST / 7)], 0);
    expect(dos(gather.steps(READY, 0))).toEqual([]);
    const air = new SlowLinks();
    for (const from of seven)
      air.see(
        from,
        seven.filter((to) => to !== from).map((to) => busy(to, FAST / 42)),
        0,
      );
    expect(dos(air.steps(READY, 0))).toEqual([]);
  });

  it('are not those of links that are busy for a moment, or no slower than known by a factor of many, or not known', () => {
    const links = new SlowLinks();
    for (const row of [busy('b', 0.2e6, 800), busy('b', 3e6), busy('b', 0.2e6, 2000, 0)]) {
      links.see('a', [row], 0);
      links.see('c', [row], 0);
    }
    expect(dos(links.steps(READY, 0))).toEqual([]);
  });

  it('are not those whom one agent alone speaks ill of: the dispatcher looks at both ends first', () => {
    const links = new SlowLinks();
    const say = (nowMs: number) => links.see('a', [busy('b', 0.2e6)], nowMs);
    say(0);
    expect(dos(links.steps(READY, 0))).toEqual([]);
    say(1000);
    say(2000);
    expect(dos(links.steps(READY, 2000))).toEqual(['measure a', 'measure b']);
    links.measured('a', speed(FAST), speed(FAST), 2300);
    links.measured('b', speed(FAST), speed(FAST), 2300);
    say(3000);
    expect(dos(links.steps(READY, 3000))).toEqual([]);
    // Later it is looked at again, and one of them is slow to the dispatcher, too.
    for (let ms = 4000; ms < 17_000; ms += 1000) say(ms);
    expect(dos(links.steps(READY, 16_900))).toEqual([]);
    say(17_500);
    expect(dos(links.steps(READY, 17_500))).toEqual(['measure a', 'measure b']);
    links.measured('a', { upBytesPerSecond: 0.2e6, downBytesPerSecond: 0.3e6 }, speed(FAST), 17_800);
    links.measured('b', speed(FAST), speed(FAST), 17_800);
    expect(dos(links.steps(READY, 17_800))).toEqual(['avoid a']);
  });

  it('never are more than half of those that could serve, nor the only one', () => {
    const links = new SlowLinks();
    slowB(links, 0);
    expect(dos(links.steps(['b'], 0))).toEqual([]);
    links.see('d', [busy('e', 1), busy('f', 1)], 0);
    expect(dos(links.steps(['a', 'b', 'd'], 0))).toEqual(['avoid b']);
  });

  it('are measured after a while, and again, until they carry what they did', () => {
    const links = new SlowLinks();
    slowB(links, 0);
    links.steps(READY, 0);
    expect(links.heldMs('b', 1000)).toBe(4000);
    expect(dos(links.steps(READY, 4900))).toEqual([]);
    expect(dos(links.steps(READY, 5000))).toEqual(['measure b']);
    expect(dos(links.steps(READY, 5500))).toEqual([]);
    expect(links.measured('b', speed(0.2e6), speed(FAST), 6000)).toEqual([]);
    expect(dos(links.steps(READY, 10_900))).toEqual([]);
    expect(dos(links.steps(READY, 11_000))).toEqual(['measure b']);
    expect(links.measured('b', undefined, speed(FAST), 12_000)).toEqual([]);
    expect(dos(links.steps(READY, 19_600))).toEqual(['measure b']);
    expect(links.measured('b', speed(5e6), speed(FAST), 20_000)).toEqual([{ do: 'trust', agent: 'b', as: 'before' }]);
    expect(links.avoided).toEqual([]);
  });

  it('are counted on with what was measured when that is many times what they carried, though not what they did', () => {
    const links = new SlowLinks();
    slowB(links, 0);
    links.steps(READY, 0);
    links.steps(READY, 5000);
    expect(links.measured('b', speed(3e6), speed(FAST), 5500)).toEqual([{ do: 'trust', agent: 'b', as: 'measured' }]);
  });

  it('are taken for what they are when they stay as they are', () => {
    const links = new SlowLinks();
    slowB(links, 0);
    links.steps(READY, 0);
    let said: readonly SlowStep[] = [];
    let ms = 0;
    for (; ms < 200_000 && said.length === 0; ms += 250) {
      if (dos(links.steps(READY, ms)).length > 0) said = links.measured('b', speed(0.2e6), speed(FAST), ms);
    }
    expect(said).toEqual([{ do: 'trust', agent: 'b', as: 'measured' }]);
    expect(ms).toBeGreaterThan(60_000);
    expect(ms).toBeLessThan(100_000);
  });

  it('are held back longer each time: a link that comes and goes does not make seats go with it', () => {
    const links = new SlowLinks();
    const moves: number[] = [];
    // Slow for three seconds of every ten, for ten minutes.
    for (let ms = 0; ms < 600_000; ms += 250) {
      if (ms % 10_000 < 3000 && links.avoided.length === 0) slowB(links, ms);
      for (const step of links.steps(READY, ms)) {
        if (step.do === 'avoid') moves.push(ms);
        else if (step.do === 'measure') links.measured('b', speed(FAST), speed(FAST), ms + 100);
      }
    }
    expect(moves.length).toBeGreaterThan(2);
    expect(moves.length).toBeLessThan(12);
    const gaps = moves.map((ms, i) => ms - (moves[i - 1] ?? 0)).slice(1);
    expect(Math.max(...gaps)).toBeGreaterThan(60_000);
  });
});

import { describe, expect, it } from 'vitest';
import { framesPerSecond, planWords } from './cluster.js';
import { longestGap } from './failover.js';
import { figure, inTurn } from './figures.js';
import { errorFigures } from './prediction.js';
import { figureTable, markdown } from './report.js';
import { grown, parseSockets } from './traffic.js';

const SS = `ESTAB 0      0      10.77.0.1:1883 10.77.0.2:45678
	 cubic wscale:7,7 rto:204 rtt:0.1/0.05 mss:1448 bytes_sent:2000 bytes_retrans:100 bytes_acked:1901 bytes_received:300 segs_out:9
LISTEN 0      511    0.0.0.0:1883 0.0.0.0:*
	 cubic rto:1000
ESTAB 0      12     [::ffff:10.77.0.1]:40000 [::ffff:10.77.0.3]:7000
	 cubic bytes_acked:501 bytes_received:7
`;

describe('bytes by connection', () => {
  it('are read with addresses of both kinds, without what was sent again and without the SYN', () => {
    expect(parseSockets(SS)).toEqual([
      { key: '10.77.0.1:1883>10.77.0.2:45678', localPort: 1883, peerPort: 45_678, sent: 1900, received: 300 },
      { key: '[::ffff:10.77.0.1]:40000>[::ffff:10.77.0.3]:7000', localPort: 40_000, peerPort: 7000, sent: 500, received: 7 },
    ]);
  });

  it('count connections that are new, and refuse to count when one has ended', () => {
    expect(
      grown(
        new Map([['a', 10]]),
        new Map([
          ['a', 15],
          ['b', 7],
        ]),
      ),
    ).toBe(12);
    expect(() => grown(new Map([['a', 10]]), new Map())).toThrow(expect.objectContaining({ code: 'LANE_DOWN' }));
  });
});

describe('frames per second', () => {
  it('are counted while frames come: neither while the pipe fills nor while it runs empty', () => {
    // Two agents, a frame in 100 ms each, four outstanding: the last one to finish is alone.
    const endedAtMs = [500, 510, 600, 610, 700, 710, 800, 810, 900, 1800];
    expect(framesPerSecond({ endedAtMs }, 1, 4)).toBeCloseTo(20, 9);
    expect(framesPerSecond({ endedAtMs }, 1, 0)).toBeLessThan(7);
  });
});

describe('the longest time without a result', () => {
  it('is looked for from the fault on, whatever the order of the results', () => {
    expect(longestGap([100, 900, 1000, 1900, 1950], 950)).toBe(900);
    expect(longestGap([900, 100, 1000], 950)).toBe(100);
    expect(longestGap([], 0)).toBe(0);
  });

  it('counts a gap that the fault falls into', () => {
    expect(longestGap([100, 2100], 500)).toBe(2000);
  });
});

describe('errors of predictions', () => {
  const one = (unit: string, measured: number, predicted: number) => figure('p', unit, [measured], undefined, { beside: { predicted } });

  it('are relative to what was measured, in both directions, latency and throughput apart', () => {
    const figures = errorFigures([one('fps', 10, 9), one('fps', 10, 13), one('ms', 200, 100)], 'predicted', 2);
    expect(figures.map(({ value, met }) => [Math.round(value), met])).toEqual([
      [20, false],
      [30, false],
      [50, false],
      [50, false],
    ]);
  });

  it('say of how many of all plans they are', () => {
    const names = (total: number) =>
      errorFigures([one('fps', 10, 9), one('fps', 10, 13), one('ms', 200, 100)], 'predicted', total).map((f) => f.figure);
    expect(names(2)[0]).toBe('predicted throughput, 2 plans: median error');
    expect(names(20)[0]).toBe('predicted throughput, 2 of 20 plans: median error');
    expect(names(20)[3]).toBe('predicted latency, 1 of 20 plans: worst error');
  });

  it('are not made up where nothing was simulated', () => {
    expect(errorFigures([one('fps', 10, 9)], 'simulated', 1)).toEqual([]);
  });
});

describe('a plan in words', () => {
  const seat = (stage: number, part: number, replica: number, agent: string, cut = 'rows') => ({
    ...{ stage, cut, replica, part, agent, slice: '', macs: 1, weightBytes: 1, predictedMs: 1, bytesIn: 1, bytesOut: 1 },
  });

  it('says how stages are cut and repeated, and on how many agents', () => {
    const seats = [seat(0, 0, 0, 'a'), seat(0, 1, 0, 'b'), seat(1, 0, 0, 'a', 'whole'), seat(1, 0, 1, 'b', 'whole')];
    expect(planWords({ planner: 'auto', seats })).toBe('auto: rows in 2, whole x 2; 2 stages on 2 agents');
  });

  it('says it also of a plan whose first replica is gone, and of one without seats', () => {
    expect(planWords({ planner: 'single', seats: [seat(0, 0, 3, 'a', 'whole')] })).toBe('single: whole; 1 stage on 1 agent');
    expect(planWords({ planner: 'single', seats: [] })).toBe('single: no seats');
  });

  it('stands in a list of its own below the conditions, one line for each case', () => {
    const machine = { ...{ processor: 'CPU', cores: 2, memoryBytes: 2 ** 31, kernel: '6', architecture: 'x64', node: 'v20' } };
    const node = { cpu: 0.18, memoryBytes: 1_074_000_000, rateBits: 1e9 };
    const text = markdown({
      ...{ name: 'net', commit: 'abc', date: '2026-01-01', figures: [] },
      machine: { ...machine, loadBefore: 0, busyBefore: 0, quiet: true },
      conditions: { model: 'alexnet', agents: [node, node], plans: { 'an agent leaves': 'single: whole', later: '' } },
    });
    expect(text).toContain(
      'Conditions: model alexnet; agents 2 x (cpu 0.18, memory 1.1 GB, rate 1000 Mbit/s)\n\nPlans:\n\n- an agent leaves: single: whole\n- later: nothing was said\n\n| figure',
    );
  });
});

describe('several things in turn', () => {
  it('begin one further each round, and keep their samples apart', async () => {
    const order: string[] = [];
    const say = (name: string) => async () => {
      order.push(name);
      return name;
    };
    expect(await inTurn(2, [say('a'), say('b'), say('c')])).toEqual([
      ['a', 'a'],
      ['b', 'b'],
      ['c', 'c'],
    ]);
    expect(order.join('')).toBe('abcbca');
  });
});

describe('the table of figures', () => {
  it('has columns for what stands beside a figure, empty where nothing does', () => {
    const table = figureTable([figure('a', 'ms', [2], undefined, { beside: { predicted: 3 } }), figure('b', 'ms', [4])]);
    expect(table[0]).toBe('| figure | median | quartiles | samples | target | met | predicted |');
    expect(table[2]).toMatch(/\| 3\.00 ms \|$/);
    expect(table[3]).toMatch(/\| {2}\|$/);
  });
});

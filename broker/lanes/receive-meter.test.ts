import { describe, expect, it } from 'vitest';
import { ReceiveMeter } from './receive-meter.js';

const MB = 1e6;

describe('what came in', () => {
  it('tells the median speed of large messages that came one after another', () => {
    const meter = new ReceiveMeter();
    // 1 MB in 100 ms each, one of them in a stall.
    for (let i = 0; i < 9; i++) meter.add('a', MB, i * 200, i * 200 + (i === 4 ? 190 : 100));
    expect(meter.read('a', 10_000)).toEqual({ bytesPerSecond: 1e7, samples: 9 });
    expect(meter.read('b', 10_000)).toEqual({ bytesPerSecond: 0, samples: 0 });
  });

  it('does not count messages that shared the link with each other, whoever was first', () => {
    const meter = new ReceiveMeter();
    meter.add('a', MB, 50, 200);
    meter.add('b', MB, 0, 220);
    meter.add('a', MB, 1000, 1100);
    expect(meter.read('a', 5000)).toEqual({ bytesPerSecond: 1e7, samples: 1 });
    expect(meter.read('b', 5000).samples).toBe(0);
  });

  it('does not count small messages, and none that came out of a buffer', () => {
    const meter = new ReceiveMeter();
    meter.add('a', 1000, 0, 100);
    meter.add('a', MB, 200, 212);
    expect(meter.read('a', 5000).samples).toBe(0);
  });

  it('says nothing by the few that were held up where most are too quick to be timed', () => {
    const meter = new ReceiveMeter();
    // 64 KiB over 1 Gbit/s take 0.5 ms; every third waits for its receiver's quota.
    for (let i = 0; i < 30; i++) meter.add('a', 65_536, i * 100, i * 100 + (i % 3 === 0 ? 21 : 0.5));
    expect(meter.read('a', 10_000).bytesPerSecond).toBe(0);
    // As slow as that for all: it is the link now.
    for (let i = 30; i < 39; i++) meter.add('a', 65_536, i * 100, i * 100 + 50);
    expect(meter.read('a', 10_000).bytesPerSecond).toBeCloseTo(65_536 / 0.05, -1);
  });

  it('times nothing that is short against the turns of its own CPU quota', () => {
    const meter = new ReceiveMeter(17.5);
    for (let i = 0; i < 9; i++) meter.add('a', 65_536, i * 500, i * 500 + 60);
    expect(meter.read('a', 10_000)).toEqual({ bytesPerSecond: 0, samples: 0 });
    for (let i = 10; i < 19; i++) meter.add('a', 65_536, i * 500, i * 500 + 260);
    expect(meter.read('a', 20_000)).toEqual({ bytesPerSecond: expect.closeTo(65_536 / 0.26, 0), samples: 9 });
  });

  it('judges a message only when no other can be on its way beside it any more', () => {
    const meter = new ReceiveMeter();
    meter.add('a', MB, 0, 100);
    expect(meter.read('a', 500).samples).toBe(0);
    meter.add('b', MB, 50, 600);
    expect(meter.read('a', 5000).samples).toBe(0);
  });
});

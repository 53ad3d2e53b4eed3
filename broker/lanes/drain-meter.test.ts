import { describe, expect, it } from 'vitest';
import { DrainMeter } from './drain-meter.js';

const LEAST_MS = 50;

describe('drain meter', () => {
  it('tells how fast a transfer goes that is not over, and for how long of the last three seconds something waited', () => {
    const meter = new DrainMeter();
    const given = 50_000_000;
    for (let ms = 0; ms <= 2000; ms += 250) meter.look(given, 10_000 * ms, ms, LEAST_MS);
    expect(meter.read(2000)).toEqual({ busyMs: 2000, bytesPerSecond: 1e7 });
    // From then on 0.2 MB/s.
    for (let ms = 2250; ms <= 6000; ms += 250) meter.look(given, 2e7 + 200 * (ms - 2000), ms, LEAST_MS);
    expect(meter.read(6000)).toEqual({ busyMs: 3250, bytesPerSecond: 2e5 });
  });

  it('counts only the time in which the same bytes waited: on a link that is quick something is always just on its way', () => {
    const meter = new DrainMeter();
    // Ten messages of 1 KB a second, the last one always not acknowledged yet.
    for (let i = 0; i <= 20; i++) meter.look(2500 * i + 1000, 2500 * i, 250 * i, LEAST_MS);
    expect(meter.read(5000)).toEqual({ busyMs: 0, bytesPerSecond: 0 });
    // A second of a link that is gone, in between.
    for (let i = 21; i <= 24; i++) meter.look(2500 * i + 1000, 50_000, 250 * i, LEAST_MS);
    expect(meter.read(6000)).toEqual({ busyMs: 1000, bytesPerSecond: 0 });
    expect(meter.read(10_000)).toEqual({ busyMs: 0, bytesPerSecond: 0 });
  });

  it('adds up what comes and goes, but not over a rest, nor over a time in which nobody looked', () => {
    const meter = new DrainMeter();
    meter.look(1000, 0, 0, LEAST_MS);
    meter.look(1000, 100, 250, LEAST_MS);
    meter.rest();
    meter.look(5000, 1000, 500, LEAST_MS);
    meter.look(5000, 1200, 750, LEAST_MS);
    expect(meter.read(750)).toEqual({ busyMs: 500, bytesPerSecond: 600 });
    meter.look(5000, 1200, 2500, LEAST_MS);
    expect(meter.read(2500)).toEqual({ busyMs: 500, bytesPerSecond: 600 });
  });

  it('does not count what takes a round trip to be acknowledged, however often it is looked at', () => {
    const far = new DrainMeter();
    const near = new DrainMeter();
    // A kilobyte each 100 ms, acknowledged after 200.
    for (let i = 2; i <= 30; i++) {
      far.look(1000 * i, 1000 * (i - 2), 100 * i, 400);
      near.look(1000 * i, 1000 * (i - 2), 100 * i, 2);
    }
    expect(far.read(3000)).toEqual({ busyMs: 0, bytesPerSecond: 0 });
    expect(near.read(3000).busyMs).toBe(2800);
  });
});

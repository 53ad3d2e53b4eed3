import { describe, expect, it } from 'vitest';
import type { Hello } from '../broker/messages.js';
import { plausible } from './plausible.js';

const said = (figures: Partial<Hello>): Hello =>
  ({
    agent: 'a',
    probeMacsPerSecond: 4e9,
    probeBytesPerSecond: 2e9,
    probeSmallRunMs: 0.1,
    memoryBytes: 1e9,
    cpuLimit: 0.18,
    cpuPeriodMs: 10,
    cores: 4,
    hostCores: 4,
    engineThreads: 4,
    ...figures,
  }) as Hello;

describe('what an agent says of itself', () => {
  it('is taken as it is where a device can be so, and where it is unknown', () => {
    for (const hello of [
      said({}),
      said({ probeMacsPerSecond: 0, probeBytesPerSecond: 0, probeSmallRunMs: 0, memoryBytes: 0, cpuLimit: 0, hostCores: 0 }),
    ]) {
      expect(plausible(hello)).toEqual({ hello, wrong: [] });
    }
  });

  it.each<[keyof Hello, number]>([
    ['probeMacsPerSecond', 1e300],
    ['probeMacsPerSecond', 1e-300],
    ['probeMacsPerSecond', Number.NaN],
    ['probeMacsPerSecond', Number.POSITIVE_INFINITY],
    ['probeMacsPerSecond', -1],
    ['probeBytesPerSecond', 1e18],
    ['probeBytesPerSecond', Number.NaN],
    ['probeSmallRunMs', 1e-9],
    ['memoryBytes', -1],
    ['memoryBytes', 2 ** 53],
    ['cpuLimit', 1e-300],
    ['cpuLimit', Number.NaN],
    ['cpuPeriodMs', 1e9],
    ['cores', -4],
    ['hostCores', 2 ** 31 - 1],
    ['engineThreads', 1_000_000],
  ])('is unknown where no device can be so: %s of %s', (figure, value) => {
    const { hello, wrong } = plausible(said({ [figure]: value }));
    expect(hello).toEqual(said({ [figure]: 0 }));
    expect(wrong).toEqual([expect.stringContaining(String(value))]);
  });
});

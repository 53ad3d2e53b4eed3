import { networkInterfaces, totalmem } from 'node:os';
import { describe, expect, it } from 'vitest';
import {
  cores,
  memoryLimitBytes,
  processMemory,
  reachableAddresses,
  systemFreeBytes,
  temperatureCelsius,
  throttledFlags,
} from './device.js';

describe('the device', () => {
  it('offers no more memory than the machine has', () => {
    expect(memoryLimitBytes()).toBeGreaterThan(16e6);
    expect(memoryLimitBytes()).toBeLessThanOrEqual(totalmem());
    expect(systemFreeBytes()).toBeLessThanOrEqual(totalmem());
    expect(cores()).toBeGreaterThanOrEqual(1);
  });

  it('tells anonymous memory from the rest, and sees it grow', () => {
    const before = processMemory();
    const held = Buffer.alloc(64e6, 1);
    const after = processMemory();
    expect(after.anonymousBytes - before.anonymousBytes).toBeGreaterThan(50e6);
    expect(after.anonymousBytes).toBeLessThanOrEqual(after.rssBytes);
    expect(held[1]).toBe(1);
  });

  it('gives a temperature that can be, or 0', () => {
    const celsius = temperatureCelsius();
    expect(celsius === 0 || (celsius > -40 && celsius < 200)).toBe(true);
  });

  it("gives the firmware's word on power and heat, or -1 where there is none", () => {
    expect(throttledFlags('50005\n')).toBe(0x50005);
    expect(throttledFlags('0x50000')).toBe(0x50000);
    expect(throttledFlags('0')).toBe(0);
    for (const text of ['', 'no such file', '-1', 'ffffffffff']) expect(throttledFlags(text)).toBe(-1);
  });

  it('is reached where its listener is: at the address it is bound to, or at all of its own but loopback', () => {
    expect(reachableAddresses('127.0.0.1')).toEqual(['127.0.0.1']);
    const own = Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map((a) => a.address));
    const wild = reachableAddresses('0.0.0.0');
    expect(wild.length).toBeGreaterThan(0);
    for (const address of wild) {
      expect(own).toContain(address);
      expect(address).not.toContain(':');
    }
  });
});

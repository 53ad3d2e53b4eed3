import { describe, expect, it } from 'vitest';
import { findHierarchy } from './control-groups.js';
import { cpuQuota, DEFAULT_DEVICE, parseDevices, parseMemory, parseRate } from './devices.js';

const invalid = expect.objectContaining({ code: 'CONFIG_INVALID' });

describe('options of a testbed', () => {
  it('reads rates in decimal and memory in binary units', () => {
    expect([parseRate('100mbit'), parseRate('1gbit'), parseRate('1.5Mbit')]).toEqual([100e6, 1e9, 1.5e6]);
    expect([parseMemory('1g'), parseMemory('512m'), parseMemory('134217728')]).toEqual([2 ** 30, 2 ** 29, 2 ** 27]);
  });

  it.each(['', '100', '0mbit', '-1mbit', '1mb', 'mbit', '1000gbit', '1e3mbit'])('refuses the rate "%s" with a code', (text) => {
    expect(() => parseRate(text)).toThrow(invalid);
  });

  it.each(['', '0', '1x', '1m', '-1g', 'g'])('refuses the memory size "%s" with a code', (text) => {
    expect(() => parseMemory(text)).toThrow(invalid);
  });

  it('makes devices of named classes, in the order they were written', () => {
    const devices = parseDevices('pi4:2,pi3');
    expect(devices.map((d) => d.cpu)).toEqual([0.36, 0.36, DEFAULT_DEVICE.cpu]);
    expect(devices.map((d) => d.rateBits)).toEqual([1e9, 1e9, 100e6]);
    expect(parseDevices('pi5', 0.1)[0]?.cpu).toBeCloseTo(0.5);
  });

  it.each(['', 'pi2', 'pi3:0', 'pi3:1.5', 'pi3:2:1', 'pi3,', 'toString', 'pi3:100'])('refuses the devices "%s" with a code', (text) => {
    expect(() => parseDevices(text)).toThrow(invalid);
  });
});

describe('CPU quotas', () => {
  it('use a 10 ms period, stretched where the quota would fall below what the kernel takes', () => {
    expect(cpuQuota(0.18)).toEqual({ periodUs: 10_000, quotaUs: 1800 });
    expect(cpuQuota(1.5)).toEqual({ periodUs: 10_000, quotaUs: 15_000 });
    expect(cpuQuota(0.05)).toEqual({ periodUs: 20_000, quotaUs: 1000 });
    expect(() => cpuQuota(0)).toThrow(invalid);
    expect(() => cpuQuota(Number.NaN)).toThrow(invalid);
    expect(() => cpuQuota(1e-6)).toThrow(invalid);
  });
});

describe('control groups', () => {
  it('are found in version 1 trees, also beside an empty version 2 tree', () => {
    const mounts = 'cgroup /c/cpu cgroup rw,cpu,cpuacct 0 0\ncgroup /c/memory cgroup rw,memory 0 0\ncgroup2 /c/unified cgroup2 rw 0 0\n';
    expect(findHierarchy(mounts)).toEqual({ version: 1, cpu: '/c/cpu', memory: '/c/memory' });
  });

  it('are said to be missing when they cannot be written', () => {
    expect(findHierarchy('cgroup /c/cpu cgroup ro,cpu 0 0\n')).toMatch(/no control groups/);
    expect(findHierarchy('cgroup2 /nowhere cgroup2 rw 0 0\n')).toMatch(/CPU controller/);
  });
});

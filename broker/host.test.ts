import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { cpuLimit, cpuQuota } from './control-groups.js';
import { hostId } from './host.js';

const files =
  (contents: Readonly<Record<string, string>>) =>
  (file: string): string =>
    contents[file] ?? '';

describe('the machine', () => {
  it('is the same for another process on it, and for one that sees other files of a container', async () => {
    const url = new URL('./host.ts', import.meta.url).href;
    const script = `import(${JSON.stringify(url)}).then(({ hostId }) => process.stdout.write(hostId()))`;
    const { stdout } = await promisify(execFile)(process.execPath, ['--import', 'tsx', '-e', script]);
    expect(stdout).toBe(hostId());
    expect(hostId()).toMatch(/^[0-9a-f]{16}$/);
  });

  it('is told from another of the same name by the boot id of its kernel', () => {
    const booted = (id: string) => hostId(files({ '/proc/sys/kernel/random/boot_id': `${id}\n`, '/etc/machine-id': 'cloned' }));
    expect(booted('one')).not.toBe(booted('two'));
    expect(booted('one')).toBe(booted('one'));
  });
});

describe('the cores that control groups permit', () => {
  it('are read from version 2, a parent included', () => {
    const group = { '/proc/self/cgroup': '0::/a/b\n' };
    expect(cpuLimit(files({ ...group, '/sys/fs/cgroup/a/b/cpu.max': '18000 100000\n' }))).toBe(0.18);
    expect(cpuLimit(files({ ...group, '/sys/fs/cgroup/a/b/cpu.max': 'max 100000\n', '/sys/fs/cgroup/a/cpu.max': '150000 100000\n' }))).toBe(
      1.5,
    );
    expect(cpuLimit(files({ ...group, '/sys/fs/cgroup/a/b/cpu.max': 'max 100000\n' }))).toBe(0);
  });

  it('are read from version 1, whose controllers may be mounted together', () => {
    const group = { '/proc/self/cgroup': '5:cpu,cpuacct:/x\n4:memory:/x\n0::/\n' };
    const quota = { '/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us': '1800\n', '/sys/fs/cgroup/cpu/x/cpu.cfs_period_us': '10000\n' };
    expect(cpuQuota(files({ ...group, ...quota }))).toEqual({ cores: 0.18, periodMs: 10 });
    expect(cpuLimit(files({ ...group, ...quota, '/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us': '-1\n' }))).toBe(0);
  });

  it('are as many as there are where nothing can be read', () => {
    expect(cpuLimit(files({}))).toBe(0);
  });
});

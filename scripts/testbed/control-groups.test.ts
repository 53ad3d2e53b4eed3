/** Version 2 of control groups on folders that stand for the kernel's: what is written where. On a real version 2 tree this code has not run yet. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { ControlGroups, findHierarchy, type Hierarchy, whyNoLimits } from './control-groups.js';
import { RunDirectory } from './run-directory.js';

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

function folder(): string {
  const made = mkdtempSync(path.join(tmpdir(), 'testbed-groups-'));
  folders.push(made);
  return made;
}

/** A root as the kernel shows it; `given`: controllers that groups below already have. */
function version2(controllers = 'cpuset cpu io memory pids', given = ''): Hierarchy {
  const root = folder();
  writeFileSync(path.join(root, 'cgroup.controllers'), `${controllers}\n`);
  writeFileSync(path.join(root, 'cgroup.subtree_control'), `${given}\n`);
  const found = findHierarchy(`cgroup2 ${root} cgroup2 rw,nosuid 0 0\n`);
  if (typeof found === 'string') throw new Error(found);
  return found;
}

const text = (...parts: string[]): string => readFileSync(path.join(...parts), 'utf8').trim();

describe('control groups of version 2', () => {
  it('are found where their root has both controllers, and the missing one is named', () => {
    expect(version2()).toMatchObject({ version: 2 });
    expect(() => version2('cpuset io pids')).toThrow(/CPU controller/);
    expect(() => version2('cpu io')).toThrow(/memory controller.*cgroup_enable=memory/);
  });

  it('get the controllers handed down, only those that are missing', () => {
    const bare = version2();
    expect(whyNoLimits(bare)).toBeUndefined();
    expect(text(bare.cpu, 'cgroup.subtree_control')).toBe('+cpu +memory');
    const half = version2(undefined, 'cpu pids');
    whyNoLimits(half);
    expect(text(half.cpu, 'cgroup.subtree_control')).toBe('+memory');
    const full = version2(undefined, 'cpu memory');
    whyNoLimits(full);
    expect(text(full.cpu, 'cgroup.subtree_control')).toBe('cpu memory');
  });

  it('say why they cannot limit anything: then the testbed runs plain processes', () => {
    const { cpu: root, ...rest } = version2();
    rmSync(path.join(root, 'cgroup.subtree_control'));
    mkdirSync(path.join(root, 'cgroup.subtree_control'));
    expect(whyNoLimits({ ...rest, cpu: root })).toMatch(/does not let groups below .* be limited/);
  });

  it('are made one below the other, written down first, with one path for both limits', () => {
    const hierarchy = version2();
    const run = new RunDirectory(folder());
    const group = new ControlGroups(hierarchy, run).create('agent-1');
    const top = path.join(hierarchy.cpu, `musical-chair-${run.id}`);
    expect(group.paths).toEqual([path.join(top, 'agent-1')]);
    expect(text(top, 'cgroup.subtree_control')).toBe('+cpu +memory');
    const made = text(run.path, 'manifest.jsonl')
      .split('\n')
      .map((line) => (JSON.parse(line) as { path: string }).path);
    expect(made).toEqual([top, path.join(top, 'agent-1')]);
  });

  it('are given quota and period in one line, memory in bytes, and no swap where it is counted', () => {
    const group = new ControlGroups(version2(), new RunDirectory(folder())).create('agent-1');
    const [at = ''] = group.paths;
    group.setCpu(0.18);
    group.setMemory(2 ** 29);
    expect([text(at, 'cpu.max'), text(at, 'memory.max'), existsSync(path.join(at, 'memory.swap.max'))]).toEqual([
      '1800 10000',
      String(2 ** 29),
      false,
    ]);
    writeFileSync(path.join(at, 'memory.swap.max'), 'max');
    group.setMemory(2 ** 29);
    expect(text(at, 'memory.swap.max')).toBe('0');
  });

  it('tell how long they waited for their quota', () => {
    const group = new ControlGroups(version2(), new RunDirectory(folder())).create('agent-1');
    writeFileSync(path.join(group.paths[0] ?? '', 'cpu.stat'), 'usage_usec 900\nnr_throttled 4\nthrottled_usec 1500000\n');
    expect(group.usage().throttledSeconds).toBe(1.5);
  });
});

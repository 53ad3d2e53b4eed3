/** CPU and memory limits by control groups, version 1 or 2. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { ChairError } from '../../broker/errors.js';
import { cpuQuota } from './devices.js';
import type { RunDirectory } from './run-directory.js';

/** Where this machine's control groups are: one tree for both (version 2), or one each (version 1). */
export interface Hierarchy {
  readonly version: 1 | 2;
  readonly cpu: string;
  readonly memory: string;
}

/** A writable hierarchy, or why there is none. */
export function findHierarchy(mounts = readFileSync('/proc/self/mounts', 'utf8')): Hierarchy | string {
  const found = new Map<string, string>();
  for (const line of mounts.split('\n')) {
    const [, where = '', type = '', options = ''] = line.split(' ');
    const flags = options.split(',');
    if (!flags.includes('rw')) continue;
    if (type === 'cgroup2') found.set('v2', where);
    if (type === 'cgroup') for (const name of ['cpu', 'memory']) if (flags.includes(name)) found.set(name, where);
  }
  const [cpu, memory, v2] = [found.get('cpu'), found.get('memory'), found.get('v2')];
  if (cpu !== undefined && memory !== undefined) return { version: 1, cpu, memory };
  if (v2 === undefined) return 'no control groups are mounted for writing';
  const controllers = existsSync(path.join(v2, 'cgroup.controllers'))
    ? readFileSync(path.join(v2, 'cgroup.controllers'), 'utf8').split(/\s+/)
    : [];
  if (!controllers.includes('cpu')) return 'the CPU controller of control groups is off';
  if (!controllers.includes('memory'))
    return 'the memory controller of control groups is off (on a Raspberry Pi: cgroup_enable=memory in cmdline.txt)';
  return { version: 2, cpu: v2, memory: v2 };
}

/**
 * Lets groups below the root be limited: nothing to do in version 1; in version 2 the root must hand its controllers down, which the kernel refuses in a
 * container's own root while processes live in it. Undefined = they can be limited; otherwise why not.
 */
export function whyNoLimits({ version, cpu: root }: Hierarchy): string | undefined {
  if (version === 1) return undefined;
  const file = path.join(root, 'cgroup.subtree_control');
  try {
    const given = readFileSync(file, 'utf8').trim().split(/\s+/);
    const missing = ['cpu', 'memory'].filter((name) => !given.includes(name));
    if (missing.length > 0) writeFileSync(file, missing.map((name) => `+${name}`).join(' '));
    return undefined;
  } catch (error) {
    return `the kernel does not let groups below ${root} be limited (${error instanceof Error ? error.message : String(error)})`;
  }
}

/** The group of one device. */
export class Group {
  /** Write a pid into `cgroup.procs` of each. */
  readonly paths: readonly string[];
  readonly #hierarchy: Hierarchy;
  readonly #cpu: string;
  readonly #memory: string;

  constructor(hierarchy: Hierarchy, cpu: string, memory: string) {
    this.#hierarchy = hierarchy;
    this.#cpu = cpu;
    this.#memory = memory;
    this.paths = [...new Set([cpu, memory])];
  }

  setCpu(cpu: number): void {
    const { periodUs, quotaUs } = cpuQuota(cpu);
    if (this.#hierarchy.version === 2) {
      put(this.#cpu, 'cpu.max', `${quotaUs} ${periodUs}`);
      return;
    }
    put(this.#cpu, 'cpu.cfs_quota_us', '-1');
    put(this.#cpu, 'cpu.cfs_period_us', String(periodUs));
    put(this.#cpu, 'cpu.cfs_quota_us', String(quotaUs));
  }

  setMemory(bytes: number): void {
    // Swap is there only where the kernel counts it; a device that swaps does not fit.
    if (this.#hierarchy.version === 2) {
      put(this.#memory, 'memory.max', String(bytes));
      if (existsSync(path.join(this.#memory, 'memory.swap.max'))) put(this.#memory, 'memory.swap.max', '0');
      return;
    }
    // Memory with swap cannot be less than memory alone: raising and lowering go in different orders, so it is lifted first.
    const both = 'memory.memsw.limit_in_bytes';
    const counted = existsSync(path.join(this.#memory, both));
    if (counted) put(this.#memory, both, '-1');
    put(this.#memory, 'memory.limit_in_bytes', String(bytes));
    if (counted) put(this.#memory, both, String(bytes));
  }

  /** CPU time used and time it had to wait for its quota, seconds since it was made. */
  usage(): { readonly throttledSeconds: number } {
    const stat = readFileSync(path.join(this.#cpu, 'cpu.stat'), 'utf8');
    const [, ns] = /^throttled_time (\d+)/m.exec(stat) ?? [];
    const [, us] = /^throttled_usec (\d+)/m.exec(stat) ?? [];
    return { throttledSeconds: Number(ns ?? 0) / 1e9 + Number(us ?? 0) / 1e6 };
  }
}

/** All groups of one testbed, under one group of its own. */
export class ControlGroups {
  readonly version: 1 | 2;
  readonly #hierarchy: Hierarchy;
  readonly #run: RunDirectory;
  readonly #name: string;

  /** Throws TESTBED_FAILED. */
  constructor(hierarchy: Hierarchy, run: RunDirectory) {
    this.#hierarchy = hierarchy;
    this.version = hierarchy.version;
    this.#run = run;
    this.#name = `musical-chair-${run.id}`;
    for (const root of this.#roots()) {
      const top = path.join(root, this.#name);
      this.#make(top);
      if (hierarchy.version === 2) {
        const why = whyNoLimits(hierarchy);
        if (why !== undefined) throw new ChairError('TESTBED_FAILED', why);
        put(top, 'cgroup.subtree_control', '+cpu +memory');
      }
    }
  }

  /** Throws TESTBED_FAILED. */
  create(name: string): Group {
    const made = this.#roots().map((root) => path.join(root, this.#name, name));
    for (const directory of made) this.#make(directory);
    const [cpu = '', memory = cpu] = made;
    return new Group(this.#hierarchy, cpu, memory);
  }

  #roots(): string[] {
    return [...new Set([this.#hierarchy.cpu, this.#hierarchy.memory])];
  }

  #make(directory: string): void {
    this.#run.record({ kind: 'group', path: directory });
    try {
      mkdirSync(directory);
    } catch (error) {
      throw new ChairError('TESTBED_FAILED', `the control group ${directory} could not be made`, { came: String(error), cause: error });
    }
  }
}

function put(directory: string, file: string, value: string): void {
  try {
    writeFileSync(path.join(directory, file), value);
  } catch (error) {
    throw new ChairError('TESTBED_FAILED', `the kernel refused ${value} for ${path.join(directory, file)}`, {
      came: String(error),
      cause: error,
    });
  }
}

/** The control groups of this process: Linux's limits on it, version 1 and 2. */
import { readFileSync } from 'node:fs';
import path from 'node:path';

/**
 * The control groups that bind this process, its own and all above: a parent's limit binds, too. Inside a container the path may not exist and the root
 * is the container's own group.
 */
export function controlGroups(controller: string, readFile: (file: string) => string): { readonly v2: boolean; readonly folder: string }[] {
  const found: { v2: boolean; folder: string }[] = [];
  for (const line of readFile('/proc/self/cgroup').split('\n')) {
    const [, controllers = '', group = ''] = line.split(':');
    if (group === '') continue;
    const v2 = controllers === '';
    if (!v2 && !controllers.split(',').includes(controller)) continue;
    const root = v2 ? '/sys/fs/cgroup' : `/sys/fs/cgroup/${controller}`;
    for (let at = group; ; at = path.dirname(at)) {
      found.push({ v2, folder: path.join(root, at) });
      if (at === '/' || at === '.') break;
    }
  }
  return found;
}

/** Cores that control groups (version 1 or 2) permit this process; 0 = as many as there are. */
export function cpuLimit(readFile: (file: string) => string = readText): number {
  return cpuQuota(readFile).cores;
}

/** The tightest quota, and the period in which it is handed out: a run shorter than that does not feel it. 0 = no quota. */
export function cpuQuota(readFile: (file: string) => string = readText): { readonly cores: number; readonly periodMs: number } {
  let limit = Number.POSITIVE_INFINITY;
  let periodMs = 0;
  for (const { v2, folder } of controlGroups('cpu', readFile)) {
    const [quota = '', period = ''] = v2
      ? readFile(path.join(folder, 'cpu.max')).trim().split(' ')
      : ['cpu.cfs_quota_us', 'cpu.cfs_period_us'].map((name) => readFile(path.join(folder, name)).trim());
    const cores = Number.parseInt(quota, 10) / Number.parseInt(period, 10);
    // `max` and -1 are no limit.
    if (!(cores > 0 && cores < limit)) continue;
    limit = cores;
    periodMs = Number.parseInt(period, 10) / 1000;
  }
  return { cores: Number.isFinite(limit) ? limit : 0, periodMs };
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    // Not Linux, or not mounted here.
    return '';
  }
}

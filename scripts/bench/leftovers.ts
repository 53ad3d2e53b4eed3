/** Folders of a benchmark's process: its models (hundreds of megabytes), a compiled checkout. Ctrl-C ends it at once, so what it left is removed by the next one. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { hasProcess } from '../../broker/lock.js';

/** A new folder `<prefix><pid>-...` for this process, after those that processes which are gone have left are removed. */
export function ownFolder(directory: string, prefix: string): string {
  sweep(directory, prefix);
  return mkdtempSync(path.join(directory, `${prefix}${process.pid}-`));
}

/** Removes `<prefix><pid>` and `<prefix><pid>-...` of processes that are gone; other names stay. */
export function sweep(directory: string, prefix: string): void {
  for (const name of namesIn(directory)) {
    const pid = name.startsWith(prefix) ? /^(\d+)(?:-|$)/.exec(name.slice(prefix.length))?.[1] : undefined;
    if (pid !== undefined && !hasProcess(Number(pid))) rmSync(path.join(directory, name), { recursive: true, force: true });
  }
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    // It was never made.
    return [];
  }
}

/** A small disk of a device: a file system of its own in memory, which can be filled to the last byte. Its pages count as memory of whoever writes them. */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs';
import path from 'node:path';
import { ChairError } from '../../broker/errors.js';
import type { RunDirectory } from './run-directory.js';

const BALLAST = '.ballast';
const CHUNK = Buffer.alloc(2 ** 20);

export class Disk {
  readonly path: string;

  /** Mounts it at `directory`. Throws TESTBED_FAILED. */
  constructor(run: RunDirectory, directory: string, sizeBytes: number) {
    this.path = directory;
    mkdirSync(directory, { recursive: true });
    run.record({ kind: 'mount', path: directory });
    const { status, stderr } = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${sizeBytes},mode=700`, 'tmpfs', directory], {
      encoding: 'utf8',
    });
    if (status !== 0) throw new ChairError('TESTBED_FAILED', `the disk ${directory} could not be mounted`, { came: stderr.trim() });
  }

  /** Every further write fails with "no space left on device". */
  fill(): void {
    const file = openSync(path.join(this.path, BALLAST), 'w');
    try {
      // A whole chunk first, what is left byte by byte of a page at the end: the kernel takes what fits and then refuses.
      for (;;) if (writeSync(file, CHUNK) === 0) return;
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'ENOSPC')) throw error;
    } finally {
      closeSync(file);
    }
  }

  empty(): void {
    rmSync(path.join(this.path, BALLAST), { force: true });
  }
}

/** Compiles the program to a folder and copies what it reads at run time: for `npm run build`, and for bundles made in a checkout. */
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { ChairError } from '../broker/errors.js';
import { PACKAGE_ROOT } from './package-root.js';

/** Folders whose files other than TypeScript are read at run time: schemas, the demo's picture and font, what a bundle puts onto a device. */
const ASSET_FOLDERS = ['broker', 'models', 'node-agent', 'scheduler', 'scripts/demo', 'scripts/bundle/device'] as const;
const ASSET = /\.(avsc|jpg|png|woff2?|ttf|txt|json)$|scripts\/bundle\/device\/[^/]+$/;

export interface CompileOptions {
  /** Default: what is published. */
  readonly project?: string;
  /** More flags for the compiler. */
  readonly flags?: readonly string[];
}

/** Replaces `dist`; returns how many files were copied beside the code. Throws BUNDLE_FAILED when the compiler refuses. */
export function compileTo(dist: string, { project = 'tsconfig.build.json', flags = [] }: CompileOptions = {}): number {
  rmSync(dist, { recursive: true, force: true });
  const tsc = path.join(PACKAGE_ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
  const { status } = spawnSync(process.execPath, [tsc, '-p', project, ...flags, '--outDir', dist], {
    cwd: PACKAGE_ROOT,
    stdio: ['ignore', 2, 2],
  });
  if (status !== 0) throw new ChairError('BUNDLE_FAILED', `the compiler ended with ${status}`, { todo: 'See what it said above.' });
  chmodSync(path.join(dist, 'scripts', 'cli.js'), 0o755);
  return copyAssets(dist);
}

function copyAssets(dist: string): number {
  let copied = 0;
  for (const folder of ASSET_FOLDERS) {
    for (const entry of readdirSync(path.join(PACKAGE_ROOT, folder), { recursive: true, withFileTypes: true })) {
      const from = path.join(entry.parentPath, entry.name);
      const name = path.relative(PACKAGE_ROOT, from);
      if (!entry.isFile() || !ASSET.test(name.split(path.sep).join('/'))) continue;
      mkdirSync(path.dirname(path.join(dist, name)), { recursive: true });
      cpSync(from, path.join(dist, name));
      copied++;
    }
  }
  return copied;
}

/**
 * `npm run build`: compiles to dist/ (or `--out DIRECTORY`) and copies what the program reads at run time. `npm run package` makes the tarball of it.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { PACKAGE_ROOT } from './package-root.js';

/** Folders whose files other than TypeScript are read at run time: schemas, the demo's picture and font. */
const ASSET_FOLDERS = ['broker', 'models', 'node-agent', 'scheduler', 'scripts/demo'] as const;
const ASSET = /\.(avsc|jpg|png|woff2?|ttf|txt|json)$/;

function copyAssets(dist: string): number {
  let copied = 0;
  for (const folder of ASSET_FOLDERS) {
    for (const entry of readdirSync(path.join(PACKAGE_ROOT, folder), { recursive: true, withFileTypes: true })) {
      if (!entry.isFile() || !ASSET.test(entry.name)) continue;
      const from = path.join(entry.parentPath, entry.name);
      const to = path.join(dist, path.relative(PACKAGE_ROOT, from));
      mkdirSync(path.dirname(to), { recursive: true });
      cpSync(from, to);
      copied++;
    }
  }
  return copied;
}

const out = process.argv.indexOf('--out');
const dist = path.resolve(PACKAGE_ROOT, out < 0 ? 'dist' : (process.argv[out + 1] ?? 'dist'));
rmSync(dist, { recursive: true, force: true });
const tsc = path.join(PACKAGE_ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
const { status } = spawnSync(process.execPath, [tsc, '-p', 'tsconfig.build.json', '--outDir', dist], {
  cwd: PACKAGE_ROOT,
  stdio: ['ignore', 'inherit', 'inherit'],
});
if (status === 0) {
  chmodSync(path.join(dist, 'scripts', 'cli.js'), 0o755);
  console.log(`${path.relative(PACKAGE_ROOT, dist)}/ is built, with ${copyAssets(dist)} files beside the code`);
  // `npm run package`: npm does not run prepack here (ignore-scripts), so the tarball is made from what was just built.
  if (process.argv.includes('--pack'))
    process.exitCode = spawnSync('npm', ['pack'], { cwd: PACKAGE_ROOT, stdio: ['ignore', 'inherit', 'inherit'] }).status ?? 1;
} else process.exitCode = status ?? 1;

/**
 * Compiles to dist/ (or `--out DIRECTORY`) and copies what the program reads at run time. `npm run package` makes the tarball of it.
 */
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { compileTo } from './compile.js';
import { PACKAGE_ROOT } from './package-root.js';

const out = process.argv.indexOf('--out');
const dist = path.resolve(PACKAGE_ROOT, out < 0 ? 'dist' : (process.argv[out + 1] ?? 'dist'));
console.log(`${path.relative(PACKAGE_ROOT, dist)}/ is built, with ${compileTo(dist)} files beside the code`);
// `npm run package`: npm does not run prepack here (ignore-scripts), so the tarball is made from what was just built.
if (process.argv.includes('--pack'))
  process.exitCode = spawnSync('npm', ['pack'], { cwd: PACKAGE_ROOT, stdio: ['ignore', 'inherit', 'inherit'] }).status ?? 1;

/** `npm run check`: types, linter, import arrows, generated documents, tests. `--no-tests` leaves the last out. */
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { checkArrows, readSources } from './check-arrows.js';
import { staleDocuments } from './docs.js';
import { PACKAGE_ROOT } from './package-root.js';

function runTool(name: string, file: string, args: readonly string[]): boolean {
  console.log(`\n== ${name}`);
  const tool = path.join(PACKAGE_ROOT, 'node_modules', file);
  return spawnSync(process.execPath, [tool, ...args], { cwd: PACKAGE_ROOT, stdio: ['ignore', 'inherit', 'inherit'] }).status === 0;
}

function arrows(): boolean {
  console.log('\n== import arrows');
  const files = readSources(PACKAGE_ROOT);
  const violations = checkArrows(files);
  for (const v of violations) console.log(`${v.file}:${v.line}: ${v.message}`);
  console.log(violations.length === 0 ? `${files.length} files, all arrows hold` : `${violations.length} arrows broken`);
  return violations.length === 0;
}

function documents(): boolean {
  console.log('\n== generated documents');
  const stale = staleDocuments();
  console.log(stale.length === 0 ? 'all in step with the code' : `out of step: ${stale.join(', ')}; run npm run docs`);
  return stale.length === 0;
}

const parts: readonly (() => boolean)[] = [
  () => runTool('types', 'typescript/bin/tsc', ['-p', '.']),
  () => runTool('linter', '@biomejs/biome/bin/biome', ['check', '--error-on-warnings', '.']),
  arrows,
  documents,
  ...(process.argv.includes('--no-tests') ? [] : [() => runTool('tests', 'vitest/vitest.mjs', ['run'])]),
];
// All of them, so that one run shows everything that is wrong.
process.exitCode = parts.map((part) => part()).every(Boolean) ? 0 : 1;

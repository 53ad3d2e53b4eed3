/**
 * The checkout compiled, once for all tests: a process that starts from source takes a second of CPU more, and tests start hundreds of them. `setup` is called by
 * vitest before all tests; the threads of engine and planners find the folder in the environment, processes are started with `compiled(...)`. That everything runs
 * from source, too, is seen by some of scripts/e2e/cli.test.ts, and by `npm start`.
 */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, renameSync, rmSync, statSync, utimesSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { compileTo } from '../compile.js';
import { CLI_PATH, PACKAGE_ROOT } from '../package-root.js';

const SOURCES = ['broker', 'models', 'node-agent', 'scheduler', 'scripts'] as const;
const PARENT = path.join(PACKAGE_ROOT, '.cache', 'compiled');
/** Of former states of the sources, so many stay: another run may use one. */
const KEPT = 3;
const IN_USE_MS = 3_600_000;

/** For vitest's `globalSetup`. */
export function setup(): void {
  process.env.CHAIR_COMPILED = checkout();
}

/** This Node and the program that was made of a TypeScript file of the checkout: what a process is started with. */
export function compiled(file: string | URL): string[] {
  const source = path.relative(PACKAGE_ROOT, file instanceof URL ? fileURLToPath(file) : file);
  return [process.execPath, path.join(process.env.CHAIR_COMPILED ?? checkout(), source.replace(/\.ts$/, '.js'))];
}

/** The command line, compiled: a file for `node`. */
export function compiledCli(): string {
  return compiled(CLI_PATH)[1] ?? '';
}

/** A folder for each state of the sources, made when it is not there. Two processes may make the same one: the first to end counts. */
function checkout(): string {
  const folder = path.join(PARENT, stateOfSources());
  if (existsSync(folder)) utimesSync(folder, new Date(), new Date());
  else {
    const part = `${folder}.${process.pid}`;
    // Types are checked by `npm run check`.
    compileTo(part, { project: 'tsconfig.json', flags: ['--noEmit', 'false', '--noCheck', '--rootDir', '.'] });
    try {
      renameSync(part, folder);
    } catch (error) {
      rmSync(part, { recursive: true, force: true });
      if (!existsSync(folder)) throw error;
    }
    removeFormer(folder);
  }
  return folder;
}

function stateOfSources(): string {
  const hash = createHash('sha256');
  const see = (file: string): void => {
    const { mtimeMs, size } = statSync(file);
    hash.update(`${file} ${mtimeMs} ${size}\n`);
  };
  for (const name of ['package.json', 'tsconfig.json']) see(path.join(PACKAGE_ROOT, name));
  for (const folder of SOURCES) {
    const entries = readdirSync(path.join(PACKAGE_ROOT, folder), { recursive: true, withFileTypes: true });
    const files = entries.filter((entry) => entry.isFile()).map((entry) => path.join(entry.parentPath, entry.name));
    for (const file of files.sort()) see(file);
  }
  return hash.digest('hex').slice(0, 16);
}

function removeFormer(current: string): void {
  const others = readdirSync(PARENT)
    .map((name) => path.join(PARENT, name))
    .filter((folder) => folder !== current)
    .map((folder) => ({ folder, usedMs: statSync(folder, { throwIfNoEntry: false })?.mtimeMs ?? 0 }))
    .sort((a, b) => b.usedMs - a.usedMs);
  for (const { folder, usedMs } of others.slice(KEPT))
    if (Date.now() - usedMs > IN_USE_MS) rmSync(folder, { recursive: true, force: true });
}

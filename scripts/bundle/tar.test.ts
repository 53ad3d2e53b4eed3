import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { describe, expect, it, onTestFinished } from 'vitest';
import { readTar, type TarEntry, writeTar } from './tar.js';

const LONG = `${'folder/'.repeat(20)}a-file-with-a-long-name.js`;
const ENTRIES: TarEntry[] = [
  { path: 'a/empty', mode: 0o644, bytes: new Uint8Array(0) },
  { path: 'a/run', mode: 0o755, bytes: Buffer.from('#!/bin/sh\n') },
  { path: LONG, mode: 0o644, bytes: Buffer.alloc(1025, 7) },
  { path: 'block', mode: 0o644, bytes: Buffer.alloc(512, 1) },
];

function folder(): string {
  const made = mkdtempSync(path.join(tmpdir(), 'mc-tar-'));
  onTestFinished(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

async function readAll(chunks: Iterable<Uint8Array>): Promise<TarEntry[]> {
  const found: TarEntry[] = [];
  await readTar(Readable.from(chunks), ({ path: name, mode }) => {
    const parts: Uint8Array[] = [];
    return {
      write: (chunk) => void parts.push(Uint8Array.from(chunk)),
      end: () => void found.push({ path: name, mode, bytes: Buffer.concat(parts) }),
    };
  });
  return found;
}

describe('tar', () => {
  it('reads what it wrote, in any portions', async () => {
    const whole = Buffer.concat([...writeTar(ENTRIES)]);
    const portions = Array.from({ length: Math.ceil(whole.length / 77) }, (_, i) => whole.subarray(77 * i, 77 * (i + 1)));
    const found = await readAll(portions);
    expect(found.map(({ path: name, mode, bytes }) => [name, mode, Buffer.from(bytes).toString('hex')])).toEqual(
      ENTRIES.map(({ path: name, mode, bytes }) => [name, mode, Buffer.from(bytes).toString('hex')]),
    );
  });

  it('writes what GNU tar unpacks, and reads what GNU tar packs', async () => {
    const into = folder();
    writeFileSync(path.join(into, 'x.tar'), Buffer.concat([...writeTar(ENTRIES)]));
    expect(spawnSync('tar', ['-xf', 'x.tar'], { cwd: into, encoding: 'utf8' })).toMatchObject({ status: 0, stderr: '' });
    expect(readFileSync(path.join(into, LONG))).toEqual(Buffer.alloc(1025, 7));
    expect(statSync(path.join(into, 'a/run')).mode & 0o777).toBe(0o755);
    const name = `${'d'.repeat(90)}/${'e'.repeat(120)}`;
    spawnSync('sh', ['-c', `mkdir -p ${'d'.repeat(90)} && echo long >${name}`], { cwd: into });
    expect(spawnSync('tar', ['--format=gnu', '-cf', 'y.tar', 'd'.repeat(90)], { cwd: into }).status).toBe(0);
    const found = await readAll([readFileSync(path.join(into, 'y.tar'))]);
    expect(found).toMatchObject([{ path: name, bytes: Buffer.from('long\n') }]);
  });

  it('refuses what is cut off or changed', async () => {
    const whole = Buffer.concat([...writeTar(ENTRIES)]);
    await expect(readAll([whole.subarray(0, 700)])).rejects.toMatchObject({ code: 'BUNDLE_DAMAGED' });
    const changed = Buffer.from(whole);
    changed[3] = 1;
    await expect(readAll([changed])).rejects.toMatchObject({ code: 'BUNDLE_DAMAGED' });
  });

  it('refuses a name that tar cannot hold', () => {
    expect(() => [...writeTar([{ path: 'x'.repeat(300), mode: 0o644, bytes: new Uint8Array(0) }])]).toThrow(
      expect.objectContaining({ code: 'BUNDLE_FAILED' }),
    );
  });
});

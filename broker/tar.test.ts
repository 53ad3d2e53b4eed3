import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { describe, expect, it, onTestFinished } from 'vitest';
import { readTar, TAR_END, tarHeader, tarPadding } from './tar.js';

interface File {
  readonly name: string;
  readonly mode: number;
  readonly bytes: Buffer;
}

const LONG = `${'folder/'.repeat(20)}a-file-with-a-long-name.js`;
const FILES: readonly File[] = [
  { name: 'a/empty', mode: 0o644, bytes: Buffer.alloc(0) },
  { name: 'a/run', mode: 0o755, bytes: Buffer.from('#!/bin/sh\n') },
  { name: LONG, mode: 0o640, bytes: Buffer.alloc(1025, 7) },
  { name: 'block', mode: 0o644, bytes: Buffer.alloc(512, 1) },
];

function folder(): string {
  const made = mkdtempSync(path.join(tmpdir(), 'mc-tar-'));
  onTestFinished(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

function archive(files: readonly File[]): Buffer {
  const parts = files.flatMap(({ name, mode, bytes }) => [
    tarHeader({ name, mode, sizeBytes: bytes.length, modifiedS: 1e9 }, 'BUNDLE_FAILED'),
    bytes,
    tarPadding(bytes.length),
  ]);
  return Buffer.concat([...parts, TAR_END]);
}

async function readAll(chunks: Iterable<Uint8Array>): Promise<(File & { readonly type: string })[]> {
  const found: (File & { readonly type: string })[] = [];
  for await (const { name, mode, type, content } of readTar(Readable.from(chunks), 'BUNDLE_DAMAGED')) {
    const parts: Uint8Array[] = [];
    for await (const chunk of content) parts.push(chunk);
    found.push({ name, mode, type, bytes: Buffer.concat(parts) });
  }
  return found;
}

describe('tar', () => {
  it('reads what it wrote, in any portions, and what nobody reads is passed over', async () => {
    const whole = archive(FILES);
    const portions = Array.from({ length: Math.ceil(whole.length / 77) }, (_, i) => whole.subarray(77 * i, 77 * (i + 1)));
    expect(await readAll(portions)).toEqual(FILES.map((file) => ({ ...file, type: '0' })));
    const names: string[] = [];
    for await (const { name, content } of readTar(Readable.from(portions), 'BUNDLE_DAMAGED')) {
      names.push(name);
      // A part of it only.
      for await (const _ of content) break;
    }
    expect(names).toEqual(FILES.map(({ name }) => name));
  });

  it('writes what GNU tar unpacks', () => {
    const into = folder();
    writeFileSync(path.join(into, 'x.tar'), archive(FILES));
    expect(spawnSync('tar', ['-xf', 'x.tar'], { cwd: into, encoding: 'utf8' })).toMatchObject({ status: 0, stderr: '' });
    expect(readFileSync(path.join(into, LONG))).toEqual(Buffer.alloc(1025, 7));
    expect(statSync(path.join(into, 'a/run')).mode & 0o777).toBe(0o755);
    expect(statSync(path.join(into, 'a/run')).mtimeMs).toBe(1e12);
  });

  it('reads what GNU tar packs: long names, folders, links', async () => {
    const into = folder();
    const [top, name] = ['d'.repeat(90), `${'d'.repeat(90)}/${'e'.repeat(120)}`];
    spawnSync('sh', ['-c', `mkdir -p ${top} && echo long >${name}`], { cwd: into });
    symlinkSync('/etc/passwd', path.join(into, top, 'link'));
    expect(spawnSync('tar', ['--format=gnu', '--sort=name', '-cf', 'y.tar', top], { cwd: into }).status).toBe(0);
    const found = await readAll([readFileSync(path.join(into, 'y.tar'))]);
    expect(found).toMatchObject([
      { name: `${top}/`, type: '5' },
      { name, type: '0', bytes: Buffer.from('long\n') },
      { name: `${top}/link`, type: '2' },
    ]);
  });

  it('says sizes beyond eight gigabytes', async () => {
    const big = tarHeader({ name: 'big', sizeBytes: 20e9, mode: 0o600, modifiedS: 0 }, 'BACKUP_UNUSABLE');
    const reader = readTar(Readable.from([big]), 'BACKUP_UNUSABLE');
    expect((await reader.next()).value).toMatchObject({ name: 'big', sizeBytes: 20e9 });
  });

  it('reads to the end of what the archive came in, and closes what it leaves early', async () => {
    const ends: string[] = [];
    const source = async function* () {
      try {
        yield archive(FILES);
        yield Buffer.from('a checksum, say');
        ends.push('all was read');
      } finally {
        ends.push('closed');
      }
    };
    for await (const _ of readTar(source(), 'BUNDLE_DAMAGED'));
    expect(ends).toEqual(['all was read', 'closed']);
    for await (const _ of readTar(source(), 'BUNDLE_DAMAGED')) break;
    expect(ends).toEqual(['all was read', 'closed', 'closed']);
  });

  it('refuses what is cut off or changed, with the code that was asked for', async () => {
    const whole = archive(FILES);
    for (const length of [100, 700, 1030, whole.length - 1024]) {
      await expect(readAll([whole.subarray(0, length)])).rejects.toMatchObject({ code: 'BUNDLE_DAMAGED' });
    }
    const changed = Buffer.from(whole);
    changed[3] = 1;
    await expect(readAll([changed])).rejects.toMatchObject({ code: 'BUNDLE_DAMAGED' });
  });

  it('refuses a name that tar cannot hold', () => {
    for (const name of ['x'.repeat(101), `${'x'.repeat(160)}/y`, `${'x'.repeat(101)}/`]) {
      expect(() => tarHeader({ name, mode: 0o644, sizeBytes: 0, modifiedS: 0 }, 'BUNDLE_FAILED')).toThrow(
        expect.objectContaining({ code: 'BUNDLE_FAILED' }),
      );
    }
  });
});

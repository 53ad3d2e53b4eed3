import { execFileSync, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AuditLog } from '../../broker/credentials/audit.js';
import { lockDirectory } from '../../broker/lock.js';
import { writeSealed } from '../../broker/sealed-file.js';
import { TAR_END, tarHeader, tarPadding } from '../../broker/tar.js';
import { claimFolder } from '../cluster-file.js';
import { Problems } from '../problems.js';
import { DeploymentFiles } from '../state.js';
import { nextTerm } from '../term.js';
import { deployment } from '../test-deployment.js';
import { type BackupOptions, listHash, UNUSABLE, writeBackup } from './backup.js';
import { checkBackup, restoreBackup } from './restore.js';

let folder: string;
let state: string;
let file: string;
const undo: (() => Promise<unknown>)[] = [];
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'chair-backup-'));
  state = path.join(folder, 'state');
  file = path.join(folder, 'backup.tar');
});
afterEach(async () => {
  for (const each of undo.splice(0)) await each();
  await rm(folder, { recursive: true, force: true });
});

const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const MODEL = randomBytes(700_001);

/** What a gateway keeps, and what does not belong into a backup. */
async function makeState(): Promise<DeploymentFiles> {
  await mkdir(path.join(state, 'uploads', 'files'), { recursive: true });
  await mkdir(path.join(state, 'uploads', 'views', 'x'), { recursive: true });
  await mkdir(path.join(state, 'gateway-cache', 'slices'), { recursive: true });
  await mkdir(path.join(state, 'gateway-cache', 'models'), { recursive: true });
  await mkdir(path.join(state, 'credentials'), { mode: 0o700 });
  await nextTerm(state, 0, () => undefined);
  const files = new DeploymentFiles({ directory: path.join(state, 'deployments'), problems: new Problems() });
  undo.push(() => files.stop());
  await files.load();
  await files.save(deployment('net'));
  await writeFile(path.join(state, 'uploads', 'files', sha(MODEL)), MODEL);
  await writeFile(path.join(state, 'uploads', 'files', `${sha(MODEL)}.part`), 'half');
  await writeFile(path.join(state, 'uploads', 'views', 'x', 'm'), 'a view');
  await writeFile(path.join(state, 'gateway-cache', 'slices', sha(Buffer.from('slice'))), 'slice');
  await writeFile(path.join(state, 'gateway-cache', 'models', 'w'), 'made again');
  await writeFile(path.join(state, 'credentials', 'ca-key.pem'), 'the key', { mode: 0o600 });
  await writeFile(path.join(state, 'credentials', 'audit.log'), '');
  await writeSealed(path.join(state, 'credentials', 'tokens.json'), '[]', 'INTERNAL', 0o600);
  await writeFile(path.join(state, 'deployments', 'old.json.damaged'), 'damaged');
  return files;
}

const KEPT = [
  'credentials/audit.log',
  'credentials/ca-key.pem',
  'credentials/tokens.json',
  'deployments/net.json',
  `gateway-cache/slices/${sha(Buffer.from('slice'))}`,
  'term',
  `uploads/files/${sha(MODEL)}`,
];

const backup = (extra: Partial<BackupOptions> = {}) =>
  writeBackup({ stateDirectory: state, file, cluster: 'home', softwareVersion: '1', nowMs: () => Date.UTC(2026, 5, 1), ...extra });
const restore = (to: string, cluster = 'home') => restoreBackup({ file, stateDirectory: to, cluster, nowMs: () => Date.UTC(2026, 5, 2) });

const ABOUT_HOME = { format: 1, cluster: 'home', softwareVersion: '1', madeAtMs: 1, models: true };

/** A backup by another hand: with any names, and a list that is right unless another one is given. */
function archive(
  files: readonly (readonly [name: string, text: string])[],
  { about = ABOUT_HOME, rows }: { readonly about?: object; readonly rows?: readonly unknown[] } = {},
): Buffer {
  const entry = (name: string, bytes: Buffer): Buffer[] => [
    tarHeader({ name, sizeBytes: bytes.length, mode: 0o644, modifiedS: 0 }, UNUSABLE),
    bytes,
    tarPadding(bytes.length),
  ];
  const state = files.map(([name, text]) => ({ name, bytes: Buffer.from(text) }));
  const right = state.map(({ name, bytes }) => ({
    path: name.replace(/^state\//, ''),
    sizeBytes: bytes.length,
    sha256: sha(bytes),
    mode: 0o644,
  }));
  const list = rows ?? right;
  const manifest = { about, rows: list, sha256: listHash(about, list) };
  return Buffer.concat([
    ...entry('about.json', Buffer.from(`${JSON.stringify(about)}\n`)),
    ...state.flatMap(({ name, bytes }) => entry(name, bytes)),
    ...entry('manifest.json', Buffer.from(`${JSON.stringify(manifest)}\n`)),
    TAR_END,
  ]);
}

/** By who looks at it and by who restores it; and nothing is left of that. */
async function refusedEverywhere(): Promise<void> {
  await expect(checkBackup(file)).rejects.toMatchObject({ code: 'BACKUP_UNUSABLE' });
  await expect(restore(path.join(folder, 'new'))).rejects.toMatchObject({ code: 'BACKUP_UNUSABLE' });
  expect((await readdir(folder)).sort()).toEqual(['backup.tar']);
}

async function tree(root: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
    const full = path.join(entry.parentPath, entry.name);
    if (entry.isFile()) found[path.relative(root, full)] = sha(await readFile(full));
  }
  return found;
}

describe('a backup', () => {
  it('holds all that a gateway keeps, byte for byte, for its owner alone, and is a tar archive', async () => {
    await makeState();
    const report = await backup();
    expect(report).toMatchObject({ cluster: 'home', deployments: ['net'], keys: true, leftOut: [], files: KEPT.length });
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    expect((await stat(file)).size).toBe(report.sizeBytes);
    expect((await readdir(folder)).sort()).toEqual(['backup.tar', 'state']);
    expect((await readdir(state)).filter((name) => name.startsWith('.'))).toEqual([]);
    const listed = execFileSync('tar', ['-tf', file], { encoding: 'utf8' }).trim().split('\n');
    expect(listed).toEqual(['about.json', ...KEPT.map((name) => `state/${name}`), 'manifest.json']);

    const to = path.join(folder, 'new', 'state');
    const restored = await restore(to);
    // Tokens of before would be good again.
    expect(restored).toMatchObject({ deployments: ['net'], replaced: '', leftOut: ['credentials/tokens.json'] });
    const expected = await tree(state);
    const { 'credentials/audit.log': audit, ...got } = await tree(to);
    expect(audit).toBeDefined();
    const same = KEPT.filter((name) => !/tokens\.json$|audit\.log$/.test(name));
    expect(got).toEqual(Object.fromEntries(same.map((name) => [name, expected[name]])));
    expect((await stat(path.join(to, 'credentials', 'ca-key.pem'))).mode & 0o777).toBe(0o600);
    const problems = new Problems();
    const again = new DeploymentFiles({ directory: path.join(to, 'deployments'), problems });
    expect((await again.load()).map(({ request }) => request.name)).toEqual(['net']);
    expect(problems.all()).toEqual([]);
    expect(await nextTerm(to, 0, () => undefined)).toBe(2);
  });

  it('leaves models out when it is told to', async () => {
    await makeState();
    expect((await backup({ models: false })).sizeBytes).toBeLessThan(100_000);
    const { rows } = await checkBackup(file);
    expect(rows.map((row) => row.path)).toEqual(KEPT.filter((name) => !/^(uploads|gateway-cache)/.test(name)));
  });

  it('is of one moment while a gateway writes: what belongs together is together', async () => {
    const files = await makeState();
    let stopped = false;
    let rounds = 0;
    // A deployment and a slice that are replaced together: no backup may have one without the other.
    const writing = (async () => {
      while (!stopped) {
        const slice = Buffer.from(`slice ${++rounds}`);
        const one = deployment('pair');
        await writeFile(path.join(state, 'gateway-cache', 'slices', sha(slice)), slice);
        await files.save({ ...one, request: { ...one.request, model: sha(slice) } });
        for (const name of await readdir(path.join(state, 'gateway-cache', 'slices'))) {
          if (name !== sha(slice)) await rm(path.join(state, 'gateway-cache', 'slices', name));
        }
        await new Promise((resolve) => setTimeout(resolve, 30 + Math.random() * 100));
      }
    })();
    undo.unshift(async () => {
      stopped = true;
      await writing;
    });
    // On a fast machine five backups are over before much was written.
    for (let i = 0; i < 5 || rounds <= 3; i++) {
      const one = path.join(folder, `b${i}.tar`);
      await backup({ file: one });
      const { rows } = await checkBackup(one);
      const to = path.join(folder, `r${i}`);
      await restoreBackup({ file: one, stateDirectory: to, cluster: 'home', nowMs: Date.now });
      const problems = new Problems();
      const saved = await new DeploymentFiles({ directory: path.join(to, 'deployments'), problems }).load();
      expect(problems.all()).toEqual([]);
      const pair = saved.find(({ request }) => request.name === 'pair');
      if (pair !== undefined) expect(rows.map((row) => row.path)).toContain(`gateway-cache/slices/${pair.request.model}`);
    }
  });

  it('says which files are damaged and leaves them out; but never what says who was revoked', async () => {
    await makeState();
    await writeFile(path.join(state, 'uploads', 'files', sha(MODEL)), 'something else');
    await writeFile(path.join(state, 'deployments', 'bad.json'), 'torn');
    const report = await backup();
    expect(report.leftOut.map((line) => line.split(':')[0]).sort()).toEqual(['deployments/bad.json', `uploads/files/${sha(MODEL)}`]);
    const { rows } = await checkBackup(file);
    expect(rows.map((row) => row.path)).not.toContain(`uploads/files/${sha(MODEL)}`);
    await writeFile(path.join(state, 'credentials', 'revoked.json'), 'torn');
    await expect(backup({ file: `${file}.2` })).rejects.toMatchObject({ code: 'STATE_DAMAGED' });
    expect((await readdir(folder)).sort()).toEqual(['backup.tar', 'state']);
  });

  it('overwrites nothing, does not go into the folder it is of, and does not take any folder for a state', async () => {
    await makeState();
    await writeFile(file, 'precious');
    await expect(backup()).rejects.toMatchObject({ code: 'FILE_EXISTS' });
    expect(await readFile(file, 'utf8')).toBe('precious');
    await expect(backup({ file: path.join(state, 'b.tar') })).rejects.toMatchObject({ code: 'USAGE' });
    await mkdir(path.join(folder, 'other'));
    for (const stateDirectory of [path.join(folder, 'nowhere'), path.join(folder, 'other')]) {
      await expect(backup({ stateDirectory, file: path.join(folder, 'x') })).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' });
    }
    await expect(backup({ file: path.join(folder, 'no', 'such', 'place') })).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' });
  });
});

describe('restoring', () => {
  it('never overwrites a gateway that runs, of this process or of another', async () => {
    await makeState();
    await backup();
    const before = await tree(state);
    const words = { code: 'CLUSTER_TAKEN', what: 'x', expected: 'x', todo: 'x' } as const;
    const unlock = await lockDirectory(state, words);
    await expect(restore(state)).rejects.toMatchObject({ code: 'CLUSTER_TAKEN', message: expect.stringContaining('Stop it first') });
    await unlock();
    const other = spawn('sleep', ['60']);
    undo.push(async () => other.kill());
    await writeFile(path.join(state, 'lock'), `${other.pid} `);
    await expect(restore(state)).rejects.toMatchObject({ code: 'CLUSTER_TAKEN' });
    await rm(path.join(state, 'lock'));
    expect(await tree(state)).toEqual(before);
  });

  it('keeps what stood there, and can be done again', async () => {
    await makeState();
    await backup();
    await writeFile(path.join(state, 'deployments', 'later.json'), 'of after the backup');
    const first = await restore(state);
    expect(first.replaced).toMatch(/state\.before-20260602-000000$/);
    expect(await readdir(path.join(first.replaced, 'deployments'))).toContain('later.json');
    expect(await readdir(path.join(state, 'deployments'))).toEqual(['net.json']);
    expect(await readdir(state)).not.toContain('lock');
    expect(await readdir(first.replaced)).not.toContain('lock');
    const second = await restore(state);
    expect(second.replaced).toMatch(/-2$/);
    // And a gateway may have it now.
    await (await lockDirectory(state, { code: 'CLUSTER_TAKEN', what: '', expected: '', todo: '' }))();
  });

  it('is in the audit log, as the backup is', async () => {
    await makeState();
    await backup();
    const events = async (root: string): Promise<string[]> =>
      (await new AuditLog({ directory: path.join(root, 'credentials') }).read(10)).map(({ event }) => event);
    expect(await events(state)).toEqual(['backed up']);
    await restore(state);
    expect(await events(state)).toEqual(['restored']);
  });

  it('begins no new file of the audit log, which the gateway may be writing', async () => {
    await makeState();
    const keys = path.join(state, 'credentials');
    const full = `${JSON.stringify({ at: '2026-01-01T00:00:00.000Z', event: 'joined', about: 'agent x' })}\n`.repeat(20_000);
    await writeFile(path.join(keys, 'audit.log'), full);
    await backup();
    expect((await readdir(keys)).filter((name) => name.startsWith('audit'))).toEqual(['audit.log']);
    const written = await readFile(path.join(keys, 'audit.log'), 'utf8');
    expect(written.startsWith(full)).toBe(true);
    expect(written.slice(full.length)).toMatch(/^\{.*"backed up".*\}\n$/);
  });

  it('replaces what a link names, and not the link', async () => {
    await makeState();
    await backup();
    const disk = path.join(folder, 'disk');
    await mkdir(disk);
    await rename(state, path.join(disk, 'state'));
    await symlink(path.join(disk, 'state'), state);
    const report = await restore(state);
    expect(path.dirname(report.replaced)).toBe(await realpath(disk));
    expect((await lstat(state)).isSymbolicLink()).toBe(true);
  });

  it('that was cut off at its last step keeps a gateway from beginning anew with other keys, and can be done again', async () => {
    await makeState();
    await backup();
    await rename(state, `${state}.before-x`);
    await mkdir(`${state}.restoring-4711`);
    await mkdir(state);
    await expect(claimFolder(state, 'home')).rejects.toMatchObject({ code: 'STATE_DAMAGED', message: expect.stringContaining('cut off') });
    await restore(state);
    expect(await readdir(folder)).not.toContain('state.restoring-4711');
    await claimFolder(state, 'home');
    await expect(claimFolder(state, 'office')).rejects.toMatchObject({ code: 'CLUSTER_WRONG' });
  });

  it('refuses the backup of another cluster', async () => {
    await makeState();
    await backup();
    const to = path.join(folder, 'new');
    await expect(restore(to, 'office')).rejects.toMatchObject({ code: 'CLUSTER_WRONG', message: expect.stringContaining("'home'") });
    expect(await readdir(folder)).not.toContain('new');
  });

  it('refuses an archive cut off anywhere or with a byte flipped anywhere, and leaves everything as it was', async () => {
    await makeState();
    await backup({ models: false });
    const good = await readFile(file);
    const before = await tree(state);
    const refused = async (what: string): Promise<void> => {
      const error = await restore(state).then(
        () => 'it was restored',
        (thrown: Error & { code?: string }) => thrown.code,
      );
      expect(error, what).toBe('BACKUP_UNUSABLE');
    };
    for (let cut = 0; cut < good.length - 1024; cut += 997) {
      await writeFile(file, good.subarray(0, cut));
      await refused(`cut at ${cut}`);
    }
    let harmless = 0;
    for (let at = 0; at < good.length - 1024; at += 331) {
      const bad = Buffer.from(good);
      bad[at] = (bad[at] ?? 0) ^ 0x10;
      await writeFile(file, bad);
      const code = await restore(path.join(folder, `t${at}`)).then(
        () => 'restored',
        (thrown: Error & { code?: string }) => thrown.code,
      );
      // Padding between files says nothing. Whatever else is restored is what was backed up.
      if (code === 'restored') harmless++;
      else expect(code, `flipped at ${at}`).toMatch(/BACKUP_UNUSABLE|CLUSTER_WRONG/);
      if (code !== 'restored') continue;
      const got = await tree(path.join(folder, `t${at}`));
      for (const [name, hash] of Object.entries(got)) {
        // The restore itself is in the log.
        if (!name.endsWith('audit.log')) expect(hash, `flipped at ${at}: ${name}`).toBe(before[name]);
      }
    }
    expect(harmless).toBeLessThan(good.length / 331 / 2);
    expect(await tree(state)).toEqual(before);
    expect((await readdir(folder)).filter((name) => name.includes('restoring'))).toEqual([]);
  });

  it.each([
    ['a file that is no archive', Buffer.from('hello'.repeat(500))],
    ['an empty file', Buffer.alloc(0)],
    ['a foreign archive', Buffer.concat([tarHeader({ name: 'etc/passwd', sizeBytes: 0, mode: 0o644, modifiedS: 0 }, UNUSABLE), TAR_END])],
  ])('refuses %s', async (_, bytes) => {
    await writeFile(file, bytes);
    await expect(restore(path.join(folder, 'new'))).rejects.toMatchObject({ code: 'BACKUP_UNUSABLE' });
    await expect(checkBackup(file)).rejects.toMatchObject({ code: 'BACKUP_UNUSABLE' });
  });

  it.each(['../escaped', '/etc/x', 'a/../../x', 'a//b', './x', 'state'])('refuses an archive with the name %s', async (name) => {
    await writeFile(file, archive([[name === 'state' ? 'state' : `state/${name}`, 'evil']]));
    await refusedEverywhere();
  });

  it.each([
    ['a file in a file', ['a', 'a/b']],
    ['a file in a file, the inner one first', ['a/b', 'a']],
    ['a file far inside of a file', ['a/b/c/d', 'x', 'a/b']],
    ['one file twice', ['a', 'a']],
    ['the lock of a gateway', ['lock']],
    ['a lock that is taken', ['lock.1']],
    ['a folder in the place of the lock', ['lock/x']],
    ['a lock further down', ['deployments/lock']],
    ['what a backup leaves out', ['.backup-0/term']],
    ['what was half written', ['term.new']],
  ])('refuses an archive with %s, whose list is right', async (_what, names) => {
    const files = names.map((name, i) => [`state/${name}`, `${i}`] as const);
    await writeFile(file, archive(files));
    await refusedEverywhere();
  });

  it.each([
    ['rows that are none', {}, [null]],
    ['rows that are lists', {}, [['a']]],
    ['a time that no calendar has', { madeAtMs: 1e300 }, []],
    ['a time that is none', { madeAtMs: '1' }, []],
  ])('refuses an archive with %s', async (_what, change, rows) => {
    await writeFile(file, archive([], { about: { ...ABOUT_HOME, ...change }, rows }));
    await refusedEverywhere();
  });

  it('takes an archive that is made so, when nothing is wrong with it', async () => {
    await writeFile(
      file,
      archive([
        ['state/a/b', '1'],
        ['state/a.b', '2'],
        ['state/ab', '3'],
        ['state/locked', '4'],
      ]),
    );
    expect((await checkBackup(file)).rows).toHaveLength(4);
    expect(await restore(path.join(folder, 'new'))).toMatchObject({ files: 4 });
  });

  it('does not take a folder for an archive', async () => {
    await mkdir(file);
    await expect(checkBackup(file)).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' });
    await expect(restore(path.join(folder, 'new'))).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' });
  });

  it('refuses an archive that holds anything but plain files', async () => {
    await makeState();
    await backup();
    const bytes = await readFile(file);
    // The second header: what was a file is a symbolic link now, and its checksum says so.
    const at = 512 * (1 + Math.ceil(Number.parseInt(bytes.toString('latin1', 124, 135), 8) / 512));
    bytes[at + 156] = '2'.charCodeAt(0);
    const sum = Number.parseInt(bytes.toString('latin1', at + 148, at + 154), 8) + 2;
    bytes.write(sum.toString(8).padStart(6, '0'), at + 148);
    await writeFile(file, bytes);
    await expect(checkBackup(file)).rejects.toMatchObject({
      code: 'BACKUP_UNUSABLE',
      message: expect.stringContaining('plain files only'),
    });
  });

  it('says that a file is not there, and who may not read it', async () => {
    await expect(restore(state)).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' });
    expect(await readdir(folder)).toEqual([]);
    await makeState();
    await backup();
    await chmod(file, 0o600);
    await truncate(file, 1536);
    await expect(checkBackup(file)).rejects.toMatchObject({ code: 'BACKUP_UNUSABLE' });
  });
});

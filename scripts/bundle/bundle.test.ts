import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { compiledPlain } from '../e2e/compiled.js';
import { PACKAGE_ROOT } from '../package-root.js';
import { agentSettings, bootFiles, FIRST_BOOT_COMMAND } from './boot-files.js';
import { makeBundle } from './make.js';
import { readNode } from './node-binary.js';
import { reach } from './program.js';
import { readBundle } from './read.js';
import { smallBundle, smallProgram, temporaryFolder, thisArchitecture } from './test-bundle.js';

const arch = thisArchitecture();
const otherArch = arch === 'x64' ? 'arm64' : 'x64';

describe('a bundle', () => {
  it('of the same input has the same bytes, wherever and whenever it is made', async () => {
    const [one, two] = [temporaryFolder(), temporaryFolder()];
    const first = await smallBundle(one);
    const dist = smallProgram(path.join(two, 'elsewhere'));
    utimesSync(path.join(dist, 'scripts', 'device.js'), 1, 1);
    const second = await makeBundle({ arch, node: { from: '/bin/true' }, dist, out: path.join(two, 'other-name.tgz') });
    expect(second.sha256).toBe(first.sha256);
    expect(second.name).toBe(first.name);
    expect((await smallBundle(one, 'changed')).name).not.toBe(first.name);
  });

  it('holds what the program reaches, and of packages what runs on that machine', async () => {
    const { manifest } = await smallBundle(temporaryFolder());
    const paths = manifest.files.map((file) => file.path);
    expect(paths).toEqual(
      expect.arrayContaining(['app/dist/scripts/device.js', 'app/dist/scripts/other.js', 'app/dist/scripts/worker.js']),
    );
    expect(paths).toEqual(
      expect.arrayContaining([
        'app/dist/broker/schema/X.avsc',
        'app/node_modules/commander/package.json',
        'install.sh',
        'launch',
        'start.sh',
      ]),
    );
    expect(paths).not.toContain('app/dist/scripts/not-reached.js');
    expect(paths.filter((name) => /\.d\.ts$|\.map$|\.md$/.test(name) && !/licen[cs]e/i.test(name))).toEqual([]);
    expect(paths).toContain('app/node_modules/commander/LICENSE');
    expect(manifest.files.find((file) => file.path === 'bin/node')?.executable).toBe(true);
  });

  it('is refused with one byte flipped, wherever it is', async () => {
    const folder = temporaryFolder();
    const { file } = await smallBundle(folder);
    const bytes = readFileSync(file);
    const damaged = path.join(folder, 'damaged.tgz');
    const step = Math.floor(bytes.length / 60);
    for (let at = 10; at < bytes.length; at += step) {
      const changed = Buffer.from(bytes);
      changed[at] = (changed[at] ?? 0) ^ 0x10;
      writeFileSync(damaged, changed);
      await expect(readBundle(damaged), `byte ${at}`).rejects.toMatchObject({ code: 'BUNDLE_DAMAGED' });
    }
  });

  it('is refused when it is cut off, is something else, or is not there', async () => {
    const folder = temporaryFolder();
    const { file } = await smallBundle(folder);
    const bytes = readFileSync(file);
    const damaged = path.join(folder, 'damaged.tgz');
    for (const content of [bytes.subarray(0, bytes.length / 2), bytes.subarray(0, -1), Buffer.from('not a bundle'), Buffer.alloc(0)]) {
      writeFileSync(damaged, content);
      await expect(readBundle(damaged)).rejects.toMatchObject({ code: 'BUNDLE_DAMAGED' });
    }
    await expect(readBundle(path.join(folder, 'nowhere.tgz'))).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' });
    await expect(readBundle(folder)).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' });
  });

  it('of another processor is refused, and leaves nothing where it was to be unpacked', async () => {
    const folder = temporaryFolder();
    const { file } = await smallBundle(folder);
    const into = path.join(folder, 'into');
    await expect(readBundle(file, { arch: otherArch, into })).rejects.toMatchObject({ code: 'BUNDLE_WRONG_ARCH' });
    expect(existsSync(into)).toBe(false);
  });

  it('unpacks to exactly what it lists, with its modes', async () => {
    const folder = temporaryFolder();
    const { file } = await smallBundle(folder);
    const into = path.join(folder, 'into');
    const { manifest } = await readBundle(file, { arch, into });
    for (const { path: name, sha256, executable } of manifest.files) {
      const bytes = readFileSync(path.join(into, name));
      expect(createHash('sha256').update(bytes).digest('hex')).toBe(sha256);
      expect(statSync(path.join(into, name)).mode & 0o777).toBe(executable ? 0o755 : 0o644);
    }
    const found = execFileSync('find', ['.', '-type', 'f'], { cwd: into, encoding: 'utf8' }).trim().split('\n');
    expect(found).toHaveLength(manifest.files.length + 1);
  });

  it('takes no file of another archive that came into it', async () => {
    const folder = temporaryFolder();
    const { file } = await smallBundle(folder);
    execFileSync('sh', ['-c', `tar -xzf ${file} && echo x >musical-chair/stray && tar -czf stray.tgz musical-chair`], { cwd: folder });
    await expect(readBundle(path.join(folder, 'stray.tgz'))).rejects.toMatchObject({ code: 'BUNDLE_DAMAGED' });
  });
});

describe('Node for a bundle', () => {
  it('must be given for another processor than this one', async () => {
    await expect(readNode(otherArch, {})).rejects.toMatchObject({ code: 'USAGE', message: expect.stringContaining('--node') });
    expect((await readNode(arch, {})).version).toBe(process.version);
  });

  it('is refused when it is for another processor, 32-bit, or no program', async () => {
    const folder = temporaryFolder();
    const program = Buffer.from(readFileSync('/bin/true'));
    const file = path.join(folder, 'node');
    const refused = async (bytes: Uint8Array, says: string) => {
      writeFileSync(file, bytes);
      await expect(readNode(arch, { from: file })).rejects.toMatchObject({
        code: 'NODE_UNSUITABLE',
        message: expect.stringContaining(says),
      });
    };
    await expect(readNode(otherArch, { from: '/bin/true' })).rejects.toMatchObject({ code: 'NODE_UNSUITABLE' });
    const arm = Buffer.from(program);
    arm[4] = 1;
    arm[18] = 0x28;
    await refused(arm, '32-bit ARM');
    await refused(Buffer.from('#!/bin/sh\n'), 'bin/node');
  });

  it('is refused when its checksum is another one, and a URL without one is not even fetched', async () => {
    await expect(readNode(arch, { from: '/bin/true', sha256: '0'.repeat(64) })).rejects.toMatchObject({ code: 'NODE_UNSUITABLE' });
    await expect(readNode(arch, { from: 'https://127.0.0.1:1/node' })).rejects.toMatchObject({ code: 'USAGE' });
    await expect(readNode(arch, { from: 'http://127.0.0.1:1/node', sha256: '0'.repeat(64) })).rejects.toMatchObject({ code: 'USAGE' });
    await expect(readNode(arch, { from: '/bin/true', sha256: 'x' })).rejects.toMatchObject({ code: 'USAGE' });
    const sha256 = createHash('sha256').update(readFileSync('/bin/true')).digest('hex');
    expect((await readNode(arch, { from: '/bin/true', sha256: sha256.toUpperCase() })).bytes).toHaveLength(
      readFileSync('/bin/true').length,
    );
  });

  it.each(['gz', 'xz'])('may be in a .tar.%s, as it is published', async (kind) => {
    const folder = temporaryFolder();
    mkdirSync(path.join(folder, 'node-v22.0.0-linux/bin'), { recursive: true });
    writeFileSync(path.join(folder, 'node-v22.0.0-linux/bin/node'), readFileSync('/bin/true'));
    writeFileSync(path.join(folder, 'node-v22.0.0-linux/README.md'), 'x'.repeat(3000));
    writeFileSync(path.join(folder, 'node-v22.0.0-linux/LICENSE'), 'Node.js is licensed');
    execFileSync('tar', ['-caf', `node.tar.${kind}`, 'node-v22.0.0-linux'], { cwd: folder });
    const { bytes, licence } = await readNode(arch, { from: path.join(folder, `node.tar.${kind}`) });
    expect(Buffer.from(bytes).equals(readFileSync('/bin/true'))).toBe(true);
    expect(Buffer.from(licence ?? []).toString()).toBe('Node.js is licensed');
    execFileSync('tar', ['-caf', `empty.tar.${kind}`, 'node-v22.0.0-linux/README.md'], { cwd: folder });
    await expect(readNode(arch, { from: path.join(folder, `empty.tar.${kind}`) })).rejects.toMatchObject({ code: 'NODE_UNSUITABLE' });
  });
});

describe('the program of a bundle', () => {
  it('needs of this checkout only what goes onto a device', () => {
    const { files, packages } = reach(compiledPlain());
    expect(files).toContain('node-agent/agent.js');
    expect(packages).toContain('onnxruntime-node');
  });

  it('is refused when it would need a file that never goes onto a device', () => {
    const dist = smallProgram(temporaryFolder());
    mkdirSync(path.join(dist, 'scheduler'));
    writeFileSync(path.join(dist, 'scheduler', 'x.js'), '');
    writeFileSync(path.join(dist, 'scripts', 'other.js'), "import('../scheduler/x.js');\n");
    expect(reach(dist).files).not.toContain('scheduler/x.js');
    writeFileSync(path.join(dist, 'scripts', 'other.js'), "import { x } from '../scheduler/x.js';\n");
    expect(() => reach(dist)).toThrow(expect.objectContaining({ code: 'BUNDLE_FAILED' }));
  });
});

describe('what goes into a boot partition', () => {
  it('is the bundle with its checksum, settings, the token alone in its file, and start.sh last', async () => {
    const { file, sha256, sizeBytes } = await smallBundle(temporaryFolder());
    const files = await bootFiles({ bundle: file, arch, settings: 'cluster: x\n', token: 'mc1.abc' });
    expect(files.map(({ name }) => name)).toEqual(['agent.yaml', 'bundle.sum', 'bundle.tgz', 'token', 'start.sh']);
    expect(files[2]?.content).toEqual({ file, sizeBytes });
    const text = (i: number): string => {
      const content = files[i]?.content;
      return content instanceof Uint8Array ? Buffer.from(content).toString() : '';
    };
    expect(text(1)).toBe(`${sha256}  bundle.tgz\n`);
    expect(text(3)).toBe('mc1.abc\n');
    expect(text(4)).toBe(readFileSync(path.join(PACKAGE_ROOT, 'scripts/bundle/device/start.sh'), 'utf8'));
    await expect(bootFiles({ bundle: file, arch, settings: '', token: 'two\nlines' })).rejects.toMatchObject({ code: 'USAGE' });
    await expect(bootFiles({ bundle: file, arch: otherArch, settings: '' })).rejects.toMatchObject({ code: 'BUNDLE_WRONG_ARCH' });
  });

  it('is called by a line that stands in single quotes and is POSIX shell', () => {
    expect(FIRST_BOOT_COMMAND).not.toMatch(/['\n]/);
    execFileSync('sh', ['-n', '-c', FIRST_BOOT_COMMAND]);
  });

  it('names gateways of all kinds in settings that can be read', () => {
    expect(agentSettings({ cluster: 'lab', name: 'pi-1' })).not.toContain('broker:');
    expect(agentSettings({ cluster: 'lab', name: 'pi-1', gateway: 'gw.local' })).toContain('mqtts://gw.local:8883');
    expect(agentSettings({ cluster: 'lab', name: 'pi-1', gateway: 'fe80::1', insecure: true })).toContain('mqtt://[fe80::1]:1883');
  });
});

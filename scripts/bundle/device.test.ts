/** The scripts of a bundle, run as a device would run them, below a folder instead of `/` (MC_ROOT). */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PACKAGE_ROOT } from '../package-root.js';
import { loadSettings } from '../settings.js';
import { bootFiles } from './boot-files.js';
import type { Bundle } from './read.js';
import { makeFolder, smallBundle, temporaryFolder, thisArchitecture } from './test-bundle.js';

const DEVICE = path.join(PACKAGE_ROOT, 'scripts/bundle/device');
const SCRIPTS = ['install.sh', 'start.sh', 'launch', 'musical-chair'];
const TOKEN = 'mc1.a-secret-of-forty-characters-or-so-0123456789';

/** Made once: the tests only read it. */
const folder = makeFolder();
let bundle: Bundle & { readonly file: string };
beforeAll(async () => {
  bundle = await smallBundle(folder);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Ran {
  readonly status: number | null;
  readonly signal: string | null;
  readonly text: string;
}

function sh(script: string, args: readonly string[], env: Readonly<Record<string, string>> = {}, input = ''): Ran {
  const { status, signal, stdout, stderr } = spawnSync('sh', [script, ...args], {
    env: { ...process.env, ...env },
    encoding: 'utf8',
    input,
    timeout: 120_000,
  });
  return { status, signal, text: stdout + stderr };
}

/** A machine to be: its root folder, and the bundle unpacked beside it. */
async function machine() {
  const folder = temporaryFolder();
  const root = path.join(folder, 'root');
  mkdirSync(root);
  execFileSync('tar', ['-xzf', bundle.file, '-C', folder]);
  const unpacked = path.join(folder, 'musical-chair');
  const install = (...args: string[]): Ran => sh(path.join(unpacked, 'install.sh'), args, { MC_ROOT: root });
  const at = (name: string): string => path.join(root, name);
  const read = (name: string): string => readFileSync(at(name), 'utf8');
  return { folder, root, unpacked, install, at, read };
}

/** Every file below, with its content: to see that nothing changed. */
function contents(folder: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    const full = path.join(entry.parentPath, entry.name);
    const name = path.relative(folder, full);
    if (entry.isSymbolicLink()) found[name] = `-> ${readlinkSync(full)}`;
    else if (entry.isFile())
      found[name] =
        `${(statSync(full).mode & 0o777).toString(8)} ${readFileSync(full, 'latin1').length} ${readFileSync(full, 'latin1').slice(0, 2000)}`;
  }
  return found;
}

describe('the scripts of a bundle', () => {
  it.each(SCRIPTS)('%s is POSIX shell', (name) => {
    expect(spawnSync('dash', ['-n', path.join(DEVICE, name)], { encoding: 'utf8' })).toMatchObject({ status: 0, stderr: '' });
  });

  const hasShellcheck = spawnSync('shellcheck', ['--version']).status === 0;
  it.skipIf(!hasShellcheck && process.env.CI !== 'true')('shellcheck finds nothing (skipped: shellcheck is not installed)', () => {
    const files = SCRIPTS.map((name) => path.join(DEVICE, name));
    expect(spawnSync('shellcheck', ['--shell=sh', ...files], { encoding: 'utf8' })).toMatchObject({ status: 0, stdout: '' });
  });
});

describe('install.sh', () => {
  it('installs, is the same when it is run again, and removes what it made', async () => {
    const { install, at, read } = await machine();
    const first = install('--name', 'pi-1', '--gateway', 'gw.local', '--cluster', 'lab', '--token', TOKEN);
    expect(first).toMatchObject({ status: 0 });
    expect(readlinkSync(at('opt/musical-chair/current'))).toBe(`versions/${bundle.name}`);
    expect(read('etc/musical-chair/agent.yaml')).toContain('broker: mqtts://gw.local:8883');
    expect(read('var/lib/musical-chair/token')).toBe(`${TOKEN}\n`);
    expect(statSync(at('var/lib/musical-chair/token')).mode & 0o777).toBe(0o600);
    expect(statSync(at('var/lib/musical-chair')).mode & 0o777).toBe(0o700);
    expect(first.text).not.toContain(TOKEN);
    const before = contents(at('.'));
    expect(install('--name', 'pi-1', '--gateway', 'gw.local', '--cluster', 'lab', '--token', TOKEN)).toMatchObject({ status: 0 });
    expect(contents(at('.'))).toEqual(before);
    expect(install()).toMatchObject({ status: 0 });
    expect(contents(at('.'))).toEqual(before);
    expect(install('--uninstall')).toMatchObject({ status: 0 });
    expect(existsSync(at('opt/musical-chair'))).toBe(false);
    expect(existsSync(at('var/lib/musical-chair/token'))).toBe(true);
    expect(install('--uninstall', '--purge')).toMatchObject({ status: 0 });
    expect(Object.keys(contents(at('.')))).toEqual([]);
  });

  it('writes a unit that systemd takes, with watchdog, restart and limits', async () => {
    const { install, at, read } = await machine();
    install('--name', 'pi-1', '--memory-max', '700M', '--cpu-quota', '250%');
    const unit = read('etc/systemd/system/musical-chair-agent.service');
    expect(unit).not.toMatch(/@[A-Z_]+@/);
    for (const line of ['WatchdogSec=60', 'Restart=always', 'MemoryMax=700M', 'CPUQuota=250%', 'User=musical-chair', 'Type=notify'])
      expect(unit).toContain(`\n${line}\n`);
    expect(lstatSync(at('etc/systemd/system/multi-user.target.wants/musical-chair-agent.service')).isSymbolicLink()).toBe(true);
    if (spawnSync('systemd-analyze', ['--version']).status !== 0) return;
    const { stderr } = spawnSync('systemd-analyze', ['verify', at('etc/systemd/system/musical-chair-agent.service')], { encoding: 'utf8' });
    // It looks for the program and the user, which are in another root here.
    const complaints = stderr.split('\n').filter((line) => /musical-chair-agent\.service:\d+|Unknown|Failed to parse/.test(line));
    expect(complaints).toEqual([]);
  });

  it('refuses a bundle with one byte flipped, a file too few or too many, and another list', async () => {
    const { install, unpacked, at } = await machine();
    const file = path.join(unpacked, 'app/dist/scripts/device.js');
    const whole = readFileSync(file);
    const refused = (): void => {
      const ran = install('--name', 'pi-1');
      expect(ran.status).toBe(1);
      expect(ran.text).toContain('BUNDLE_DAMAGED');
      expect(existsSync(at('opt'))).toBe(false);
    };
    const changed = Buffer.from(whole);
    changed[0] = (changed[0] ?? 0) ^ 1;
    writeFileSync(file, changed);
    refused();
    rmSync(file);
    refused();
    writeFileSync(file, whole);
    writeFileSync(path.join(unpacked, 'stray'), '');
    refused();
    rmSync(path.join(unpacked, 'stray'));
    const list = path.join(unpacked, 'MANIFEST');
    writeFileSync(list, readFileSync(list, 'utf8').replace('arch', 'arcH'));
    refused();
  });

  it('refuses another processor and a 32-bit system, with the reason', async () => {
    const { unpacked, root } = await machine();
    const script = path.join(unpacked, 'install.sh');
    const other = sh(script, ['--name', 'pi-1'], { MC_ROOT: root, MC_MACHINE: 'armv7l' });
    expect(other.status).toBe(1);
    expect(other.text).toContain('BUNDLE_WRONG_ARCH');
    expect(other.text).toContain('armv7l');
    expect(existsSync(path.join(root, 'opt'))).toBe(false);
  });

  it.each([
    ['a name that is none', ['--name', 'a b'], 'AGENT_NAME_INVALID'],
    ['a host that is none', ['--gateway', 'http://x/'], '--gateway'],
    ['an option it does not know', ['--nam', 'x'], '--nam'],
    ['an option without its value', ['--name'], '--name'],
    ['two tokens', ['--token', 'a', '--token-file', '/dev/null'], 'not both'],
    ['an empty token file', ['--token-file', '/dev/null'], 'empty'],
    ['--purge alone', ['--purge'], '--uninstall'],
  ])('refuses %s before anything is changed', async (_what, args, says) => {
    const { install, at } = await machine();
    const ran = install(...args);
    expect(ran.status).toBe(1);
    expect(ran.text).toContain(says);
    expect(Object.keys(contents(at('.')))).toEqual([]);
  });

  it('gives an agent that has joined no new token', async () => {
    const { install, at } = await machine();
    install('--name', 'pi-1');
    mkdirSync(at('var/lib/musical-chair/credentials'), { recursive: true });
    writeFileSync(at('var/lib/musical-chair/credentials/cert.pem'), 'x');
    expect(install('--token', TOKEN).text).toContain('joined already');
    expect(existsSync(at('var/lib/musical-chair/token'))).toBe(false);
  });

  it('installs a new bundle beside the old one, and keeps the settings', async () => {
    const { install, at, folder, root, read } = await machine();
    install('--name', 'pi-1', '--gateway', 'gw');
    const next = await smallBundle(folder, 'next');
    mkdirSync(path.join(folder, 'next'));
    execFileSync('tar', ['-xzf', next.file, '-C', path.join(folder, 'next')]);
    expect(sh(path.join(folder, 'next/musical-chair/install.sh'), [], { MC_ROOT: root })).toMatchObject({ status: 0 });
    expect(readlinkSync(at('opt/musical-chair/current'))).toBe(`versions/${next.name}`);
    expect(readlinkSync(at('opt/musical-chair/previous'))).toBe(`versions/${bundle.name}`);
    expect(readdirSync(at('opt/musical-chair/versions')).sort()).toEqual([bundle.name, next.name].sort());
    expect(read('etc/musical-chair/agent.yaml')).toContain('name: "pi-1"');
  });

  it('takes the gateway as it is printed', async () => {
    const { install, at } = await machine();
    for (const [gateway, more, broker, joining] of [
      ['gw.local', [], 'mqtts://gw.local:8883', ''],
      ['192.168.1.10:8884', [], 'mqtts://192.168.1.10:8883', '192.168.1.10:8884'],
      ['gw:18884', ['--broker-port', '18883'], 'mqtts://gw:18883', 'gw:18884'],
      ['fe80::1', [], 'mqtts://[fe80::1]:8883', ''],
      ['[fe80::1]', [], 'mqtts://[fe80::1]:8883', ''],
      ['[fe80::1]:1', [], 'mqtts://[fe80::1]:8883', '[fe80::1]:1'],
      ['gw', ['--insecure', '--broker-port', '65535'], 'mqtt://gw:65535', ''],
    ] as const) {
      expect(install('--name', '007', '--cluster', 'true', '--gateway', gateway, ...more)).toMatchObject({ status: 0 });
      const settings = loadSettings({ file: at('etc/musical-chair/agent.yaml'), env: {} });
      expect(settings).toMatchObject({ cluster: 'true', broker, agent: { name: '007', gateway: joining } });
    }
  });

  it('refuses what could stand in no file of it, before anything is changed', async () => {
    const { install, at } = await machine();
    for (const [option, value] of [
      ['--gateway', 'gw:'],
      ['--gateway', 'gw:0'],
      ['--gateway', 'gw:65536'],
      ['--gateway', 'gw:8884x'],
      ['--gateway', '[]:1'],
      ['--gateway', '[gw]:1'],
      ['--gateway', '[::1]x:1'],
      ['--gateway', 'gw\nx'],
      ['--gateway', 'gw/x:1'],
      ['--gateway', ':8884'],
      ['--gateway', '"'],
      ['--broker-port', '8883'],
      ['--name', 'pi-1\nagent: {}'],
      ['--name', 'a b\npi-1'],
      ['--name', 'ä'],
      ['--cluster', 'x\nbroker: mqtt://evil:1883'],
      ['--name', 'x'.repeat(65)],
      ['--memory-max', '80%\nExecStartPre=/bin/evil'],
      ['--memory-max', '1|e touch evil'],
      ['--memory-max', '&'],
      ['--memory-max', '101%'],
      ['--memory-max', '0'],
      ['--memory-max', 'lots'],
      ['--cpu-quota', '100'],
      ['--cpu-quota', '0%'],
      ['--cpu-quota', '100%\nUser=root'],
    ] as const) {
      expect(install(option, value), value).toMatchObject({ status: 1, text: expect.stringContaining(option) });
    }
    expect(Object.keys(contents(at('.')))).toEqual([]);
  });

  it('takes every kind of memory limit', async () => {
    const { install, read } = await machine();
    for (const size of ['infinity', '2G', '1048576', '100%']) {
      expect(install('--name', 'pi-1', '--memory-max', size, '--cpu-quota', '50%')).toMatchObject({ status: 0 });
      expect(read('etc/systemd/system/musical-chair-agent.service')).toContain(`\nMemoryMax=${size}\nCPUQuota=50%\n`);
    }
  });

  it('refuses a bundle in which anything is not a file or folder, whatever else fits', async () => {
    const { install, unpacked, at, folder } = await machine();
    const file = path.join(unpacked, 'app/dist/scripts/device.js');
    const refused = (): void => {
      const ran = install('--name', 'pi-1');
      expect(ran).toMatchObject({ status: 1, text: expect.stringContaining('BUNDLE_DAMAGED') });
      expect(existsSync(at('opt'))).toBe(false);
    };
    // The right bytes, but where somebody else may change them; and one file more, so that their number is right.
    renameSync(file, path.join(folder, 'elsewhere.js'));
    symlinkSync(path.join(folder, 'elsewhere.js'), file);
    writeFileSync(path.join(unpacked, 'stray'), '');
    refused();
    rmSync(path.join(unpacked, 'stray'));
    rmSync(file);
    copyFileSync(path.join(folder, 'elsewhere.js'), file);
    symlinkSync('/etc', path.join(unpacked, 'app/etc'));
    refused();
    rmSync(path.join(unpacked, 'app/etc'));
    rmSync(file);
    execFileSync('mkfifo', [file]);
    refused();
  });

  it('follows no link that the agent has laid where its token goes', async () => {
    const { install, at, read, folder } = await machine();
    install('--name', 'pi-1');
    const victim = path.join(folder, 'victim');
    for (const lay of [
      () => symlinkSync(victim, at('var/lib/musical-chair/token')),
      () => symlinkSync(folder, at('var/lib/musical-chair/token')),
    ]) {
      rmSync(at('var/lib/musical-chair/token'), { force: true });
      writeFileSync(victim, 'of somebody else', { mode: 0o644 });
      lay();
      expect(install('--token', TOKEN)).toMatchObject({ status: 0 });
      expect(readFileSync(victim, 'utf8')).toBe('of somebody else');
      expect(statSync(victim).mode & 0o777).toBe(0o644);
      expect(read('var/lib/musical-chair/token')).toBe(`${TOKEN}\n`);
      expect(lstatSync(at('var/lib/musical-chair/token')).isFile()).toBe(true);
    }
    expect(readdirSync(at('var/lib/musical-chair'))).toEqual(['token']);
    expect(existsSync(path.join(folder, 'token'))).toBe(false);
    expect(readdirSync(at('var/lib'))).toEqual(['musical-chair']);
  });

  it('gives its token to nobody who lays links to pipes and devices beside it, however quick he is', async () => {
    const { install, unpacked, root, at, read, folder } = await machine();
    install('--name', 'pi-1');
    // Between any two commands of install.sh: whatever it has just removed is there again.
    const quick = path.join(folder, 'quick');
    mkdirSync(quick);
    const state = at('var/lib/musical-chair');
    const script = `#!/bin/sh\n/bin/rm "$@" || exit\n[ ! -d '${state}' ] || ln -sfn /dev/null '${state}/token.new'\n`;
    writeFileSync(path.join(quick, 'rm'), script, { mode: 0o755 });
    const env = { MC_ROOT: root, PATH: `${quick}:${process.env.PATH}` };
    expect(sh(path.join(unpacked, 'install.sh'), ['--token', TOKEN], env)).toMatchObject({ status: 0 });
    expect(lstatSync(path.join(state, 'token.new')).isSymbolicLink()).toBe(true);
    expect(lstatSync(path.join(state, 'token')).isFile()).toBe(true);
    expect(read('var/lib/musical-chair/token')).toBe(`${TOKEN}\n`);
    expect(statSync(path.join(state, 'token')).mode & 0o777).toBe(0o600);
  });

  it('puts right what is installed and was damaged since, and leaves alone what is not its own', async () => {
    const { install, at, root } = await machine();
    const versions = at('opt/musical-chair/versions');
    install('--name', 'pi-1');
    const before = contents(root);
    const file = path.join(versions, bundle.name, 'app/dist/scripts/device.js');
    const whole = readFileSync(file, 'utf8');
    for (const damage of [() => writeFileSync(file, 'x'), () => rmSync(file), () => writeFileSync(`${file}.x`, 'x')]) {
      damage();
      expect(install()).toMatchObject({ status: 0, text: expect.stringContaining('damaged') });
      expect(readFileSync(file, 'utf8')).toBe(whole);
      expect(contents(root)).toEqual(before);
    }
    mkdirSync(path.join(versions, 'notes'));
    symlinkSync(root, path.join(versions, '9.9.9-0123456789abcdef'));
    mkdirSync(path.join(versions, '0.0.1-0123456789abcdef'));
    expect(install()).toMatchObject({ status: 0 });
    expect(readdirSync(versions).sort()).toEqual(['9.9.9-0123456789abcdef', bundle.name, 'notes'].sort());
    expect(existsSync(at('etc/musical-chair/agent.yaml'))).toBe(true);
  });
});

/** A card that was just flashed, in a machine. */
async function card() {
  const folder = temporaryFolder();
  const [boot, root] = [path.join(folder, 'boot/musical-chair'), path.join(folder, 'root')];
  mkdirSync(boot, { recursive: true });
  mkdirSync(root);
  const settings = 'cluster: lab\nagent:\n  name: pi-1\n';
  for (const { name, content } of await bootFiles({ bundle: bundle.file, arch: thisArchitecture(), settings, token: TOKEN })) {
    if (content instanceof Uint8Array) writeFileSync(path.join(boot, name), content);
    else copyFileSync(content.file, path.join(boot, name));
  }
  const start = (cut = ''): Ran => sh(path.join(boot, 'start.sh'), [], { MC_ROOT: root, MC_CUT: cut });
  return { boot, root, start, state: path.join(root, 'var/lib/musical-chair') };
}

/** What a first boot makes that nothing disturbs. */
let made: Record<string, string> | undefined;
async function undisturbed(): Promise<Record<string, string>> {
  if (made !== undefined) return made;
  const { root, start } = await card();
  start();
  made = contents(root);
  return made;
}

const CUTS = ['1', '2', '3', 'install-1', 'install-2', 'install-3', 'install-4', 'install-5', 'install-6', '4', '5', '6', '7'];

describe('the first boot', () => {
  it('installs, moves the token off the boot partition, and leaves there only its log', async () => {
    const { boot, root, start, state } = await card();
    expect(start()).toMatchObject({ status: 0 });
    expect(readdirSync(boot)).toEqual(['first-boot.log']);
    expect(readFileSync(path.join(boot, 'first-boot.log'), 'utf8')).not.toContain(TOKEN);
    expect(readFileSync(path.join(state, 'token'), 'utf8')).toBe(`${TOKEN}\n`);
    expect(readlinkSync(path.join(root, 'opt/musical-chair/current'))).toBe(`versions/${bundle.name}`);
    expect(existsSync(path.join(root, 'opt/musical-chair/unpacking'))).toBe(false);
    expect(readFileSync(path.join(root, 'etc/musical-chair/agent.yaml'), 'utf8')).toContain('name: pi-1');
  });

  it.each(CUTS)('cut off at %s, it is finished by the next one, and the token is always somewhere', async (cut) => {
    const { boot, root, start, state } = await card();
    expect(start(cut)).not.toMatchObject({ status: 0 });
    expect(existsSync(path.join(boot, 'token')) || existsSync(path.join(state, 'token'))).toBe(true);
    expect(existsSync(path.join(boot, 'start.sh'))).toBe(true);
    // The agent may start before the next first boot goes on; then it finds all or nothing of its token.
    const early = path.join(state, 'token');
    if (existsSync(early)) expect(readFileSync(early, 'utf8')).toBe(`${TOKEN}\n`);
    expect(start()).toMatchObject({ status: 0 });
    expect(contents(root)).toEqual(await undisturbed());
    expect(readdirSync(boot)).toEqual(['first-boot.log']);
  });

  it.each(['install-6', '4', '5'])(
    'an agent that joined before the first boot was done (cut off at %s) keeps its identity',
    async (cut) => {
      const { boot, start, state } = await card();
      start(cut);
      mkdirSync(path.join(state, 'credentials'));
      writeFileSync(path.join(state, 'credentials/cert.pem'), 'joined');
      rmSync(path.join(state, 'token'));
      expect(start()).toMatchObject({ status: 0 });
      expect(existsSync(path.join(state, 'token'))).toBe(false);
      expect(readdirSync(boot)).toEqual(['first-boot.log']);
    },
  );

  it('does nothing with a damaged bundle, says so, and is tried again', async () => {
    const { boot, root, start } = await card();
    const file = path.join(boot, 'bundle.tgz');
    const bytes = readFileSync(file);
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
    writeFileSync(file, bytes);
    expect(start()).toMatchObject({ status: 75 });
    expect(readFileSync(path.join(boot, 'first-boot.log'), 'utf8')).toContain('write the card again');
    expect(readFileSync(path.join(boot, 'token'), 'utf8')).toBe(`${TOKEN}\n`);
    expect(Object.keys(contents(root))).toEqual([]);
  });

  it('overwrites the token before it removes it', async () => {
    const { boot, start } = await card();
    // A second name of the same file shows what happened to its bytes.
    const seen = path.join(path.dirname(boot), 'seen');
    execFileSync('ln', [path.join(boot, 'token'), seen]);
    start();
    expect(readFileSync(seen)).toEqual(Buffer.alloc(TOKEN.length + 1));
  });
});

const [OLD, NEW] = ['1.0.0-0000000000000000', '1.1.0-1111111111111111'];

/** A bundle of which only what `launch` looks at is there. `apply`: what `update apply` does and says, and its status. */
function installed(apply = `cp -R "$4/versions/${OLD}" "$4/versions/${NEW}"; echo ${NEW}`) {
  const folder = temporaryFolder();
  const [prefix, state] = [path.join(folder, 'opt'), path.join(folder, 'state')];
  const make = (name: string): void => {
    const bin = path.join(prefix, 'versions', name, 'bin');
    mkdirSync(bin, { recursive: true });
    for (const file of ['node', 'musical-chair']) {
      writeFileSync(path.join(bin, file), `#!/bin/sh\n${apply}\n`);
      chmodSync(path.join(bin, file), 0o755);
    }
    copyFileSync(path.join(DEVICE, 'launch'), path.join(prefix, 'versions', name, 'launch'));
  };
  make(OLD);
  mkdirSync(path.join(state, 'update'), { recursive: true });
  symlinkSync(`versions/${OLD}`, path.join(prefix, 'current'));
  copyFileSync(path.join(DEVICE, 'launch'), path.join(prefix, 'launch'));
  const order = (): void => writeFileSync(path.join(state, 'update/order.json'), '{}');
  const tell = (name: string, text: string): void => writeFileSync(path.join(state, 'update', name), `${text}\n`);
  const launch = (env: Readonly<Record<string, string>> = {}): Ran => sh(path.join(prefix, 'launch'), [prefix, state], env);
  const current = (): string => path.basename(readlinkSync(path.join(prefix, 'current')));
  const last = (): string => readFileSync(path.join(prefix, 'last-update'), 'utf8').trim();
  return { prefix, state, order, tell, launch, current, last, onTrial: () => existsSync(path.join(prefix, 'trial')) };
}

const NEWER = '1.2.0-2222222222222222';

/** As `installed`, and `again` starts with another update than the first one. */
function twice() {
  const machine = installed(`cp -R "$4/versions/${OLD}" "$4/versions/$(cat "$4/next")"; cat "$4/next"`);
  const next = path.join(machine.prefix, 'next');
  writeFileSync(next, `${NEW}\n`);
  const again = (): void => {
    writeFileSync(next, `${NEWER}\n`);
    machine.launch();
  };
  const { order, tell, launch, current, last, onTrial } = machine;
  return [order, tell, launch, current, last, onTrial, again] as const;
}

describe('before each start of the agent', () => {
  it('nothing is done when there is nothing to do', () => {
    const { launch, current, prefix } = installed();
    const before = contents(prefix);
    expect(launch()).toMatchObject({ status: 0, text: '' });
    expect(current()).toBe(OLD);
    expect(contents(prefix)).toEqual(before);
  });

  it('an update is put on trial, and stays once the gateway has confirmed it', () => {
    const { order, tell, launch, current, last, onTrial, prefix, state } = installed();
    order();
    expect(launch()).toMatchObject({ status: 0 });
    expect([current(), onTrial()]).toEqual([NEW, true]);
    expect(existsSync(path.join(state, 'update/order.json'))).toBe(false);
    tell('confirmed', NEW);
    launch();
    expect([current(), onTrial(), last()]).toEqual([NEW, false, `done ${NEW}`]);
    launch();
    expect(current()).toBe(NEW);
    expect(readdirSync(path.join(prefix, 'versions')).sort()).toEqual([OLD, NEW]);
  });

  it('an agent that was confirmed and goes on running takes the next update, and gives it up like the first', () => {
    const [order, tell, launch, current, last, onTrial, again] = twice();
    order();
    launch();
    tell('confirmed', NEW);
    order();
    again();
    expect([current(), onTrial()]).toEqual([NEWER, true]);
    for (let start = 2; start <= 4; start++) launch();
    expect([current(), onTrial()]).toEqual([NEW, false]);
    expect(last()).toContain(`failed ${NEWER}`);
  });

  it('a program that dies three times goes, and the one before runs again', () => {
    const { order, launch, current, last, onTrial } = installed();
    order();
    for (let start = 1; start <= 3; start++) {
      launch();
      expect(current()).toBe(NEW);
    }
    launch();
    expect([current(), onTrial()]).toEqual([OLD, false]);
    expect(last()).toContain(`failed ${NEW}`);
  });

  it('a program that nobody confirmed goes at once', () => {
    const { order, tell, launch, current, last } = installed();
    order();
    launch();
    tell('rejected', NEW);
    launch();
    expect(current()).toBe(OLD);
    expect(last()).toContain('did not confirm');
  });

  it('the word of an earlier trial counts for nothing', () => {
    const { order, tell, launch, current, onTrial } = installed();
    tell('confirmed', OLD);
    tell('rejected', OLD);
    order();
    launch();
    launch();
    expect([current(), onTrial()]).toEqual([NEW, true]);
  });

  it('what root refuses changes nothing, and is not tried again', () => {
    const { order, launch, current, last, state } = installed('echo "BUNDLE_DAMAGED: flipped" >&2; exit 1');
    order();
    expect(launch()).toMatchObject({ status: 0 });
    expect(current()).toBe(OLD);
    expect(last()).toContain('BUNDLE_DAMAGED');
    expect(existsSync(path.join(state, 'update/order.json'))).toBe(false);
  });

  it.each([
    ['between the note of the trial and the change of the link', `echo 1 >"$1/trial"; ln -sfn versions/${OLD} "$1/previous"`],
    [
      'after the link was changed, before the order was removed',
      `echo 1 >"$1/trial"; ln -sfn versions/${OLD} "$1/previous"; ln -sfn versions/${NEW} "$1/current"`,
    ],
  ])('a power cut %s ends in one of the two programs, whole', (_when, done) => {
    const { prefix, order, tell, launch, current, onTrial } = installed();
    order();
    execFileSync('cp', ['-R', path.join(prefix, 'versions', OLD), path.join(prefix, 'versions', NEW)]);
    execFileSync('sh', ['-c', done, 'sh', prefix]);
    launch();
    expect([current(), onTrial()]).toEqual([NEW, true]);
    tell('confirmed', NEW);
    launch();
    expect([current(), onTrial()]).toEqual([NEW, false]);
  });

  it('an order is done with when the update was taken up, when it was refused, and when the power went in between', () => {
    const facts = `3 2 ${'a'.repeat(64)} ${'b'.repeat(64)}`;
    const open = (prefix: string): void => writeFileSync(path.join(prefix, 'last-order'), `${facts} open\n`);
    const read = (prefix: string): string => readFileSync(path.join(prefix, 'last-order'), 'utf8');
    for (const machine of [installed(), installed('exit 1')]) {
      machine.order();
      open(machine.prefix);
      machine.launch();
      expect(read(machine.prefix)).toBe(`${facts} done\n`);
    }
    const cut = installed();
    cut.order();
    cut.launch();
    open(cut.prefix);
    cut.launch();
    expect([cut.current(), cut.onTrial(), read(cut.prefix)]).toEqual([NEW, true, `${facts} done\n`]);
  });

  it('nothing is waited for that is no file, and nothing is kept', () => {
    const { launch, current, state, onTrial, last } = installed('exit 1');
    const update = path.join(state, 'update');
    const pipe = (name: string): void => void execFileSync('mkfifo', [path.join(update, name)]);
    for (const lay of [() => pipe('order.json'), () => mkdirSync(path.join(update, 'order.json/x'), { recursive: true })]) {
      lay();
      pipe('bundle.tgz');
      expect(launch()).toMatchObject({ status: 0 });
      expect(readdirSync(update)).toEqual([]);
    }
    expect([current(), last()]).toEqual([OLD, 'failed update:']);
    const other = installed();
    other.order();
    other.launch();
    for (const name of ['confirmed', 'rejected']) execFileSync('mkfifo', [path.join(other.state, 'update', name)]);
    expect(other.launch()).toMatchObject({ status: 0 });
    expect([other.current(), other.onTrial(), onTrial()]).toEqual([NEW, true, false]);
  });

  it('root is not led into another folder by a link in the place of the one for updates', () => {
    const { order, launch, current, state, prefix } = installed();
    order();
    const elsewhere = path.join(prefix, 'elsewhere');
    renameSync(path.join(state, 'update'), elsewhere);
    for (const name of ['bundle.tgz', 'confirmed', 'rejected']) writeFileSync(path.join(elsewhere, name), 'of somebody else');
    symlinkSync(elsewhere, path.join(state, 'update'));
    expect(launch()).toMatchObject({ status: 0 });
    expect(current()).toBe(OLD);
    expect(readdirSync(elsewhere).sort()).toEqual(['bundle.tgz', 'confirmed', 'order.json', 'rejected']);
  });

  it('a version is removed under another name first, and nothing else is', () => {
    const { order, launch, prefix, state, tell } = installed();
    const versions = path.join(prefix, 'versions');
    const [older, linked] = ['0.9.0-aaaaaaaaaaaaaaaa', '0.8.0-bbbbbbbbbbbbbbbb'];
    mkdirSync(path.join(versions, older));
    mkdirSync(path.join(versions, 'notes'));
    symlinkSync(state, path.join(versions, linked));
    const bin = path.join(path.dirname(prefix), 'bin');
    mkdirSync(bin);
    writeFileSync(path.join(bin, 'rm'), `#!/bin/sh\necho "$*" >>"${prefix}/removed"\nexec /bin/rm "$@"\n`, { mode: 0o755 });
    order();
    tell('x', 'y');
    launch({ PATH: `${bin}:${process.env.PATH}` });
    expect(readdirSync(versions).sort()).toEqual([linked, OLD, NEW, 'notes'].sort());
    expect(readdirSync(path.join(state, 'update'))).toEqual(['x']);
    const removed = readFileSync(path.join(prefix, 'removed'), 'utf8');
    expect(removed).toContain('.removing');
    expect(removed).not.toMatch(/-[0-9a-f]{16}/);
  });

  it('when what runs is gone, the one before runs again', () => {
    const { order, tell, launch, current, last, prefix, onTrial } = installed();
    order();
    launch();
    tell('confirmed', NEW);
    launch();
    rmSync(path.join(prefix, 'versions', NEW, 'bin'), { recursive: true });
    launch();
    expect([current(), onTrial()]).toEqual([OLD, false]);
    expect(last()).toContain('it is not there');
  });

  it('what root unpacks can be run by others, whatever the umask of the service is', () => {
    const { order, prefix, state, last } = installed(`umask; exit 1`);
    order();
    execFileSync('sh', ['-c', `umask 077; sh "$1/launch" "$1" "$2"`, 'sh', prefix, state]);
    expect(last()).toBe('failed update: 0022');
  });

  it('what is written down is one line that a terminal can show', () => {
    const { order, launch, last } = installed(`printf 'a\\033]0;x\\007b\\n' >&2; exit 1`);
    order();
    launch();
    expect(last()).toBe('failed update: a]0;xb');
  });

  it('does not follow a link that the agent laid in its folder, nor write there', () => {
    const { order, launch, current, state, prefix } = installed();
    order();
    launch();
    const secret = path.join(prefix, 'secret');
    writeFileSync(secret, `${NEW}\n`);
    symlinkSync(secret, path.join(state, 'update/rejected'));
    launch();
    expect(current()).toBe(NEW);
    expect(readFileSync(secret, 'utf8')).toBe(`${NEW}\n`);
  });
});

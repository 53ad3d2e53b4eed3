/**
 * Small devices on one Linux machine, as real as one machine allows: a namespace, an address, a shaped link, a share of a core and a memory limit
 * for each agent, which runs as it would on a device of its own. Where that is not possible the same processes run without limits, and
 * `conditions` says so.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { ChairError } from '../../broker/errors.js';
import { Child, nodeFlags } from '../children.js';
import { CLI_PATH } from '../package-root.js';
import { TestbedClient } from './client.js';
import { ControlGroups, findHierarchy, type Group, whyNoLimits } from './control-groups.js';
import { checkDevice, checkRate, DEFAULT_DEVICE, type DeviceSpec } from './devices.js';
import { type Link, Network, whyNoNetwork } from './network.js';
import { cleanRun, RunDirectory, startOf, sweepDeadRuns } from './run-directory.js';

export interface TestbedOptions {
  /** One agent per spec, or so many default devices. */
  readonly agents: number | readonly DeviceSpec[];
  /** Link of the gateway, bits per second; default 1 Gbit/s. */
  readonly gatewayRateBits?: number;
  /** Cores of the gateway; default: no limit. */
  readonly gatewayCpu?: number;
  /** Engine threads of each agent; default: as many as its cores, rounded up. */
  readonly threads?: number;
  readonly cluster?: string;
  /** More arguments for each agent's command line. */
  readonly agentArguments?: readonly string[];
  /** Entry file of the CLI; default: the checkout's. A compiled one starts faster and takes less memory. */
  readonly cli?: string;
  /** False: plain processes even where namespaces and groups could be made. */
  readonly isolated?: boolean;
  /** What the children write. */
  readonly onLine?: (child: string, line: string) => void;
}

/** Under which limits the testbed really runs: goes with every figure measured on it. */
export interface Conditions {
  /** `namespaces`: all limits hold. `processes`: none of them. */
  readonly isolation: 'namespaces' | 'processes';
  /** Why it is not `namespaces`. */
  readonly why: string;
  readonly agents: readonly DeviceSpec[];
  readonly gateway: { readonly cpu: number | 'no limit'; readonly rateBits: number };
  readonly threads: number | 'as many as cores';
  /** Sum of all limited shares, of the machine's cores. */
  readonly coresPromised: number;
  readonly coresOfMachine: number;
  /** More is promised than the machine has: figures mean nothing. */
  readonly oversubscribed: boolean;
}

/** The agents need a while to start under their quota. */
const READY_WITHIN_MS = 120_000;
const BROKER_PORT = 1883;
const CLEANER = fileURLToPath(new URL('./clean.ts', import.meta.url));
const CLIENT = fileURLToPath(new URL('./client-process.ts', import.meta.url));

/** A place to run programs in: namespace, link and limits. Without isolation it is only a name. */
export class Device {
  readonly name: string;
  readonly #link: Link | undefined;
  readonly #group: Group | undefined;
  readonly #run: RunDirectory;

  constructor(name: string, link: Link | undefined, group: Group | undefined, run: RunDirectory) {
    this.name = name;
    this.#link = link;
    this.#group = group;
    this.#run = run;
  }

  get address(): string {
    return this.#link?.address ?? '127.0.0.1';
  }

  /** Name of the namespace, for `nsenter --net=/run/netns/NAME`; '' without isolation. */
  get namespace(): string {
    return this.#link?.namespace ?? '';
  }

  /** The command line that runs `command` in here. The process keeps its pid. */
  command(command: readonly string[]): string[] {
    const inside = this.#link === undefined ? [...command] : ['nsenter', `--net=/run/netns/${this.#link.namespace}`, ...command];
    const groups = this.#group?.paths ?? [];
    if (groups.length === 0) return inside;
    const script = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit 125; shift; done; shift; exec "$@"';
    return ['/bin/sh', '-c', script, 'sh', ...groups, '--', ...inside];
  }

  /** A process that nothing but this list knows must be written down. */
  own(child: ChildProcess): void {
    if (child.pid !== undefined) this.#run.record({ kind: 'process', pid: child.pid, started: startOf(child.pid) });
  }

  setCpu(cpu: number): void {
    this.#limits(this.#group).setCpu(cpu);
  }

  setRate(rateBits: number): void {
    this.#limits(this.#link).setRate(checkRate(rateBits));
  }

  linkDown(): void {
    this.#limits(this.#link).down();
  }

  linkUp(): void {
    this.#limits(this.#link).up();
  }

  changeAddress(): string {
    return this.#limits(this.#link).changeAddress();
  }

  /** Seconds it had to wait for its CPU quota. */
  get throttledSeconds(): number {
    return this.#group?.usage().throttledSeconds ?? 0;
  }

  #limits<T>(limit: T | undefined): T {
    if (limit !== undefined) return limit;
    throw new ChairError('TESTBED_FAILED', 'this testbed runs plain processes: it has no links and limits to change', {
      todo: 'Run it as root on Linux.',
    });
  }
}

/** One agent and its faults. */
export class TestbedAgent {
  readonly device: Device;
  readonly #start: () => Child;
  #child: Child;

  constructor(device: Device, start: () => Child) {
    this.device = device;
    this.#start = start;
    this.#child = start();
  }

  get name(): string {
    return this.device.name;
  }

  get address(): string {
    return this.device.address;
  }

  get pid(): number {
    return this.#child.pid;
  }

  get child(): Child {
    return this.#child;
  }

  /** SIGKILL: the power is gone. Resolves when the process is. */
  async kill(): Promise<void> {
    this.#child.process.kill('SIGKILL');
    await this.#child.ended;
  }

  /** The same device after its power came back: same store, same name. Resolves when it has said it is ready. */
  async restart(): Promise<void> {
    await this.kill();
    this.#child = this.#start();
    await this.#child.ready;
  }

  /** SIGSTOP: it hangs, with its sockets open. */
  pause(): void {
    this.#child.process.kill('SIGSTOP');
  }

  resume(): void {
    this.#child.process.kill('SIGCONT');
  }

  linkDown(): void {
    this.device.linkDown();
  }

  linkUp(): void {
    this.device.linkUp();
  }

  /** Bits per second in each direction. */
  setRate(rateBits: number): void {
    this.device.setRate(rateBits);
  }

  /** Cores. */
  setCpu(cpu: number): void {
    this.device.setCpu(cpu);
  }

  changeAddress(): string {
    return this.device.changeAddress();
  }

  /** Orderly. */
  async stop(): Promise<void> {
    this.resume();
    await this.#child.stop();
  }
}

/** The agents' specs from a number or a list. Throws CONFIG_INVALID. */
function specsOf(agents: TestbedOptions['agents']): DeviceSpec[] {
  const specs = typeof agents === 'number' ? Array.from({ length: Math.max(0, agents) }, () => DEFAULT_DEVICE) : [...agents];
  const count = typeof agents === 'number' ? agents : specs.length;
  if (!Number.isInteger(count) || count < 0 || count > 99) {
    throw new ChairError('CONFIG_INVALID', 'the number of agents is wrong', {
      expected: 'a whole number from 0 to 99',
      came: String(count),
    });
  }
  return specs.map(checkDevice);
}

function conditionsOf(options: TestbedOptions, specs: readonly DeviceSpec[], why: string): Conditions {
  const coresPromised = specs.reduce((sum, s) => sum + s.cpu, options.gatewayCpu ?? 0);
  const coresOfMachine = availableParallelism();
  return {
    isolation: why === '' ? 'namespaces' : 'processes',
    why,
    agents: specs,
    gateway: { cpu: options.gatewayCpu ?? 'no limit', rateBits: options.gatewayRateBits ?? DEFAULT_DEVICE.rateBits },
    threads: options.threads ?? 'as many as cores',
    coresPromised,
    coresOfMachine,
    oversubscribed: why === '' && coresPromised > coresOfMachine,
  };
}

/** Removes what this process leaves, when it ends without removing it itself, however it ends: its end of the pipe closes. */
function startWatchdog(run: RunDirectory): ChildProcess {
  const script = 'trap "" INT TERM HUP; while read -r _; do :; done; exec "$@"';
  const command = ['-c', script, 'sh', process.execPath, ...nodeFlags(), CLEANER, run.path];
  // In a process group of its own: a Ctrl-C at the terminal, or a kill of the whole group, is not for it.
  const child = spawn('/bin/sh', command, { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
  child.unref();
  const { stdin } = child;
  stdin?.on('error', () => undefined);
  if (stdin !== null && 'unref' in stdin && typeof stdin.unref === 'function') stdin.unref();
  return child;
}

export class Testbed {
  readonly conditions: Conditions;
  readonly gateway: { readonly url: string; readonly device: Device; readonly child: Child };
  readonly agents: readonly TestbedAgent[];
  readonly cluster: string;
  /** The testbed's folder: state of its processes, removed at the end. */
  readonly directory: string;
  readonly #run: RunDirectory;
  readonly #watchdog: ChildProcess;
  readonly #make: (name: string, spec: DeviceSpec) => Device;
  readonly #clients: TestbedClient[] = [];
  #stopping: Promise<void> | undefined;

  /** Use `startTestbed`. */
  constructor(
    parts: Pick<Testbed, 'conditions' | 'gateway' | 'agents' | 'cluster' | 'directory'>,
    run: RunDirectory,
    watchdog: ChildProcess,
    make: (name: string, spec: DeviceSpec) => Device,
  ) {
    this.conditions = parts.conditions;
    this.gateway = parts.gateway;
    this.agents = parts.agents;
    this.cluster = parts.cluster;
    this.directory = parts.directory;
    this.#run = run;
    this.#watchdog = watchdog;
    this.#make = make;
  }

  /** One more place with limits, without an agent: for programs to compare with. */
  addDevice(name: string, spec: DeviceSpec = DEFAULT_DEVICE): Device {
    return this.#make(name, checkDevice(spec));
  }

  /** A client beside the gateway, as a program on that machine would be. `window`: frames outstanding. Throws BROKER_UNREACHABLE. */
  async client(window = 64): Promise<TestbedClient> {
    const { device, url } = this.gateway;
    const command = device.command([process.execPath, ...nodeFlags(), CLIENT, url, this.cluster, String(window)]);
    const child = new Child('client', [], undefined, { command });
    device.own(child.process);
    await child.ready;
    const client = new TestbedClient(child);
    this.#clients.push(client);
    return client;
  }

  /** Ends all processes and removes all that was made. Idempotent. Throws TESTBED_FAILED, naming what stayed. */
  stop(): Promise<void> {
    this.#stopping ??= this.#close();
    return this.#stopping;
  }

  async #close(): Promise<void> {
    await Promise.all(this.#clients.map((c) => c.close()));
    await Promise.all(this.agents.map((a) => a.stop()));
    await this.gateway.child.stop();
    await cleanRun(this.#run.path);
    this.#watchdog.kill('SIGKILL');
  }
}

/** Why limits cannot be set here, or '' when they can. */
export function whyPlainProcesses(): string {
  const network = whyNoNetwork();
  if (network !== undefined) return network;
  const hierarchy = findHierarchy();
  return typeof hierarchy === 'string' ? hierarchy : (whyNoLimits(hierarchy) ?? '');
}

/** Devices of one run, with limits or without. Throws TESTBED_FAILED. */
function deviceMaker(
  run: RunDirectory,
  isolated: boolean,
): (name: string, spec: { cpu?: number; memoryBytes?: number; rateBits?: number }) => Device {
  const hierarchy = isolated ? findHierarchy() : 'not asked for';
  if (typeof hierarchy === 'string') return (name) => new Device(name, undefined, undefined, run);
  const groups = new ControlGroups(hierarchy, run);
  const network = new Network(run);
  return (name, { cpu, memoryBytes, rateBits }) => {
    const group = cpu === undefined && memoryBytes === undefined ? undefined : groups.create(name);
    if (cpu !== undefined) group?.setCpu(cpu);
    if (memoryBytes !== undefined) group?.setMemory(memoryBytes);
    return new Device(name, network.attach(name, rateBits), group, run);
  };
}

/**
 * Starts gateway and agents and resolves when all have said they are ready. First removes what dead testbeds have left.
 * Throws CONFIG_INVALID, TESTBED_FAILED, or what a child reported; then nothing is left.
 */
export async function startTestbed(options: TestbedOptions): Promise<Testbed> {
  const specs = specsOf(options.agents);
  const why = options.isolated === false ? 'asked for' : whyPlainProcesses();
  const conditions = conditionsOf(options, specs, why);
  checkRate(conditions.gateway.rateBits);
  await sweepDeadRuns();
  const run = new RunDirectory();
  const watchdog = startWatchdog(run);
  try {
    return await startIn(run, watchdog, options, conditions);
  } catch (error) {
    await cleanRun(run.path);
    watchdog.kill('SIGKILL');
    throw error;
  }
}

async function startIn(run: RunDirectory, watchdog: ChildProcess, options: TestbedOptions, conditions: Conditions): Promise<Testbed> {
  const isolated = conditions.isolation === 'namespaces';
  const make = deviceMaker(run, isolated);
  const state = run.stateDirectory();
  const { cluster = 'testbed', cli = CLI_PATH } = options;
  const node = [process.execPath, ...(cli.endsWith('.ts') ? nodeFlags() : []), cli];
  const start = (device: Device, args: readonly string[]): Child => {
    const onLine = (line: string): void => options.onLine?.(device.name, line);
    const child = new Child(device.name, args, onLine, { command: device.command(node), readyWithinMs: READY_WITHIN_MS });
    device.own(child.process);
    return child;
  };
  const { cpu, rateBits } = conditions.gateway;
  const gatewayDevice = make('gateway', { rateBits, ...(cpu === 'no limit' ? {} : { cpu }) });
  const where = ['--host', isolated ? '0.0.0.0' : '127.0.0.1', '--port', String(isolated ? BROKER_PORT : 0)];
  const own = (device: Device): string[] => ['--cluster', cluster, '--directory', path.join(state, device.name)];
  const gateway = start(gatewayDevice, ['gateway', ...where, ...own(gatewayDevice)]);
  const { url: ownUrl } = await gateway.ready;
  const url = isolated ? `mqtt://${gatewayDevice.address}:${BROKER_PORT}` : String(ownUrl);
  const agents: TestbedAgent[] = [];
  for (const [i, spec] of conditions.agents.entries()) {
    const device = make(`agent-${i + 1}`, spec);
    const threads = options.threads ?? Math.ceil(spec.cpu);
    const listen = isolated ? [] : ['--lane-host', '127.0.0.1', '--addresses', '127.0.0.1'];
    const args = ['agent', '--broker', url, '--name', device.name, '--threads', String(threads), ...own(device)];
    agents.push(new TestbedAgent(device, () => start(device, [...args, ...listen, ...(options.agentArguments ?? [])])));
  }
  await Promise.all(agents.map((a) => a.child.ready));
  return new Testbed(
    { conditions, gateway: { url, device: gatewayDevice, child: gateway }, agents, cluster, directory: state },
    run,
    watchdog,
    make,
  );
}

/**
 * Small devices on one Linux machine, as real as one machine allows: a namespace, an address, a shaped link, a share of a core and a memory limit
 * for each agent, which runs as it would on a device of its own. Where that is not possible the same processes run without limits, and
 * `conditions` says so.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { ChairError } from '../../broker/errors.js';
import { Child, nodeFlags } from '../children.js';
import { CLI_PATH } from '../package-root.js';
import { TestbedClient } from './client.js';
import { ControlGroups, findHierarchy, whyNoLimits } from './control-groups.js';
import { Device } from './device.js';
import { checkDevice, checkRate, DEFAULT_DEVICE, type DeviceSpec } from './devices.js';
import { Disk } from './disk.js';
import { Network, whyNoNetwork } from './network.js';
import { TestbedNode } from './node.js';
import { cleanRun, RunDirectory, sweepDeadRuns } from './run-directory.js';

export { Device } from './device.js';
export { TestbedNode } from './node.js';

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
  /** `gateway`: the broker is part of the gateway. `own`: a process on a device of its own, which can fail by itself. Default `gateway`. */
  readonly broker?: 'gateway' | 'own';
  /** Gateway and agents have a disk of this size each, which can be filled; default: folders on the machine's disk. Only with namespaces. */
  readonly diskBytes?: number;
  /** The date of each process can jump (`TestbedNode.shiftClock`). Default false. */
  readonly clocks?: boolean;
  /** The gateway moves no deployment to a better plan by itself: what is measured is the plan that was asked for. Default false. */
  readonly holdPlans?: boolean;
  /** Of each agent's disk, for slices that stand by in case another agent is lost, MB; 0 = none, so that none are fetched while something is measured. Default: the gateway's. */
  readonly standbyMb?: number;
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
  /** Of each agent's disk, for slices that stand by, MB. */
  readonly standbyMb: number | 'as usual';
  /** Sum of all limited shares, of the machine's cores. */
  readonly coresPromised: number;
  readonly coresOfMachine: number;
  /** More is promised than the machine has: figures mean nothing. */
  readonly oversubscribed: boolean;
}

/** The agents need a while to start under their quota. */
const READY_WITHIN_MS = 120_000;
const BROKER_PORT = 1883;
const HERE = fileURLToPath(new URL('./', import.meta.url));
const CLEANER = path.join(HERE, 'clean.ts');
const CLOCK = new URL('./clock.mjs', import.meta.url).href;
const CLIENT = path.join(HERE, 'client-process.ts');

/** What starts a program of ours: it is compiled where the CLI is and has been compiled beside it (as tests do), else it runs from source. */
function programCommand(file: string, cli: string): string[] {
  const beside = path.join(path.dirname(cli), path.relative(path.dirname(HERE), file)).replace(/\.ts$/, '.js');
  return cli.endsWith('.js') && existsSync(beside) ? [process.execPath, beside] : [process.execPath, ...nodeFlags(), file];
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
    standbyMb: options.standbyMb ?? 'as usual',
    coresPromised,
    coresOfMachine,
    oversubscribed: why === '' && coresPromised > coresOfMachine,
  };
}

/** Removes what this process leaves, when it ends without removing it itself, however it ends: its end of the pipe closes. */
function startWatchdog(run: RunDirectory, cli: string): ChildProcess {
  const script = 'trap "" INT TERM HUP; while read -r _; do :; done; exec "$@"';
  const command = ['-c', script, 'sh', ...programCommand(CLEANER, cli), run.path];
  // In a process group of its own: a Ctrl-C at the terminal, or a kill of the whole group, is not for it.
  const child = spawn('/bin/sh', command, { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
  child.unref();
  const { stdin } = child;
  stdin?.on('error', () => undefined);
  if (stdin !== null && 'unref' in stdin && typeof stdin.unref === 'function') stdin.unref();
  return child;
}

/** A gateway, and the URL of the broker that agents and clients use: its own, or one beside it. */
export class TestbedGateway extends TestbedNode {
  readonly #url: () => string;

  /** `url` is asked for after the first start. */
  constructor(url: () => string, device: Device, start: () => Child) {
    super(device, start);
    this.#url = url;
  }

  get url(): string {
    return this.#url();
  }
}

/** What is made of a device and a command line. */
interface Makers {
  readonly device: (name: string, spec: Partial<DeviceSpec> & { readonly disk?: boolean }) => Device;
  readonly agent: (device: Device, spec: DeviceSpec) => TestbedNode;
  /** Program and first arguments for a TypeScript file of ours. */
  readonly program: (file: string) => readonly string[];
}

interface Parts {
  readonly conditions: Conditions;
  readonly gateway: TestbedGateway;
  /** Undefined where it is part of the gateway. */
  readonly broker: TestbedNode | undefined;
  readonly agents: readonly TestbedNode[];
  readonly cluster: string;
  /** The testbed's folder: state of its processes, removed at the end. */
  readonly directory: string;
}

export class Testbed {
  readonly conditions: Conditions;
  readonly gateway: TestbedGateway;
  readonly broker: TestbedNode | undefined;
  readonly cluster: string;
  readonly directory: string;
  readonly #agents: TestbedNode[];
  readonly #run: RunDirectory;
  readonly #watchdog: ChildProcess;
  readonly #make: Makers;
  readonly #clients: { close(): Promise<void> }[] = [];
  #made: number;
  #stopping: Promise<void> | undefined;

  /** Use `startTestbed`. */
  constructor(parts: Parts, run: RunDirectory, watchdog: ChildProcess, make: Makers) {
    this.conditions = parts.conditions;
    this.gateway = parts.gateway;
    this.broker = parts.broker;
    this.#agents = [...parts.agents];
    this.#made = parts.agents.length;
    this.cluster = parts.cluster;
    this.directory = parts.directory;
    this.#run = run;
    this.#watchdog = watchdog;
    this.#make = make;
  }

  /** In the order they came. */
  get agents(): readonly TestbedNode[] {
    return this.#agents;
  }

  /** One more place with limits, without an agent: for programs to compare with. */
  addDevice(name: string, spec: DeviceSpec = DEFAULT_DEVICE): Device {
    return this.#make.device(name, checkDevice(spec));
  }

  /** One more agent, on a device of its own. Resolves when it has said it is ready. */
  async addAgent(spec: DeviceSpec = DEFAULT_DEVICE): Promise<TestbedNode> {
    const device = this.#make.device(`agent-${++this.#made}`, { ...checkDevice(spec), disk: true });
    const agent = this.#make.agent(device, spec);
    this.#agents.push(agent);
    await agent.child.ready;
    return agent;
  }

  /** A program of ours on the gateway's machine, called over IPC; it ends with the testbed. Throws what it reported. */
  async program(name: string, file: string, args: readonly string[], onLine?: (line: string) => void): Promise<Child> {
    const { device } = this.gateway;
    const child = new Child(name, args, onLine, { command: device.command(this.#make.program(file)) });
    device.own(child.process);
    this.#clients.push({ close: () => child.stop() });
    await child.ready;
    return child;
  }

  /** A client beside the gateway, as a program on that machine would be. `window`: frames outstanding. Throws BROKER_UNREACHABLE. */
  async client(window = 64): Promise<TestbedClient> {
    return new TestbedClient(await this.program('client', CLIENT, [this.gateway.url, this.cluster, String(window)]));
  }

  /** Ends all processes and removes all that was made. Idempotent. Throws TESTBED_FAILED, naming what stayed. */
  stop(): Promise<void> {
    this.#stopping ??= this.#close();
    return this.#stopping;
  }

  async #close(): Promise<void> {
    await Promise.all(this.#clients.map((c) => c.close()));
    await Promise.all(this.#agents.map((a) => a.stop()));
    await this.gateway.stop();
    await this.broker?.stop();
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
function deviceMaker(run: RunDirectory, isolated: boolean, diskBytes: number | undefined, state: string): Makers['device'] {
  const hierarchy = isolated ? findHierarchy() : 'not asked for';
  if (typeof hierarchy === 'string') return (name) => new Device(name, run);
  const groups = new ControlGroups(hierarchy, run);
  const network = new Network(run);
  return (name, { cpu, memoryBytes, rateBits, disk = false }) => {
    const group = cpu === undefined && memoryBytes === undefined ? undefined : groups.create(name);
    if (cpu !== undefined) group?.setCpu(cpu);
    if (memoryBytes !== undefined) group?.setMemory(memoryBytes);
    const link = network.attach(name, rateBits);
    return new Device(name, run, {
      link,
      ...(group === undefined ? {} : { group }),
      ...(disk && diskBytes !== undefined ? { disk: new Disk(run, path.join(state, name), diskBytes) } : {}),
    });
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
  const watchdog = startWatchdog(run, options.cli ?? CLI_PATH);
  try {
    return await startIn(run, watchdog, options, conditions);
  } catch (error) {
    await cleanRun(run.path);
    watchdog.kill('SIGKILL');
    throw error;
  }
}

/** Devices with a network of their own, and nothing on them: for whoever brings the processes. */
export interface Places {
  /** A folder that is removed at the end. */
  readonly directory: string;
  device(name: string, spec: Partial<DeviceSpec>): Device;
  /** Ends everything on the devices and removes them. Idempotent. Throws TESTBED_FAILED, naming what stayed. */
  stop(): Promise<void>;
}

/** First removes what dead testbeds have left. Throws TESTBED_FAILED, also where this machine cannot make them. */
export async function makePlaces(): Promise<Places> {
  const why = whyPlainProcesses();
  if (why !== '') throw new ChairError('TESTBED_FAILED', 'devices of their own cannot be made here', { came: why });
  await sweepDeadRuns();
  const run = new RunDirectory();
  const watchdog = startWatchdog(run, CLI_PATH);
  let stopping: Promise<void> | undefined;
  const stop = async (): Promise<void> => {
    await cleanRun(run.path);
    watchdog.kill('SIGKILL');
  };
  const stopOnce = (): Promise<void> => {
    stopping ??= stop();
    return stopping;
  };
  try {
    const directory = run.stateDirectory();
    return { directory, device: deviceMaker(run, true, undefined, directory), stop: stopOnce };
  } catch (error) {
    await stopOnce();
    throw error;
  }
}

async function startIn(run: RunDirectory, watchdog: ChildProcess, options: TestbedOptions, conditions: Conditions): Promise<Testbed> {
  const isolated = conditions.isolation === 'namespaces';
  const state = run.stateDirectory();
  const device = deviceMaker(run, isolated, options.diskBytes, state);
  const { cluster = 'testbed', cli = CLI_PATH } = options;
  const flags = [...(cli.endsWith('.ts') ? nodeFlags() : []), ...(options.clocks === true ? ['--import', CLOCK] : [])];
  const node = [process.execPath, ...flags, cli];
  const start = (on: Device, args: readonly string[]): Child => {
    const onLine = (line: string): void => options.onLine?.(on.name, line);
    const child = new Child(on.name, args, onLine, { command: on.command(node), readyWithinMs: READY_WITHIN_MS });
    on.own(child.process);
    return child;
  };
  const own = (on: Device): string[] => ['--cluster', cluster, '--directory', path.join(state, on.name)];
  const { broker, gateway } = await startMiddle(options, conditions, { device, start, own });
  const agent: Makers['agent'] = (on, spec) => {
    const threads = options.threads ?? Math.ceil(spec.cpu);
    const listen = isolated ? [] : ['--lane-host', '127.0.0.1', '--addresses', '127.0.0.1'];
    const args = ['agent', '--insecure', '--broker', gateway.url, '--name', on.name, '--threads', String(threads), ...own(on)];
    return new TestbedNode(on, () => start(on, [...args, ...listen, ...(options.agentArguments ?? [])]));
  };
  const agents = conditions.agents.map((spec, i) => agent(device(`agent-${i + 1}`, { ...spec, disk: true }), spec));
  await Promise.all(agents.map((a) => a.child.ready));
  return new Testbed({ conditions, gateway, broker, agents, cluster, directory: state }, run, watchdog, {
    device,
    agent,
    program: (file) => programCommand(file, cli),
  });
}

interface Starting {
  readonly device: Makers['device'];
  readonly start: (on: Device, args: readonly string[]) => Child;
  readonly own: (on: Device) => string[];
}

/** The gateway, and the broker where it is a process of its own. Both come back under the same address when they are started again. */
async function startMiddle(
  { broker: where = 'gateway', holdPlans = false, standbyMb }: TestbedOptions,
  { isolation, gateway: { cpu, rateBits } }: Conditions,
  { device, start, own }: Starting,
): Promise<{ readonly broker: TestbedNode | undefined; readonly gateway: TestbedGateway }> {
  const isolated = isolation === 'namespaces';
  const host = isolated ? '0.0.0.0' : '127.0.0.1';
  const spec = { rateBits, ...(cpu === 'no limit' ? {} : { cpu }) };
  // Plain processes take a free port first, and then keep it.
  let port = isolated ? BROKER_PORT : 0;
  const serving = async (node: TestbedNode): Promise<void> => {
    port = Number(new URL(String((await node.child.ready).url)).port);
  };
  let broker: TestbedNode | undefined;
  if (where === 'own') {
    const on = device('broker', { rateBits });
    broker = new TestbedNode(on, () => start(on, ['broker', '--insecure', '--host', host, '--port', String(port)]));
    await serving(broker);
  }
  const on = device('gateway', { ...spec, disk: true });
  const url = (): string => `mqtt://${(broker?.device ?? on).address}:${port}`;
  const gateway = new TestbedGateway(url, on, () => {
    const decides = broker === undefined ? ['gateway', '--port', String(port)] : ['scheduler', '--broker', url()];
    const plans = [...(holdPlans ? ['--hold-plans'] : []), ...(standbyMb === undefined ? [] : ['--standby-mb', String(standbyMb)])];
    return start(on, [...decides, '--insecure', '--host', host, ...plans, ...own(on)]);
  });
  if (broker === undefined) await serving(gateway);
  else await gateway.child.ready;
  return { broker, gateway };
}

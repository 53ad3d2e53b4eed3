/** Composition root of the agent process: real bus, lanes and engine. */
import path from 'node:path';
import { cpuQuota } from '../broker/control-groups.js';
import { trackBroker } from '../broker/discovery/finder.js';
import { gatewayProof } from '../broker/discovery/gateway-proof.js';
import { type ChairError, type ErrorCode, toChairError } from '../broker/errors.js';
import { createLanes } from '../broker/lanes/lanes.js';
import { connectBus } from '../broker/mqtt-bus.js';
import { publicUrl } from '../broker/public-url.js';
import { readSealed, writeSealed } from '../broker/sealed-file.js';
import type { Trust } from '../broker/trust.js';
import type { Engine } from '../models/engine/engine.js';
import { createOnnxRuntimeEngine } from '../models/engine/onnxruntime.js';
import { type Probed, probeBytesPerSecond, probeMacsPerSecond, withSmallRuns } from '../models/engine/probe.js';
import { Agent } from './agent.js';
import { type AgentConfigInput, FIND_BROKER, parseAgentConfig } from './config.js';
import { cores, memoryLimitBytes } from './device.js';
import { measureInChild } from './profiling-child.js';
import { quotaGrainMs } from './quota-grain.js';
import type { Authority, Installation } from './updating.js';

export interface RunOptions {
  /** Announced in hello. */
  readonly softwareVersion: string;
  /** See AgentOptions. */
  readonly installation?: Installation;
  /** See AgentOptions. */
  readonly authority?: () => Authority | undefined;
  /** TLS with these credentials on the broker and on lanes, and only signed commands. Default: everything is plain. */
  readonly trust?: Trust;
  /** With `trust`, and when the broker is looked for: URLs where it may be, whether or not it is heard on the network. */
  readonly knownBrokers?: readonly string[];
  readonly log?: (line: string) => void;
}

export interface RunningAgent {
  readonly agent: Agent;
  /** SIGTERM: hands its seats over, then stops. A second call stops at once. */
  drain(): Promise<void>;
  stop(): Promise<void>;
  /** When it has stopped: what ended it, or undefined when it was asked to. */
  readonly closed: Promise<ChairError | undefined>;
}

/** Why we are not let in is said once, and again when it is something else; that the broker is not there is said elsewhere. */
class Failures {
  #said = '';

  constructor(private readonly log: (line: string) => void) {}

  say(agent: string, error: Error): void {
    const { code, message } = toChairError(error);
    const line = `${code}: agent ${agent} is not let in: ${message} Trying on`;
    if (code === 'BROKER_UNREACHABLE' || code === 'INTERNAL' || DISCOVERY.has(code) || line === this.#said) return;
    this.#said = line;
    this.log(line);
  }
}

/** The finder says these itself. */
const DISCOVERY: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'GATEWAY_NOT_FOUND',
  'GATEWAY_AMBIGUOUS',
  'DISCOVERY_UNAVAILABLE',
  'STOPPED',
]);

/** How long an unreachable broker is waited for before that is said. */
const QUIET_MS = 3000;
/** Agents that all wait for one gateway do not connect in the same millisecond. */
const SPREAD_MS = 300;

/**
 * Starts an agent and resolves when it listens; it keeps trying when the broker is not there (agents boot before their gateway). Throws
 * CONFIG_INVALID, AGENT_NAME_INVALID, AGENT_NAME_TAKEN, ENGINE_UNAVAILABLE, PORT_IN_USE.
 */
export async function runAgent(input: AgentConfigInput, options: RunOptions): Promise<RunningAgent> {
  const config = parseAgentConfig(input);
  const log = options.log ?? (() => undefined);
  const trusted = options.trust === undefined ? {} : { trust: options.trust };
  const failures = new Failures(log);
  let waiting: NodeJS.Timeout | undefined;
  // Known before lanes are made.
  let turnMs = 0;
  const agent = new Agent({
    config,
    softwareVersion: options.softwareVersion,
    ...(options.installation === undefined ? {} : { installation: options.installation }),
    ...(options.authority === undefined ? {} : { authority: options.authority }),
    ...trusted,
    log,
    connect: async (will) => {
      const { cluster, broker } = config;
      const found = broker === FIND_BROKER;
      // Anybody on the network can announce a gateway: with credentials, only the one of our CA counts.
      const proof = options.trust === undefined ? {} : { proof: gatewayProof(options.trust), known: options.knownBrokers ?? [] };
      const url = found ? trackBroker({ cluster, log, spreadMs: SPREAD_MS, ...proof }) : broker;
      const onFailed = (error: Error): void => failures.say(config.name, error);
      const bus = await connectBus({ ...trusted, url, id: config.name, will, retryFirst: true, onFailed });
      waiting = setTimeout(() => {
        if (!found && !bus.connected) log(`BROKER_UNREACHABLE: no MQTT broker at ${publicUrl(broker)} yet; trying on`);
      }, QUIET_MS);
      bus.onConnect(() => log(`connected to ${found ? 'the broker' : publicUrl(broker)}`));
      bus.onDisconnect((why) => log(`lost the broker: ${why}; trying on`));
      return bus;
    },
    createLanes: (bus, onRefused, buffers) =>
      createLanes({
        ...trusted,
        turnMs,
        id: config.name,
        cluster: config.cluster,
        bus,
        listen: config.laneHost !== '',
        ...(config.laneHost === '' ? {} : { host: config.laneHost }),
        port: config.lanePort,
        buffers,
        onRefused,
      }),
    createEngine: () => createOnnxRuntimeEngine(config.threads > 0 ? { threads: config.threads } : {}),
    measure: measureInChild,
    probe: async (engine, directory) => {
      const found = await probed(engine, directory, config.threads, log);
      turnMs = found.quotaGrainMs;
      return found;
    },
  });
  const closed = agent.closed.finally(() => clearTimeout(waiting));
  await agent.start();
  return { agent, drain: () => agent.drain(), stop: () => agent.stop(), closed };
}

/** How the probe measures: figures of an earlier way are measured anew. */
const PROBE = 8;

/** The start-up probe, measured once per engine version, thread count, core count and CPU quota, and kept beside the store. */
async function probed(engine: Engine, directory: string, threads: number, log: (line: string) => void): Promise<Probed> {
  const file = path.join(directory, 'probe.json');
  const { cores: limit, periodMs } = cpuQuota();
  const key = `probe ${PROBE} ${engine.name} ${engine.version} ${process.arch} threads=${threads} cores=${cores()} limit=${limit}/${periodMs}`;
  const known = await keptProbe(file, key);
  if (known !== undefined) return known;
  const quota = { cpuLimit: limit, threads: threads || cores() };
  const { macsPerSecond, bytesPerSecond, smallRunMs } = await withSmallRuns(engine, async (smallRuns) => {
    const macs = await probeMacsPerSecond(engine, quota, smallRuns.look);
    const bytes = await probeBytesPerSecond(engine, quota, memoryLimitBytes());
    await smallRuns.look();
    return { macsPerSecond: macs, bytesPerSecond: bytes, smallRunMs: smallRuns.ms };
  });
  const found: Probed = { macsPerSecond, bytesPerSecond, smallRunMs, quotaGrainMs: quotaGrainMs(limit, periodMs) };
  const speeds = `${(macsPerSecond / 1e9).toFixed(2)} GMAC/s, weights at ${(bytesPerSecond / 1e9).toFixed(2)} GB/s`;
  log(`probe: ${speeds}, ${smallRunMs.toFixed(3)} ms around a run (${key})`);
  // A disk that is full here only costs the next start a second.
  await writeSealed(file, JSON.stringify({ key, ...found }), 'AGENT_STORE_FULL').catch(() => undefined);
  return found;
}

/** What an earlier start found under the same conditions. */
async function keptProbe(file: string, key: string): Promise<Probed | undefined> {
  try {
    const known: unknown = JSON.parse((await readSealed(file)) ?? '{}');
    if (typeof known !== 'object' || known === null || !('key' in known) || known.key !== key) return undefined;
    const figure = (name: keyof Probed): number => {
      const value: unknown = Reflect.get(known, name);
      return typeof value === 'number' && value >= 0 ? value : -1;
    };
    const found = {
      macsPerSecond: figure('macsPerSecond'),
      bytesPerSecond: figure('bytesPerSecond'),
      smallRunMs: figure('smallRunMs'),
      quotaGrainMs: figure('quotaGrainMs'),
    };
    return Object.values(found).includes(-1) || found.macsPerSecond === 0 ? undefined : found;
  } catch {
    // Torn, or changed by something else: measured now.
    return undefined;
  }
}

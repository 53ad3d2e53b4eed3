/** What an agent is, as it tells the scheduler and as its measurements are filed: read anew each time, since limits and addresses change. */
import { cpuLimit, cpuQuota } from '../broker/control-groups.js';
import { hostId } from '../broker/host.js';
import type { Hello } from '../broker/messages.js';
import { OUR_SCHEMAS } from '../broker/schema/version.js';
import type { Engine } from '../models/engine/engine.js';
import { cores, hostCores, memoryLimitBytes, reachableAddresses } from './device.js';
import { cpuModel, fingerprintOf, maxClockKhz } from './fingerprint.js';
import type { AgentOptions } from './options.js';
import type { Parts } from './parts.js';

/** At most so many names in a hello. */
const SLICES_TOLD = 1000;

/** What the agent may use, bytes. */
export function memoryLimit({ memory, config }: AgentOptions): number {
  return memory?.().limitBytes ?? (config.memoryLimitBytes || memoryLimitBytes());
}

/** What measurements of this device are kept under. */
export function deviceOf(
  options: AgentOptions,
  { name, version }: Engine,
): { readonly engine: string; readonly engineVersion: string; readonly fingerprint: string } {
  const traits = { cpu: cpuModel(), maxKhz: maxClockKhz(), arch: process.arch, cores: cores(), cpuLimit: cpuLimit() };
  const { prepack } = options.config;
  const fingerprint = fingerprintOf({ ...traits, memoryBytes: memoryLimit(options), engine: name, engineVersion: version, prepack });
  return { engine: name, engineVersion: version, fingerprint };
}

/** Where peers find the listener. */
export function announced({ config, ownAddresses }: AgentOptions): readonly string[] {
  if (config.addresses.length > 0) return config.addresses;
  return ownAddresses?.() ?? reachableAddresses(config.laneHost);
}

type Told = Pick<Parts, 'store' | 'term' | 'engine' | 'probe' | 'lanes' | 'sessions'>;

/** The hello of this process. */
export async function introduce(options: AgentOptions, nonce: string, connection: number, parts: Told): Promise<Hello> {
  const { name, threads, healthMs } = options.config;
  const { store, term, engine, probe, lanes, sessions } = parts;
  return {
    agent: name,
    nonce,
    ...OUR_SCHEMAS,
    softwareVersion: options.softwareVersion,
    term: term.value,
    scheduler: term.scheduler,
    addresses: announced(options),
    lanePort: lanes.port,
    cores: cores(),
    host: options.host?.() ?? hostId(),
    hostCores: hostCores(),
    cpuLimit: cpuLimit(),
    cpuPeriodMs: Math.max(cpuQuota().periodMs, cpuLimit() > 0 ? probe.quotaGrainMs : 0),
    engineThreads: threads || cores(),
    memoryBytes: memoryLimit(options),
    arch: process.arch,
    ...deviceOf(options, engine),
    cpu: cpuModel(),
    probeMacsPerSecond: probe.macsPerSecond,
    probeBytesPerSecond: probe.bytesPerSecond,
    probeSmallRunMs: probe.smallRunMs,
    storeBytesFree: await store.freeBytes(),
    slices: [...new Set([...sessions.loaded, ...store.list()])].slice(0, SLICES_TOLD),
    healthMs,
    connection,
    encrypted: options.trust !== undefined,
  };
}

/** What an agent is made of from outside: its configuration, and factories for the seams. */
import type { Buffers } from '../broker/buffers.js';
import type { Bus } from '../broker/bus.js';
import type { Lanes } from '../broker/lanes/lane.js';
import type { Gone } from '../broker/messages.js';
import type { Topic } from '../broker/topics.js';
import type { Trust } from '../broker/trust.js';
import type { Engine } from '../models/engine/engine.js';
import type { Probed } from '../models/engine/probe.js';
import type { AgentConfig } from './config.js';
import type { FetchOptions } from './fetch.js';
import type { Measure } from './profiling.js';
import type { Memory } from './sessions.js';
import type { Authority, Installation } from './updating.js';

export interface Will {
  readonly topic: Topic<Gone>;
  readonly value: Gone;
}

export interface AgentOptions {
  readonly config: AgentConfig;
  readonly softwareVersion: string;
  /** Connects to the control plane, with this Last Will. */
  readonly connect: (will: Will) => Promise<Bus>;
  /** `onRefused`: a message or connection was refused before it came to a handler. `buffers`: what connections are to be read into, if that can be said. */
  readonly createLanes: (bus: Bus, onRefused: (topic: string, error: Error) => void, buffers: Buffers) => Promise<Lanes> | Lanes;
  readonly createEngine: () => Promise<Engine>;
  /** How fast the engine is here; default: unknown. */
  readonly probe?: (engine: Engine, directory: string) => Promise<Probed>;
  /** Measures a slice apart from what serves; default: this agent refuses such commands. */
  readonly measure?: Measure;
  /** Credentials: commands are obeyed only with the scheduler's signature. Default: none, and all are obeyed. */
  readonly trust?: Trust;
  /** A connection to the broker that was made with a certificate which has been renewed since is made anew within this time, at random; default ten minutes. */
  readonly reconnectWithinMs?: number;
  /** Default: the configured limit or the machine's, and this process's anonymous memory. */
  readonly memory?: () => Memory;
  /** Addresses of this machine; default: those of its network interfaces. Announced when the configuration names none. */
  readonly ownAddresses?: () => readonly string[];
  /** Which machine this is; default: `hostId` of broker/host.ts. */
  readonly host?: () => string;
  /** Monotonic. */
  readonly nowMs?: () => number;
  readonly fetch?: Partial<Pick<FetchOptions, 'chunkBytes' | 'window' | 'requestTimeoutMs' | 'maxTries' | 'random' | 'graceMs' | 'idleMs'>>;
  /** Default: this program was not installed from a bundle, and takes no updates. */
  readonly installation?: Installation;
  /** Who may sign updates; default: nobody. */
  readonly authority?: () => Authority | undefined;
  /** Lines for people. */
  readonly log?: (line: string) => void;
}

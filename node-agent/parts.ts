/** What an agent is made of, and how the parts know each other. Nothing is started here: `agent.ts` owns their lives. */
import { BufferPool, type Buffers } from '../broker/buffers.js';
import type { Bus } from '../broker/bus.js';
import { cpuQuota } from '../broker/control-groups.js';
import { type ChairError, isChairError, toChairError } from '../broker/errors.js';
import type { Lanes } from '../broker/lanes/lane.js';
import { LinkProbe } from '../broker/link-probe.js';
import type { Refusals } from '../broker/refusals.js';
import type { Repetition } from '../broker/repetition.js';
import { sealCheck } from '../broker/seal.js';
import type { Topics } from '../broker/topics.js';
import type { Engine } from '../models/engine/engine.js';
import type { Probed } from '../models/engine/probe.js';
import { Commands } from './commands.js';
import { cores, processMemory } from './device.js';
import { EarlyBuffer } from './early.js';
import { type Epoch, type EpochKey, Epochs, seatsText } from './epochs.js';
import { BlobFetcher } from './fetch.js';
import { Forwarder } from './forward.js';
import { deviceOf, memoryLimit } from './identity.js';
import { type Arrived, Inbox } from './inbox.js';
import { FrameBudget, type ReadyFrame } from './join.js';
import type { AgentOptions } from './options.js';
import { PeerTable } from './peers.js';
import { Profiler } from './profiling.js';
import { Runner } from './runner.js';
import { SessionCache } from './sessions.js';
import { Standby } from './standby.js';
import type { BlobStore } from './store.js';
import type { TermFile } from './term.js';
import { Tracer } from './tracing.js';
import { TroubleReporter } from './trouble.js';
import { Updater } from './updating.js';

/** What has to be opened, in this order. */
export interface Ground {
  readonly store: BlobStore;
  readonly term: TermFile;
  readonly engine: Engine;
  /** What the start-up probe found. */
  readonly probe: Probed;
  readonly bus: Bus;
  /** Of inputs, outputs, and what comes on lanes. */
  readonly buffers: Buffers;
  readonly lanes: Lanes;
}

/** Everything between start and stop. */
export interface Parts extends Ground {
  readonly fetcher: BlobFetcher;
  readonly sessions: SessionCache;
  readonly standby: Standby;
  readonly epochs: Epochs;
  readonly runner: Runner;
  readonly forwarder: Forwarder;
  readonly inbox: Inbox;
  readonly trouble: TroubleReporter;
  readonly commands: Commands;
  readonly linkProbe: LinkProbe;
  readonly peers: PeerTable;
  readonly profiler: Profiler;
  readonly updater: Updater;
  readonly tracer: Tracer;
}

/** What the parts ask of, and tell, the agent. */
export interface Host {
  readonly options: AgentOptions;
  readonly nonce: string;
  readonly nowMs: () => number;
  readonly log: (line: string) => void;
  readonly repetition: Repetition;
  readonly refusals: Refusals;
  /** In the version that the scheduler reads. */
  readonly topics: () => Topics;
  readonly isDraining: () => boolean;
  readonly isStopping: () => boolean;
  /** An epoch was given back. */
  readonly onReleased: () => void;
  /** Something that this process cannot get over. */
  readonly onFailure: (error: ChairError) => void;
}

/** Of the memory limit: what buffers that wait for their next frame may hold. */
const IDLE_SHARE = 1 / 32;
/** See `batchMs` of profiling.ts. */
const BATCH_MS = 10;
/** And so many periods of a CPU quota, which is handed out at once: in fewer, where a period begins decides. */
const BATCH_PERIODS = 6;

/** For inputs, outputs and what comes on lanes: one pool, so that what is read can become an input. */
export function createBuffers(options: AgentOptions): Buffers {
  return new BufferPool(memoryLimit(options) * IDLE_SHARE);
}

export function assemble(ground: Ground, host: Host): Parts {
  const { options, nonce, nowMs, log, topics } = host;
  const { config } = options;
  const agent = config.name;
  const { store, engine, bus, lanes, term } = ground;
  const memory = options.memory ?? (() => ({ limitBytes: memoryLimit(options), usedBytes: processMemory().anonymousBytes }));
  const sessions = new SessionCache(engine, store, { prepack: config.prepack }, memory);
  const fetcher = new BlobFetcher({ bus, lanes, topics, agent, store, ...options.fetch });
  const trouble = new TroubleReporter(agent, bus, topics, log);
  const whenIdle = <T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> => epochs.whenIdle(work);
  const standby = new Standby({ store, fetcher, sessions, memory, whenIdle, activity: () => runner.finished, nowMs, log });
  const tracer = new Tracer(agent, nowMs);
  const path = dataPath({ tracer, ground, host, sessions, standby, fetcher, trouble, limitBytes: memory().limitBytes });
  const { epochs, runner } = path;
  const profiler = new Profiler({
    store,
    fetcher,
    measure: options.measure,
    memory,
    activity: () => runner.finished,
    isBusy: () => runner.isBusy || epochs.isPreparing || standby.isBusy,
    device: () => deviceOf(options, engine),
    threads: config.threads || cores(),
    cores: cores(),
    batchMs: Math.max(BATCH_MS, BATCH_PERIODS * cpuQuota().periodMs),
    cpuLimit: cpuQuota().cores,
    prepack: config.prepack,
  });
  const linkProbe = new LinkProbe({ name: agent, lanes, topics, nowMs });
  const peers = new PeerTable(agent);
  const updater = new Updater({
    ...{ agent, store, fetcher, log },
    directory: config.directory,
    installation: options.installation,
    authority: options.authority ?? (() => undefined),
    onRejected: host.onFailure,
  });
  const commands = new Commands({
    nonce,
    term,
    epochs,
    standby,
    peers,
    nowMs,
    lanes,
    probe: linkProbe,
    profiler,
    updater,
    tracer,
    isBusy: () => runner.isBusy,
    ...(options.trust === undefined ? {} : { checkSeal: sealCheck(options.trust, agent) }),
    orphanMs: config.orphanMs,
    isDraining: host.isDraining,
    onReleased: host.onReleased,
    onRefused: host.onFailure,
  });
  return { ...ground, ...path, fetcher, sessions, standby, trouble, commands, linkProbe, peers, profiler, updater, tracer };
}

interface DataPathOptions extends Pick<Parts, 'sessions' | 'standby' | 'fetcher' | 'trouble' | 'tracer'> {
  readonly ground: Ground;
  readonly host: Host;
  /** Of the agent's memory. */
  readonly limitBytes: number;
}

/** A frame's way: into its seat's input, through the engine, along its wires. The four call each other. */
function dataPath({
  ground,
  host,
  sessions,
  standby,
  fetcher,
  trouble,
  tracer,
  limitBytes,
}: DataPathOptions): Pick<Parts, 'epochs' | 'runner' | 'forwarder' | 'inbox'> {
  const { nowMs, log, topics, repetition } = host;
  const { config } = host.options;
  const { store, bus, buffers, lanes } = ground;
  const budget = new FrameBudget(config.joinLimitBytes || limitBytes / 4);
  const early = new EarlyBuffer<Arrived>(config.earlyBytes, config.earlyMs);
  const onReady = (epoch: Epoch, frame: ReadyFrame) => runner.push({ epoch, frame });
  const purge = (): void => {
    runner.purge();
    lanes.purge();
  };
  const onTrouble = (key: EpochKey, frame: { frame: number; attempt: number }, error: unknown) => trouble.report(key, frame, '', error);
  const epochs = new Epochs({
    agent: config.name,
    store,
    fetcher,
    sessions,
    budget,
    buffers,
    nowMs,
    onProgress: (progress) => void bus.publish(topics().progress, progress).catch(() => undefined),
    onPrepared: (epoch) => {
      log(`${seatsText(epoch)}: ready`);
      inbox.prepared(epoch);
    },
    onMemoryShort: (slices) => standby.giveWay(slices),
    onReleased: async (epoch) => {
      if (!host.isStopping()) log(`${seatsText(epoch)}: given back`);
      purge();
      await runner.settled(epoch);
    },
  });
  const forwarder = new Forwarder({
    lanes,
    topics: topics(),
    budget,
    buffers,
    nowMs,
    tracer,
    onReady,
    onRefused: (epoch, frame, refusal) => inbox.notTaken(epoch, frame, refusal),
    onFailure: (epoch, frame, peer, error) => trouble.report(epoch, frame, peer, error),
    onRawFallback: ({ deployment }, wire, why) =>
      repetition.say(`raw ${deployment} ${wire}`, `wire ${wire} of ${deployment} is sent raw: ${why}`),
  });
  const runner = new Runner({
    budget,
    buffers,
    nowMs,
    onRun: (job, span) => tracer.ran(job, span),
    onOutputs: (job, outputs) => forwarder.forward(job, outputs),
    onFailure: (job, error) => {
      if (host.isStopping()) return;
      onTrouble(job.epoch, job.frame, error);
      // A dead engine does not come back: whoever supervises this process starts a new one.
      if (isChairError(error, 'ENGINE_CLOSED')) host.onFailure(toChairError(error));
    },
  });
  const inbox = new Inbox({
    epochs,
    early,
    buffers,
    nowMs,
    tracer,
    onReady,
    onUnwanted: purge,
    onTrouble,
    repetition,
    refusals: host.refusals,
  });
  return { epochs, runner, forwarder, inbox };
}

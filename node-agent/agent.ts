/**
 * The agent: stores slices, holds seats, runs them, moves activations. This file composes the parts and owns their lives; it decides nothing
 * about cuts or layers. Bus, lanes and engine are made by factories, so that tests run it on fakes.
 */
import { randomBytes } from 'node:crypto';
import type { SegmentReader } from '../broker/activation.js';
import type { Bus } from '../broker/bus.js';
import { cpuLimit, cpuQuota } from '../broker/control-groups.js';
import { ChairError, isChairError, toChairError } from '../broker/errors.js';
import { hostId } from '../broker/host.js';
import type { Lanes } from '../broker/lanes/lane.js';
import { LinkProbe } from '../broker/link-probe.js';
import type { Command, Gone, Hello, Reign } from '../broker/messages.js';
import { Repetition } from '../broker/repetition.js';
import { isSchemaStand, OUR_SCHEMAS, reconcile } from '../broker/schema/version.js';
import { type Topics, topicsOf } from '../broker/topics.js';
import { BufferPool } from '../models/engine/buffers.js';
import type { Engine } from '../models/engine/engine.js';
import { Acceptance } from './acceptance.js';
import { answer, Commands } from './commands.js';
import type { AgentConfig } from './config.js';
import { cores, hostCores, memoryLimitBytes, processMemory, reachableAddresses } from './device.js';
import { EarlyBuffer } from './early.js';
import { type Epoch, type EpochKey, Epochs, seatsText } from './epochs.js';
import { BlobFetcher } from './fetch.js';
import { cpuModel, fingerprintOf, maxClockKhz } from './fingerprint.js';
import { Forwarder } from './forward.js';
import { HealthMeter } from './health.js';
import { Inbox } from './inbox.js';
import { FrameBudget, type ReadyFrame } from './join.js';
import type { AgentOptions } from './options.js';
import { PeerTable } from './peers.js';
import { Profiler } from './profiling.js';
import { Runner } from './runner.js';
import { SessionCache } from './sessions.js';
import { BlobStore } from './store.js';
import { TermFile } from './term.js';
import { TroubleReporter } from './trouble.js';
import { within } from './within.js';

/** Everything between start and stop. */
interface Parts {
  readonly store: BlobStore;
  readonly term: TermFile;
  readonly engine: Engine;
  readonly probe: number;
  readonly bus: Bus;
  readonly lanes: Lanes;
  readonly fetcher: BlobFetcher;
  readonly sessions: SessionCache;
  readonly epochs: Epochs;
  readonly runner: Runner;
  readonly forwarder: Forwarder;
  readonly inbox: Inbox;
  readonly trouble: TroubleReporter;
  readonly commands: Commands;
  readonly linkProbe: LinkProbe;
  readonly profiler: Profiler;
}

const FAREWELL_MS = 1000;
/** Of the memory limit: what buffers that wait for their next frame may hold. */
const IDLE_SHARE = 1 / 32;
/** See `batchMs` of profiling.ts. */
const BATCH_MS = 10;
/** Expired joins and early messages are looked for this often. */
const SWEEP_MS = 250;
/** At most so many names in a hello. */
const SLICES_TOLD = 1000;

export class Agent {
  /** Random per process start. */
  readonly nonce = randomBytes(8).toString('hex');
  /** Resolves when the agent has stopped: with what ended it, or undefined when it was asked to. */
  readonly closed: Promise<ChairError | undefined>;
  private readonly config: AgentConfig;
  private readonly nowMs: () => number;
  private readonly log: (line: string) => void;
  private readonly repetition: Repetition;
  private readonly acceptance: Acceptance;
  /** In the version that the scheduler reads. */
  private topics: Topics;
  private parts: Partial<Parts> = {};
  /** Undo of what start did, newest last. */
  private readonly undo: (() => Promise<void> | void)[] = [];
  private draining = false;
  private drained: (() => void) | undefined;
  private failure: ChairError | undefined;
  private stopping: Promise<void> | undefined;
  private settleClosed: (error: ChairError | undefined) => void = () => undefined;

  constructor(private readonly options: AgentOptions) {
    this.config = options.config;
    this.nowMs = options.nowMs ?? (() => performance.now());
    this.log = options.log ?? (() => undefined);
    this.repetition = new Repetition(this.log, this.nowMs);
    const { cluster, broker } = options.config;
    this.acceptance = new Acceptance({ cluster, broker, log: this.log });
    this.topics = topicsOf(cluster);
    this.closed = new Promise((resolve) => {
      this.settleClosed = resolve;
    });
  }

  /**
   * Resolves when the agent listens and has said hello, or will when the broker is there. Throws AGENT_NAME_TAKEN (store in use),
   * ENGINE_UNAVAILABLE, BROKER_UNREACHABLE, PORT_IN_USE; then nothing is left running.
   */
  async start(): Promise<void> {
    try {
      await this.open();
    } catch (error) {
      this.failure ??= toChairError(error);
      await this.stop();
    }
    if (this.stopping === undefined) return;
    // Stopped or refused while it was starting: what came after that is undone here.
    await this.stopping;
    await this.unwind();
    throw this.failure ?? new ChairError('STOPPED', 'the agent was stopped while it started');
  }

  /** Port of the direct listener, 0 when there is none. */
  get lanePort(): number {
    return this.parts.lanes?.port ?? 0;
  }

  /** For status and tests: what is held and what was refused. */
  get state() {
    const { epochs, inbox, runner, sessions, forwarder, trouble } = this.parts;
    return {
      epochs: [...(epochs?.all ?? [])].map(({ term, deployment, epoch, committed, joins }) => ({
        term,
        deployment,
        epoch,
        committed,
        waiting: joins.waiting,
      })),
      counts: { ...inbox?.counts },
      queue: runner?.waiting() ?? 0,
      loaded: sessions?.loaded ?? [],
      localMessages: forwarder?.localMessages ?? 0,
      troubleLost: trouble?.lost ?? 0,
    };
  }

  /** SIGTERM: asks for its seats to be moved, serves until they are released or `drainMs` is over, then stops. */
  async drain(): Promise<void> {
    if (this.draining || this.stopping !== undefined) return this.stop();
    this.draining = true;
    const { bus, epochs, forwarder, profiler } = this.parts;
    void profiler?.stop('it drains');
    if (bus?.connected === true && epochs !== undefined && epochs.size > 0) {
      this.log(`draining: ${epochs.size} epochs to hand over, at most ${this.config.drainMs} ms`);
      await this.sayGone('draining');
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, this.config.drainMs);
        this.drained = () => {
          clearTimeout(timer);
          resolve();
        };
        // Released, or told to stop at once, while saying so.
        if (this.stopping !== undefined) this.drained();
        this.checkDrained();
      });
      await within(FAREWELL_MS, forwarder?.settled());
    }
    await this.stop();
  }

  /** Idempotent; leaves no timer, socket, worker or lock. Frames under way here are lost to re-issue. */
  stop(): Promise<void> {
    this.stopping ??= this.close();
    return this.stopping;
  }

  private async close(): Promise<void> {
    this.drained?.();
    if (this.parts.bus?.connected === true) await this.sayGone('stopped');
    await this.unwind();
    this.settleClosed(this.failure);
  }

  private async unwind(): Promise<void> {
    for (let undo = this.undo.pop(); undo !== undefined; undo = this.undo.pop()) {
      try {
        await undo();
      } catch (error) {
        this.log(`while stopping: ${toChairError(error).message}`);
      }
    }
  }

  private async open(): Promise<void> {
    const { config, options, nowMs } = this;
    const store = await this.own(BlobStore.open({ directory: config.directory, limitBytes: config.storeLimitBytes }), (s) => s.close());
    const term = await TermFile.open(config.directory);
    const engine = await this.own(options.createEngine(), (e) => e.dispose());
    const probe = (await options.probe?.(engine, config.directory)) ?? 0;
    const bus = await this.own(options.connect({ topic: this.topics.gone, value: this.gone('will') }), (b) => b.stop());
    this.parts = { store, term, engine, probe, bus };
    const lanes = await this.own(Promise.resolve(options.createLanes(bus)), (l) => l.stop());
    const parts = this.wire({ store, term, engine, probe, bus, lanes });
    this.parts = parts;
    this.undo.push(() => this.shutEngine(parts));
    await parts.fetcher.start();
    this.undo.push(() => parts.fetcher.stop());
    await this.listen(parts);
    this.undo.push(() => parts.commands.stop());
    this.startTimers(parts, nowMs);
    this.undo.push(() => this.acceptance.stop());
    this.undo.push(bus.onConnect(() => void this.sayHello()));
    this.undo.push(
      bus.onDisconnect(() => {
        this.acceptance.lost();
        // Nobody can take the seats now, and frames do not come on either.
        if (this.draining && this.drained !== undefined) {
          this.log('the broker is gone while draining: stopping');
          this.drained();
        }
      }),
    );
  }

  /** Runs are ended first, so that releasing does not wait for a slice that takes seconds. */
  private async shutEngine({ epochs, runner, engine, profiler }: Parts): Promise<void> {
    const measured = profiler.stop('it stops');
    const released = epochs.releaseAll();
    await engine.dispose();
    await runner.stop();
    await released;
    await measured;
  }

  private wire(base: Pick<Parts, 'store' | 'term' | 'engine' | 'probe' | 'bus' | 'lanes'>): Parts {
    const { config, nowMs } = this;
    const agent = config.name;
    const { store, engine, bus, lanes, term } = base;
    const memory = this.options.memory ?? (() => ({ limitBytes: this.memoryLimit(), usedBytes: processMemory().anonymousBytes }));
    const budget = new FrameBudget(config.joinLimitBytes || memory().limitBytes / 4);
    const buffers = new BufferPool(memory().limitBytes * IDLE_SHARE);
    const sessions = new SessionCache(engine, store, { prepack: config.prepack }, memory);
    const topics = () => this.topics;
    const fetcher = new BlobFetcher({ bus, topics, agent, store, ...this.options.fetch });
    const trouble = new TroubleReporter(agent, bus, topics, this.log);
    const early = new EarlyBuffer<SegmentReader>(config.earlyBytes, config.earlyMs);
    const onReady = (epoch: Epoch, frame: ReadyFrame) => runner.push({ epoch, frame });
    const onTrouble = (key: EpochKey, frame: { frame: number; attempt: number }, error: unknown) => trouble.report(key, frame, '', error);
    const epochs = new Epochs({
      agent,
      store,
      fetcher,
      sessions,
      budget,
      buffers,
      nowMs,
      onProgress: (progress) => void bus.publish(this.topics.progress, progress).catch(() => undefined),
      onPrepared: (epoch) => {
        this.log(`${seatsText(epoch)}: ready`);
        inbox.prepared(epoch);
      },
      onReleased: async (epoch) => {
        if (this.stopping === undefined) this.log(`${seatsText(epoch)}: given back`);
        runner.purge();
        await runner.settled(epoch);
      },
    });
    const forwarder = new Forwarder({
      lanes,
      topics: this.topics,
      budget,
      buffers,
      nowMs,
      onReady,
      onRefused: (epoch, frame, refusal) => inbox.notTaken(epoch, frame, refusal),
      onFailure: (epoch, frame, peer, error) => trouble.report(epoch, frame, peer, error),
      onRawFallback: ({ deployment }, wire, why) =>
        this.repetition.say(`raw ${deployment} ${wire}`, `wire ${wire} of ${deployment} is sent raw: ${why}`),
    });
    const runner = new Runner({
      budget,
      buffers,
      onOutputs: (job, outputs) => forwarder.forward(job, outputs),
      onFailure: (job, error) => {
        if (this.stopping !== undefined) return;
        onTrouble(job.epoch, job.frame, error);
        // A dead engine does not come back: whoever supervises this process starts a new one.
        if (isChairError(error, 'ENGINE_CLOSED')) this.fail(toChairError(error));
      },
    });
    const inbox = new Inbox({ epochs, early, nowMs, onReady, onUnwanted: () => runner.purge(), onTrouble, repetition: this.repetition });
    const profiler = new Profiler({
      store,
      fetcher,
      measure: this.options.measure,
      memory,
      activity: () => runner.finished,
      isBusy: () => runner.isBusy || epochs.isPreparing,
      device: () => this.device(engine),
      threads: config.threads || cores(),
      cores: cores(),
      batchMs: Math.max(BATCH_MS, 2 * cpuQuota().periodMs),
      prepack: config.prepack,
    });
    const linkProbe = new LinkProbe({ name: agent, lanes, topics, nowMs });
    const commands = new Commands({
      nonce: this.nonce,
      term,
      epochs,
      peers: new PeerTable(agent),
      lanes,
      probe: linkProbe,
      profiler,
      isBusy: () => runner.isBusy,
      orphanMs: config.orphanMs,
      isDraining: () => this.draining,
      onReleased: () => this.checkDrained(),
      onRefused: (error) => this.fail(error),
    });
    return { ...base, fetcher, sessions, epochs, runner, forwarder, inbox, trouble, commands, linkProbe, profiler };
  }

  private async listen({ bus, lanes, inbox, commands, linkProbe }: Parts): Promise<void> {
    const { topics, config } = this;
    lanes.on(topics.activation(config.name), (message) => inbox.activation(message));
    lanes.on(topics.cancel(config.name).name, (message) => inbox.cancel(message));
    linkProbe.start();
    this.undo.push(() => linkProbe.stop());
    await lanes.start();
    bus.onRefused((name, error) => {
      inbox.counts.refused++;
      this.repetition.say(name, `refused a message on ${name}: ${error.message}`);
    });
    await bus.subscribe(topics.command(config.name), (command) => void this.obey(commands, command));
    await bus.subscribe(topics.reign, (reign) => this.onReign(reign));
  }

  private async obey(commands: Commands, command: Command): Promise<void> {
    const reply = await answer(commands, command, this.config.name);
    if (reply === undefined) return;
    if (reply.code === '' && command.body.kind !== 'refuse') this.acceptance.accepted(command.term);
    if (reply.code !== '') this.log(`${command.body.kind} refused: ${reply.code} ${reply.message}`);
    // A reply that is lost with the broker is asked for again: commands are idempotent.
    await this.parts.bus?.publish(this.topics.reply, reply).catch((error) => this.log(`reply not sent: ${toChairError(error).message}`));
    if (reply.code === 'ENGINE_CLOSED') this.fail(new ChairError(reply.code, reply.message));
  }

  private onReign(reign: Reign): void {
    if (!isSchemaStand(reign)) {
      this.repetition.say('reign', 'refused a reign that names no schemas of this project');
      return;
    }
    const agreed = reconcile(OUR_SCHEMAS, reign);
    if (!agreed.ok) {
      this.fail(agreed.error);
      return;
    }
    this.topics = topicsOf(this.config.cluster, agreed.version);
    void this.sayHello();
  }

  private startTimers(parts: Parts, nowMs: () => number): void {
    const { bus, epochs, runner, lanes, inbox, forwarder } = parts;
    const meter = new HealthMeter({
      agent: this.config.name,
      nonce: this.nonce,
      epochs,
      runner,
      lanes: () => [...lanes.health(), ...forwarder.health(this.config.name)],
      refused: () => inbox.counts.refused + inbox.counts.stale,
      precision: () => ({ encodedMessages: forwarder.encodedMessages, rawFallbacks: forwarder.rawFallbacks }),
      nowMs,
    });
    const health = setInterval(() => {
      if (bus.connected) bus.publish(this.topics.health, meter.read()).catch(() => undefined);
    }, this.config.healthMs);
    const sweep = setInterval(() => {
      inbox.expireEarly();
      epochs.expire(nowMs());
    }, SWEEP_MS);
    this.undo.push(() => {
      clearInterval(health);
      clearInterval(sweep);
    });
  }

  private async sayHello(): Promise<void> {
    const { store, term, engine, probe, bus, sessions } = this.parts;
    if (!store || !term || !engine || !bus || !sessions || this.stopping !== undefined) return;
    try {
      const { name, addresses, laneHost } = this.config;
      const hello: Hello = {
        agent: name,
        nonce: this.nonce,
        ...OUR_SCHEMAS,
        softwareVersion: this.options.softwareVersion,
        term: term.value,
        addresses: addresses.length > 0 ? addresses : reachableAddresses(laneHost),
        lanePort: this.lanePort,
        cores: cores(),
        host: this.options.host?.() ?? hostId(),
        hostCores: hostCores(),
        cpuLimit: cpuLimit(),
        engineThreads: this.config.threads || cores(),
        memoryBytes: this.memoryLimit(),
        arch: process.arch,
        engine: engine.name,
        engineVersion: engine.version,
        cpu: cpuModel(),
        fingerprint: this.device(engine).fingerprint,
        probeMacsPerSecond: probe ?? 0,
        storeBytesFree: await store.freeBytes(),
        slices: [...new Set([...sessions.loaded, ...store.list()])].slice(0, SLICES_TOLD),
      };
      await bus.publish(this.topics.hello, hello);
      this.acceptance.asked();
      if (this.draining) await this.sayGone('draining');
    } catch (error) {
      // Lost with the connection: said again on the next one.
      if (!isChairError(error, 'BROKER_LOST') && !isChairError(error, 'STOPPED'))
        this.log(`hello not sent: ${toChairError(error).message}`);
    }
  }

  /** What measurements of this device are kept under. */
  private device({ name, version }: Engine): { engine: string; engineVersion: string; fingerprint: string } {
    const traits = { cpu: cpuModel(), maxKhz: maxClockKhz(), arch: process.arch, cores: cores(), cpuLimit: cpuLimit() };
    const { prepack } = this.config;
    const fingerprint = fingerprintOf({ ...traits, memoryBytes: this.memoryLimit(), engine: name, engineVersion: version, prepack });
    return { engine: name, engineVersion: version, fingerprint };
  }

  private gone(why: string): Gone {
    return { agent: this.config.name, nonce: this.nonce, why };
  }

  /** Never throws and never waits long: the Last Will says it otherwise. */
  private async sayGone(why: string): Promise<void> {
    await within(
      FAREWELL_MS,
      this.parts.bus?.publish(this.topics.gone, this.gone(why)).catch(() => undefined),
    );
  }

  private memoryLimit(): number {
    return this.options.memory?.().limitBytes ?? (this.config.memoryLimitBytes || memoryLimitBytes());
  }

  private checkDrained(): void {
    if (this.parts.epochs?.size === 0) this.drained?.();
  }

  /** Something that this process cannot get over. */
  private fail(error: ChairError): void {
    if (this.stopping !== undefined) return;
    this.failure = error;
    this.log(`${error.code}: ${error.message}`);
    void this.stop();
  }

  private async own<T>(making: Promise<T>, unmake: (made: T) => Promise<void>): Promise<T> {
    const made = await making;
    this.undo.push(() => unmake(made));
    return made;
  }
}

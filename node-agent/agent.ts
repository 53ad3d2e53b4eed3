/**
 * The agent: stores slices, holds seats, runs them, moves activations. This file composes the parts and owns their lives; it decides nothing
 * about cuts or layers. Bus, lanes and engine are made by factories, so that tests run it on fakes.
 */
import { randomBytes } from 'node:crypto';
import { ChairError, toChairError } from '../broker/errors.js';
import type { Command } from '../broker/messages.js';
import { Refusals } from '../broker/refusals.js';
import { Repetition } from '../broker/repetition.js';
import { UNPROBED } from '../models/engine/probe.js';
import { answer, type Commands } from './commands.js';
import type { AgentConfig } from './config.js';
import type { AgentOptions } from './options.js';
import { assemble, createBuffers, type Host, type Parts } from './parts.js';
import { FAREWELL_MS, Presence } from './presence.js';
import { giveUpWhenCutOff } from './profiling.js';
import { BlobStore } from './store.js';
import { TermFile } from './term.js';
import { within } from './within.js';

/** Expired joins, early messages and this machine's addresses are looked at this often: as often as health is usually said, in the same turn of the event loop. */
const SWEEP_MS = 1000;

export class Agent {
  /** Random per process start. */
  readonly nonce = randomBytes(8).toString('hex');
  /** Resolves when the agent has stopped: with what ended it, or undefined when it was asked to. */
  readonly closed: Promise<ChairError | undefined>;
  private readonly config: AgentConfig;
  private readonly nowMs: () => number;
  private readonly log: (line: string) => void;
  private readonly repetition: Repetition;
  private readonly refusals = new Refusals();
  private readonly presence: Presence;
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
    this.presence = new Presence(this.host);
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

  /** What the parts ask of, and tell, this agent. */
  private get host(): Host {
    return {
      options: this.options,
      nonce: this.nonce,
      nowMs: this.nowMs,
      log: this.log,
      repetition: this.repetition,
      refusals: this.refusals,
      topics: () => this.presence.topics,
      isDraining: () => this.draining,
      isStopping: () => this.stopping !== undefined,
      onReleased: () => this.checkDrained(),
      onFailure: (error) => this.fail(error),
    };
  }

  /** Port of the direct listener, 0 when there is none. */
  get lanePort(): number {
    return this.parts.lanes?.port ?? 0;
  }

  /** How long the engine has worked without finishing anything, ms; 0 = it idles. */
  get stuckMs(): number {
    return this.parts.runner?.stuckMs() ?? 0;
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
      await this.presence.sayGone('draining');
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
    if (this.parts.bus?.connected === true) await this.presence.sayGone('stopped');
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
    const { config, options } = this;
    const { directory, storeLimitBytes: limitBytes } = config;
    const onDamaged = (sha256: string): void => this.log(`blob ${sha256} was damaged on disk; it is fetched anew`);
    const store = await this.own(BlobStore.open({ directory, limitBytes, onDamaged }), (s) => s.close());
    const term = await TermFile.open(directory);
    if (term.damage !== undefined) this.log(`${term.damage.code}: ${term.damage.message}`);
    const engine = await this.own(options.createEngine(), (e) => e.dispose());
    const probe = (await options.probe?.(engine, config.directory)) ?? UNPROBED;
    const bus = await this.own(options.connect(this.presence.will), (b) => b.stop());
    this.parts = { store, term, engine, probe, bus };
    const buffers = createBuffers(options);
    const createLanes = async () => options.createLanes(bus, (topic, error) => this.refused(topic, error), buffers);
    const lanes = await this.own(createLanes(), (l) => l.stop());
    const parts = assemble({ store, term, engine, probe, bus, buffers, lanes }, this.host);
    this.parts = parts;
    this.undo.push(() => this.shutEngine(parts));
    await parts.fetcher.start();
    this.undo.push(() => parts.fetcher.stop());
    await this.listen(parts);
    this.undo.push(() => parts.commands.stop());
    parts.updater.start();
    this.undo.push(() => parts.updater.stop());
    const sweep = setInterval(() => this.sweep(parts), SWEEP_MS);
    this.undo.push(() => clearInterval(sweep));
    this.undo.push(this.presence.start(parts));
    this.undo.push(bus.onDisconnect(() => this.cutOff()));
    this.undo.push(giveUpWhenCutOff(bus, parts.profiler));
  }

  private sweep({ inbox, epochs, standby, peers, lanes }: Parts): void {
    const now = this.nowMs();
    inbox.expireEarly();
    epochs.expire(now);
    standby.expire(now);
    if (peers.tidy((key) => epochs.knows(key), now)) lanes.setPeers(peers.all);
    this.presence.watchAddresses();
  }

  /** Before it came to who it was for. */
  private refused(topic: string, error: Error): void {
    const { code, message } = toChairError(error);
    if (this.parts.inbox !== undefined) this.parts.inbox.counts.refused++;
    this.refusals.count(code, `${topic}: ${message}`);
    this.repetition.say(topic, `refused a message on ${topic}: ${message}`);
  }

  /** Nobody can take the seats now, and frames do not come on either. */
  private cutOff(): void {
    if (!this.draining || this.drained === undefined) return;
    this.log('the broker is gone while draining: stopping');
    this.drained();
  }

  /** Runs are ended first, so that releasing does not wait for a slice that takes seconds. */
  private async shutEngine({ epochs, runner, engine, profiler, standby }: Parts): Promise<void> {
    const measured = profiler.stop('it stops');
    const idle = standby.stop();
    const released = epochs.releaseAll();
    await engine.dispose();
    await runner.stop();
    await released;
    await measured;
    await idle;
  }

  private async listen({ bus, lanes, inbox, commands, linkProbe }: Parts): Promise<void> {
    const { config } = this;
    const { topics } = this.presence;
    lanes.on(topics.activation(config.name), (message) => inbox.activation(message));
    lanes.on(topics.cancel(config.name).name, (message) => inbox.cancel(message));
    linkProbe.start();
    this.undo.push(() => linkProbe.stop());
    await lanes.start();
    bus.onRefused((name, error) => this.refused(name, error));
    await bus.subscribe(topics.command(config.name), (command) => void this.obey(commands, command));
    await bus.subscribe(topics.reign, (reign) => this.presence.reigned(reign));
  }

  private async obey(commands: Commands, command: Command): Promise<void> {
    const reply = await answer(commands, command, this.config.name);
    if (reply === undefined) {
      this.refusals.count('EPOCH_STALE', `${command.body.kind}: a command for another process of this name`);
      return;
    }
    if (reply.code === '' && command.body.kind !== 'refuse') this.presence.acceptance.accepted(command.term);
    if (reply.code !== '') this.log(`${command.body.kind} refused: ${reply.code} ${reply.message}`);
    if (reply.code === 'EPOCH_STALE' || reply.code === 'TERM_STALE' || reply.code === 'SIGNATURE_WRONG')
      this.refusals.count(reply.code, `${command.body.kind}: ${reply.message}`);
    // A reply that is lost with the broker is asked for again: commands are idempotent.
    await this.parts.bus
      ?.publish(this.presence.topics.reply, reply)
      .catch((error) => this.log(`reply not sent: ${toChairError(error).message}`));
    // The new program is taken up when this process has ended and is started again.
    if (reply.code === '' && command.body.kind === 'update') void this.drain();
    if (reply.code === 'ENGINE_CLOSED') this.fail(new ChairError(reply.code, reply.message));
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

/** Obeys the scheduler: fences terms, then does what the command says. Every command is idempotent, since each may come twice. */
import { ChairError, type ErrorCode, isChairError, toChairError } from '../broker/errors.js';
import type { Lanes } from '../broker/lanes/lane.js';
import type { LinkProbe } from '../broker/link-probe.js';
import type { Command, CommandBody, LinkMeasurement, Measure, ProfileResult, Reply, Standing, TraceSpans } from '../broker/messages.js';
import type { Epochs, Prepared } from './epochs.js';
import type { PeerTable } from './peers.js';
import type { Profiler } from './profiling.js';
import type { Standby } from './standby.js';
import type { TermFile } from './term.js';
import type { Tracer } from './tracing.js';
import type { Updater } from './updating.js';

export interface CommandOptions {
  readonly nonce: string;
  readonly term: TermFile;
  readonly epochs: Epochs;
  readonly standby: Standby;
  readonly peers: PeerTable;
  readonly lanes: Lanes;
  readonly probe: LinkProbe;
  readonly profiler: Profiler;
  readonly updater: Updater;
  readonly tracer: Tracer;
  readonly nowMs: () => number;
  /** Frames run here, or wait to. */
  readonly isBusy: () => boolean;
  /** Throws SIGNATURE_WRONG. Default: nobody has credentials, and every command is obeyed. */
  readonly checkSeal?: (command: Command) => void;
  /** See the configuration. */
  readonly orphanMs: number;
  readonly isDraining: () => boolean;
  readonly onReleased: () => void;
  /** The scheduler does not want this agent. */
  readonly onRefused: (error: ChairError) => void;
}

/** What a reply tells besides that it was done. */
interface Done extends Prepared {
  readonly link?: LinkMeasurement;
  readonly profile?: ProfileResult;
  readonly standing?: Standing;
  readonly trace?: TraceSpans;
}

const NOTHING: Prepared = { fetchedBytes: 0, loadMs: 0 };
/** Commands that are not done again when they come again, the latest: weeks of measurements. */
const REMEMBERED = 4096;

/** The reply, or undefined for a command that was meant for another process of this name. Never throws. */
export async function answer(commands: Commands, command: Command, agent: string): Promise<Reply | undefined> {
  if (!commands.isForUs(command)) return undefined;
  const nothing = { link: null, profile: null, standing: null, trace: null };
  try {
    const { loadMs, ...done } = await commands.obey(command);
    return { id: command.id, agent, code: '', message: '', ...nothing, ...done, loadMs: Math.round(loadMs), clockUs: commands.clockUs };
  } catch (error) {
    const { code, message } = toChairError(error);
    return { id: command.id, agent, code, message: message.slice(0, 2000), ...NOTHING, ...nothing, clockUs: commands.clockUs };
  }
}

export class Commands {
  private orphans: NodeJS.Timeout | undefined;
  /** By id: a broker that keeps a signed command and says it again later starts nothing by that, and a scheduler that lost the answer gets it. */
  private readonly done = new Map<string, Promise<Done>>();
  private stopped = false;
  /** Commands of schedulers that were replaced. */
  refused = 0;

  constructor(private readonly options: CommandOptions) {}

  /** This process's clock, as traces use it. */
  get clockUs(): number {
    return 1000 * this.options.nowMs();
  }

  isForUs(command: Command): boolean {
    return !this.stopped && command.nonce === this.options.nonce;
  }

  /** Throws SIGNATURE_WRONG, TERM_STALE for a scheduler that was replaced, AGENT_STORE_FULL when its term cannot be written, and what the command itself throws. */
  async obey(command: Command): Promise<Done> {
    this.options.checkSeal?.(command);
    await this.fence(command);
    return this.run(command.body, command);
  }

  /** The peer joins the table, so that the lane that is measured is the one that frames would use. */
  private async measure({ peer, budgetMs, budgetBytes, evenIfBusy, expect }: Measure): Promise<Done> {
    const { peers, lanes, probe, isBusy } = this.options;
    if (!expect && !evenIfBusy && isBusy()) {
      throw new ChairError('AGENT_BUSY', 'frames run here; a measurement would slow them down and be wrong', { todo: 'Ask again later.' });
    }
    peers.borrow(peer, this.options.nowMs());
    lanes.setPeers(peers.all);
    if (expect) return NOTHING;
    const link = await probe.measure(peer.agent, { budgetMs, budgetBytes });
    return { ...NOTHING, link };
  }

  private once(id: string, act: () => Promise<Done>): Promise<Done> {
    const before = this.done.get(id);
    if (before !== undefined) return before;
    const now = act();
    this.done.set(id, now);
    if (this.done.size > REMEMBERED) this.done.delete(this.done.keys().next().value ?? '');
    return now;
  }

  stop(): void {
    this.stopped = true;
    clearTimeout(this.orphans);
  }

  private async fence({ term, scheduler }: Command): Promise<void> {
    const { term: highest, epochs, orphanMs } = this.options;
    const isNew = term > highest.value;
    try {
      await highest.obey(term, scheduler);
    } catch (error) {
      if (isChairError(error, 'TERM_STALE')) this.refused++;
      throw error;
    }
    if (!isNew || this.stopped) return;
    // The new scheduler may go on using what is loaded; what it has not asked for by then, nobody will release.
    // Whoever asked for measurements is gone, and asks again if he still wants them.
    this.options.profiler.giveUpAll('another scheduler reigns');
    clearTimeout(this.orphans);
    this.orphans = setTimeout(() => void epochs.releaseBefore(term), orphanMs);
  }

  private async run(body: CommandBody, { id, term, deadlineMs }: Command): Promise<Done> {
    const { epochs, peers, lanes } = this.options;
    switch (body.kind) {
      case 'prepare':
        if (this.options.isDraining()) throw new ChairError('AGENT_BUSY', 'the agent is draining', { todo: 'Seat it elsewhere' });
        peers.prepare({ term, ...body.prepare }, body.prepare.peers);
        lanes.setPeers(peers.all);
        return epochs.prepare(term, body.prepare, deadlineMs);
      case 'commit':
        epochs.commit({ term, ...body.commit });
        return NOTHING;
      case 'release':
        await epochs.release({ term, ...body.release });
        this.options.onReleased();
        return NOTHING;
      case 'peers':
        if (peers.replace(term, body.peers.version, body.peers.peers, body.peers.out)) lanes.setPeers(peers.all);
        return NOTHING;
      case 'refuse':
        this.options.onRefused(refusal(body.refuse.code, body.refuse.message));
        return NOTHING;
      case 'ping':
        return NOTHING;
      case 'measure':
        return this.once(id, () => this.measure(body.measure));
      case 'standby':
        if (this.options.isDraining()) throw new ChairError('AGENT_BUSY', 'the agent is draining', { todo: 'Ask another one.' });
        return { ...NOTHING, standing: await this.options.standby.set(body.standby) };
      case 'update':
        if (this.options.isDraining()) throw new ChairError('AGENT_BUSY', 'the agent is draining', { todo: 'Ask again when it is back.' });
        return { ...NOTHING, fetchedBytes: await this.options.updater.take(body.update, deadlineMs) };
      case 'confirm':
        await this.options.updater.confirm(body.confirm.name);
        return NOTHING;
      case 'trace': {
        const { tracer } = this.options;
        if (body.trace.collect) return { ...NOTHING, trace: tracer.read(body.trace.deployment) };
        return this.once(id, async () => {
          tracer.start(body.trace);
          return NOTHING;
        });
      }
      case 'profile':
        if (this.options.isDraining()) throw new ChairError('AGENT_BUSY', 'the agent is draining', { todo: 'Measure on another one.' });
        return { ...NOTHING, profile: await this.options.profiler.run(id, body.profile, deadlineMs) };
      case 'stopProfile':
        this.options.profiler.giveUp(body.stopProfile.id, 'nobody waits for it any more');
        return NOTHING;
    }
  }
}

function refusal(code: string, message: string): ChairError {
  const known = isChairError(Object.assign(new Error(), { code })) ? (code as ErrorCode) : 'INTERNAL';
  return new ChairError(known, `the scheduler refused this agent: ${message}`);
}

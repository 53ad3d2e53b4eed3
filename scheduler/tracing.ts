/** Traces for clients: asks the agents of a deployment to note what becomes of frames, measures what their clocks say against the gateway's, and collects. */
import { ChairError, toChairError } from '../broker/errors.js';
import type { TraceReport, TraceRequest, TraceSpans } from '../broker/messages.js';
import { between, type ClockOffset, type ClockSample, offsetOf } from './clock-offset.js';
import type { Commands } from './commands.js';
import type { Placed } from './deployment.js';
import type { Dispatcher } from './dispatcher.js';
import type { Registry } from './registry.js';

/** Round trips for one offset: the shortest counts. */
const PINGS = 12;
const PING_MS = 2000;
const ASK_MS = 5000;
/** Of one request; the client divides more. */
const MOST_FRAMES = 10_000;
const MOST_MS = 600_000;

export interface TracingOptions {
  readonly registry: Pick<Registry, 'get'>;
  readonly commands: Pick<Commands, 'send'>;
  readonly dispatcher: Pick<Dispatcher, 'trace'>;
  readonly serving: (deployment: string) => Pick<Placed, 'plan' | 'nonces'> | undefined;
  readonly term: () => number;
  readonly now: () => number;
}

export class Tracing {
  readonly #o: TracingOptions;
  /** By process, from the beginning of a trace. */
  readonly #offsets = new Map<string, ClockOffset>();

  constructor(options: TracingOptions) {
    this.#o = options;
  }

  /** Throws DEPLOYMENT_NOT_READY, USAGE. What an agent cannot tell is said in its row. */
  async answer(request: TraceRequest): Promise<TraceReport> {
    const { deployment } = request;
    const frames = Math.min(MOST_FRAMES, request.frames);
    const forMs = Math.min(MOST_MS, request.forMs);
    if (!(frames >= 1 && forMs > 0)) {
      throw new ChairError('USAGE', 'a trace of nothing', {
        expected: 'at least one frame and some time',
        came: `${request.frames} in ${request.forMs} ms`,
      });
    }
    const placed = this.#o.serving(deployment);
    if (placed === undefined) {
      throw new ChairError('DEPLOYMENT_NOT_READY', `deployment '${deployment}' has no plan in force`, {
        todo: 'See `musical-chair status`.',
      });
    }
    const trace = { deployment, frames, forMs, collect: request.collect };
    const agents = await Promise.all([...placed.nonces].map(([agent, nonce]) => this.#one(agent, nonce, trace)));
    // Last: what the dispatcher noted of a frame, all agents were ready for.
    if (!request.collect) this.#o.dispatcher.trace.start(trace);
    return { deployment, epoch: placed.plan.epoch, agents: [this.#o.dispatcher.trace.read(deployment), ...agents] };
  }

  /** Never rejects. */
  async #one(
    agent: string,
    nonce: string,
    trace: { deployment: string; frames: number; forMs: number; collect: boolean },
  ): Promise<TraceSpans> {
    const { commands, term } = this.#o;
    const key = `${agent} ${nonce}`;
    const nothing = { agent, offsetUs: 0, errorUs: 0, frames: 0, dropped: 0, spans: [] };
    try {
      // What slows the answers down must not be the collecting itself: the clock is asked first.
      const now = await this.#offset(agent, nonce);
      const offset = trace.collect ? between(this.#offsets.get(key), now) : now;
      if (offset === undefined) return { ...nothing, why: 'its clock could not be compared' };
      if (trace.collect) this.#offsets.delete(key);
      else this.#offsets.set(key, offset);
      const reply = await commands.send(agent, nonce, term(), { kind: 'trace', trace }, ASK_MS);
      return { ...(reply.trace ?? { ...nothing, why: '' }), agent, ...offset };
    } catch (error) {
      return { ...nothing, why: toChairError(error).message.slice(0, 1000) };
    }
  }

  async #offset(agent: string, nonce: string): Promise<ClockOffset | undefined> {
    const { commands, term, now } = this.#o;
    const samples: ClockSample[] = [];
    for (let i = 0; i < PINGS; i++) {
      const sentUs = 1000 * now();
      const { clockUs } = await commands.send(agent, nonce, term(), { kind: 'ping', ping: { padBytes: 0 } }, PING_MS);
      samples.push({ sentUs, theirsUs: clockUs, cameUs: 1000 * now() });
    }
    return offsetOf(samples);
  }
}

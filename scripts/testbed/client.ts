/**
 * A client inside the testbed's network, called from outside it: the methods of ChairClient, and a load of random frames. A process has one
 * network namespace, so the caller's own sockets could not reach the testbed.
 */
import { ChairError, isErrorCode } from '../../broker/errors.js';
import type { PeersReport, PlanReport, ProfileReport, StatusReport } from '../../broker/messages.js';
import type { ChairClient, InferResult, ProfileOptions } from '../../scheduler/client.js';
import type { Child } from '../children.js';
import type { Enough, SteadyCount } from './steady.js';

export interface LoadRequest {
  readonly deployment: string;
  readonly frames: number;
  /** Frames outstanding at once. */
  readonly inFlight: number;
  readonly deadlineMs?: number;
  /** No frame is sent after so long; default: all are. */
  readonly forMs?: number;
  /** No more than so many are sent in a second, evenly; default: as fast as they are answered. */
  readonly perSecond?: number;
  /** Ends the load as soon as so much has come steadily, or after so long. */
  readonly steady?: Enough & { readonly mostMs: number };
  /** Of the random inputs. */
  readonly seed?: number;
}

export interface LoadReport {
  /** As the client sees it, in the order the results came. */
  readonly latenciesMs: readonly number[];
  /** When each result came, from the start of the load. */
  readonly endedAtMs: readonly number[];
  /** Codes of the frames that failed. */
  readonly failures: readonly string[];
  /** Frames that needed more than one attempt. */
  readonly retried: number;
  readonly lane: string;
  /** What came steadily; null when nobody asked for it, or the load ended before. */
  readonly steady: SteadyCount | null;
}

interface Methods {
  deploy: ChairClient['deploy'];
  plan: ChairClient['plan'];
  adjust: ChairClient['adjust'];
  undeploy: ChairClient['undeploy'];
  status: ChairClient['status'];
  infer: ChairClient['infer'];
  /** Without progress. */
  profile: (options: ProfileOptions) => Promise<ProfileReport>;
  links: ChairClient['links'];
  peers: ChairClient['peers'];
  load: (request: LoadRequest) => Promise<LoadReport>;
}

export type Call = {
  [M in keyof Methods]: { readonly id: number; readonly method: M; readonly args: Parameters<Methods[M]> };
}[keyof Methods];

export interface Reply {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: { readonly code: string; readonly message: string };
}

interface Waiting {
  readonly resolve: (value: never) => void;
  readonly reject: (error: Error) => void;
}

export class TestbedClient implements Methods {
  readonly #child: Child;
  readonly #waiting = new Map<number, Waiting>();
  #calls = 0;

  constructor(child: Child) {
    this.#child = child;
    child.process.on('message', (message) => this.#settle(message as Reply));
    void child.ended.then(() => {
      for (const { reject } of this.#waiting.values()) reject(new ChairError('STOPPED', `the client ended: ${child.failure().message}`));
      this.#waiting.clear();
    });
  }

  deploy(...args: Parameters<Methods['deploy']>): Promise<PlanReport> {
    return this.#call('deploy', args);
  }

  plan(...args: Parameters<Methods['plan']>): Promise<PlanReport> {
    return this.#call('plan', args);
  }

  adjust(...args: Parameters<Methods['adjust']>): Promise<PlanReport> {
    return this.#call('adjust', args);
  }

  undeploy(...args: Parameters<Methods['undeploy']>): Promise<void> {
    return this.#call('undeploy', args);
  }

  status(...args: Parameters<Methods['status']>): Promise<StatusReport> {
    return this.#call('status', args);
  }

  infer(...args: Parameters<Methods['infer']>): Promise<InferResult> {
    return this.#call('infer', args);
  }

  profile(...args: Parameters<Methods['profile']>): Promise<ProfileReport> {
    return this.#call('profile', args);
  }

  links(...args: Parameters<Methods['links']>): Promise<StatusReport> {
    return this.#call('links', args);
  }

  peers(...args: Parameters<Methods['peers']>): Promise<PeersReport> {
    return this.#call('peers', args);
  }

  load(...args: Parameters<Methods['load']>): Promise<LoadReport> {
    return this.#call('load', args);
  }

  /** Resolves with the status when so many agents are ready. Throws NO_AGENTS. */
  async untilReady(agents: number, withinMs = 60_000): Promise<StatusReport> {
    const until = performance.now() + withinMs;
    for (;;) {
      const report = await this.status();
      const ready = report.agents.filter((a) => a.state === 'ready').length;
      if (ready >= agents) return report;
      if (performance.now() > until) {
        throw new ChairError('NO_AGENTS', `not all agents joined within ${withinMs} ms`, { expected: `${agents} ready`, came: `${ready}` });
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  async close(): Promise<void> {
    await this.#child.stop();
  }

  #call<M extends keyof Methods>(method: M, args: Parameters<Methods[M]>): ReturnType<Methods[M]> {
    const id = ++this.#calls;
    const reply = new Promise((resolve, reject) => {
      if (!this.#child.process.connected) {
        reject(new ChairError('STOPPED', 'the client has ended'));
        return;
      }
      this.#waiting.set(id, { resolve, reject });
      this.#child.process.send({ id, method, args });
    });
    return reply as ReturnType<Methods[M]>;
  }

  #settle({ id, value, error }: Reply): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error === undefined) waiting?.resolve(value as never);
    else waiting?.reject(new ChairError(isErrorCode(error.code) ? error.code : 'INTERNAL', error.message));
  }
}

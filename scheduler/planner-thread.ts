/**
 * Planners run in a thread of their own. One question at a time, within a budget; a thread that crashes or takes longer is ended, its question fails with
 * PLANNER_FAILED, and the next question starts a new one. Models are sent once and remembered there.
 */
import { Worker } from 'node:worker_threads';
import { ChairError } from '../broker/errors.js';
import type { Model } from '../models/model.js';
import type { PlanDraft, PlanProblem, PlanRefusal } from './planners/problem.js';

/** All of a problem but the model. */
export type Question = Omit<PlanProblem, 'facts'>;

export type PlannerRequest =
  | { readonly kind: 'model'; readonly model: number; readonly data: Model }
  | { readonly kind: 'forget'; readonly model: number }
  | { readonly kind: 'plan'; readonly id: number; readonly model: number; readonly planner: string; readonly question: Question };

export type PlannerReply =
  | { readonly id: number; readonly plan: PlanDraft | PlanRefusal }
  | { readonly id: number; readonly failed: string };

export interface PlannerThreadOptions {
  /** A plan that takes longer fails. Default PLANNING_MS. */
  readonly budgetMs?: number;
  /** Default: the thread of planner-worker.ts. */
  readonly start?: () => Worker;
}

/** Far more than any plan has taken; it bounds what a planner with a defect can hold up. */
export const PLANNING_MS = 60_000;
/** Models kept in the thread. */
const MOST_MODELS = 8;

interface Running {
  readonly worker: Worker;
  /** Ids of the models it has, oldest first. */
  readonly models: number[];
}

export class PlannerThread {
  readonly #o: PlannerThreadOptions;
  readonly #ids = new WeakMap<Model, number>();
  #running: Running | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #next = 1;
  #stopped = false;

  constructor(options: PlannerThreadOptions = {}) {
    this.#o = options;
  }

  /** Starts the thread ahead of its first question: that takes a second of CPU, and many seconds on a busy machine. */
  warm(): void {
    if (!this.#stopped) this.#thread();
  }

  /** Throws PLANNER_FAILED: it crashed, or took longer than its budget; STOPPED. */
  solve(model: Model, planner: string, question: Question): Promise<PlanDraft | PlanRefusal> {
    const answer = this.#last.then(() => this.#ask(model, planner, question));
    this.#last = answer.catch(() => undefined);
    return answer;
  }

  /** Idempotent. What is being planned fails. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#end();
  }

  async #ask(model: Model, planner: string, question: Question): Promise<PlanDraft | PlanRefusal> {
    if (this.#stopped) throw new ChairError('STOPPED', 'the planners were stopped');
    const { worker, models } = this.#thread();
    const known = this.#ids.get(model) ?? this.#next++;
    this.#ids.set(model, known);
    if (!models.includes(known)) {
      this.#send(worker, { kind: 'model', model: known, data: model });
      models.push(known);
      const oldest = models.length > MOST_MODELS ? models.shift() : undefined;
      if (oldest !== undefined) this.#send(worker, { kind: 'forget', model: oldest });
    }
    const id = this.#next++;
    this.#send(worker, { kind: 'plan', id, model: known, planner, question });
    const reply = await this.#reply(worker, planner, id);
    if ('plan' in reply) return reply.plan;
    throw new ChairError('PLANNER_FAILED', `planner ${planner} failed: ${reply.failed}`, {
      todo: 'Please report this; deploy with another planner.',
    });
  }

  #send(worker: Worker, request: PlannerRequest): void {
    worker.postMessage(request);
  }

  async #reply(worker: Worker, planner: string, id: number): Promise<PlannerReply> {
    const { budgetMs = PLANNING_MS } = this.#o;
    // While a plan is made, the process must not end for want of other work.
    worker.ref();
    let settle: () => void = () => undefined;
    try {
      return await new Promise<PlannerReply>((resolve, reject) => {
        const failed = (came: string): void => {
          if (this.#running?.worker === worker) this.#running = undefined;
          void worker.terminate();
          reject(
            this.#stopped
              ? new ChairError('STOPPED', 'the planners were stopped')
              : new ChairError('PLANNER_FAILED', `planner ${planner} gave no plan`, {
                  expected: `an answer within ${Math.round(budgetMs / 1000)} s`,
                  came,
                  todo: 'What serves goes on serving. Deploy with another planner (--planner replicas), and please report this.',
                }),
          );
        };
        const onMessage = (reply: PlannerReply): void => {
          if (reply.id === id) resolve(reply);
        };
        const onError = (error: Error): void => failed(`its thread crashed: ${error.message}`);
        const onExit = (code: number): void => failed(`its thread ended with code ${code}`);
        const timer = setTimeout(() => failed('none'), budgetMs);
        worker.on('message', onMessage);
        worker.on('error', onError);
        worker.on('exit', onExit);
        settle = () => {
          clearTimeout(timer);
          worker.off('message', onMessage);
          worker.off('error', onError);
          worker.off('exit', onExit);
        };
      });
    } finally {
      settle();
      worker.unref();
    }
  }

  #thread(): Running {
    if (this.#running !== undefined) return this.#running;
    const worker = (this.#o.start ?? startWorker)();
    const running: Running = { worker, models: [] };
    // Between questions, too, an end must be noticed and an error must not be uncaught.
    const gone = (): void => {
      if (this.#running === running) this.#running = undefined;
    };
    worker.on('error', gone);
    worker.on('exit', gone);
    worker.unref();
    this.#running = running;
    return running;
  }

  async #end(): Promise<void> {
    const worker = this.#running?.worker;
    this.#running = undefined;
    await worker?.terminate();
  }
}

/** The worker's file beside this one: TypeScript in a checkout (tsx must be registered in each thread), JavaScript when compiled. */
function startWorker(): Worker {
  const source = import.meta.url.endsWith('.ts');
  // No inherited flags: an `--import` meant for the main thread (tsx, a test runner) would run in the worker too.
  return new Worker(new URL(source ? './planner-worker.mjs' : './planner-worker.js', import.meta.url), { execArgv: [] });
}

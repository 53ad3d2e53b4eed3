/**
 * What becomes of the frames of one deployment: a state machine without I/O, clock or randomness. Every method takes the time and
 * returns what the shell (dispatcher.ts) has to do.
 *
 *   queued -> running -> done -> (acknowledged, or stored too long) forgotten
 *              |   ^
 *              v   |
 *             waiting      (for a pause to pass, or for a plan whose route works)
 *
 * Invariants: one answer per (client, sequence) until the client acknowledges it, whatever comes late, twice or never; at most
 * `attempts` attempts; re-issues count against the budget of frames in flight.
 * Long, because every method may end in an answer, which these invariants tie to all the others; what stands alone is in attempt.ts and router.ts.
 */
import type { ErrorCode } from '../broker/errors.js';
import { type Attempt, beginAttempt, cancelOf, survivesLoss, survivesTrouble, survivesWithout } from './attempt.js';
import {
  type Answer,
  ATTEMPTS,
  type AttemptTrouble,
  type FrameEffect,
  type FrameError,
  type FrameLimits,
  type InForce,
  MOST_DEADLINE_MS,
  type Submission,
} from './frame-types.js';
import { LatencyStats } from './latency-stats.js';
import { type Route, Router } from './router.js';

const PATIENCE = 4;

interface Frame<Input> {
  readonly client: string;
  readonly sequence: number;
  readonly input: Input;
  readonly bytes: number;
  readonly deadlineAtMs: number;
  readonly submittedAtMs: number;
  number: number;
  admittedAtMs: number;
  attempts: number;
  live: Attempt[];
  /** While nothing is live: not before this time, and not through these agents if it can be helped. */
  resumeAtMs: number;
  avoid: Set<string>;
  lastTrouble: string;
}

interface Kept<Output> {
  readonly answer: Answer<Output>;
  readonly bytes: number;
  readonly atMs: number;
}

export class FrameTable<Input, Output> {
  readonly #limits: FrameLimits;
  readonly #queue = new Map<string, Frame<Input>>();
  /** Admitted and unfinished, by number, in order of admission. */
  readonly #admitted = new Map<number, Frame<Input>>();
  readonly #byKey = new Map<string, Frame<Input>>();
  readonly #kept = new Map<string, Kept<Output>>();
  readonly #lost = new Set<string>();
  readonly #suspects: ReadonlySet<string>;
  readonly #latency = new LatencyStats();
  #keptBytes = 0;
  #queueBytes = 0;
  #router: Router | undefined;
  #expectedMs = 0;
  /** When the newest of the attempts that finished had begun. */
  #newestDoneMs = Number.NEGATIVE_INFINITY;
  #budget = 0;
  #noPlanWhy = 'the plan is being made';
  #nextNumber: number;
  #removed = false;
  /** Frames that arrived, each once, admitted or not. */
  submitted = 0;
  completed = 0;
  failed = 0;
  reissued = 0;
  duplicates = 0;

  /**
   * `firstNumber`: must exceed every frame number used before under this deployment's name and term. `suspects`: agents that have fallen silent, as of now; where
   * there is another way, frames do not go through them.
   */
  constructor(limits: FrameLimits, firstNumber = 1, suspects: ReadonlySet<string> = new Set()) {
    this.#limits = limits;
    this.#nextNumber = firstNumber;
    this.#suspects = suspects;
  }

  /** Every admitted frame below this number is finished. */
  get lowWater(): number {
    for (const number of this.#admitted.keys()) return number;
    return this.#nextNumber;
  }

  get nextNumber(): number {
    return this.#nextNumber;
  }

  get inFlight(): number {
    let units = 0;
    for (const frame of this.#admitted.values()) units += Math.max(1, frame.live.length);
    return units;
  }

  get queued(): number {
    return this.#queue.size;
  }

  /** True while a result of this frame is still wanted, and the attempt is one that was made. */
  awaits(number: number, attempt: number): boolean {
    const frame = this.#admitted.get(number);
    return frame !== undefined && attempt >= 1 && attempt <= frame.attempts;
  }

  /** True while the attempt runs, or may still answer: what is on its way for it is wanted. */
  isLive(number: number, attempt: number): boolean {
    return this.#admitted.get(number)?.live.some((a) => a.attempt === attempt) === true;
  }

  /** False for an agent that has nothing to do with this attempt: it can know of no trouble there. */
  concerns(number: number, attempt: number, agent: string): boolean {
    const live = this.#admitted.get(number)?.live.find((a) => a.attempt === attempt);
    return live === undefined || live.agents.has(agent) || live.missing.has(agent);
  }

  /** True while an attempt runs, or may still answer, in this epoch. */
  usesEpoch(epoch: number): boolean {
    for (const frame of this.#admitted.values()) if (frame.live.some((a) => a.router.epoch === epoch)) return true;
    return false;
  }

  /** True while an attempt through this agent runs, or may still answer, in this epoch. */
  usesAgent(epoch: number, agent: string): boolean {
    for (const frame of this.#admitted.values()) {
      if (frame.live.some((a) => a.router.epoch === epoch && a.agents.has(agent))) return true;
    }
    return false;
  }

  stats(nowMs: number): { p50Ms: number; p95Ms: number; framesPerSecond: number } {
    return {
      p50Ms: this.#latency.quantileMs(0.5),
      p95Ms: this.#latency.quantileMs(0.95),
      framesPerSecond: this.#latency.framesPerSecond(nowMs),
    };
  }

  /** A frame arrives, or arrives again: then it joins the one under way, or gets the stored answer. */
  submit(submission: Submission<Input>, nowMs: number): FrameEffect<Input, Output>[] {
    const { client, sequence, input, bytes } = submission;
    const key = keyOf(client, sequence);
    const kept = this.#kept.get(key);
    if (kept !== undefined) return [kept.answer];
    if (this.#byKey.has(key)) return [];
    if (this.#removed) return [refusal(submission, 'DEPLOYMENT_REMOVED', 'the deployment was removed')];
    if (this.#queue.size >= this.#limits.queueFrames || this.#queueBytes + bytes > this.#limits.queueBytes) {
      const message = `${this.#queue.size} frames (${this.#queueBytes} bytes) wait already; send fewer at once, or slower`;
      return [refusal(submission, 'FRAME_REFUSED', message)];
    }
    const frame: Frame<Input> = {
      client,
      sequence,
      input,
      bytes,
      deadlineAtMs: nowMs + Math.min(MOST_DEADLINE_MS, submission.deadlineMs > 0 ? submission.deadlineMs : this.#limits.deadlineMs),
      submittedAtMs: nowMs,
      number: 0,
      admittedAtMs: nowMs,
      attempts: 0,
      live: [],
      resumeAtMs: nowMs,
      avoid: new Set(),
      lastTrouble: '',
    };
    this.#queue.set(key, frame);
    this.#queueBytes += bytes;
    this.#byKey.set(key, frame);
    this.submitted++;
    return this.#pump(nowMs);
  }

  /** A new plan is in force. Frames under way in older epochs go on; those that wait for a route are issued at once. */
  install(plan: InForce, nowMs: number): FrameEffect<Input, Output>[] {
    this.#router = new Router(plan);
    this.#expectedMs = plan.expectedMs;
    this.#budget = plan.budget;
    this.#lost.clear();
    for (const agent of plan.absent ?? []) this.#lost.add(agent);
    for (const frame of this.#admitted.values()) {
      frame.resumeAtMs = nowMs;
      frame.avoid.clear();
      // The plan is new because somebody is silent, or his link slow: who counts on him is not waited for.
      if (this.#wayAround()) for (const attempt of frame.live) attempt.overdue ||= this.#isStuck(frame, attempt, nowMs);
    }
    return this.#pump(nowMs);
  }

  /** No plan is in force: frames wait for one until their deadline. */
  withdraw(why: string): void {
    this.#router = undefined;
    this.#noPlanWhy = why;
  }

  /** All boxes of the result arrived. The first attempt to finish wins. */
  complete(number: number, attempt: number, output: Output, bytes: number, nowMs: number): FrameEffect<Input, Output>[] {
    const frame = this.#admitted.get(number);
    if (frame === undefined) {
      this.duplicates++;
      return [];
    }
    const winner = frame.live.find((a) => a.attempt === attempt);
    if (winner !== undefined) {
      this.#endAttempt(frame, winner, nowMs - winner.sinceMs);
      this.#newestDoneMs = Math.max(this.#newestDoneMs, winner.sinceMs);
      this.#latency.add(nowMs - winner.sinceMs, nowMs);
    }
    this.completed++;
    return [...this.#finish(frame, { output }, bytes, nowMs), ...this.#pump(nowMs)];
  }

  /** A send or a run failed for one attempt. */
  trouble(trouble: AttemptTrouble, nowMs: number): FrameEffect<Input, Output>[] {
    const frame = this.#admitted.get(trouble.frame);
    const attempt = frame?.live.find((a) => a.attempt === trouble.attempt);
    if (frame === undefined || attempt === undefined) return [];
    frame.lastTrouble = `${trouble.agent}: ${trouble.message} (${trouble.code})`;
    if (survivesTrouble(attempt, trouble)) return [];
    const effects = this.#drop(frame, attempt);
    for (const agent of [...attempt.missing, ...attempt.unheard.flatMap(([culprit = '']) => culprit)]) frame.avoid.add(agent);
    frame.avoid.add(trouble.peer === '' ? trouble.agent : trouble.peer);
    // Another route is taken at once. The same one again only after a pause, in which a loss is noticed and a new plan may come;
    // unless the engine failed, which says nothing about the route.
    const otherRoute = this.#router?.hasRoute((agent) => this.#lost.has(agent) || frame.avoid.has(agent)) === true;
    const engineFailed = trouble.code.startsWith('ENGINE_');
    frame.resumeAtMs = otherRoute || engineFailed ? nowMs : nowMs + this.#limits.pauseMs * frame.attempts;
    return [...effects, ...this.#pump(nowMs)];
  }

  /** An agent is gone: attempts whose route touches it will never finish. */
  agentLost(agent: string, nowMs: number): FrameEffect<Input, Output>[] {
    this.#lost.add(agent);
    const touched = this.#through(agent, `agent ${agent} was lost`);
    return [...touched, ...this.#pump(nowMs)];
  }

  /** The agent is there, but somewhere else: what was on its way to where it was is gone. */
  agentMoved(agent: string, nowMs: number): FrameEffect<Input, Output>[] {
    const touched = this.#through(agent, `agent ${agent} moved to another address`);
    return [...touched, ...this.#pump(nowMs)];
  }

  /** No new frames through this agent; those under way go on. */
  retire(agent: string): void {
    this.#lost.add(agent);
  }

  /** It was only silent: routes through it may be used again. */
  agentBack(agent: string, nowMs: number): FrameEffect<Input, Output>[] {
    return this.#lost.delete(agent) ? this.#pump(nowMs) : [];
  }

  /** The client has the answer. */
  acknowledge(client: string, sequence: number): void {
    this.#forget(keyOf(client, sequence));
  }

  /** Time passes: deadlines, attempts that take too long, pauses that are over, results nobody fetched. */
  tick(nowMs: number): FrameEffect<Input, Output>[] {
    const effects: FrameEffect<Input, Output>[] = [];
    const stuckAfterMs = this.#wayAround() ? Math.max(this.#expectedMs, this.#latency.quantileMs(0.99)) : Number.POSITIVE_INFINITY;
    for (const frame of [...this.#byKey.values()]) {
      if (nowMs >= frame.deadlineAtMs) {
        this.failed++;
        effects.push(...this.#finish(frame, { error: this.#deadlineError(frame, nowMs) }, 0, nowMs));
        continue;
      }
      for (const attempt of frame.live)
        attempt.overdue ||= this.#isOverdue(attempt, nowMs) || this.#isStuck(frame, attempt, nowMs - stuckAfterMs);
    }
    for (const [key, kept] of this.#kept) {
      if (nowMs - kept.atMs < this.#limits.keptMs) break;
      this.#forget(key);
    }
    return [...effects, ...this.#pump(nowMs)];
  }

  /** The deployment goes: every unfinished frame is answered. */
  remove(nowMs: number): FrameEffect<Input, Output>[] {
    this.#removed = true;
    this.#router = undefined;
    const error: FrameError = { code: 'DEPLOYMENT_REMOVED', message: 'the deployment was removed while the frame was under way' };
    const frames = [...this.#byKey.values()];
    this.failed += frames.length;
    return frames.flatMap((frame) => this.#finish(frame, { error }, 0, nowMs));
  }

  /** Issues what can be issued: first admitted frames that lost their attempt, then new ones within the budget. */
  #pump(nowMs: number): FrameEffect<Input, Output>[] {
    const effects: FrameEffect<Input, Output>[] = [];
    for (const frame of [...this.#admitted.values()]) {
      if (frame.live.some((a) => !a.overdue) || nowMs < frame.resumeAtMs) continue;
      if (frame.attempts < ATTEMPTS) effects.push(...this.#issue(frame, nowMs));
      else if (frame.live.length === 0) {
        this.failed++;
        const message = `the frame failed ${frame.attempts} times; last: ${frame.lastTrouble}`;
        effects.push(...this.#finish(frame, { error: { code: 'FRAME_FAILED', message } }, 0, nowMs));
      }
    }
    let units = this.inFlight;
    for (const [key, frame] of this.#queue) {
      if (units >= this.#budget || this.#router?.hasRoute((agent) => this.#lost.has(agent)) !== true) break;
      this.#unqueue(key, frame);
      frame.number = this.#nextNumber++;
      frame.admittedAtMs = nowMs;
      this.#admitted.set(frame.number, frame);
      effects.push(...this.#issue(frame, nowMs));
      units++;
    }
    return effects;
  }

  #issue(frame: Frame<Input>, nowMs: number): FrameEffect<Input, Output>[] {
    const router = this.#router;
    const route = router && this.#routeFor(frame, router);
    if (router === undefined || route === undefined) return [];
    frame.attempts++;
    if (frame.attempts > 1) this.reissued++;
    frame.avoid.clear();
    const attempt = frame.attempts;
    const begun = beginAttempt(attempt, router, route, this.#lost, nowMs);
    frame.live.push(begun);
    router.started(route);
    const { number, input } = frame;
    const remainingMs = frame.deadlineAtMs - nowMs;
    return [{ kind: 'issue', frame: number, attempt, epoch: router.epoch, route, remainingMs, input, without: new Set(begun.missing) }];
  }

  /** Never through who is gone; if it can be helped, not through who failed this very frame, nor through who has fallen silent. */
  #routeFor({ avoid }: Frame<Input>, router: Router): Route | undefined {
    const [lost, suspects] = [this.#lost, this.#suspects];
    const ways = [[lost, avoid, suspects], [lost, avoid], [lost, suspects], [lost]].filter((sets) =>
      sets.every((set) => set === lost || set.size > 0),
    );
    for (const sets of ways) {
      const route = router.pick((agent) => sets.some((set) => set.has(agent)));
      if (route !== undefined) return route;
    }
    return undefined;
  }

  /** Ends the attempts whose route touches the agent, unless they do without it. */
  #through(agent: string, why: string): FrameEffect<Input, Output>[] {
    const effects: FrameEffect<Input, Output>[] = [];
    for (const frame of this.#admitted.values()) {
      for (const attempt of [...frame.live]) {
        if (!attempt.agents.has(agent) || survivesLoss(attempt, agent)) continue;
        frame.lastTrouble = why;
        effects.push(...this.#drop(frame, attempt));
      }
    }
    return effects;
  }

  #drop(frame: Frame<Input>, attempt: Attempt): FrameEffect<Input, Output>[] {
    this.#endAttempt(frame, attempt);
    return [cancelOf(frame.number, attempt)];
  }

  #endAttempt(frame: Frame<Input>, attempt: Attempt, latencyMs?: number): void {
    attempt.router.ended(attempt.route, latencyMs);
    frame.live = frame.live.filter((a) => a !== attempt);
  }

  #finish(frame: Frame<Input>, outcome: { output: Output } | { error: FrameError }, bytes: number, nowMs: number) {
    const effects: FrameEffect<Input, Output>[] = frame.live.map((attempt) => cancelOf(frame.number, attempt));
    for (const attempt of frame.live) attempt.router.ended(attempt.route);
    frame.live = [];
    const key = keyOf(frame.client, frame.sequence);
    this.#unqueue(key, frame);
    this.#admitted.delete(frame.number);
    this.#byKey.delete(key);
    const { client, sequence, attempts, number } = frame;
    const latencyMs = nowMs - frame.admittedAtMs;
    const answer: Answer<Output> = { kind: 'answer', frame: number, client, sequence, attempts, latencyMs, ...outcome };
    this.#kept.set(key, { answer, bytes, atMs: nowMs });
    this.#keptBytes += bytes;
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= this.#limits.keptResults && this.#keptBytes <= this.#limits.keptBytes) break;
      this.#forget(oldest);
    }
    return [...effects, answer];
  }

  #unqueue(key: string, frame: Frame<Input>): void {
    if (this.#queue.delete(key)) this.#queueBytes -= frame.bytes;
  }

  #forget(key: string): void {
    const kept = this.#kept.get(key);
    if (kept === undefined) return;
    this.#kept.delete(key);
    this.#keptBytes -= kept.bytes;
  }

  /**
   * Overtaken by an attempt that began later and took far longer than usual: something of it was lost on the way. While nothing at all comes
   * back the cluster may only be slow, and more attempts would make it slower: then patience is four times as long.
   */
  #isOverdue(attempt: Attempt, nowMs: number): boolean {
    const ageMs = nowMs - attempt.sinceMs;
    // The quantile costs a sort: not for attempts that are young whatever it is.
    if (ageMs < this.#limits.attemptFloorMs) return false;
    const usualMs = Math.max(this.#limits.attemptFloorMs, 3 * this.#latency.quantileMs(0.99), 10 * this.#expectedMs);
    return ageMs >= (this.#newestDoneMs > attempt.sinceMs ? usualMs : PATIENCE * usualMs);
  }

  /** Some agents have fallen silent, and frames find a way without them. */
  #wayAround(): boolean {
    if (this.#suspects.size === 0) return false;
    return this.#router?.hasRoute((agent) => this.#lost.has(agent) || this.#suspects.has(agent)) === true;
  }

  /**
   * Counts on an agent that has fallen silent, for longer than frames usually take: it is not waited for until that is known to be lost. The result would still be
   * welcome. Only once: the last attempt is kept for a loss.
   */
  #isStuck(frame: Frame<Input>, attempt: Attempt, begunBeforeMs: number): boolean {
    if (attempt.sinceMs > begunBeforeMs || frame.attempts >= ATTEMPTS - 1) return false;
    const silent = [...attempt.agents].filter((agent) => this.#suspects.has(agent));
    return silent.length > 0 && !survivesWithout(attempt, silent);
  }

  #deadlineError(frame: Frame<Input>, nowMs: number): FrameError {
    const waitedMs = Math.round(nowMs - frame.submittedAtMs);
    let why = `attempt ${frame.attempts} was under way`;
    if (this.#router === undefined) why = `no plan was in force: ${this.#noPlanWhy}`;
    else if (frame.number === 0) why = `it waited behind ${this.inFlight} frames in flight`;
    else if (frame.live.length === 0) why = `it waited for a new plan after: ${frame.lastTrouble}`;
    return { code: 'FRAME_DEADLINE', message: `no result within ${waitedMs} ms; ${why}` };
  }
}

function keyOf(client: string, sequence: number): string {
  return `${client} ${sequence}`;
}

function refusal(submission: Submission<unknown>, code: ErrorCode, message: string): Answer<never> {
  const { client, sequence } = submission;
  return { kind: 'answer', frame: 0, client, sequence, attempts: 0, latencyMs: 0, error: { code, message } };
}

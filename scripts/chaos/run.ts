/**
 * Chaos: rounds of faults under load. After every act, and at the end, what must always hold is looked at; after every round the cluster must come to rest, and at
 * rest nothing may fail.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { toChairError } from '../../broker/errors.js';
import type { StatusReport } from '../../broker/messages.js';
import { coveredMs, Settling, type Wanted } from './convergence.js';
import { Faults, possibleKinds } from './faults.js';
import type { Violation } from './fencing.js';
import { type ChaosRecord, failuresOf, longestGap, peaksOf, type RoundRecord } from './figures.js';
import { type Account, type Outcome, wallMs } from './inside.js';
import { type Counts, countsOf, Tally, uncounted } from './refusals.js';
import { growing, outOfBounds, type Sample, sample } from './resources.js';
import { type Act, actsOf, type Fault, type FaultKind, faultText, type Round, schedule } from './schedule.js';
import { CODED_DEPLOYMENT, DISK_BYTES, STORE_MB, type Stage } from './stage.js';

/** Within so long after the last fault the plan is stable, besides transfers and agents that are held back. */
export const CONVERGE_MS = 15_000;
/** Waited for longer than that, to know how long it takes; then the run goes on, or ends when it happens again. */
const GIVE_UP_MS = 90_000;
/** Nothing changes for so long: at rest. */
const QUIET_MS = 3000;
const POLL_MS = 300;
/** Under load a deployment that gave no result for so long does not serve. */
const IDLE_MS = 2000;
/** Outcomes looked through for that: more than come in this time. */
const RECENT = 1000;
const FAILURES_IN_A_ROW = 2;
/** What was refused is in the next health message; what may still turn out to be meant for an agent it keeps for some seconds. */
const COUNTED_WITHIN_MS = 15_000;

/** How a frame may fail: explicitly, for want of somebody to compute it in time. Anything else is a defect. */
const FAIR_CODES: ReadonlySet<string> = new Set(['FRAME_DEADLINE', 'FRAME_FAILED', 'FRAME_REFUSED', 'REQUEST_TIMEOUT']);
const MIDDLE: ReadonlySet<FaultKind> = new Set<FaultKind>(['gateway-kill', 'gateway-hang', 'broker-kill']);
/** Of an agent: it is not there any more, or as if it were not. */
const ABSENT: ReadonlySet<FaultKind> = new Set<FaultKind>(['kill', 'rot', 'hang', 'link-down']);

export interface RunOptions {
  readonly seed: number;
  /** No round begins after that long. */
  readonly forMs: number;
  readonly rounds?: number;
  /** Skips the rounds before this one: they would be the same, only without their effect. */
  readonly fromRound?: number;
  readonly kinds?: readonly FaultKind[];
  readonly note: (line: string) => void;
  readonly stopped?: () => boolean;
}

class Run {
  readonly #stage: Stage;
  readonly #o: RunOptions;
  readonly #faults: Faults;
  readonly #startedMs = performance.now();
  readonly #samples: Sample[] = [];
  readonly #records: RoundRecord[] = [];
  readonly #violations: Violation[] = [];
  readonly #outcomes: Outcome[] = [];
  readonly #tally = new Tally();
  /** As of the latest status. */
  #counts: Counts = new Map();
  /** Agents of which the coded deployment can lose any one, as of the latest status. */
  #covered: readonly string[] = [];
  readonly #transfers: Account['transfers'][number][] = [];
  #present: readonly string[];
  #account: Account | undefined;
  #events = 0;
  /** Deployments whose load has begun. */
  #loaded: readonly string[] = [];

  constructor(stage: Stage, options: RunOptions) {
    this.#stage = stage;
    this.#o = options;
    this.#faults = new Faults(stage, stage.testbed.conditions.agents[0]);
    this.#present = stage.agents;
  }

  async all(): Promise<ChaosRecord> {
    try {
      return await this.#all();
    } finally {
      await this.#faults.stop();
    }
  }

  async #all(): Promise<ChaosRecord> {
    const { inside, deployments, loads, agents, spares, testbed } = this.#stage;
    await this.#rest(wallMs(), true);
    for (const deployment of deployments) await inside.deploy(deployment);
    for (const load of loads) await inside.load(load);
    this.#loaded = loads.map(({ deployment }) => deployment);
    await this.#rest(wallMs());
    const kinds = possibleKinds(testbed).filter((kind) => this.#o.kinds?.includes(kind) !== false);
    let unsettled = 0;
    let done = 0;
    for (const round of schedule(this.#o.seed, { agents, spares, kinds })) {
      if (round.index < (this.#o.fromRound ?? 0)) {
        this.#present = round.present;
        continue;
      }
      if (done === 0) await this.#muster();
      const late = performance.now() - this.#startedMs > this.#o.forMs;
      if (late || done++ === this.#o.rounds || this.#o.stopped?.() === true) break;
      const record = await this.#round(round);
      this.#records.push(record);
      unsettled = record.convergedMs === null ? unsettled + 1 : 0;
      if (unsettled === FAILURES_IN_A_ROW) {
        this.#o.note('it does not come to rest any more: the run ends here');
        break;
      }
    }
    return this.#end();
  }

  /** Of the rounds that were skipped, only who came and who left. */
  async #muster(): Promise<void> {
    const { agents, spares } = this.#stage;
    const make = (kind: 'join' | 'leave', target: string): Promise<void> =>
      this.#faults.begin({ kind, target, atMs: 0, forMs: 0, value: 0 });
    for (const name of spares) if (this.#present.includes(name)) await make('join', name);
    for (const name of agents) if (!this.#present.includes(name)) await make('leave', name);
    await this.#rest(wallMs());
  }

  async #round(round: Round): Promise<RoundRecord> {
    const startedMs = wallMs();
    this.#o.note(`round ${round.index}: ${round.faults.map(faultText).join('; ') || 'nothing to do'}`);
    const [counts, covered] = [this.#counts, this.#covered];
    this.#faults.told.length = 0;
    const before = this.#violations.length;
    const outcomesBefore = this.#outcomes.length;
    await this.#play(actsOf(round));
    this.#present = round.present;
    const lastActMs = wallMs();
    const settled = await this.#rest(lastActMs);
    await this.#resources();
    await this.#check();
    const outcomes = this.#outcomes.slice(outcomesBefore);
    if (settled.sinceMs !== undefined) this.#quiet(outcomes, settled.sinceMs);
    this.#spared(round.faults, outcomes, startedMs);
    this.#unnoticed(round.faults, covered, outcomes, startedMs);
    if (!round.faults.some(({ kind }) => kind === 'broker-kill')) await this.#counted(counts);
    const failures = failuresOf(outcomes);
    const convergedMs = settled.sinceMs === undefined ? null : Math.max(0, Math.round(settled.sinceMs - lastActMs));
    const violations = this.#violations.slice(before);
    const gaps = this.#stage.loads.map(({ deployment }) => [deployment, longestGap(outcomes, deployment, startedMs, wallMs())] as const);
    const failed = Object.entries(failures).map(([code, count]) => `, ${count} ${code}`);
    const at = convergedMs === null ? `NOT at rest: ${settled.why}` : `at rest after ${(convergedMs / 1000).toFixed(1)} s`;
    const without = gaps.map(
      ([name, { ms, fromMs }]) => `${name} ${(ms / 1000).toFixed(1)} s (from ${((fromMs - startedMs) / 1000).toFixed(1)} s)`,
    );
    this.#o.note(`  ${at}; ${outcomes.length} frames${failed.join('')}; longest without a result: ${without.join(', ')}`);
    for (const { invariant, text } of violations) this.#o.note(`  BROKEN: ${invariant}: ${text}`);
    return {
      round: round.index,
      faults: round.faults.map(faultText),
      kinds: round.faults.map(({ kind }) => kind),
      convergedMs,
      transferMs: settled.transferMs,
      frames: outcomes.length,
      failures,
      reissued: outcomes.filter(({ attempts }) => attempts > 1).length,
      gapMs: Object.fromEntries(gaps.map(([name, { ms }]) => [name, ms])),
      violations,
    };
  }

  /** Acts in their time; what takes long (a start, say) does not hold up the others. */
  async #play(acts: readonly Act[]): Promise<void> {
    const startedMs = performance.now();
    const underWay = new Map<Fault, Promise<void>>();
    for (const act of acts) {
      await delay(Math.max(0, startedMs + act.atMs - performance.now()));
      const before = underWay.get(act.fault) ?? Promise.resolve();
      underWay.set(
        act.fault,
        before
          .then(() => (act.do === 'begin' ? this.#faults.begin(act.fault) : this.#faults.undo(act.fault)))
          .catch((error: unknown) =>
            this.#break('faults can be made and undone', `${act.do} ${faultText(act.fault)}: ${toChairError(error).message}`),
          ),
      );
      this.#events++;
      await this.#check();
    }
    await Promise.all(underWay.values());
  }

  /** Waits until the cluster is at rest. `empty`: nothing is deployed yet. */
  async #rest(
    fromMs: number,
    empty = false,
  ): Promise<{ readonly sinceMs: number | undefined; readonly transferMs: number; readonly why: string }> {
    const deployments = empty ? [] : this.#stage.deployments.map(({ name }) => name);
    const wanted: Wanted = { agents: this.#present, deployments };
    const settling = new Settling(wanted, QUIET_MS);
    let forgotten = false;
    for (;;) {
      const status = await this.#status();
      await this.#check();
      if (settling.see(status, wallMs(), empty ? [] : this.#idle())) break;
      if (!forgotten && status !== undefined && !empty) forgotten = await this.#forgotten(status);
      if (wallMs() - fromMs > GIVE_UP_MS || this.#o.stopped?.() === true) break;
      await delay(POLL_MS);
    }
    const { sinceMs } = settling;
    const transferMs = coveredMs(this.#transfers, fromMs, sinceMs ?? wallMs());
    const tookMs = (sinceMs ?? wallMs()) - fromMs;
    if (tookMs > CONVERGE_MS + transferMs) {
      const seconds = (tookMs / 1000).toFixed(1);
      this.#break(
        'the cluster comes to rest in time',
        `${sinceMs === undefined ? `not within ${seconds} s: ${settling.why}` : `it took ${seconds} s; last: ${settling.lastWhy}`}`,
      );
    }
    return { sinceMs, transferMs: Math.round(transferMs), why: settling.why };
  }

  /** Undefined when nobody answers. */
  async #status(): Promise<StatusReport | undefined> {
    const status = await this.#stage.inside.status().catch(() => undefined);
    if (status === undefined) return undefined;
    this.#counts = countsOf(status);
    this.#tally.see(this.#counts);
    this.#covered = status.deployments.find(({ name }) => name === CODED_DEPLOYMENT)?.plan?.redundancy?.covered ?? [];
    return status;
  }

  /** Deployments under load that gave no result for a while. */
  #idle(): string[] {
    const sinceMs = wallMs() - IDLE_MS;
    const recent = new Set(
      this.#outcomes.slice(-RECENT).flatMap(({ deployment, code, endedMs }) => (code === '' && endedMs > sinceMs ? [deployment] : [])),
    );
    return this.#loaded.filter((name) => !recent.has(name));
  }

  /** Deployments outlive a gateway. Where they do not, that is said once, and they are made again, to see what else breaks. */
  async #forgotten(status: StatusReport): Promise<boolean> {
    const missing = this.#stage.deployments.filter(({ name }) => !status.deployments.some((one) => one.name === name));
    if (missing.length === 0) return false;
    this.#break('deployments come back by themselves', `${missing.map(({ name }) => name).join(', ')} not known in term ${status.term}`);
    for (const deployment of missing) {
      await this.#stage.inside.deploy(deployment).catch((error: unknown) => this.#o.note(`  ${toChairError(error).message}`));
    }
    return true;
  }

  /** What must hold always. */
  async #check(): Promise<void> {
    this.#violations.push(...this.#faults.supervise());
    const account = await this.#stage.inside.account();
    this.#account = account;
    this.#transfers.push(...account.transfers);
    this.#outcomes.push(...account.outcomes);
    this.#violations.push(...account.violations);
    if (account.overdueMs > 0)
      this.#break('every frame has an outcome', `a frame has none ${Math.round(account.overdueMs)} ms after its deadline`);
    if (account.twice > 0) this.#break('every frame has one outcome', `${account.twice} frames have two`);
    for (const { deployment, wrong, code, message } of account.outcomes) {
      if (wrong !== '') this.#break("every result equals the single machine's", `${deployment}: ${wrong}`);
      if (code !== '' && !FAIR_CODES.has(code)) this.#break('frames fail for a fair reason only', `${deployment}: ${code}: ${message}`);
    }
  }

  /** At rest nothing fails. */
  #quiet(outcomes: readonly Outcome[], sinceMs: number): void {
    for (const { code, sentMs, message, deployment } of outcomes) {
      if (code !== '' && sentMs > sinceMs) this.#break('a cluster at rest fails no frame', `${deployment}: ${code}: ${message}`);
    }
  }

  /** One agent in trouble costs no frame, as others are there. */
  #spared(faults: readonly Fault[], outcomes: readonly Outcome[], startedMs: number): void {
    if (faults.length > 1 || faults.some(({ kind }) => MIDDLE.has(kind))) return;
    for (const { code, sentMs, message, deployment } of outcomes) {
      if (code !== '' && sentMs > startedMs) this.#break('one agent in trouble costs no frame', `${deployment}: ${code}: ${message}`);
    }
  }

  /** One part of a coded deployment that is lost costs it nothing: no frame is even issued again. */
  #unnoticed(faults: readonly Fault[], covered: readonly string[], outcomes: readonly Outcome[], startedMs: number): void {
    const [fault, second] = faults;
    if (fault === undefined || second !== undefined || !ABSENT.has(fault.kind) || !covered.includes(fault.target)) return;
    for (const { deployment, sentMs, attempts, code, message } of outcomes) {
      if (deployment !== CODED_DEPLOYMENT || sentMs < startedMs || (code === '' && attempts <= 1)) continue;
      this.#break(
        'the loss of one part of a coded deployment is not noticed',
        code === '' ? `a frame took ${attempts} attempts` : `${code}: ${message}`,
      );
    }
  }

  /** What must not be acted upon is counted, and shown. */
  async #counted(before: Counts): Promise<void> {
    const told = this.#faults.told.splice(0);
    const untilMs = wallMs() + COUNTED_WITHIN_MS;
    for (;;) {
      const missing = uncounted(told, before, this.#counts);
      if (missing.length === 0) return;
      if (wallMs() > untilMs || this.#o.stopped?.() === true) {
        for (const text of missing) this.#break('what must not be acted on is counted and shown', text);
        return;
      }
      await delay(POLL_MS);
      await this.#status();
    }
  }

  async #resources(): Promise<void> {
    const { testbed, agents, spares } = this.#stage;
    const nodes = [
      ...testbed.agents.filter(({ name }) => this.#present.includes(name)),
      testbed.gateway,
      ...(testbed.broker ? [testbed.broker] : []),
    ];
    const taken = await Promise.all(nodes.map(({ name, child }) => sample(name, child, `${testbed.directory}/${name}`)));
    // Each agent, the gateway, the broker, and what is inside: who asks, who listens, and one client for each load.
    const peers = agents.length + spares.length + 4 + this.#stage.loads.length;
    const bounds = {
      peers,
      storeBytes: (name: string) => (name.startsWith('agent') ? STORE_MB * 1e6 + 1e6 : DISK_BYTES),
      memoryBytes: (name: string) => (name.startsWith('agent') ? (testbed.conditions.agents[0]?.memoryBytes ?? 2 ** 30) : 2 ** 30),
    };
    for (const one of taken) {
      if (one === undefined) continue;
      this.#samples.push(one);
      this.#violations.push(...outOfBounds(one, bounds));
    }
  }

  async #end(): Promise<ChaosRecord> {
    const { inside, loads, testbed } = this.#stage;
    await inside.settle((loads[0]?.deadlineMs ?? 0) + 15_000).catch((error: unknown) => {
      this.#break('every frame has an outcome', toChairError(error).message);
    });
    await this.#check();
    if ((this.#account?.outstanding ?? 0) > 0)
      this.#break('every frame has an outcome', `${this.#account?.outstanding} have none at the end`);
    this.#violations.push(...growing(this.#samples));
    const results = this.#outcomes.filter(({ code }) => code === '');
    return {
      seed: this.#o.seed,
      conditions: testbed.conditions,
      seconds: Math.round((performance.now() - this.#startedMs) / 1000),
      rounds: this.#records,
      events: this.#events,
      frames: this.#outcomes.length,
      failures: failuresOf(this.#outcomes),
      reissued: results.filter(({ attempts }) => attempts > 1).length,
      maxRelDiff: Math.max(0, ...results.map(({ maxRelDiff }) => maxRelDiff)),
      accepted: this.#account?.accepted ?? 0,
      refused: this.#account?.refused ?? 0,
      refusals: this.#tally.byCode(),
      restarts: this.#faults.restarts,
      requests: this.#faults.refused,
      peaks: peaksOf(this.#samples),
      violations: this.#violations,
    };
  }

  #break(invariant: string, text: string): void {
    // The same once: what stays broken is found by every check.
    if (!this.#violations.some((known) => known.invariant === invariant && known.text === text)) this.#violations.push({ invariant, text });
  }
}

/** Runs chaos on a stage that was just set. The stage is not removed. */
export function runChaos(stage: Stage, options: RunOptions): Promise<ChaosRecord> {
  return new Run(stage, options).all();
}

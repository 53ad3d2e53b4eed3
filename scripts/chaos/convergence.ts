/** When a cluster has come to rest after faults: pure, from one status after another. */
import type { StatusReport } from '../../broker/messages.js';

export interface Wanted {
  readonly agents: readonly string[];
  readonly deployments: readonly string[];
}

/** An agent that is held back for longer than this is not waited for: the plan without it is what counts. */
export const HELD_MS = 5000;

/** What keeps this status from being at rest; '' = nothing. */
export function unsettled(status: StatusReport, { agents, deployments }: Wanted): string {
  for (const name of agents) {
    const { state, heldMs } = status.agents.find(({ agent }) => agent === name) ?? { state: 'not known', heldMs: 0 };
    if (state !== 'ready' && heldMs <= HELD_MS) return `agent ${name} is ${state}`;
  }
  const wanted = new Set(agents);
  for (const { agent, state } of status.agents) if (state === 'ready' && !wanted.has(agent)) return `agent ${agent} is gone but ready`;
  for (const name of deployments) {
    const deployment = status.deployments.find((one) => one.name === name);
    if (deployment === undefined) return `there is no deployment ${name}`;
    if (deployment.state !== 'serving') return `${name} is ${deployment.state}: ${deployment.why}`;
    const elsewhere = deployment.plan?.seats.find(({ agent }) => !wanted.has(agent));
    if (elsewhere !== undefined) return `${name} has a seat on ${elsewhere.agent}, which is gone`;
  }
  return '';
}

/** What must not change while at rest. */
function standing(status: StatusReport, { deployments }: Wanted): string {
  const epochs = deployments.map((name) => `${name} ${status.deployments.find((one) => one.name === name)?.epoch ?? '-'}`);
  return [`term ${status.term}`, ...epochs].join(', ');
}

export class Settling {
  #since: number | undefined;
  #standing = '';
  /** What keeps it from rest; '' = nothing. */
  why = 'nothing was asked yet';
  /** What kept it from rest last. */
  lastWhy = '';
  /** Plans that changed after it had come to rest once. */
  changes = 0;

  constructor(
    private readonly wanted: Wanted,
    /** It is at rest when nothing has changed for so long. */
    private readonly quietMs: number,
  ) {}

  /** `status` undefined: nobody answered. `idle`: deployments that gave no result of late, whatever the status says. True when it is at rest. */
  see(status: StatusReport | undefined, atMs: number, idle: readonly string[] = []): boolean {
    this.why = status === undefined ? 'no answer from the scheduler' : unsettled(status, this.wanted);
    if (this.why === '' && idle.length > 0) this.why = `no results of ${idle.join(', ')}`;
    if (this.why !== '') this.lastWhy = this.why;
    const now = status === undefined ? '' : standing(status, this.wanted);
    if (this.why !== '') this.#since = undefined;
    else if (this.#since === undefined || now !== this.#standing) {
      if (this.#since !== undefined) this.changes++;
      this.#since = atMs;
    }
    this.#standing = now;
    return this.#since !== undefined && atMs - this.#since >= this.quietMs;
  }

  /** Since when it has been as it is. */
  get sinceMs(): number | undefined {
    return this.#since;
  }
}

/** How much of `fromMs` to `toMs` is covered by these intervals, overlaps counted once. */
export function coveredMs(intervals: readonly { readonly fromMs: number; readonly toMs: number }[], fromMs: number, toMs: number): number {
  let covered = 0;
  let reached = fromMs;
  for (const one of intervals.toSorted((a, b) => a.fromMs - b.fromMs)) {
    const [start, end] = [Math.max(one.fromMs, reached), Math.min(one.toMs, toMs)];
    if (end <= start) continue;
    covered += end - start;
    reached = end;
  }
  return covered;
}

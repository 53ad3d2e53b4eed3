/** Real run times of seats from health messages, against what their plan predicted: feeds `LiveCorrection`, and is what status shows. */
import type { Health, LiveRow } from '../../broker/messages.js';
import type { SeatEstimate } from '../planners/estimate.js';
import type { PlanDraft } from '../planners/problem.js';
import { factorIn, LiveCorrection } from './correction.js';

/** A plan in force, and its seats' times without corrections and without other deployments: what a run alone should take. */
export interface Predicted {
  readonly draft: PlanDraft;
  readonly model: string;
  readonly alone: readonly SeatEstimate[];
  /** Of each agent: what these times stand on. */
  readonly bases: ReadonlyMap<string, string>;
}

/** The first runs of a seat fill caches and fault pages in. */
const FIRST_RUNS = 3;
const MOST_AGENTS = 5000;

export class SeatTimes {
  readonly correction = new LiveCorrection();
  /** Of each agent's process: frames run and mean time by seat, as its last health said. */
  readonly #last = new Map<string, { readonly nonce: string; readonly seats: ReadonlyMap<string, { frames: number; ms: number }> }>();

  /**
   * `contended`: other agents of the same machine ran meanwhile. That they slow each other down is in the cost model already; such times say nothing of
   * this device and are only shown. `restedMs`: see `Observation`.
   */
  health(
    { agent, nonce, seats }: Health,
    predicted: (deployment: string, epoch: number) => Predicted | undefined,
    { contended, restedMs }: { readonly contended: boolean; readonly restedMs: number },
    nowMs: number,
  ): void {
    const last = this.#last.get(agent);
    const now = new Map<string, { frames: number; ms: number }>();
    for (const { deployment, epoch, stage, replica, part, framesRun, runMs } of seats) {
      const key = seatKey(deployment, epoch, stage, replica, part);
      now.set(key, { frames: framesRun, ms: runMs });
      const before = last?.nonce === nonce ? (last.seats.get(key)?.frames ?? 0) : 0;
      if (contended || framesRun <= Math.max(before, FIRST_RUNS)) continue;
      const plan = predicted(deployment, epoch);
      const spec = plan?.draft.cut.stages[stage]?.spec;
      const seat = plan?.alone.find((row) => row.stage === stage && row.replica === replica && row.part === part);
      if (spec === undefined || seat === undefined) continue;
      const { nodes, cut } = spec;
      const [model, basis] = [plan?.model ?? '', plan?.bases.get(agent) ?? ''];
      this.correction.observe(
        { agent, nonce, basis, model, nodes, cut, predictedMs: seat.ms, measuredMs: runMs, restedMs, frames: framesRun - before },
        nowMs,
      );
    }
    this.#last.delete(agent);
    this.#last.set(agent, { nonce, seats: now });
    const first = this.#last.keys().next().value;
    if (this.#last.size > MOST_AGENTS && first !== undefined) this.#last.delete(first);
  }

  /** For status: every seat of a plan in force. */
  rows(deployment: string, epoch: number, { draft, model, bases }: Predicted, nowMs: number): LiveRow[] {
    return draft.estimate.seats.map(({ stage, replica, part, agent, ms }) => {
      const seen = this.#last.get(agent)?.seats.get(seatKey(deployment, epoch, stage, replica, part));
      const spec = draft.cut.stages[stage]?.spec;
      const factor =
        spec === undefined ? 1 : factorIn(this.correction.correction(agent, model, bases.get(agent) ?? '', nowMs), spec.nodes, spec.cut);
      return { stage, replica, part, agent, predictedMs: ms, measuredMs: seen?.ms ?? 0, frames: seen?.frames ?? 0, factor };
    });
  }
}

function seatKey(deployment: string, epoch: number, stage: number, replica: number, part: number): string {
  return `${deployment} ${epoch} ${stage}/${replica}/${part}`;
}

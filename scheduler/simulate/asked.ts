/** Words of a request as planners take them. */
import { parseCut } from '../../models/slicing/parse-cut.js';
import type { PlanProblem } from '../planners/problem.js';

/** As ModelLibrary.parseCut, for those who have no library. Throws CUT_INVALID. */
export function parseManualCut(text: string, shares: readonly number[]): NonNullable<PlanProblem['manual']> {
  const replicas = /^replicas:(\d{1,3})$/.exec(text.trim());
  if (replicas !== null) return { kind: 'replicas', parts: Math.max(1, Number(replicas[1])), shares };
  const { kind, parts } = parseCut(text, shares.length === 0 ? undefined : shares);
  return kind === 'whole' ? { kind: 'stages', parts: 1, shares } : { kind, parts, shares };
}

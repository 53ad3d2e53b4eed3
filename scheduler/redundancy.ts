/** What coded redundancy costs and whom it covers, for the report of a plan. Pure. */
import type { RedundancyReport } from '../broker/messages.js';
import { isParity } from '../broker/parity.js';
import { boxElements, itemBytes } from '../broker/tensor.js';
import { seatOf } from './planners/estimate.js';
import type { CutFacts, PlanDraft } from './planners/problem.js';
import { hasRoute } from './router.js';

/** Undefined for a plan without coded stages. */
export function redundancyOf(draft: PlanDraft): RedundancyReport | undefined {
  const { cut, stages } = draft;
  const coded = [...cut.stages.keys()].filter((s) => (cut.stages[s]?.spec.redundancy ?? 0) > 0);
  if (coded.length === 0) return undefined;
  const rows = coded.map((stage) => rowOf(draft, stage));
  const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
  const routed = cut.stages.map(({ spec, parts }, s) => {
    const agents = (stages[s]?.agents ?? []).map((_, r) => parts.map((_, p) => seatOf(cut, stages, s, r, p)));
    return { agents, redundancy: spec.redundancy ?? 0 };
  });
  const agents = [...new Set(routed.flatMap((stage) => stage.agents.flat()))];
  const covered = agents.filter((agent) => hasRoute(routed, (other) => other === agent));
  const exposed = agents.filter((agent) => !covered.includes(agent));
  const addedMacs = sum(rows.map(({ parityMacs }) => parityMacs));
  const addedBytes = sum(rows.map(({ parityBytes }) => parityBytes));
  const codedMacs = sum(rows.map(({ macs }) => macs));
  const share = codedMacs === 0 ? 0 : Math.round((100 * addedMacs) / codedMacs);
  const costs = `${coded.length} coded stages: ${share} % more computing on what is coded, ${megabytes(addedBytes)} more per frame on links`;
  const safe = `any one of ${covered.join(', ')} may be lost without a frame noticing`;
  const lines = [costs, covered.length === 0 ? 'nobody is covered: every agent holds a seat that is not coded' : safe];
  if (exposed.length > 0)
    lines.push(
      `${exposed.join(', ')} ${exposed.length === 1 ? 'holds a seat' : 'hold seats'} of stages that are not coded: losing one is an ordinary loss`,
    );
  return { addedMacs, addedBytes, covered, exposed, why: lines.join('\n'), rows };
}

function rowOf({ cut, stages }: PlanDraft, stage: number): RedundancyReport['rows'][number] {
  const { parts = [], spec } = cut.stages[stage] ?? {};
  const isOurs = (part: number): boolean => isParity({ parts, redundancy: spec?.redundancy ?? 0 }, part);
  const own = parts.filter((_, p) => !isOurs(p));
  const replicas = stages[stage]?.agents ?? [];
  return {
    stage,
    parts: own.length,
    agents: replicas.map((_, r) => seatOf(cut, stages, stage, r, parts.length - 1)),
    macs: own.reduce((sum, part) => sum + part.macs, 0),
    parityMacs: parts.reduce((sum, part, p) => sum + (isOurs(p) ? part.macs : 0), 0),
    parityBytes: parityBytes({ cut, stages }, stage, isOurs),
  };
}

/** What travels only because there is a parity, of one route. What stays on an agent does not. */
function parityBytes({ cut, stages }: Pick<PlanDraft, 'cut' | 'stages'>, stage: number, isOurs: (part: number) => boolean): number {
  const holder = (s: number, part: number): string => (s < 0 ? '' : seatOf(cut, stages, s, 0, part));
  let bytes = 0;
  for (const { fromStage, fromPart, toStage, toPart, input, box } of cut.wires) {
    const into = toStage === stage && isOurs(toPart);
    const out = fromStage === stage && isOurs(fromPart);
    // Of two coded stages in a row, the parity to the parity counts once: where it comes in.
    if (!into && !(out && !isParityOf(cut, toStage, toPart))) continue;
    if (holder(fromStage, fromPart) === holder(toStage, toPart)) continue;
    const dtype = (toStage < 0 ? cut.outputs[input] : cut.stages[toStage]?.parts[toPart]?.inputs[input])?.dtype ?? 'float32';
    bytes += boxElements(box) * itemBytes(dtype);
  }
  return bytes;
}

function isParityOf(cut: CutFacts, stage: number, part: number): boolean {
  const one = cut.stages[stage];
  return isParity(one && { parts: one.parts, redundancy: one.spec.redundancy ?? 0 }, part);
}

function megabytes(bytes: number): string {
  return bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

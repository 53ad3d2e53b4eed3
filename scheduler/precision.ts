/**
 * Wire precision: which wires travel as float16 or uint8. Only when an error is allowed (`maxError`), only where it makes the plan clearly better by the
 * planner's own estimate, and only as far as the measured error stays within what is allowed. Everything is decided by two functions that are handed in: the
 * estimate of a plan (planners/) and the measurement of an error (models/slicing/precision.ts).
 *
 * A plan that was chosen for raw wires may not be the best for short ones (slow links are why models are not split), so the planner is asked twice more, as if links
 * were as much faster as the encodings are shorter; what it answers is judged with the true links and the true bytes.
 */
import { setImmediate } from 'node:timers/promises';
import { canEncode } from '../broker/encoding.js';
import { isChairError } from '../broker/errors.js';
import type { PrecisionReport } from '../broker/messages.js';
import { type Encoding, SINK, SOURCE, type Wire } from '../broker/plan.js';
import { boxElements, type DType, itemBytes } from '../broker/tensor.js';
import { assigned, chooseEncodings, type EncodingChoice, type GroupChoice, sayError, type WireGroup } from '../models/slicing/precision.js';
import { bottleneckLine, draft, formatMs, sayPair, score } from './planners/draft.js';
import { seatOf, wireBytes } from './planners/estimate.js';
import {
  type AccessLink,
  type CutFacts,
  type Device,
  isRefusal,
  type Links,
  type PlanDraft,
  type PlanProblem,
  type SeatedStage,
} from './planners/problem.js';
import { type Asked, planFor } from './planning.js';

/** A plan with encoded wires must be better than the raw one by this much, or accuracy would be given away for nothing. */
const CLEAR_GAIN = 0.05;
/** An encoding that makes the plan better by less than this is not worth its error. */
const REAL_GAIN = 0.005;
/** Bytes of float32 in the two encodings, as link speed. */
const SHORTER = [4, 2] as const;

/** The error of encodings of one draft; see `PrecisionMeter`. `limit`: beyond it, any larger number will do. */
export interface Measuring {
  error(draft: PlanDraft, encodings: readonly Encoding[], limit: number): Promise<number>;
  /** What it was measured on. */
  readonly inputs: number;
  readonly random: boolean;
  /** Why nothing can be measured (errors are infinite then); '' when it can. */
  readonly hindered: string;
}

/** Wires of one dtype between two stages that could be shortened. */
interface Boundary {
  readonly fromStage: number;
  readonly toStage: number;
  readonly dtype: DType;
  readonly wires: readonly number[];
}

interface Judged {
  readonly plan: PlanDraft;
  readonly score: number;
}

/** The planner's plan, with encodings where they pay and are allowed. Throws PLAN_NOT_POSSIBLE, and what measuring throws. */
export async function planWithPrecision(name: string, asked: Asked, maxError: number, measuring: Measuring): Promise<PlanDraft> {
  const { raw, refusal } = await rawPlan(name, asked);
  const rawScore = raw === undefined ? Number.POSITIVE_INFINITY : score(raw.estimate, asked.problem.objective);
  let best: PlanDraft | undefined;
  let bestScore = rawScore * (1 - CLEAR_GAIN);
  let spared = '';
  const layouts = await layoutsFor(name, asked, raw);
  const potentials = layouts.map((layout) => potential(asked.problem, layout)).sort((a, b) => a.most.score - b.most.score);
  for (const { layout, boundaries, most } of potentials) {
    // What comes after it cannot be better than this either.
    if (most.score >= bestScore) break;
    const found = await measured(asked.problem, layout, boundaries, most, maxError, measuring);
    if (found.judged !== undefined && found.judged.score < bestScore) {
      best = { ...found.judged.plan, precision: reportOf(found.rows, maxError, found.error, measuring) };
      bestScore = found.judged.score;
    } else if (spared === '') spared = measuring.hindered || found.why || 'what the budget allows gains too little';
  }
  if (best !== undefined) return { ...best, why: whyEncoded(asked.problem, best, raw) };
  if (raw === undefined) throw refusal;
  // Where something was tried the line above the table says what came of it.
  const rows = rowsOf(raw, boundariesOf(raw.cut, raw.stages), undefined).map((row) => (spared === '' ? row : { ...row, why: '' }));
  return {
    ...raw,
    precision: {
      maxError,
      error: 0,
      inputs: measuring.inputs,
      random: measuring.random,
      why: `all wires are raw: ${spared || 'no link is what limits the plan: nothing would be gained'}`,
      rows,
    },
  };
}

async function rawPlan(name: string, asked: Asked): Promise<{ raw: PlanDraft | undefined; refusal: unknown }> {
  try {
    return { raw: await planFor(name, asked), refusal: undefined };
  } catch (error) {
    // A bound on latency may be out of reach with raw wires only.
    if (!isChairError(error, 'PLAN_NOT_POSSIBLE')) throw error;
    return { raw: undefined, refusal: error };
  }
}

/** Seated stages worth a look, each once; the raw plan's own first. */
async function layoutsFor(name: string, { planner, problem }: Asked, raw: PlanDraft | undefined): Promise<PlanDraft[]> {
  const layouts = raw === undefined ? [] : [raw];
  for (const factor of SHORTER) {
    try {
      layouts.push(await planFor(name, { planner, problem: withFasterLinks(problem, factor) }));
    } catch (error) {
      if (!isChairError(error, 'PLAN_NOT_POSSIBLE')) throw error;
    }
  }
  const seen = new Set<string>();
  return layouts.filter(({ stages }) => {
    const key = JSON.stringify(stages);
    const fresh = !seen.has(key);
    seen.add(key);
    return fresh;
  });
}

/** The same cluster with every link `factor` times as fast: to a plan, the same as messages of 1/factor the bytes. */
export function withFasterLinks(problem: PlanProblem, factor: number): PlanProblem {
  const { links } = problem;
  const access = (link: AccessLink): AccessLink => ({
    ...link,
    upBytesPerSecond: link.upBytesPerSecond * factor,
    downBytesPerSecond: link.downBytesPerSecond * factor,
  });
  const faster = <T extends { readonly bytesPerSecond: number }>(link: T): T => ({ ...link, bytesPerSecond: link.bytesPerSecond * factor });
  const all: Links = {
    ...links,
    usual: faster(links.usual),
    between: new Map([...links.between].map(([pair, link]) => [pair, faster(link)])),
    ...(links.gateway === undefined ? {} : { gateway: access(links.gateway) }),
    ...(links.sharedBytesPerSecond === undefined ? {} : { sharedBytesPerSecond: links.sharedBytesPerSecond * factor }),
  };
  const devices = problem.devices.map((device): Device => (device.link === undefined ? device : { ...device, link: access(device.link) }));
  return { ...problem, links: all, devices };
}

/** The best that a layout could reach if every error were allowed. */
function potential(problem: PlanProblem, layout: PlanDraft): { layout: PlanDraft; boundaries: Boundary[]; most: Judged } {
  const boundaries = boundariesOf(layout.cut, layout.stages);
  return { layout, boundaries, most: judge(problem, layout, shortest(layout.cut, boundaries)) };
}

function shortest(cut: CutFacts, boundaries: readonly Boundary[]): readonly Encoding[] {
  return boundaries.reduce<readonly Encoding[]>((encodings, { wires }) => assigned(encodings, wires, 'uint8'), allRaw(cut));
}

function allRaw(cut: CutFacts): readonly Encoding[] {
  return cut.wires.map((): Encoding => 'raw');
}

/** Cut, estimated and scored with these encodings on the true links. */
function judge(problem: PlanProblem, layout: PlanDraft, encodings: readonly Encoding[]): Judged {
  const facts = {
    ...problem.facts,
    cut: (specs: Parameters<typeof problem.facts.cut>[0]) => encodedCut(problem.facts.cut(specs), encodings),
  };
  const plan = draft({ ...problem, facts }, layout.planner, layout.stages);
  const late = !isRefusal(plan) && plan.estimate.latencyMs > (problem.maxLatencyMs ?? Number.POSITIVE_INFINITY);
  if (isRefusal(plan)) return { plan: layout, score: Number.POSITIVE_INFINITY };
  const { alternatives, why } = layout;
  const judged = { ...plan, why, ...(alternatives === undefined ? {} : { alternatives }) };
  return { plan: judged, score: late ? Number.POSITIVE_INFINITY : score(plan.estimate, problem.objective) };
}

function encodedCut<T extends CutFacts | { refused: true; reason: string }>(cut: T, encodings: readonly Encoding[]): T {
  if (isRefusal(cut)) return cut;
  return { ...cut, wires: cut.wires.map((wire, w) => ({ ...wire, encoding: encodings[w] ?? 'raw' })) };
}

/** Stage boundaries with wires that cross between agents on some route and carry floats. What stays on an agent is handed over as it is. */
export function boundariesOf(cut: CutFacts, stages: readonly SeatedStage[]): Boundary[] {
  const found = new Map<string, Boundary & { readonly wires: number[] }>();
  for (const [w, wire] of cut.wires.entries()) {
    const dtype = dtypeOf(cut, wire);
    if (!canEncode('uint8', dtype) || !crosses(cut, stages, wire)) continue;
    // A part that is recovered would take over the errors of all others.
    if ((cut.stages[wire.fromStage]?.spec.redundancy ?? 0) > 0) continue;
    const { fromStage, toStage } = wire;
    const key = `${fromStage}>${toStage} ${dtype}`;
    const boundary = found.get(key) ?? { fromStage, toStage, dtype, wires: [] };
    boundary.wires.push(w);
    found.set(key, boundary);
  }
  return [...found.values()];
}

function dtypeOf(cut: CutFacts, wire: Wire): DType {
  const { fromStage, fromPart, output } = wire;
  const from = fromStage === SOURCE ? cut.inputs[output] : cut.stages[fromStage]?.parts[fromPart]?.outputs[output];
  return from?.dtype ?? 'bool';
}

function crosses(cut: CutFacts, stages: readonly SeatedStage[], { fromStage, fromPart, toStage, toPart }: Wire): boolean {
  if (fromStage === SOURCE || toStage === SINK) return fromStage !== SOURCE || toStage !== SINK;
  const holders = (stage: number, part: number) =>
    new Set((stages[stage]?.agents ?? []).map((_, r) => seatOf(cut, stages, stage, r, part)));
  const [from, to] = [holders(fromStage, fromPart), holders(toStage, toPart)];
  return from.size > 1 || to.size > 1 || [...from].some((agent) => !to.has(agent));
}

interface Found {
  readonly judged: Judged | undefined;
  readonly error: number;
  readonly rows: PrecisionReport['rows'];
  /** Why it is not better; '' when nothing was in the way. */
  readonly why: string;
}

/** Measures what the budget allows on one layout. */
async function measured(
  problem: PlanProblem,
  layout: PlanDraft,
  boundaries: readonly Boundary[],
  most: Judged,
  maxError: number,
  measuring: Measuring,
): Promise<Found> {
  const wanted = await worthwhile(problem, layout, boundaries, most);
  const measure = (encodings: readonly Encoding[]) => measuring.error(layout, encodings, maxError);
  const choice = await chooseEncodings(
    measure,
    layout.cut.wires.length,
    wanted.map(({ group }) => group),
    maxError,
  );
  const given = new Map(wanted.flatMap(({ boundary }, i) => (choice.groups[i] === undefined ? [] : [[boundary, choice.groups[i]]])));
  const { encodings, error, chosen } = await givenBack(problem, layout, choice, given, measure, maxError);
  const judged = judge(problem, layout, encodings);
  const failures = choice.groups.flatMap(({ why }, i) => (why === '' ? [] : [`${sayBoundary(wanted[i]?.boundary)}: ${why}`]));
  return { judged, error, rows: rowsOf(judged.plan, boundaries, chosen), why: failures.slice(0, 3).join('; ') };
}

interface Taken {
  readonly encodings: readonly Encoding[];
  readonly error: number;
  readonly chosen: ReadonlyMap<Boundary, GroupChoice>;
}

/**
 * Where the budget held one boundary back, that link limits the plan now, and what others gave for speed may be for nothing: it is taken back, if the
 * rest is still within the budget (fewer encodings need not mean a smaller error).
 */
async function givenBack(
  problem: PlanProblem,
  layout: PlanDraft,
  choice: EncodingChoice,
  given: ReadonlyMap<Boundary, GroupChoice>,
  measure: (encodings: readonly Encoding[]) => Promise<number>,
  maxError: number,
): Promise<Taken> {
  const allowed = judge(problem, layout, choice.encodings).score * (1 + REAL_GAIN);
  const chosen = new Map(given);
  let { encodings } = choice;
  for (const [boundary, { encoding }] of given) {
    if (encoding === 'raw') continue;
    await setImmediate();
    const trial = assigned(encodings, boundary.wires, 'raw');
    if (judge(problem, layout, trial).score > allowed) continue;
    encodings = trial;
    chosen.set(boundary, { encoding: 'raw', error: 0, why: 'another link limits the plan, which the budget held back' });
  }
  if (encodings === choice.encodings) return { encodings, error: choice.error, chosen };
  const error = await measure(encodings);
  return error <= maxError ? { encodings, error, chosen } : { encodings: choice.encodings, error: choice.error, chosen: given };
}

/**
 * Of the boundaries those without which the plan would be worse, most important first, and for each the encodings to try: no shorter than needed. Links
 * can be equally busy, so one alone may gain nothing: starting from all encoded, what does not matter is taken back.
 */
async function worthwhile(
  problem: PlanProblem,
  layout: PlanDraft,
  boundaries: readonly Boundary[],
  most: Judged,
): Promise<{ boundary: Boundary; group: WireGroup }[]> {
  const allowed = most.score * (1 + REAL_GAIN);
  const bytes = ({ wires }: Boundary) => wires.reduce((sum, w) => sum + rawBytesOf(layout.cut, w), 0);
  let encodings = shortest(layout.cut, boundaries);
  const kept = new Map<Boundary, Encoding>();
  for (const boundary of boundaries.toSorted((a, b) => bytes(a) - bytes(b))) {
    for (const encoding of ['raw', 'float16', 'uint8'] as const) {
      if (!canEncode(encoding, boundary.dtype)) continue;
      // Frames and heartbeats go on between estimates.
      await setImmediate();
      const trial = assigned(encodings, boundary.wires, encoding);
      if (encoding !== 'uint8' && judge(problem, layout, trial).score > allowed) continue;
      encodings = trial;
      kept.set(boundary, encoding);
      break;
    }
  }
  const worth = (boundary: Boundary) => judge(problem, layout, assigned(encodings, boundary.wires, 'raw')).score;
  return [...kept]
    .filter(([, encoding]) => encoding !== 'raw')
    .map(([boundary, encoding]) => ({ boundary, encoding, worth: worth(boundary) }))
    .sort((a, b) => b.worth - a.worth)
    .map(({ boundary, encoding }) => ({
      boundary,
      group: {
        wires: boundary.wires,
        candidates: (['uint8', 'float16'] as const).slice(encoding === 'uint8' ? 0 : 1).filter((one) => canEncode(one, boundary.dtype)),
      },
    }));
}

function rawBytesOf(cut: CutFacts, w: number): number {
  const wire = cut.wires[w];
  return wire === undefined ? 0 : boxElements(wire.box) * itemBytes(dtypeOf(cut, wire));
}

function rowsOf(
  plan: PlanDraft,
  boundaries: readonly Boundary[],
  chosen: ReadonlyMap<Boundary, GroupChoice> | undefined,
): PrecisionReport['rows'] {
  const { cut } = plan;
  return boundaries.map((boundary) => {
    const choice = chosen?.get(boundary);
    const sum = (bytesOf: (w: number) => number) => boundary.wires.reduce((total, w) => total + bytesOf(w), 0);
    const encoded = (w: number): number => {
      const wire = cut.wires[w];
      return wire === undefined ? 0 : wireBytes(cut, wire);
    };
    return {
      fromStage: boundary.fromStage,
      toStage: boundary.toStage,
      encoding: choice?.encoding ?? 'raw',
      bytesPerFrame: sum(encoded),
      rawBytesPerFrame: sum((w) => rawBytesOf(cut, w)),
      error: choice?.error ?? 0,
      why: choice?.why ?? 'its link does not limit the plan',
    };
  });
}

function reportOf(rows: PrecisionReport['rows'], maxError: number, error: number, measuring: Measuring): PrecisionReport {
  const sum = (of: (row: PrecisionReport['rows'][number]) => number) => rows.reduce((total, row) => total + of(row), 0);
  const mb = (bytes: number): string => `${(bytes / 1e6).toPrecision(3)} MB`;
  const { inputs, random } = measuring;
  const on = random ? `${inputs} made-up inputs; give your own with --calibrate` : `${inputs} given inputs`;
  const why = `${mb(sum((row) => row.bytesPerFrame))} of activations per frame instead of ${mb(sum((row) => row.rawBytesPerFrame))}; error ${sayError(error)} of at most ${maxError} on ${on}`;
  return { maxError, error, inputs, random, why, rows };
}

/** Three lines, as every plan has them; the planner's own were of links that are not there. */
function whyEncoded(problem: PlanProblem, plan: PlanDraft, raw: PlanDraft | undefined): string {
  const say = ({ estimate }: PlanDraft): string =>
    problem.objective === 'latency' ? formatMs(estimate.latencyMs) : `${estimate.fps.toFixed(1)} frames/s`;
  const runnerUp =
    raw === undefined
      ? 'with raw wires no plan is possible'
      : `runner-up: ${raw.planner} with raw wires, ${say(raw)} instead of ${say(plan)}`;
  return `${bottleneckLine(plan.estimate)}\n${runnerUp}\nwould change it: ${whatWouldChange(plan)}`;
}

function whatWouldChange({ estimate, precision }: PlanDraft): string {
  const { kind, who } = estimate.bottleneck;
  const first = kind === 'pair' ? `a faster way ${sayPair(who)}` : kind === 'link' ? `a faster link of ${who}` : `more speed on ${who}`;
  const held = precision?.rows.some((row) => row.encoding !== 'uint8' && row.why.includes('gives'));
  return held === true ? `${first}, or a larger --max-error` : first;
}

function sayBoundary(boundary: Boundary | undefined): string {
  const { fromStage = 0, toStage = 0 } = boundary ?? {};
  return fromStage === SOURCE ? 'inputs' : toStage === SINK ? 'outputs' : `stage ${fromStage} to ${toStage}`;
}

/** The model's own covering cuts over teams of the fastest devices, with shares by speed. */
import type { StageSpec } from '../../models/slicing/partition.js';
import { slowdown } from './cost.js';
import { draft, seated } from './draft.js';
import { sizes } from './options.js';
import { bySpeed, type Device, isRefusal, type PlanDraft, type PlanProblem, type PlanRefusal } from './problem.js';

/** Covers are made once, for a team of this size, and shared anew for others: where a cut goes hardly depends on how many take part. */
const COVER_PARTS = 2;
const COVER_KINDS = ['rows', 'channels'] as const;
const MOST_DEVICES = 16;
/** Of more devices than this only the whole team is tried: cutting for many takes long, and teams.ts finds the sizes. */
const FEW = 8;

export function covers(problem: PlanProblem): (PlanDraft | PlanRefusal)[] {
  const sorted = bySpeed(problem.devices);
  const most = Math.min(sorted.length, MOST_DEVICES);
  return COVER_KINDS.flatMap((kind) => {
    const cover = problem.facts.cover(kind, new Array<number>(COVER_PARTS).fill(1));
    if (isRefusal(cover)) return [cover];
    return (most > FEW ? [most] : sizes(most)).map((n) => over(problem, `${kind}:${n}`, cover, sorted.slice(0, n)));
  });
}

function over(problem: PlanProblem, name: string, cover: readonly StageSpec[], devices: readonly Device[]): PlanDraft | PlanRefusal {
  const speed = (device: Device): number => device.macsPerSecond / slowdown(device);
  const [fastest] = devices;
  const top = fastest === undefined ? 1 : speed(fastest);
  const shares = devices.map((device) => speed(device) / top);
  const specs = cover.map((spec) => (spec.cut === 'whole' ? spec : { ...spec, shares }));
  return draft(
    problem,
    name,
    specs.map((spec) => seated(spec, devices)),
  );
}

/**
 * For many devices: a pipeline of few stages, each on as many replicas as its work needs. The model is divided into k consecutive stages, in which all frames are
 * spread over all devices, so throughput nears total speed / total work whatever the mixture of devices; rounding to whole devices costs the more the more stages
 * there are, so the fewest stages that fit are usually best. Devices go, fastest first, to the stage that is slowest so far and fits; one that helps none stays out.
 */
import type { BlockTable, TablePart } from './block-table.js';
import { ENGINE_BYTES, seatMs } from './cost.js';
import { Ends } from './ends.js';
import { bySpeed, type Device, type PlanProblem, type SeatedStage } from './problem.js';

const MOST_STAGES = 24;
/** A device adds at least this part of the rate of the slowest stage, or stays out. */
const LEAST_OF_SLOWEST = 0.001;

interface Division {
  readonly bounds: readonly number[];
  readonly teams: readonly (readonly Device[])[];
  /** Frames per second of the slowest stage. */
  readonly rate: number;
}

/** The best `wanted` divisions, best first. */
export function fleet(problem: PlanProblem, table: BlockTable, wanted: number): SeatedStage[][] {
  const devices = bySpeed(problem.devices);
  const divisions: Division[] = [];
  for (let k = 1; k <= Math.min(table.length, devices.length, MOST_STAGES); k++) {
    for (const figure of ['weightBytes', 'macs'] as const) {
      const bounds = divide(table, k, (part) => part[figure]);
      const teams = assign(problem, table, bounds, devices);
      if (teams !== undefined) divisions.push(teams);
    }
  }
  return divisions
    .sort((a, b) => b.rate - a.rate)
    .slice(0, wanted)
    .map(({ bounds, teams }) =>
      teams.map((team, s) => ({ spec: table.spec(bounds[s] ?? 0, bounds[s + 1] ?? 0, 'whole'), agents: team.map(({ agent }) => [agent]) })),
    );
}

/** k consecutive runs of blocks with the smallest possible largest sum. */
function divide(table: BlockTable, k: number, figure: (part: TablePart) => number): number[] {
  const n = table.length;
  const sums = [0];
  for (let b = 0; b < n; b++) sums.push((sums.at(-1) ?? 0) + figure(table.whole(b, b + 1)));
  let best = sums.map((sum, end) => ({ most: sum, bounds: [0, end] }));
  for (let stages = 2; stages <= k; stages++) {
    best = sums.map((sum, end) => {
      let found = { most: Number.POSITIVE_INFINITY, bounds: [0] };
      for (let from = stages - 1; from < end; from++) {
        const before = best[from];
        const most = Math.max(before?.most ?? Number.POSITIVE_INFINITY, sum - (sums[from] ?? 0));
        if (before !== undefined && most < found.most) found = { most, bounds: [...before.bounds, end] };
      }
      return found;
    });
  }
  return best[n]?.bounds ?? [];
}

function assign(problem: PlanProblem, table: BlockTable, bounds: readonly number[], devices: readonly Device[]): Division | undefined {
  const stages = bounds
    .slice(1)
    .map((end, s) => ({ from: bounds[s] ?? 0, end, part: table.whole(bounds[s] ?? 0, end), rate: 0, team: [] as Device[] }));
  const ends = new Ends(problem.devices, problem.links);
  for (const device of devices) {
    const slowestFirst = stages.toSorted((a, b) => a.rate - b.rate);
    for (const stage of slowestFirst) {
      const { part, from, end } = stage;
      // Two frames wait while one runs; `draft` counts what is in flight in truth.
      if (device.memoryBytes > 0 && part.weightBytes + part.activationBytes + 4 * part.inBytes + ENGINE_BYTES > device.memoryBytes)
        continue;
      const ms =
        seatMs(device, part, table.spec(from, end, 'whole'), 1) +
        ends.cpuMs(device.agent, part.inBytes) +
        ends.cpuMs(device.agent, part.outBytes);
      const rate =
        1000 /
        Math.max(ms, ends.linkMs(device.agent, 'down', undefined, part.inBytes), ends.linkMs(device.agent, 'up', undefined, part.outBytes));
      const slowest = slowestFirst[0]?.rate ?? 0;
      // A device a thousand times slower than the slowest stage adds a wait and no throughput.
      if (stage.rate > 0 && rate < LEAST_OF_SLOWEST * slowest) continue;
      stage.rate += rate;
      stage.team.push(device);
      break;
    }
  }
  if (stages.some((stage) => stage.team.length === 0)) return undefined;
  return { bounds, teams: stages.map((stage) => stage.team), rate: Math.min(...stages.map((stage) => stage.rate)) };
}

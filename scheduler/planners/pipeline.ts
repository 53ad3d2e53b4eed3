/**
 * Consecutive blocks on different devices. Dynamic programming over (blocks done, devices used): exact for this cost model up to
 * `EXACT_DEVICES` devices; beyond that devices are taken fastest first (each may be left out).
 */
import { DISPATCHER } from '../../broker/topics.js';
import type { StageSpec } from '../../models/slicing/partition.js';
import { BlockTable } from './block-table.js';
import { ENGINE_BYTES, seatMs } from './cost.js';
import { bottleneckLine, draft, mib, refuse } from './draft.js';
import { Ends } from './ends.js';
import { bySpeed, type Device, isRefusal, type PlanDraft, type PlanProblem, type PlanRefusal, type SeatedStage } from './problem.js';

const EXACT_DEVICES = 7;
/** In order, so many devices but one may be left out between two stages. */
const MOST_SKIPPED = 3;

interface Choice {
  readonly cost: number;
  /** First block of the last stage, its device, and the state before it. */
  readonly from: number;
  readonly device: number;
  readonly before: Choice | undefined;
}

/** `manual.kind === 'stages'`: exactly that many stages, on the fastest agents. */
export function pipeline(problem: PlanProblem): PlanDraft | PlanRefusal {
  const { blocks } = problem.facts;
  const exactly = problem.manual?.kind === 'stages' ? problem.manual.parts : 0;
  // More devices than blocks are never needed, as each stage has at least one; but which ones, where memory is short, only the search tells.
  const devices = bySpeed(holding(problem)).slice(0, exactly > 0 ? exactly : Math.max(blocks.length, EXACT_DEVICES));
  if (devices.length < exactly) return refuse(`pipeline: ${exactly} stages need ${exactly} agents, there are ${devices.length}`);
  if (blocks.length < exactly) return refuse(`pipeline: ${exactly} stages wanted, the model has ${blocks.length} blocks to cut between`);
  const found = search(problem, devices, exactly);
  if (found === undefined) {
    const largest = Math.max(...blocks.map((block) => block.weightBytes));
    return refuse(`pipeline: no division into stages fits; the largest block has ${mib(largest)} of weights`);
  }
  const stages: SeatedStage[] = [];
  let end = blocks.length;
  for (let choice: Choice | undefined = found; choice?.before !== undefined; choice = choice.before) {
    const spec: StageSpec = { nodes: [blocks[choice.from]?.nodes[0] ?? 0, blocks[end - 1]?.nodes[1] ?? 0], cut: 'whole', shares: [1] };
    stages.unshift({ spec, agents: [[devices[choice.device]?.agent ?? '']] });
    end = choice.from;
  }
  const plan = draft(problem, 'pipeline', stages);
  if (isRefusal(plan)) return plan;
  return { ...plan, why: `${bottleneckLine(plan.estimate)}\nwould change it: a point in the graph where fewer bytes cross` };
}

/** Devices with room for some block: one without, however fast, must not take the place of one that helps. */
function holding({ devices, facts }: PlanProblem): readonly Device[] {
  const least = Math.min(...facts.blocks.map(({ weightBytes }) => weightBytes)) + ENGINE_BYTES;
  return devices.filter(({ memoryBytes }) => memoryBytes === 0 || memoryBytes >= least);
}

function search(problem: PlanProblem, devices: readonly Device[], exactly: number): Choice | undefined {
  const { blocks } = problem.facts;
  const ordered = devices.length > EXACT_DEVICES;
  const stageCost = costs(problem, devices);
  const start: Choice = { cost: 0, from: 0, device: -1, before: undefined };
  // Per number of blocks done: the best way for each set of devices used (a bit mask), or, in order, for each last device.
  const states: Map<number, Choice>[] = blocks.map(() => new Map());
  states.push(new Map());
  states[0]?.set(0, start);
  for (let done = 0; done < blocks.length; done++) {
    for (const [key, choice] of states[done] ?? []) {
      // In order, with a fixed number of stages, none may be left out.
      const until = ordered ? Math.min(devices.length, key + (exactly > 0 ? 1 : MOST_SKIPPED)) : devices.length;
      for (let device = ordered ? key : 0; device < until; device++) {
        if (!ordered && (key & (1 << device)) !== 0) continue;
        const nextKey = ordered ? device + 1 : key | (1 << device);
        for (let end = done + 1; end <= blocks.length; end++) {
          const stage = stageCost(done, end, device);
          if (stage === undefined) break;
          const cost = problem.objective === 'latency' ? choice.cost + stage.sumMs : Math.max(choice.cost, stage.busyMs);
          const known = states[end]?.get(nextKey);
          // Ties prefer fewer stages: later ones do not replace equal earlier ones.
          if (known === undefined || cost < known.cost - 1e-9) states[end]?.set(nextKey, { cost, from: done, device, before: choice });
        }
      }
    }
  }
  let found: Choice | undefined;
  for (const choice of states[blocks.length]?.values() ?? []) {
    if (exactly > 0 && stagesOf(choice) !== exactly) continue;
    if (found === undefined || choice.cost < found.cost - 1e-9) found = choice;
    else if (choice.cost < found.cost + 1e-9 && stagesOf(choice) < stagesOf(found)) found = choice;
  }
  return found;
}

function stagesOf(choice: Choice): number {
  let count = 0;
  for (let at: Choice | undefined = choice; at?.before !== undefined; at = at.before) count++;
  return count;
}

/** Cost of blocks [from, end) on a device; undefined when they do not fit (then more blocks will not fit either). */
function costs(problem: PlanProblem, devices: readonly Device[]) {
  const table = BlockTable.of(problem.facts);
  const ends = new Ends(problem.devices, problem.links);
  return (from: number, end: number, index: number): { sumMs: number; busyMs: number } | undefined => {
    const device = devices[index];
    if (device === undefined) return undefined;
    const part = table.whole(from, end);
    const need = part.weightBytes + ENGINE_BYTES + part.activationBytes + 2 * part.inBytes;
    if (device.memoryBytes > 0 && need > device.memoryBytes) return undefined;
    const ms = seatMs(device, part, table.spec(from, end, 'whole'), 1);
    const { agent } = device;
    const inMs = ends.linkMs(agent, 'down', undefined, part.inBytes);
    const outMs = ends.linkMs(agent, 'up', undefined, part.outBytes);
    return { sumMs: ms + inMs + ends.latencyMs(DISPATCHER, agent), busyMs: Math.max(ms, inMs, outMs) };
  };
}

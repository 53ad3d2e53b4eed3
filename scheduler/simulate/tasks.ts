/**
 * A network of which only the tasks are known: how long each takes, what it reads and what it writes. Its cuts are whole runs of tasks, replicas of them,
 * and a single fully connected task divided by its outputs; nothing finer, because nothing finer was published.
 */
import type { Port } from '../../broker/plan.js';
import { type Box, type TensorInfo, tensorBytes, wholeBox } from '../../broker/tensor.js';
import type { StageSpec } from '../../models/slicing/partition.js';
import { wire } from '../../models/slicing/wiring.js';
import type { CutFacts, ModelFacts, PartFacts, PlanRefusal, ProfileRow, ProfileTable } from '../planners/problem.js';

export interface Task {
  readonly name: string;
  /** Names of tasks, or of inputs. */
  readonly reads: readonly string[];
  /** Float32 values that it gives. */
  readonly values: number;
  readonly weightBytes: number;
  readonly ms: number;
  /** Of a task that may be divided by its outputs: the time of one of `parts` equal parts, ms. */
  readonly partMs?: (parts: number) => number;
}

export interface TaskGraph {
  readonly inputs: readonly { readonly name: string; readonly values: number }[];
  /** In order; the last one gives the result. */
  readonly tasks: readonly Task[];
}

/** A time is published, work is not: planners that ask for MACs get ms x this, which only has to be the same for all. */
const MACS_PER_MS = 1e6;
const MOST_PARTS = 16;

export function factsOfTasks(graph: TaskGraph): ModelFacts {
  const values = new Map([...graph.inputs, ...graph.tasks].map((one) => [one.name, one.values]));
  const info = (name: string): TensorInfo => ({ name, dtype: 'float32', dims: [values.get(name) ?? 0] });
  const port = (name: string, box?: Box): Port => ({ name, tensor: name, dtype: 'float32', box: box ?? wholeBox(info(name).dims) });
  const last = graph.tasks.at(-1)?.name ?? '';
  const ends = { inputs: graph.inputs.map(({ name }) => info(name)), outputs: [info(last)] };

  const parts = ({ nodes: [start, end], cut, shares }: StageSpec): PartFacts[] | PlanRefusal => {
    const mine = graph.tasks.slice(start, end);
    const made = new Set(mine.map(({ name }) => name));
    const reads = new Set(mine.flatMap((task) => task.reads.filter((name) => !made.has(name))));
    const later = new Set([last, ...graph.tasks.slice(end).flatMap((task) => task.reads)]);
    const gives = mine.filter(({ name }) => later.has(name));
    const weightBytes = mine.reduce((sum, task) => sum + task.weightBytes, 0);
    const macs = mine.reduce((sum, task) => sum + task.ms, 0) * MACS_PER_MS;
    const activationBytes = 4 * [...made, ...reads].reduce((sum, name) => sum + (values.get(name) ?? 0), 0);
    const whole = { inputs: [...reads].map((name) => port(name)), outputs: gives.map(({ name }) => port(name)), activationBytes };
    if (cut === 'whole') return [{ ...whole, macs, weightBytes }];
    const [task] = mine;
    if (task?.partMs === undefined || mine.length > 1 || cut !== 'channels') return { refused: true, reason: `${cut}: not divided so` };
    const total = shares.reduce((sum, share) => sum + share, 0);
    let from = 0;
    return shares.map((_, i) => {
      const to = Math.round((task.values * shares.slice(0, i + 1).reduce((sum, share) => sum + share, 0)) / total);
      const part = (to - from) / task.values;
      const outputs = [port(task.name, { start: [from], end: [to] })];
      from = to;
      return { ...whole, outputs, macs: macs * part, weightBytes: weightBytes * part };
    });
  };

  const cut = (specs: readonly StageSpec[]): CutFacts | PlanRefusal => {
    const stages = [];
    for (const spec of specs) {
      const made = parts(spec);
      if ('refused' in made) return made;
      stages.push({ spec, cut: spec.cut, parts: made, partShares: made.map((_, i) => i) });
    }
    return { stages, wires: wire(stages, ends).wires, ...ends };
  };

  return {
    blocks: graph.tasks.map(({ ms, weightBytes }, i) => ({
      nodes: [i, i + 1],
      macs: ms * MACS_PER_MS,
      weightBytes,
      outBytes: crossing(graph, values, i + 1),
    })),
    inputBytes: ends.inputs.reduce((sum, one) => sum + tensorBytes(one.dtype, one.dims), 0),
    cut,
    stage: parts,
    cover: (kind) => ({ refused: true, reason: `${kind}: tasks are not divided so` }),
  };
}

/** Bytes that tasks before `at`, and the inputs, hand to tasks from there on. */
function crossing({ tasks, inputs }: TaskGraph, values: ReadonlyMap<string, number>, at: number): number {
  const early = new Set([...inputs, ...tasks.slice(0, at)].map(({ name }) => name));
  const wanted = new Set(at === tasks.length ? [tasks.at(-1)?.name ?? ''] : tasks.slice(at).flatMap((task) => task.reads));
  return 4 * [...wanted].filter((name) => early.has(name)).reduce((sum, name) => sum + (values.get(name) ?? 0), 0);
}

/** The tasks' times as a device's profile. */
export function profileOfTasks(name: string, { tasks }: TaskGraph): ProfileTable {
  const rows = tasks.flatMap((task, i): ProfileRow[] => {
    const nodes = [i, i + 1] as const;
    const divided = Array.from({ length: task.partMs === undefined ? 0 : MOST_PARTS - 1 }, (_, p) => p + 2);
    return [
      { nodes, cut: 'whole', parts: 1, ms: task.ms },
      ...divided.map((parts): ProfileRow => ({ nodes, cut: 'channels', parts, ms: task.partMs?.(parts) ?? task.ms })),
    ];
  });
  return { name, rows };
}

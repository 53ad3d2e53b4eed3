/**
 * The assignment of Musical Chair (Hadidi et al. 2018, arXiv 1802.02138, Algorithm 1), as published, as the baseline to beat. For every n up to the number
 * of devices:
 *
 *   1. pack consecutive layers greedily into groups that fit one device's memory; note a single layer that does not;
 *   2. more groups than n: merge the adjacent pair that needs the least memory together, until there are n;
 *   3. n groups: done;
 *   4. fewer, or a layer that does not fit: estimate every variant (data parallel, model parallel) of the slowest task, replace it by the quickest, repeat.
 *
 * What it does not do is part of it: one profile and one memory size stand for all devices (here the slowest's speed and the smallest's memory, so that its plan
 * can be deployed), devices are taken in the order given, all n are used, shares are equal, data-parallel frames go round robin, and nothing is compared with one
 * device alone.
 *
 * In our words: a layer is a block; data parallelism is replicas; model parallelism is a cut by channels (filters of a convolution, outputs of a fully
 * connected layer), of several blocks one after another with an exchange between them. A task takes compute + comm(its input); n replicas take an n-th of it.
 */
import { BlockTable } from './block-table.js';
import { computeMs, ENGINE_BYTES } from './cost.js';
import { bottleneckLine, draft, mib, refuse } from './draft.js';
import { type Device, isRefusal, type PlanDraft, type PlanProblem, type PlanRefusal, type SeatedStage } from './problem.js';

export interface Task {
  /** Blocks `[from, end)`. */
  readonly from: number;
  readonly end: number;
  readonly variant: 'whole' | 'data' | 'model';
  readonly devices: number;
  /** Per frame, as the algorithm estimates it. */
  readonly ms: number;
}

export interface Assignment {
  readonly n: number;
  readonly tasks: readonly Task[];
  /** What was done, in order, for people. */
  readonly steps: readonly string[];
}

const NAME = 'musical-chair-2018';
/** A layer is not divided into more parts: beyond it there is nothing left to gain, and no device list is as long. */
const MOST_PARTS = 64;

/** On all devices of the problem. */
export function musicalChair2018(problem: PlanProblem): PlanDraft | PlanRefusal {
  const found = new Assigner(problem).assign(problem.devices.length);
  return isRefusal(found) ? found : drafted(problem, found);
}

/** "A plan for every n": n = 1 first. */
export function assignments(problem: PlanProblem): (Assignment | PlanRefusal)[] {
  const assigner = new Assigner(problem);
  return problem.devices.map((_, at) => assigner.assign(at + 1));
}

/** Seats an assignment on the first n devices, in their order. */
export function drafted(problem: PlanProblem, { tasks, steps }: Assignment): PlanDraft | PlanRefusal {
  const table = BlockTable.of(problem.facts);
  const agents = problem.devices.map(({ agent }) => agent);
  const stages: SeatedStage[] = [];
  let next = 0;
  for (const task of tasks) {
    const mine = agents.slice(next, next + task.devices);
    next += task.devices;
    if (task.variant === 'model') stages.push(...divided(problem, table, task, mine));
    else stages.push(wholeOn(table, task, mine));
  }
  const plan = draft(problem, NAME, stages);
  if (isRefusal(plan)) return plan;
  return { ...plan, why: `${bottleneckLine(plan.estimate)}\nall devices were taken as equal; last step: ${steps.at(-1) ?? 'none'}` };
}

/** Replicas have a frame each in turn. */
function wholeOn(table: BlockTable, { from, end }: Task, agents: readonly string[]): SeatedStage {
  const stage = { spec: table.spec(from, end, 'whole'), agents: agents.map((agent) => [agent]) };
  return agents.length > 1 ? { ...stage, inTurn: true } : stage;
}

/**
 * Where planners of other kinds may begin: the groups of step 1, each on one device, and what fits none divided among `parts`, one device after the other and from
 * the first again. Undefined where that many do not fit either.
 */
export function packed(problem: PlanProblem, parts: number): SeatedStage[] | undefined {
  const table = BlockTable.of(problem.facts);
  const tasks = new Assigner(problem).packed(parts);
  const agents = problem.devices.map(({ agent }) => agent);
  let next = 0;
  return tasks?.flatMap((task) => {
    const mine = Array.from({ length: task.devices }, (_, i) => agents[(next + i) % agents.length] ?? '');
    next += task.devices;
    return task.variant === 'model' ? divided(problem, table, task, mine) : [wholeOn(table, task, mine)];
  });
}

/** Block by block: cut where the block can be, whole on the first of the agents where not. */
function divided(problem: PlanProblem, table: BlockTable, task: Task, agents: readonly string[]): SeatedStage[] {
  const stages: SeatedStage[] = [];
  let wholeFrom = task.from;
  const whole = (end: number): void => {
    if (wholeFrom < end) stages.push({ spec: table.spec(wholeFrom, end, 'whole'), agents: [agents.slice(0, 1)] });
  };
  for (let block = task.from; block < task.end; block++) {
    const spec = table.spec(block, block + 1, 'channels', new Array<number>(agents.length).fill(1));
    const parts = problem.facts.stage(spec);
    if (isRefusal(parts) || parts.length < 2) continue;
    whole(block);
    stages.push({ spec, agents: [[...agents]] });
    wholeFrom = block + 1;
  }
  whole(task.end);
  return stages;
}

class Assigner {
  readonly #problem: PlanProblem;
  readonly #table: BlockTable;
  /** What all devices are taken for. */
  readonly #device: Device;
  readonly #groups: readonly Task[];

  constructor(problem: PlanProblem) {
    this.#problem = problem;
    this.#table = BlockTable.of(problem.facts);
    this.#device = typical(problem.devices);
    this.#groups = this.#pack();
  }

  assign(n: number): Assignment | PlanRefusal {
    const steps = [
      this.#groups.length === 1 ? 'all layers fit one device together' : `layers packed into ${this.#groups.length} groups by memory`,
    ];
    const tasks = [...this.#groups];
    if (tasks.length > n) {
      // Greedy groups never fit together in pairs: what is merged swaps, and `draft` refuses it.
      while (tasks.length > n) steps.push(this.#merge(tasks));
      return { n, tasks, steps };
    }
    for (let at = 0; at < tasks.length; at++) {
      const task = tasks[at];
      if (task === undefined || this.#fits(task)) continue;
      const free = n - used(tasks);
      const smaller = this.#smallestThatFits(task, free + 1);
      if (smaller === undefined) return this.#tooLarge(task, n);
      tasks[at] = smaller;
      steps.push(`${this.#name(task)} does not fit: model parallel on ${smaller.devices}`);
    }
    while (used(tasks) < n) {
      const slowest = tasks.reduce((worst, task, at) => (task.ms > (tasks[worst]?.ms ?? 0) ? at : worst), 0);
      const better = this.#bestVariant(tasks[slowest]);
      if (better === undefined) break;
      tasks[slowest] = better;
      steps.push(`${this.#name(better)} is the slowest: ${better.variant} parallel on ${better.devices}`);
    }
    return { n, tasks, steps };
  }

  /** The groups of step 1; what does not fit is divided among `parts`. */
  packed(parts: number): Task[] | undefined {
    const tasks = this.#groups.map((task) => (this.#fits(task) ? task : this.#model(task.from, task.end, parts)));
    return tasks.every((task): task is Task => task !== undefined && this.#fits(task)) ? tasks : undefined;
  }

  /** Step 1. */
  #pack(): Task[] {
    const groups: Task[] = [];
    let from = 0;
    for (let end = 1; end <= this.#table.length; end++) {
      if (end < this.#table.length && this.#fits({ from, end: end + 1, variant: 'whole', devices: 1, ms: 0 })) continue;
      groups.push(this.#whole(from, end));
      from = end;
    }
    return groups;
  }

  /** Step 2. */
  #merge(tasks: Task[]): string {
    const memory = (at: number): number => this.#bytes(tasks[at]?.from ?? 0, tasks[at + 1]?.end ?? 0);
    let least = 0;
    for (let at = 1; at + 1 < tasks.length; at++) if (memory(at) < memory(least)) least = at;
    const merged = this.#whole(tasks[least]?.from ?? 0, tasks[least + 1]?.end ?? 0);
    tasks.splice(least, 2, merged);
    return `${this.#name(merged)} was made of two`;
  }

  /** Step 4, of one task: the quickest variant with one device more. */
  #bestVariant(task: Task | undefined): Task | undefined {
    if (task === undefined) return undefined;
    const devices = task.devices + 1;
    const whole = this.#whole(task.from, task.end);
    const data: Task = { ...whole, variant: 'data', devices, ms: whole.ms / devices };
    const model = this.#model(task.from, task.end, devices);
    const variants = [...(this.#fits(whole) ? [data] : []), ...(model !== undefined && this.#fits(model) ? [model] : [])];
    return variants.reduce<Task | undefined>((best, one) => (best === undefined || one.ms < best.ms ? one : best), undefined);
  }

  #smallestThatFits(task: Task, most: number): Task | undefined {
    for (let devices = 2; devices <= Math.min(most, MOST_PARTS); devices++) {
      const model = this.#model(task.from, task.end, devices);
      if (model !== undefined && this.#fits(model)) return model;
    }
    return undefined;
  }

  #whole(from: number, end: number): Task {
    const part = this.#table.whole(from, end);
    const ms = computeMs(this.#device, part, this.#table.spec(from, end, 'whole'), 1) + this.#commMs(part.inBytes);
    return { from, end, variant: 'whole', devices: 1, ms };
  }

  #model(from: number, end: number, devices: number): Task | undefined {
    if (devices > MOST_PARTS) return undefined;
    let ms = 0;
    let cut = false;
    for (let block = from; block < end; block++) {
      const part = this.#table.part(block, block + 1, 'channels', 1 / devices);
      if (part === undefined) ms += this.#whole(block, block + 1).ms;
      else {
        ms += computeMs(this.#device, part, this.#table.spec(block, block + 1, 'channels'), 1 / devices);
        ms += this.#commMs(this.#table.whole(block, block + 1).inBytes);
        cut = true;
      }
    }
    return cut ? { from, end, variant: 'model', devices, ms } : undefined;
  }

  /** Their comm(): one regression on size for all links. */
  #commMs(bytes: number): number {
    const { bytesPerSecond, latencyMs } = this.#problem.links.usual;
    return latencyMs + (1000 * bytes) / bytesPerSecond;
  }

  #fits(task: Task): boolean {
    const { memoryBytes } = this.#device;
    if (memoryBytes === 0) return true;
    if (task.variant !== 'model') return this.#bytes(task.from, task.end) <= memoryBytes;
    let weights = 0;
    let live = 0;
    for (let block = task.from; block < task.end; block++) {
      const whole = this.#table.whole(block, block + 1);
      const part = this.#table.part(block, block + 1, 'channels', 1 / task.devices) ?? whole;
      weights += part.weightBytes;
      live = Math.max(live, part.activationBytes + 2 * whole.inBytes);
    }
    return weights + live + ENGINE_BYTES <= memoryBytes;
  }

  /** Weights, live activations, and two frames that wait. */
  #bytes(from: number, end: number): number {
    const { weightBytes, activationBytes, inBytes } = this.#table.whole(from, end);
    return weightBytes + activationBytes + 2 * inBytes + ENGINE_BYTES;
  }

  #tooLarge(task: Task | undefined, n: number): PlanRefusal {
    if (task === undefined) return refuse(`${NAME}: nothing to assign`);
    const need = this.#bytes(task.from, task.end);
    return refuse(
      `${NAME}: not enough memory: on ${n} devices ${this.#name(task)} needs ${mib(need)} on one device, the smallest has ${mib(this.#device.memoryBytes)}`,
    );
  }

  #name({ from, end }: Task): string {
    return end - from === 1 ? `block ${from + 1} alone` : `the task of blocks ${from + 1} to ${end}`;
  }
}

function used(tasks: readonly Task[]): number {
  return tasks.reduce((sum, task) => sum + task.devices, 0);
}

/** The slowest's speed, the smallest's memory. */
function typical(devices: readonly Device[]): Device {
  const [first] = devices;
  if (first === undefined) return { agent: '', macsPerSecond: 1, memoryBytes: 0 };
  const slowest = devices.reduce((slow, device) => (device.macsPerSecond < slow.macsPerSecond ? device : slow), first);
  const memory = devices.map((device) => device.memoryBytes).filter((bytes) => bytes > 0);
  return { ...slowest, memoryBytes: memory.length === 0 ? 0 : Math.min(...memory) };
}

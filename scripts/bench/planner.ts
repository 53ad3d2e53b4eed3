/** How long planning takes, and how good plans are: against brute force where problems are small, against the work bound where they are large. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createOnnxRuntimeEngine } from '../../models/engine/onnxruntime.js';
import { ModelLibrary } from '../../scheduler/model-library.js';
import { type ChainBlock, chain, randomProblem } from '../../scheduler/planners/chain-model.js';
import { score } from '../../scheduler/planners/draft.js';
import { PLANNERS } from '../../scheduler/planners/planners.js';
import { type Device, isRefusal, type Links, type PlanDraft, type PlanProblem } from '../../scheduler/planners/problem.js';
import type { Bench, BenchContext } from './bench.js';
import { bruteForce } from './brute-force.js';
import { atLeast, atMost, below, type Figure, figure, largest } from './figures.js';
import { networkFile } from './networks.js';

const MIB = 2 ** 20;
const GIGABIT: Links = { usual: { bytesPerSecond: 120e6, latencyMs: 0.3 }, between: new Map() };

/** Throws what the planner refused with. */
function planned(name: string, problem: PlanProblem): PlanDraft {
  const planner = PLANNERS.get(name);
  const plan = planner?.(problem) ?? { refused: true as const, reason: `there is no planner '${name}'` };
  if (isRefusal(plan)) throw new Error(plan.reason);
  return plan;
}

function timed(problem: PlanProblem): { seconds: number; plan: PlanDraft } {
  const from = performance.now();
  const plan = planned('auto', problem);
  return { seconds: (performance.now() - from) / 1000, plan };
}

/** VGG16 on 16 devices; the model's cuts are not remembered from one sample to the next. */
async function vgg16(context: BenchContext, objective: PlanProblem['objective']): Promise<Figure[]> {
  const { model } = await networkFile('vgg16', context.models);
  const directory = await mkdtemp(path.join(tmpdir(), 'musical-chair-bench-planner-'));
  try {
    const workDirectory = path.join(directory, 'models');
    const library = new ModelLibrary({
      createEngine: createOnnxRuntimeEngine,
      workDirectory,
      storeDirectory: path.join(directory, 'slices'),
    });
    const seconds: number[] = [];
    const devices = Array.from({ length: 16 }, (_, i): Device => ({ agent: `n${i}`, macsPerSecond: 5e9, memoryBytes: 870 * MIB }));
    for (let sample = 0; sample < (context.quick ? 2 : 6); sample++) {
      const { facts } = await library.load({ model, shapes: [], images: [] });
      const one = timed({ facts, devices, links: GIGABIT, objective, inFlight: 0 });
      // The first one also compiles the planner: a gateway does that once.
      if (sample > 0) seconds.push(one.seconds);
    }
    return [figure(`vgg16 on 16 devices for ${objective}: planning time`, 's', seconds, below(0.2))];
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

const BLOCKS = Array.from({ length: 100 }, (_, i): ChainBlock => ({ macs: 1e9 * (1 + (i % 5)), weightBytes: 20 * MIB, rows: 4 }));

/** 100 blocks on 1,000 devices of three speeds. */
function large(memoryBytes: number, quick: boolean): Figure[] {
  const devices = Array.from({ length: 1000 }, (_, i): Device => ({ agent: `n${i}`, macsPerSecond: 1e9 * (1 + (i % 3)), memoryBytes }));
  const problem = (): PlanProblem => ({ facts: chain(BLOCKS), devices, links: GIGABIT, objective: 'throughput', inFlight: 0 });
  const runs = Array.from({ length: quick ? 1 : 3 }, () => timed(problem()));
  const work = BLOCKS.reduce((sum, block) => sum + block.macs, 0);
  const bound = devices.reduce((sum, device) => sum + device.macsPerSecond, 0) / work;
  const baselines = ['single', 'replicas', 'pipeline'].flatMap((name) => {
    const plan = PLANNERS.get(name)?.(problem());
    return plan === undefined || isRefusal(plan) ? [] : [plan.estimate.fps];
  });
  // "The better of the work bound and the best baseline": no plan exceeds the bound, so this is the bound but for rounding.
  const measure = Math.max(bound, ...baselines);
  const name = `100 blocks on 1,000 devices of ${Math.round(memoryBytes / 1e6)} MB`;
  const seconds = runs.map((run) => run.seconds);
  const shares = runs.map(({ plan }) => plan.estimate.fps / measure);
  return [
    figure(`${name}: planning time`, 's', seconds, below(2)),
    figure(`${name}: throughput over the work bound`, 'x', shares, atLeast(0.95)),
  ];
}

function problemOf(seed: number, blocks: number, devices: number, objective: PlanProblem['objective'], tight: boolean): PlanProblem {
  const own = seed * 1009 + blocks * 31 + devices * 7 + (tight ? 3 : 0) + (objective === 'latency' ? 0 : 1);
  return randomProblem({ seed: own, blocks, devices, objective, tight });
}

/** Smallest first: they are settled soonest. */
const SIZES = [2, 3, 4, 5, 6]
  .flatMap((blocks) => [2, 3, 4].map((devices) => ({ blocks, devices })))
  .toSorted((a, b) => a.blocks * a.devices - b.blocks * b.devices);
const WITHIN = 0.02;
/** Each search of one problem gives up after this. */
const PATIENCE_MS = 1000;
const SECONDS_QUICK = 8;
const SECONDS = 35;

/** What is known of one plan: how far it is above the optimum, or only that it is less than 2 %, or nothing. */
type Verdict = { readonly gap: number } | 'within' | 'open' | 'one device' | 'refused';

function judge(problem: PlanProblem): Verdict {
  const plan = PLANNERS.get('auto')?.(problem);
  const refused = plan === undefined || isRefusal(plan);
  // One device is preferred to a gain below 10 %: that choice is not what is measured here.
  if (!refused && plan.why.startsWith('one device is best')) return 'one device';
  const found = refused ? Number.POSITIVE_INFINITY : score(plan.estimate, problem.objective);
  const exact = bruteForce(problem, found, performance.now() + PATIENCE_MS);
  if (refused && exact.settled && exact.best === found) return 'refused';
  // A plan that is far better needs no end of the search.
  if (exact.settled || found / exact.best > 1 + WITHIN) return { gap: found / exact.best - 1 };
  const bound = found / (1 + WITHIN);
  const { best, settled } = bruteForce(problem, bound, performance.now() + PATIENCE_MS);
  if (best < bound) return { gap: found / best - 1 };
  return settled ? 'within' : 'open';
}

/** Seed after seed over all sizes, until the time is over. */
function optimality(quick: boolean): Figure[] {
  const until = performance.now() + 1000 * (quick ? SECONDS_QUICK : SECONDS);
  const verdicts: { readonly size: string; readonly kind: string; readonly verdict: Verdict }[] = [];
  for (let seed = 1; performance.now() < until; seed++) {
    for (const { blocks, devices } of SIZES) {
      for (const objective of ['latency', 'throughput'] as const) {
        for (const tight of [false, true]) {
          if (performance.now() > until) break;
          const verdict = judge(problemOf(seed, blocks, devices, objective, tight));
          verdicts.push({ size: `${blocks} on ${devices}`, kind: `${objective}, memory ${tight ? 'tight' : 'free'}`, verdict });
        }
      }
    }
  }
  const gaps = (list: typeof verdicts): number[] => list.flatMap(({ verdict }) => (typeof verdict === 'object' ? 100 * verdict.gap : []));
  const count = (wanted: Verdict): number[] => [verdicts.filter(({ verdict }) => verdict === wanted).length];
  const all = gaps(verdicts);
  const kinds = [...new Set(verdicts.map(({ size, kind }) => `${size} for ${kind}`))];
  const byKind = kinds.map((name) => ({ name, own: gaps(verdicts.filter(({ size, kind }) => `${size} for ${kind}` === name)) }));
  return [
    figure('brute force: worst distance of auto from the optimum', '%', all, atMost(100 * WITHIN), { value: largest }),
    figure('brute force: problems with the optimum known', 'problems', [all.length]),
    figure('brute force: more problems where auto is proven within 2 %', 'problems', count('within')),
    figure('brute force: problems not settled in time', 'problems', count('open')),
    figure('brute force: problems where one device was preferred (gain below 10 %), not compared', 'problems', count('one device')),
    figure('brute force: problems that have no plan', 'problems', count('refused')),
    ...byKind
      .filter(({ own }) => own.length > 0)
      .map(({ name, own }) => figure(`brute force, ${name}: worst distance`, '%', own, undefined, { value: largest, detail: true })),
  ];
}

async function run(context: BenchContext): Promise<object> {
  await context.cases([
    { name: 'vgg16 latency', run: () => vgg16(context, 'latency') },
    { name: 'vgg16 throughput', run: () => vgg16(context, 'throughput') },
    { name: '1000 devices 4000 MB', run: async () => large(4e9, context.quick) },
    { name: '1000 devices 500 MB', run: async () => large(5e8, context.quick) },
    { name: 'brute force', run: async () => optimality(context.quick) },
  ]);
  return { processes: 1, links: '1 Gbit/s', 'brute force gives up after': `${2 * PATIENCE_MS} ms a problem` };
}

export const planner: Bench = {
  name: 'planner',
  summary: 'planning time, and plans against brute force and the work bound',
  seconds: 80,
  run,
};

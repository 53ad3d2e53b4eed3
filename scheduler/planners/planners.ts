/** The planners by the name they are asked for. */
import { auto } from './auto.js';
import { manual } from './manual.js';
import { musicalChair2018 } from './musical-chair-2018.js';
import { pipeline } from './pipeline.js';
import type { Planner } from './problem.js';
import { replicas } from './replicas.js';
import { single } from './single.js';

export const PLANNERS: ReadonlyMap<string, Planner> = new Map(
  Object.entries({ auto, single, replicas, pipeline, 'musical-chair-2018': musicalChair2018, manual }),
);

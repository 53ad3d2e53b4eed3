/** Every benchmark, in the order of `--help`. */
import type { Bench } from './bench.js';
import { codec } from './codec.js';
import { lanes } from './lanes.js';
import { latency } from './latency.js';
import { memory } from './memory.js';
import { overhead } from './overhead.js';
import { scaling } from './scaling.js';

export const BENCHES: readonly Bench[] = [overhead, scaling, latency, memory, lanes, codec];

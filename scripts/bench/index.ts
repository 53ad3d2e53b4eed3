/** Every benchmark, in the order they run: short ones first. */
import type { Bench } from './bench.js';
import { codec } from './codec.js';
import { failover } from './failover.js';
import { lanes } from './lanes.js';
import { latency } from './latency.js';
import { memory } from './memory.js';
import { messages } from './messages.js';
import { overhead } from './overhead.js';
import { planner } from './planner.js';
import { policies } from './policies.js';
import { precision } from './precision.js';
import { prediction } from './prediction.js';
import { reassign } from './reassign.js';
import { rebalance } from './rebalance.js';
import { redundancy } from './redundancy.js';
import { scaling } from './scaling.js';
import { traffic } from './traffic.js';

export const BENCHES: readonly Bench[] = [
  codec,
  lanes,
  planner,
  overhead,
  memory,
  messages,
  traffic,
  failover,
  reassign,
  redundancy,
  rebalance,
  scaling,
  latency,
  precision,
  prediction,
  policies,
];

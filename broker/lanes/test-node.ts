/** Lanes of one process, as tests make them: what comes, and what is refused, is collected, and everything is stopped when the test ends. */
import { onTestFinished } from 'vitest';
import { isChairError } from '../errors.js';
import type { LaneMessage, Lanes } from './lane.js';
import { createLanes, type LanesOptions } from './lanes.js';

export interface LaneNode {
  readonly lanes: Lanes;
  /** What came on its topic. */
  readonly got: LaneMessage[];
  /** Topics and codes, or what was said where there is no code. */
  readonly refused: string[];
  /** `PEER LANE`, at each change. */
  readonly told: string[];
}

/** `topic`: that it listens to; default `t/ID`. */
export async function laneNode(id: string, options: Partial<LanesOptions> = {}, topic = `t/${id}`): Promise<LaneNode> {
  const node = { got: [] as LaneMessage[], refused: [] as string[], told: [] as string[] };
  const lanes = createLanes({
    id,
    host: '127.0.0.1',
    random: () => 0.1,
    // The machine may be busy; what depends on time says so itself.
    graceMs: 10_000,
    connectTimeoutMs: 10_000,
    onRefused: (on, error) => node.refused.push(`${on} ${isChairError(error) ? error.code : error.message}`),
    ...options,
  });
  lanes.on(topic, (message) => node.got.push(message));
  lanes.onPeer((peer, lane) => node.told.push(`${peer} ${lane}`));
  onTestFinished(() => lanes.stop());
  await lanes.start();
  return { lanes, ...node };
}

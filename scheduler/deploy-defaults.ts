import type { DeployRequest } from '../broker/messages.js';

/** What a deploy request says where the caller says nothing: '' and 0 leave the choice to the scheduler. */
export const DEPLOY_DEFAULTS: Omit<DeployRequest, 'name' | 'model'> = {
  shapes: [],
  images: [],
  objective: 'latency',
  planner: 'auto',
  cut: '',
  shares: [],
  agents: [],
  inFlight: 0,
  deadlineMs: 0,
  maxError: 0,
  calibration: [],
  verify: false,
  dryRun: false,
  plan: '',
  explain: false,
};

import type { DeployRequest, ProfileRequest } from '../broker/messages.js';

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
  redundancy: 0,
  weight: 1,
  verify: false,
  dryRun: false,
  plan: '',
  explain: false,
};

/** As planners need it: rows and channels, as many parts as agents, threads as they serve. */
export const PROFILE_DEFAULTS: Omit<ProfileRequest, 'job' | 'model' | 'cancel'> = {
  shapes: [],
  images: [],
  agents: [],
  cuts: [],
  parts: [],
  threads: [],
  runs: 20,
  budgetMs: 500,
  fresh: false,
};

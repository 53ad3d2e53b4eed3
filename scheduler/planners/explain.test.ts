import { describe, expect, it } from 'vitest';
import { DISPATCHER } from '../../broker/topics.js';
import { explain, type Reasons } from './explain.js';
import type { PlanDraft, PlanProblem } from './problem.js';

/** Only what the words are made of. */
function words(bottleneck: PlanDraft['estimate']['bottleneck'], more: Partial<Reasons> = {}): string {
  const chosen = {
    planner: 'single',
    stages: [{ agents: [['a']] }],
    estimate: { latencyMs: 100, fps: 10, bottleneck },
  } as unknown as PlanDraft;
  const problem = { objective: 'throughput', devices: [{ agent: 'a' }, { agent: 'b' }] } as unknown as PlanProblem;
  return explain(problem, { chosen, runnerUp: undefined, oneIsEnough: true, clearGain: 0.1, refusals: [], ...more });
}

describe('what would change a plan on one device', () => {
  it('is the link of the gateway where that is what all frames wait for: links between agents would not', () => {
    expect(words({ kind: 'link', who: `${DISPATCHER} up`, ms: 90 })).toContain(
      '\nwould change it: faster links at the gateway, or smaller frames',
    );
  });

  it('is links between agents where computing is the most: then the model could be divided', () => {
    expect(words({ kind: 'compute', who: 'a', ms: 90 })).toContain('\nwould change it: faster links between the agents');
    expect(words({ kind: 'link', who: 'a down', ms: 90 })).toContain('\nwould change it: faster links between the agents');
  });
});

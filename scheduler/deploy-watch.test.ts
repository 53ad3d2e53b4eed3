import { describe, expect, it } from 'vitest';
import { ChairError } from '../broker/errors.js';
import type { DeploymentStatus, PlanReport, StatusReport } from '../broker/messages.js';
import { answeredDeploy } from './deploy-watch.js';

const plan: PlanReport = {
  deployment: 'm',
  epoch: 1,
  planner: 'single',
  why: '',
  basis: '',
  predictedLatencyMs: 1,
  predictedFps: 1,
  seats: [],
  links: [],
  memory: [],
  precision: null,
  redundancy: null,
  details: null,
};
const never = new Promise<PlanReport>(() => undefined);

function deployed(state: string): DeploymentStatus {
  const counts = {
    inFlight: 0,
    queued: 0,
    completed: 0,
    failed: 0,
    reissued: 0,
    rawFallbacks: 0,
    recovered: 0,
    p50Ms: 0,
    p95Ms: 0,
    framesPerSecond: 0,
  };
  return {
    name: 'm',
    model: '',
    state,
    why: '',
    epoch: 1,
    inputs: [],
    outputs: [],
    images: [],
    ...counts,
    plan,
    objective: 'latency',
    weight: 1,
    demandFps: 0,
    outlook: '',
    losses: [],
    live: [],
    expectedLatencyMs: 0,
    expectedFps: 0,
    progress: [],
  };
}

function report(uptimeMs: number, deployments: DeploymentStatus[]): StatusReport {
  return {
    cluster: 'c',
    term: 1,
    encrypted: false,
    problems: [],
    lanes: [],
    uptimeMs,
    dispatcherAddresses: [],
    dispatcherPort: 0,
    refusals: [],
    agents: [],
    deployments,
    host: '',
    links: [],
    events: [],
  };
}

/** Statuses in turn, the last one again and again; an error is thrown. */
function told(...statuses: (StatusReport | Error)[]) {
  let asked = 0;
  const status = async () => {
    const now = statuses[Math.min(asked++, statuses.length - 1)];
    if (now === undefined || now instanceof Error) throw now;
    return now;
  };
  return { name: 'm', dryRun: false, status, everyMs: 2, silentMs: 60, asked: () => asked };
}

describe('a deploy request', () => {
  it('ends with its answer, and then nobody asks any more', async () => {
    const options = told(report(1, [deployed('preparing')]));
    expect(await answeredDeploy(new Promise((resolve) => setTimeout(() => resolve(plan), 20)), options)).toBe(plan);
    const asked = options.asked();
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(options.asked()).toBe(asked);
    const failed = Promise.reject(new ChairError('NO_AGENTS', 'none'));
    await expect(answeredDeploy(failed, told(report(1, [])))).rejects.toMatchObject({ code: 'NO_AGENTS' });
  });

  it('ends when the deployment serves though the answer was lost', async () => {
    expect(await answeredDeploy(never, told(report(1, [deployed('preparing')]), report(2, [deployed('serving')])))).toBe(plan);
  });

  it('ends when the gateway was restarted, or does not know the deployment', async () => {
    const planning = deployed('planning');
    await expect(answeredDeploy(never, told(report(100, [planning]), report(5, [planning])))).rejects.toMatchObject({
      code: 'STOPPED',
      message: expect.stringContaining('restarted'),
    });
    await expect(answeredDeploy(never, told(report(100, [planning]), report(5, [])))).rejects.toMatchObject({ code: 'STOPPED' });
    await expect(answeredDeploy(never, told(report(1, [planning]), report(2, [])))).rejects.toMatchObject({ code: 'STOPPED' });
  });

  it('ends well when it served before the restart, and comes back', async () => {
    const back = told(report(100, [deployed('preparing')]), report(5, [deployed('restoring')]), report(6, [deployed('serving')]));
    expect(await answeredDeploy(never, back)).toBe(plan);
  });

  it('waits for a gateway that is busy, and not for one that is silent', async () => {
    const late = new ChairError('REQUEST_TIMEOUT', 'no reply');
    const busy = told(report(1, [deployed('planning')]), late, late, report(2, [deployed('serving')]));
    expect(await answeredDeploy(never, busy)).toBe(plan);
    await expect(answeredDeploy(never, told(late))).rejects.toMatchObject({ code: 'REQUEST_TIMEOUT', message: /silent/ });
  });

  it('that only asks for a plan does not miss the deployment', async () => {
    const options = { ...told(report(1, [])), dryRun: true };
    expect(await answeredDeploy(new Promise((resolve) => setTimeout(() => resolve(plan), 30)), options)).toBe(plan);
  });
});

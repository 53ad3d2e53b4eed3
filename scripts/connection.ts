/** A client of the cluster for the length of one command. */

import type { PlanReport } from '../broker/messages.js';
import type { ChairClient, DeployOptions } from '../scheduler/client.js';
import type { Settings } from './config.js';
import type { Output } from './output.js';
import { progressLine } from './report.js';

/** Connects, hands the client over, and closes it whatever happens. Throws BROKER_UNREACHABLE and what `use` throws. */
export async function withClient<T>(settings: Settings, use: (client: ChairClient) => Promise<T>): Promise<T> {
  const { ChairClient } = await import('../scheduler/client.js');
  const client = await ChairClient.connect({ brokerUrl: settings.broker, cluster: settings.cluster });
  try {
    return await use(client);
  } finally {
    await client.close();
  }
}

/** Deploys, and shows how far the agents are while models travel. */
export async function deployWithProgress(client: ChairClient, request: DeployOptions, output: Output): Promise<PlanReport> {
  let done = false;
  let timer: NodeJS.Timeout | undefined;
  const look = async (): Promise<void> => {
    try {
      const { deployments } = await client.status(request.name);
      const deployment = deployments.find((d) => d.name === request.name);
      if (deployment !== undefined && !done) output.progress(progressLine(deployment));
    } catch {
      // Only the display: if the gateway is gone, the deploy request says so.
    }
    if (!done) timer = setTimeout(() => void look(), 250);
  };
  timer = setTimeout(() => void look(), 250);
  try {
    return await client.deploy(request);
  } finally {
    done = true;
    clearTimeout(timer);
  }
}

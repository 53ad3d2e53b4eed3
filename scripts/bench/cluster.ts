/** What benchmarks on a testbed have in common. */
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { ChairError } from '../../broker/errors.js';
import type { PlanReport } from '../../broker/messages.js';
import { buildZoo } from '../../models/zoo/index.js';
import type { DeployOptions } from '../../scheduler/client.js';
import type { LoadReport, LoadRequest, TestbedClient } from '../testbed/client.js';
import { startTestbed, type Testbed, type TestbedOptions } from '../testbed/testbed.js';
import type { BenchContext } from './bench.js';

export interface Cluster {
  readonly testbed: Testbed;
  readonly client: TestbedClient;
  /** Writes a network of the zoo; returns its path. */
  readonly zoo: (name: string) => Promise<string>;
  /** Deploys with the agents' CPU limits lifted (loading is not what is measured), then sets them again. */
  readonly deploy: (options: DeployOptions) => Promise<PlanReport>;
  /** Throws FRAME_FAILED when a frame failed: a figure over lost frames would be wrong. */
  readonly load: (request: LoadRequest) => Promise<LoadReport>;
}

/** Starts a testbed, runs `work` on it and removes it. */
export async function onCluster<T>(context: BenchContext, options: TestbedOptions, work: (cluster: Cluster) => Promise<T>): Promise<T> {
  const testbed = await startTestbed({ threads: 1, cli: await context.cli(), ...options });
  try {
    const { conditions } = testbed;
    if (conditions.oversubscribed) {
      const came = `${conditions.coresPromised.toFixed(2)} cores promised, ${conditions.coresOfMachine} there`;
      throw new ChairError('CONFIG_INVALID', 'this machine is too small for the benchmark', { came });
    }
    const client = await testbed.client();
    await client.untilReady(testbed.agents.length);
    const models = path.join(testbed.directory, 'models');
    await mkdir(models, { recursive: true });
    return await work({
      testbed,
      client,
      zoo: async (name) => {
        const file = path.join(models, `${name}.onnx`);
        await buildZoo(name, file);
        return file;
      },
      deploy: async (deployOptions) => {
        const limited = conditions.isolation === 'namespaces';
        if (limited) for (const agent of testbed.agents) agent.setCpu(conditions.coresOfMachine);
        const plan = await client.deploy(deployOptions);
        if (limited) for (const [i, agent] of testbed.agents.entries()) agent.setCpu(conditions.agents[i]?.cpu ?? 1);
        return plan;
      },
      load: async (request) => {
        const report = await client.load(request);
        if (report.failures.length > 0) {
          throw new ChairError('FRAME_FAILED', `${report.failures.length} of ${request.frames} frames failed`, {
            came: report.failures.join(', '),
          });
        }
        return report;
      },
    });
  } finally {
    await testbed.stop();
  }
}

/** Frames per second between the results number `skip` and the last: the pipe fills before. */
export function framesPerSecond({ endedAtMs }: LoadReport, skip: number): number {
  const [first = Number.NaN, last = Number.NaN] = [endedAtMs[skip], endedAtMs.at(-1)];
  return ((endedAtMs.length - 1 - skip) * 1000) / (last - first);
}

/** `cluster`: a gateway and agents on this machine, as separate processes. */
import { setTimeout as delay } from 'node:timers/promises';
import { ChairError } from '../../broker/errors.js';
import type { StatusReport } from '../../broker/messages.js';
import type { ChairClient } from '../../scheduler/client.js';
import type { CommandDefinition } from '../command.js';
import { optionText } from '../deploy-options.js';
import { announceReady, untilStopped } from '../lifetime.js';
import { wholeNumber } from '../output.js';
import { PROGRAM } from '../package-root.js';
import { agentsText } from '../status-text.js';

const JOIN_WITHIN_MS = 30_000;

/** Asks until so many agents are ready. Throws NO_AGENTS. */
export async function untilAgentsReady(client: ChairClient, count: number): Promise<StatusReport> {
  const until = performance.now() + JOIN_WITHIN_MS;
  for (;;) {
    const report = await client.status();
    if (report.agents.filter((a) => a.state === 'ready').length >= count) return report;
    if (performance.now() > until) {
      const states = report.agents.map((a) => `${a.agent} ${a.state}`).join(', ');
      throw new ChairError('NO_AGENTS', `not all agents joined within ${JOIN_WITHIN_MS} ms`, {
        expected: `${count} ready`,
        came: states || 'none',
      });
    }
    await delay(100);
  }
}

export const cluster: CommandDefinition = {
  name: 'cluster',
  summary: 'Run a gateway and agents on this machine, each a process of its own',
  description:
    'For trying things out. Nothing listens outside this machine, and nothing is encrypted (--insecure). Ctrl-C stops all of them.',
  options: [
    { flags: '--agents <count>', description: 'number of agents, 1 to 64', default: '4' },
    { flags: '--threads <count>', description: 'engine threads of each agent; default: the cores shared out' },
    { flags: '--log', description: 'show what the processes write' },
  ],
  settings: ['cluster', 'gateway.port', 'gateway.hidden'],
  json: true,
  examples: [{ line: 'cluster --agents 4', text: 'agent-1 to agent-4 and a broker on port 1883' }],
  run: async ({ options, settings, output }) => {
    const agents = wholeNumber(optionText(options, 'agents', '4'), '--agents', 1, 64);
    const { availableParallelism } = await import('node:os');
    const shared = Math.max(1, Math.floor(availableParallelism() / agents));
    const threads = wholeNumber(optionText(options, 'threads', String(shared)), '--threads', 0, 256);
    const { LocalCluster } = await import('../children.js');
    const { ChairClient } = await import('../../scheduler/client.js');
    const stopped = untilStopped();
    output.progress(`starting a gateway and ${agents} agents ...`);
    const local = await LocalCluster.start({
      agents,
      threads,
      cluster: settings.cluster,
      port: settings.gateway.port ?? 1883,
      hidden: settings.gateway.hidden,
      ...(options.log === true ? { onLine: (child, line) => output.note(`${child}: ${line}`) } : {}),
    });
    try {
      const client = await ChairClient.connect({ brokerUrl: local.url, cluster: settings.cluster });
      const report = await untilAgentsReady(client, agents).finally(() => client.close());
      // A gateway outside this machine may serve a cluster of this name, too.
      const options = ` --insecure --broker ${local.url}${settings.cluster === 'default' ? '' : ` --cluster ${settings.cluster}`}`;
      output.report({ broker: local.url, agents: report.agents }, () =>
        [
          agentsText(report.agents, output.columns),
          '',
          `The broker listens at ${local.url}: plain, for this machine only. In another terminal:`,
          `  ${PROGRAM} models build alexnet --scale 0.5`,
          `  ${PROGRAM} deploy alexnet.onnx --cut rows:${agents}${options}`,
          `  ${PROGRAM} status${options}`,
          'Ctrl-C stops everything.',
        ].join('\n'),
      );
      announceReady({ url: local.url });
      const first = await Promise.race([stopped, local.gateway.ended.then(() => 'gateway' as const)]);
      if (first === 'gateway') throw local.gateway.failure();
    } finally {
      await local.stop();
    }
  },
};

/** `status`: agents, deployments, lanes, latest events. */
import { setTimeout as delay } from 'node:timers/promises';
import type { CommandDefinition } from '../command.js';
import { CLIENT_SETTINGS } from '../config.js';
import { unknownDeployment, withClient } from '../connection.js';
import { checkName } from '../deploy-options.js';
import { onAskedToEnd } from '../lifetime.js';
import { statusText } from '../status-text.js';

const WATCH_MS = 1_000;

export const status: CommandDefinition = {
  name: 'status',
  summary: 'Show agents, deployments with their seats, lanes and what happened last',
  arguments: [{ syntax: '[deployment]', description: 'only this deployment' }],
  options: [{ flags: '--watch', description: 'show it again every second until Ctrl-C' }],
  settings: CLIENT_SETTINGS,
  json: true,
  examples: [
    { line: 'status', text: 'everything, in 80 columns' },
    { line: 'status --json', text: 'the same as one JSON document' },
  ],
  run: async ({ arguments: [name = ''], options, settings, output }) => {
    if (name !== '') checkName(name, 'the deployment');
    await withClient(settings, async (client) => {
      const show = async (): Promise<void> => {
        const report = await client.status(name);
        if (name !== '' && report.deployments.length === 0) throw await unknownDeployment(client, name);
        if (options.watch === true) output.clear();
        output.report(report, () => statusText(report, output.columns));
      };
      await show();
      if (options.watch !== true) return;
      const stop = new AbortController();
      onAskedToEnd(() => stop.abort());
      while (!stop.signal.aborted) {
        await delay(WATCH_MS, undefined, { signal: stop.signal }).catch(() => undefined);
        if (!stop.signal.aborted) await show();
      }
    });
  },
};

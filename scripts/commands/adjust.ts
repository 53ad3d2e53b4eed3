/** `adjust`: what a deployment is planned for, changed while it serves. */

import type { CommandDefinition } from '../command.js';
import { CLIENT_SETTINGS } from '../config.js';
import { withClient } from '../connection.js';
import { checkName, objectiveOf, optionText, weightOf } from '../deploy-options.js';
import { planSummary } from '../status-text.js';

export const adjust: CommandDefinition = {
  name: 'adjust',
  summary: 'Change what a deployment is planned for, while it serves',
  description:
    'Plans anew, by what is known now and for the objective given, and moves to that plan if it is another one: agents prepare it beside the frames that run, none is lost. --dry-run only shows the plan and what moving takes: bytes, time, and how long frames would wait where agents cannot hold old and new seats together.',
  arguments: [{ syntax: '<name>', description: 'name of the deployment' }],
  options: [
    { flags: '--objective <goal>', description: "latency, throughput, or 'throughput<200'; default: as before" },
    {
      flags: '--weight <number>',
      description: 'what its demand counts against that of other deployments on the same agents; default: as before',
    },
    { flags: '--dry-run', description: 'change nothing' },
  ],
  settings: CLIENT_SETTINGS,
  json: true,
  examples: [
    { line: "adjust det --objective 'throughput<200'", text: 'as many frames per second as possible, none later than 200 ms' },
    { line: 'adjust det --dry-run', text: 'is there a better plan by now, and what would moving to it take?' },
  ],
  run: async ({ arguments: [name = ''], options, settings, output }) => {
    checkName(name, 'the deployment');
    const goal = optionText(options, 'objective');
    const objective = goal === '' ? '' : objectiveOf(goal);
    const weight = options.weight === undefined ? 0 : weightOf(optionText(options, 'weight'));
    await withClient(settings, async (client) => {
      const report = await client.adjust({ name, objective, weight, dryRun: options.dryRun === true });
      output.report(report, () => [planSummary(report, output.columns), ...report.why.split('\n').slice(-1)].join('\n'));
    });
  },
};

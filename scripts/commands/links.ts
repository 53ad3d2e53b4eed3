/** `links`: what is known of the links between agents, and measuring them. */

import type { CommandDefinition } from '../command.js';
import { CLIENT_SETTINGS } from '../config.js';
import { withClient } from '../connection.js';
import { linksText, machinesText } from '../links-text.js';

export const links: CommandDefinition = {
  name: 'links',
  summary: 'Show what is known of the links, or measure them now',
  description:
    'A deploy or plan measures the links that its plan would use. Each is shown with its age and whether it was measured or learned from live traffic; others are assumed.',
  arguments: [{ syntax: '[agents...]', description: 'with --measure: only between these agents, and between them and the gateway' }],
  options: [
    { flags: '--measure', description: 'measure now: each agent with the gateway and with two others, a few MB each, one after another' },
    { flags: '--even-if-busy', description: 'also where frames run: they become slower meanwhile, and the figures lower' },
  ],
  settings: CLIENT_SETTINGS,
  json: true,
  examples: [
    { line: 'links', text: 'the table' },
    { line: 'links --measure pi-1 pi-2', text: 'the gateway, pi-1 and pi-2, every pair' },
  ],
  run: async ({ arguments: agents, options, settings, output }) => {
    await withClient(settings, async (client) => {
      const measure = options.measure === true;
      if (measure) output.progress('measuring ...');
      const report = await client.links({ measure, evenIfBusy: options.evenIfBusy === true, agents: [...agents] });
      output.report({ host: report.host, links: report.links }, () =>
        [linksText(report.links, output.columns), machinesText(report, output.columns)].filter((text) => text !== '').join('\n\n'),
      );
    });
  },
};

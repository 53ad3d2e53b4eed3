/** `peers`: who exchanges activations with whom, and by which lane. */

import type { CommandDefinition } from '../command.js';
import { CLIENT_SETTINGS } from '../config.js';
import { withClient } from '../connection.js';
import { checkName } from '../deploy-options.js';
import { peersText } from '../peers-text.js';

export const peers: CommandDefinition = {
  name: 'peers',
  summary: "Show the agents' peer tables: neighbours, addresses, lanes",
  description:
    'Of each agent: who sends it activations (before) and who gets its own (after) in the plans in force, where they listen, which lane is used, round trip and throughput as real traffic showed them, and their slices.',
  arguments: [{ syntax: '[agent]', description: 'only the table of this agent' }],
  settings: CLIENT_SETTINGS,
  json: true,
  examples: [
    { line: 'peers', text: 'all tables' },
    { line: 'peers pi-3 --json', text: "pi-3's table as one JSON document" },
  ],
  run: async ({ arguments: [agent = ''], settings, output }) => {
    if (agent !== '') checkName(agent, 'the agent');
    await withClient(settings, async (client) => {
      const report = await client.peers(agent);
      output.report(report, () => peersText(report, output.columns));
    });
  },
};

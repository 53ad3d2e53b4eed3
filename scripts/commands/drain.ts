/** `drain`: an agent without seats, to be stopped or updated while nobody notices. */
import type { CommandDefinition } from '../command.js';
import { CLIENT_SETTINGS } from '../config.js';
import { withClient } from '../connection.js';
import { checkName } from '../deploy-options.js';

export const drain: CommandDefinition = {
  name: 'drain',
  summary: "Move an agent's seats to others and give it no new ones",
  description:
    'Resolves when the agent holds no seat: then it may be stopped, updated or carried away, and no frame notices. It goes on running until somebody stops it, and gets no seats meanwhile, also when the gateway is started again. An agent that is started anew gets seats again by itself; --undo gives them to one that was not.',
  arguments: [{ syntax: '<agent>', description: 'name of the agent' }],
  options: [{ flags: '--undo', description: 'it may have seats again' }],
  settings: CLIENT_SETTINGS,
  json: true,
  examples: [
    { line: 'drain pi-3', text: 'pi-3 holds no seats any more' },
    { line: 'drain pi-3 --undo', text: 'pi-3 may have seats again' },
  ],
  run: async ({ arguments: [agent = ''], options, settings, output }) => {
    checkName(agent, 'the agent');
    const undo = options.undo === true;
    await withClient(settings, async (client) => {
      if (!undo) output.progress(`moving the seats of ${agent} ...`);
      await client.drain(agent, { undo });
      output.report({ agent, drained: !undo }, () =>
        undo ? `${agent} may have seats again.` : `${agent} holds no seats and may be stopped.`,
      );
    });
  },
};

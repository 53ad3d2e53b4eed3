/** What an agent's machine does with bundles: `update check`, and `update apply`, which `launch` runs as root before the agent starts. */
import { ChairError } from '../../broker/errors.js';
import type { CommandDefinition } from '../command.js';
import { optionText } from '../deploy-options.js';
import { check } from './bundle.js';

export const updateCheck: CommandDefinition = {
  name: 'update check',
  summary: 'Check a bundle, and say what it is',
  arguments: [{ syntax: '<file>', description: 'a .tgz made by bundle' }],
  json: true,
  examples: [{ line: 'update check musical-chair-0.1.0-linux-arm64.tgz', text: 'every file against its sha256' }],
  run: (invocation) => check(invocation.arguments[0] ?? '', invocation),
};

export const updateApply: CommandDefinition = {
  name: 'update apply',
  summary: 'Unpack the update that the agent has fetched, when a gateway of its cluster has signed it; as root',
  options: [
    { flags: '--prefix <folder>', description: 'where the program is', default: '/opt/musical-chair' },
    { flags: '--state <folder>', description: 'where the agent keeps its state', default: '/var/lib/musical-chair' },
  ],
  examples: [{ line: 'update apply', text: 'done by the service before each start; prints the name of the bundle' }],
  run: async ({ options, output }) => {
    const { applyUpdate } = await import('../bundle/apply.js');
    // The agent's user has to be able to run what root unpacks, whatever the service's own umask is.
    process.umask(0o022);
    const [prefix, state] = [optionText(options, 'prefix'), optionText(options, 'state')];
    if (prefix === '' || state === '') throw new ChairError('USAGE', '--prefix and --state name folders');
    output.text(await applyUpdate({ prefix, state }));
  },
};

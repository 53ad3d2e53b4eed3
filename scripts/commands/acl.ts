/** `acl`: the rights of everybody who has joined, for a broker that is not our own. */
import path from 'node:path';
import type { CommandDefinition } from '../command.js';
import { gatewayDirectory } from '../state-folder.js';

export const acl: CommandDefinition = {
  name: 'acl',
  summary: 'Print the access list of this cluster for a broker of another make',
  description: "Reads the gateway's state folder on this machine: who has joined and was not revoked. docs/brokers.md says how it is used.",
  arguments: [{ syntax: '<broker>', description: 'mosquitto; rabbitmq and emqx are refused, and it says why' }],
  settings: ['cluster', 'gateway.directory'],
  examples: [{ line: 'acl mosquitto > musical-chair.acl', text: "for Mosquitto's acl_file" }],
  run: async ({ arguments: [make = ''], settings, output }) => {
    const { ChairError } = await import('../../broker/errors.js');
    const { EXTERNAL_BROKERS, externalAcl } = await import('../../broker/external-acl.js');
    const { AuthorityFiles } = await import('../../broker/credentials/authority-files.js');
    const known = EXTERNAL_BROKERS.find((name) => name === make);
    if (known === undefined) {
      throw new ChairError('USAGE', `there is no access list for '${make}'`, { expected: EXTERNAL_BROKERS.join(', '), came: make });
    }
    const { cluster } = settings;
    const state = gatewayDirectory(settings);
    const ledger = await new AuthorityFiles(path.join(state, 'credentials'), (line) => output.note(line)).ledger();
    const members = ledger.all().filter((record) => !ledger.isRevoked(record, record.serial));
    if (members.length === 0) {
      throw new ChairError('CREDENTIALS_MISSING', `nobody has joined by the state in ${state}`, { todo: 'Is it the right --directory?' });
    }
    output.text(
      externalAcl(
        known,
        members.map(({ role, name }) => ({ cluster, role, name })),
      ).trimEnd(),
    );
  },
};

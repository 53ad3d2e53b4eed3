/** What an agent's machine does with bundles: `update check`. */
import type { CommandDefinition } from '../command.js';
import { check } from './bundle.js';

export const updateCheck: CommandDefinition = {
  name: 'update check',
  summary: 'Check a bundle, and say what it is',
  arguments: [{ syntax: '<file>', description: 'a .tgz made by bundle' }],
  json: true,
  examples: [{ line: 'update check musical-chair-0.1.0-linux-arm64.tgz', text: 'every file against its sha256' }],
  run: (invocation) => check(invocation.arguments[0] ?? '', invocation),
};

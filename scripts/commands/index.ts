/** Every command, in the order of `--help` and of docs/commands.md. */
import type { CommandDefinition } from '../command.js';
import { modelsBuild, modelsList } from './models.js';

export const COMMANDS: readonly CommandDefinition[] = [modelsList, modelsBuild];

/** Summaries of the groups: commands of two words. */
export const GROUPS: Readonly<Record<string, string>> = {
  models: 'Networks built in code',
};

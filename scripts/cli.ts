#!/usr/bin/env node
/** The command line. What its commands are stands in `commands/index.ts`, how it is parsed in `program.ts`. */
import type { Command } from 'commander';
import type { CommandDefinition } from './command.js';
import { COMMANDS, GROUPS } from './commands/index.js';
import { beCommandLine, isEntry, parserOf, runCommandLine } from './program.js';

/** The parser. It never ends the process and never prints errors itself. */
export function createProgram(commands: readonly CommandDefinition[] = COMMANDS): Command {
  return parserOf({ commands, groups: GROUPS });
}

/** Runs one command line; resolves with the exit status. Errors are written to `stderr`. */
export function main(argv: readonly string[], stderr: { write(text: string): unknown } = process.stderr): Promise<number> {
  return runCommandLine({ commands: COMMANDS, groups: GROUPS }, argv, stderr);
}

if (isEntry(import.meta.url)) await beCommandLine({ commands: COMMANDS, groups: GROUPS });

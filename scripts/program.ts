/** A command line: a parser made from a table of commands, and what is said when one fails. Errors are one line `CODE: ...` on stderr. */
import { realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Command, CommanderError, Option } from 'commander';
import { ChairError, isChairError } from '../broker/errors.js';
import type { CommandDefinition, OptionValues } from './command.js';
import { listSettings, type Setting, type SettingKey, settingsSchema } from './config.js';
import { followParent } from './lifetime.js';
import { endLiveLine, errorJson, errorLine, exitStatus, Output } from './output.js';
import { PROGRAM, packageVersion } from './package-root.js';
import { printableLines } from './printable.js';
import { loadSettings } from './settings.js';

/** commander's name for a flag's value: `--lane-port` -> `lanePort`. */
function camel(flag: string): string {
  return flag.replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

function settingOption(setting: Setting): Option {
  const flags = setting.type === 'boolean' ? `--${setting.flag}` : `--${setting.flag} <${setting.argument}>`;
  return new Option(flags, `${setting.description} [${setting.env}; default: ${setting.defaultText}]`);
}

function collect(value: string, list: readonly string[] | undefined): string[] {
  return [...(list ?? []), value];
}

function addCommand(parent: Command, definition: CommandDefinition, settings: readonly Setting[]): Command {
  const command = parent.command(definition.name.split(' ').at(-1) ?? definition.name).summary(definition.summary);
  command.description([definition.summary, definition.description ?? ''].join('\n\n').trim());
  for (const argument of definition.arguments ?? []) command.argument(argument.syntax, argument.description);
  for (const option of definition.options ?? []) {
    const made = new Option(option.flags, option.description);
    if (option.choices !== undefined) made.choices([...option.choices]);
    if (option.default !== undefined) made.default(option.default);
    if (option.repeatable === true) made.argParser(collect);
    command.addOption(made);
  }
  const used = settings.filter((s) => definition.settings?.includes(s.key));
  for (const setting of used) command.addOption(settingOption(setting));
  if (definition.json === true) command.option('--json', 'print one JSON document instead of text');
  if (used.length > 0)
    command.option('--config <file>', 'settings file, YAML or JSON [MUSICAL_CHAIR_CONFIG; default: ./musical-chair.yaml]');
  command.option('--verbose', 'print the stack of an error');
  const examples = definition.examples.map((e) => `  $ ${PROGRAM} ${e.line}\n      ${e.text}`).join('\n');
  command.addHelpText('after', `\nExamples:\n${examples}`);
  command.action(async () => {
    refuseEarly(command);
    const options: OptionValues = command.opts();
    const flags: Partial<Record<SettingKey, string | boolean>> = {};
    for (const setting of used) {
      const value = options[camel(setting.flag)];
      if (typeof value === 'string' || typeof value === 'boolean') flags[setting.key] = value;
    }
    const { config } = options;
    // A command that reads no settings is not refused for a configuration it never looks at.
    const settingsRead =
      used.length === 0
        ? settingsSchema.parse({})
        : loadSettings({ flags, env: process.env, ...(typeof config === 'string' ? { file: config } : {}) });
    await definition.run({ arguments: command.args, options, settings: settingsRead, output: new Output(options.json === true) });
  });
  return command;
}

/** `gateway --port 5 install`: the option would be the other command's, and lost. Throws USAGE. */
function refuseEarly(command: Command): void {
  const { parent } = command;
  const early = parent?.options.find((option) => parent.getOptionValueSource(option.attributeName()) === 'cli');
  if (early === undefined) return;
  throw new ChairError('USAGE', `${early.long} stands before ${command.name()}`, {
    expected: `options of ${parent?.name()} ${command.name()} after it`,
  });
}

/** Commands, and the summaries of those of two words. */
export interface CommandTable {
  readonly commands: readonly CommandDefinition[];
  readonly groups: Readonly<Record<string, string>>;
}

/** The parser. It never ends the process and never prints errors itself. */
export function parserOf({ commands, groups: summaries }: CommandTable): Command {
  const program = new Command('musical-chair');
  program
    .description('Several small machines as one: cuts ONNX networks into slices, seats them on agents, runs frames through them.')
    .version(packageVersion(), '--version', 'print the version')
    .helpOption('--help', 'show help')
    .helpCommand(false)
    .enablePositionalOptions()
    .showSuggestionAfterError(true)
    .exitOverride()
    .configureOutput({ writeErr: () => {}, getOutHelpWidth: () => Math.min(120, process.stdout.columns ?? 100) });
  const settings = listSettings();
  const groups = new Map<string, Command>();
  for (const definition of commands) {
    const [first = '', second] = definition.name.split(' ');
    if (second === undefined) {
      // It may have commands below it (`gateway install`), which have options of the same names.
      groups.set(first, addCommand(program, definition, settings).enablePositionalOptions());
      continue;
    }
    const group = groups.get(first) ?? program.command(first).description(summaries[first] ?? first);
    groups.set(first, group);
    addCommand(group, definition, settings);
  }
  return program;
}

/** The help of the command that was meant, or of all. */
function helpLine(argv: readonly string[], { commands }: CommandTable): string {
  const fits = commands.map(({ name }) => name).filter((name) => name.split(' ').every((word, i) => argv[i] === word));
  const meant = fits.sort((a, b) => b.length - a.length)[0];
  return `${PROGRAM} ${meant === undefined ? '' : `${meant} `}--help`;
}

/** commander's complaints in our style; undefined when it only showed help or the version. */
function usageError(error: CommanderError, argv: readonly string[], table: CommandTable): ChairError | undefined {
  if (error.exitCode === 0) return undefined;
  // With no command at all commander "fails" with the help text: that is a usage error like any other.
  const text = error.code === 'commander.help' ? 'no command was given' : error.message.replace(/^error: /, '');
  return new ChairError('USAGE', text.replaceAll(/\s*\n\s*/g, ' ').replace(/\.$/, ''), {
    todo: `See ${helpLine(argv, table)}`,
    cause: error,
  });
}

/** Runs one command line; resolves with the exit status. Errors are written to `stderr`. */
export async function runCommandLine(
  table: CommandTable,
  argv: readonly string[],
  stderr: { write(text: string): unknown } = process.stderr,
): Promise<number> {
  try {
    await parserOf(table).parseAsync([...argv], { from: 'user' });
    return typeof process.exitCode === 'number' ? process.exitCode : 0;
  } catch (caught) {
    const error = caught instanceof CommanderError ? usageError(caught, argv, table) : caught;
    if (error === undefined) return 0;
    endLiveLine(stderr);
    stderr.write(`${errorLine(error)}\n`);
    if (argv.includes('--json')) process.stdout.write(`${errorJson(error)}\n`);
    if (argv.includes('--verbose')) {
      for (let e: unknown = error; e instanceof Error; e = e.cause) stderr.write(`${printableLines(e.stack ?? e.message)}\n`);
    }
    return exitStatus(error);
  }
}

/** A reader that closed the pipe wants no more: end as if it had been read. */
function endQuietlyOnClosedPipe(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit(0);
      throw error;
    });
  }
}

/** Whether the file of this URL is what Node was told to run. */
export function isEntry(url: string): boolean {
  try {
    return process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(url);
  } catch {
    return false;
  }
}

/** The process of a command line, from its arguments to its exit status. */
export async function beCommandLine(table: CommandTable): Promise<void> {
  endQuietlyOnClosedPipe();
  followParent();
  process.on('unhandledRejection', (reason) => {
    endLiveLine(process.stderr);
    process.stderr.write(`${errorLine(isChairError(reason) ? reason : new ChairError('INTERNAL', String(reason), { cause: reason }))}\n`);
    if (process.argv.includes('--verbose') && reason instanceof Error) process.stderr.write(`${printableLines(reason.stack ?? '')}\n`);
    process.exit(1);
  });
  // Commands stop what they started; exiting here would hide one that does not, so only the status is set.
  process.exitCode = await runCommandLine(table, process.argv.slice(2));
}

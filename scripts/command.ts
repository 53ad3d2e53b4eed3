/**
 * What a command of the CLI is: plain data plus `run`. The parser (`cli.ts`), `--help` and `docs/commands.md` are all made from it.
 * `run` imports what it needs itself, so that `--help` loads neither the engine nor the image library.
 */
import type { SettingKey, Settings } from './config.js';
import type { Output } from './output.js';

export interface CommandArgument {
  /** `<model>`, `[file]` or `<files...>`, as commander writes them. */
  readonly syntax: string;
  readonly description: string;
}

export interface CommandOption {
  /** `--out <directory>`, as commander writes them. */
  readonly flags: string;
  readonly description: string;
  readonly choices?: readonly string[];
  readonly default?: string;
  /** The option may be given more than once; its value is a list. */
  readonly repeatable?: boolean;
}

export interface CommandExample {
  /** Without the program's name: `inspect model.onnx`. */
  readonly line: string;
  readonly text: string;
}

/** Values as they came, not yet checked beyond commander's own rules. */
export type OptionValues = Readonly<Record<string, string | boolean | readonly string[] | undefined>>;

export interface Invocation {
  readonly arguments: readonly string[];
  readonly options: OptionValues;
  readonly settings: Settings;
  readonly output: Output;
}

export interface CommandDefinition {
  /** One word, or two for a command of a group: `models build`. */
  readonly name: string;
  readonly summary: string;
  /** More lines for `--help`. */
  readonly description?: string;
  readonly arguments?: readonly CommandArgument[];
  readonly options?: readonly CommandOption[];
  /** Settings (configuration schema) that this command reads; each is also a flag. */
  readonly settings?: readonly SettingKey[];
  /** The command reports something, so it takes `--json`. */
  readonly json?: boolean;
  readonly examples: readonly [CommandExample, ...CommandExample[]];
  readonly run: (invocation: Invocation) => Promise<void>;
}

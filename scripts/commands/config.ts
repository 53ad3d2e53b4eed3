/** `config init` and `config check`: the settings file, written with its comments, and checked. */
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ChairError, toChairError } from '../../broker/errors.js';
import type { CommandDefinition } from '../command.js';
import { listSettings } from '../config.js';
import { type ConfigSection, checkText, configText, settingValue, shownValue } from '../config-text.js';
import { optionText } from '../deploy-options.js';
import { PROGRAM } from '../package-root.js';
import { checkSettings, DEFAULT_CONFIG_FILES } from '../settings.js';

const [DEFAULT_FILE] = DEFAULT_CONFIG_FILES;

export const configInit: CommandDefinition = {
  name: 'config init',
  summary: 'Write a settings file: every key with what it means, commented out',
  options: [
    { flags: '--out <file>', description: 'file to write, - for standard output', default: DEFAULT_FILE },
    { flags: '--only <section>', description: 'only the keys of this kind of process', choices: ['gateway', 'agent'] },
  ],
  examples: [
    { line: 'config init', text: 'musical-chair.yaml in the working directory, which every command reads there' },
    { line: 'config init --only agent --out -', text: 'look at the settings of agents' },
  ],
  run: async ({ options, output }) => {
    const only = optionText(options, 'only', '');
    const text = configText({}, only === '' ? undefined : (only as ConfigSection));
    const out = optionText(options, 'out', DEFAULT_FILE);
    if (out === '-') {
      output.text(text.trimEnd());
      return;
    }
    const file = path.resolve(out);
    await writeNew(file, text);
    output.text(`Wrote ${file}.`);
    if (!(DEFAULT_CONFIG_FILES as readonly string[]).includes(out)) output.text(`Commands read it with --config ${out}.`);
    output.text(`After changing it: ${PROGRAM} config check ${out}`);
  },
};

/** Throws FILE_EXISTS. */
async function writeNew(file: string, text: string): Promise<void> {
  try {
    await writeFile(file, text, { flag: 'wx' });
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') {
      throw new ChairError('FILE_EXISTS', `${file} is there already`, {
        todo: 'It may hold settings of yours: remove it, or give another --out.',
      });
    }
    throw toChairError(error, 'FILE_NOT_FOUND');
  }
}

export const configCheck: CommandDefinition = {
  name: 'config check',
  summary: 'Check the settings file and the environment: everything that is wrong, with its line',
  description: 'Without a file: the one that commands here would read. Exit status 2 when something is wrong.',
  arguments: [{ syntax: '[file]', description: 'the settings file' }],
  json: true,
  examples: [
    { line: 'config check', text: 'what is set, and by what' },
    { line: 'config check /etc/musical-chair/musical-chair.yaml', text: "the gateway service's settings" },
  ],
  run: async ({ arguments: [file], output }) => {
    const checked = checkSettings({ env: process.env, ...(file === undefined ? {} : { file }) });
    const { settings, findings, origins } = checked;
    const said = findings.map(({ key, line, error }) => ({ key, line: line ?? null, code: error.code, message: error.message }));
    const report = { ok: settings !== undefined, file: checked.file ?? null, findings: said, set: Object.fromEntries(origins) };
    const values =
      settings === undefined
        ? null
        : Object.fromEntries(listSettings().map(({ key }) => [key, shownValue(key, settingValue(settings, key))]));
    output.report({ ...report, settings: values }, () => checkText(checked, output.columns));
    if (settings === undefined) process.exitCode = 2;
  },
};

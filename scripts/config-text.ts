/** Settings as a file with comments, and what a check found, as text. Pure. */
import { listSettings, type Setting, type SettingKey, type Settings } from './config.js';
import type { CheckedSettings } from './settings.js';
import { formatTable, wrapText } from './table.js';

const WIDTH = 120;

export type ConfigSection = 'gateway' | 'agent';

/** What each section is for. */
const SECTION_TEXT: Readonly<Record<ConfigSection, string>> = {
  gateway: 'The machine that runs broker and scheduler.',
  agent: 'A device that runs slices.',
};

const HEAD = [
  '# Settings of musical-chair on this machine. A key counts when the # before it is taken away.',
  '# A flag wins over the environment, the environment over this file, this file over the default.',
  '# `config check` says what is wrong in here, with the line.',
];

/** A value as it may stand in the file: quoted wherever YAML could read it as something else. */
function yamlValue(value: unknown): string {
  if (typeof value !== 'string') return String(value);
  return /^[A-Za-z][A-Za-z0-9._/-]*$/.test(value) && !/^(true|false|null|yes|no|on|off|y|n)$/i.test(value) ? value : JSON.stringify(value);
}

/** What stands there until somebody changes it. A default that depends on the machine is shown by a word in its place. */
function exampleOf({ shown, defaultValue, argument, type }: Setting): string {
  if (defaultValue === '') return '""';
  if (shown !== undefined && type !== 'string') return /\d+/.exec(shown)?.[0] ?? '0';
  return shown === undefined ? yamlValue(defaultValue) : yamlValue(argument.toUpperCase());
}

function settingLines(setting: Setting, indent: string, value: unknown): string[] {
  const type = setting.type === 'string' ? 'text' : setting.type === 'boolean' ? 'true or false' : `${setting.type} ${setting.range}`;
  const facts = `${type}; --${setting.flag}, ${setting.env}; default: ${setting.defaultText || 'none'}`;
  const comment = (text: string): string[] => wrapText(text, WIDTH - indent.length - 2, '').map((line) => `${indent}# ${line.trim()}`);
  const key = setting.key.split('.').at(-1) ?? setting.key;
  const line = value === undefined ? `${indent}#${key}: ${exampleOf(setting)}` : `${indent}${key}: ${yamlValue(value)}`;
  return [...comment(setting.description), ...comment(facts), line, ''];
}

/**
 * The whole schema as YAML: every key with its comment, commented out but for those in `values`. `only`: without the other section.
 */
export function configText(values: Readonly<Partial<Record<SettingKey, unknown>>> = {}, only?: ConfigSection): string {
  const settings = listSettings();
  const plain = settings.filter(({ key }) => !key.includes('.'));
  const sections = (['gateway', 'agent'] as const).filter((section) => only === undefined || section === only);
  return [
    ...HEAD,
    '',
    ...plain.flatMap((setting) => settingLines(setting, '', values[setting.key])),
    ...sections.flatMap((section) => [
      `# ${SECTION_TEXT[section]}`,
      `${section}:`,
      ...settings.filter(({ key }) => key.startsWith(`${section}.`)).flatMap((setting) => settingLines(setting, '  ', values[setting.key])),
    ]),
  ]
    .join('\n')
    .trimEnd()
    .concat('\n');
}

/** The value of a setting. */
export function settingValue(settings: Settings, key: SettingKey): unknown {
  return key.split('.').reduce<unknown>((at, part) => (at as Readonly<Record<string, unknown>>)[part], settings);
}

/** Of a section and of what stands above all sections: the values that are not the default. */
export function changedValues(settings: Settings, only: ConfigSection): Partial<Record<SettingKey, unknown>> {
  const mine = listSettings().filter(({ key }) => !key.includes('.') || key.startsWith(`${only}.`));
  return Object.fromEntries(
    mine.flatMap(({ key, defaultValue }) => {
      const value = settingValue(settings, key);
      return value === defaultValue ? [] : [[key, value]];
    }),
  );
}

/** As it may be shown: without passwords and tokens. */
export function shownValue(key: string, value: unknown): unknown {
  if (typeof value !== 'string') return value;
  if (key === 'agent.token' && value !== '') return '(a token)';
  return value.replace(/:\/\/[^@/\s]*@/, '://...@');
}

/** What `config check` prints. */
export function checkText({ settings, findings, file, origins }: CheckedSettings, width = 80): string {
  if (settings === undefined) {
    const lines = findings.flatMap(({ error }) => wrapText(error.message, width, '  '));
    return [`${findings.length === 1 ? 'One thing is' : `${findings.length} things are`} wrong:`, ...lines].join('\n');
  }
  const head = file === undefined ? 'No settings file was found: config init writes one.' : `${file} is right.`;
  if (origins.size === 0) return `${head}\nEverything is at its default.`;
  const rows = [...origins].map(([key, origin]) => [key, String(shownValue(key, settingValue(settings, key))), origin]);
  return [
    head,
    'Not at the default, or said again:',
    formatTable([{ title: 'key' }, { title: 'value' }, { title: 'from' }], rows, width),
  ].join('\n');
}

/**
 * The documents that are made from the code: errors, settings, commands. `npm run docs` writes them; `npm run check` and a test refuse a
 * checkout in which they are out of step.
 */
import { readFileSync, realpathSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { ERROR_CODES } from '../broker/errors.js';
import type { CommandDefinition } from './command.js';
import { COMMANDS } from './commands/index.js';
import { listSettings, type Setting } from './config.js';
import { PACKAGE_ROOT } from './package-root.js';

const cell = (text: string): string => text.replaceAll('|', '\\|');

function markdownTable(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  return [titles, titles.map(() => '---'), ...rows].map((r) => `| ${r.map(cell).join(' | ')} |`).join('\n');
}

function errorsDocument(): string {
  const rows = Object.entries(ERROR_CODES).map(([code, meaning]) => [`\`${code}\``, meaning]);
  return `# Errors

<!-- Made from broker/errors.ts by \`npm run docs\`. -->

Every error this project raises on purpose has a code from this table. On the command line it is one line on stderr, \`CODE: what was
expected; what came. What to do\`, with the stack only when \`--verbose\` is given; the exit status is 2 for \`USAGE\` and \`CONFIG_INVALID\`,
1 for everything else. In programs: branch on \`error.code\`, never on the text. A code never changes its meaning.

${markdownTable(['code', 'meaning'], rows)}
`;
}

function configurationDocument(): string {
  const rows = listSettings().map((s) => [
    `\`${s.key}\``,
    `\`--${s.flag}\``,
    `\`${s.env}\``,
    s.range === '' ? s.type : `${s.type} ${s.range}`,
    s.defaultText,
    s.description,
  ]);
  return `# Configuration

<!-- Made from scripts/config.ts by \`npm run docs\`. -->

Every setting can stand in a file, in the environment or on the command line. A flag wins over the environment, the environment over the file,
the file over the default. The file is the one named by \`--config\` or \`MUSICAL_CHAIR_CONFIG\`, else \`musical-chair.yaml\`, \`.yml\` or \`.json\`
in the working directory, else \`/etc/musical-chair/musical-chair.yaml\` or \`agent.yaml\`. What is not in this table is refused with \`CONFIG_INVALID\`,
which names the line, and the key that was probably meant. \`config init\` writes a file with all of them, \`config check\` says all that is wrong with one.
In a path, a leading \`~/\` is the home directory of the user that runs the process, wherever the path was said; \`~name/\` is refused.

\`\`\`yaml
cluster: home
broker: mqtts://gateway.local:8883
agent:
  name: pi-3
  storeMb: 2000
\`\`\`

${markdownTable(['key', 'flag', 'environment', 'type', 'default', 'meaning'], rows)}
`;
}

function commandSection(command: CommandDefinition, settings: readonly Setting[]): string {
  const options: string[][] = [
    ...(command.options ?? []).map((o) => [
      `\`${o.flags}\``,
      [o.description, o.choices === undefined ? '' : `(${o.choices.join(', ')})`, o.default === undefined ? '' : `; default ${o.default}`]
        .join(' ')
        .replace(' ;', ';')
        .trim(),
    ]),
    ...settings
      .filter((s) => command.settings?.includes(s.key))
      .map((s) => [`\`--${s.flag}${s.argument === '' ? '' : ` <${s.argument}>`}\``, `${s.description} Default: ${s.defaultText}.`]),
    ...(command.json === true ? [['`--json`', 'one JSON document instead of text']] : []),
  ];
  const usage = ['musical-chair', command.name, ...(command.arguments ?? []).map((a) => a.syntax), '[options]'].join(' ');
  return [
    `## ${command.name}`,
    `${command.summary}. ${command.description ?? ''}`.trim(),
    `\`\`\`\n${usage}\n\`\`\``,
    ...(command.arguments === undefined ? [] : [command.arguments.map((a) => `- \`${a.syntax}\`: ${a.description}`).join('\n')]),
    ...(options.length === 0 ? [] : [markdownTable(['option', 'meaning'], options)]),
    command.examples.map((e) => `\`${e.line}\`: ${e.text}`).join('\n\n'),
  ].join('\n\n');
}

function commandsDocument(): string {
  const settings = listSettings();
  return `# Commands

<!-- Made from scripts/commands/ by \`npm run docs\`. -->

In a checkout: \`npm run -s mc -- COMMAND\`; installed: \`npx musical-chair COMMAND\`. Every command has \`--help\` and \`--verbose\` (the stack of an
error), and \`--config FILE\` where it reads settings.

${markdownTable(
  ['command', 'what it does'],
  COMMANDS.map((c) => [`[${c.name}](#${c.name.replaceAll(' ', '-')})`, c.summary]),
)}

${COMMANDS.map((c) => commandSection(c, settings)).join('\n\n')}
`;
}

/** File below docs/ -> its text as the code makes it. */
export function generatedDocuments(): Readonly<Record<string, string>> {
  return { 'errors.md': errorsDocument(), 'configuration.md': configurationDocument(), 'commands.md': commandsDocument() };
}

function readOr(file: string, fallback: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return fallback;
  }
}

/** Names of the documents that do not say what the code says. */
export function staleDocuments(directory = path.join(PACKAGE_ROOT, 'docs')): string[] {
  return Object.entries(generatedDocuments()).flatMap(([name, text]) => (readOr(path.join(directory, name), '') === text ? [] : [name]));
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  for (const [name, text] of Object.entries(generatedDocuments())) writeFileSync(path.join(PACKAGE_ROOT, 'docs', name), text);
  console.log(`wrote ${Object.keys(generatedDocuments()).join(', ')} in docs/`);
}

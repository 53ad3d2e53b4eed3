/** What README and docs/ tell people to type, against the code: commands, flags, scripts, settings of the environment, tests, links. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { COMMANDS } from './commands/index.js';
import { listSettings } from './config.js';
import { generatedDocuments } from './docs.js';
import { PACKAGE_ROOT } from './package-root.js';

interface Said {
  /** `docs/gateway.md:12` */
  readonly where: string;
  readonly text: string;
}

/** Also the READMEs of folders. */
function documents(): { readonly file: string; readonly text: string }[] {
  const folders = ['docs', 'broker', 'models', 'node-agent', 'scheduler', 'scripts'];
  const files = folders.flatMap((folder) =>
    readdirSync(path.join(PACKAGE_ROOT, folder), { recursive: folder !== 'docs', encoding: 'utf8' }).map((name) => `${folder}/${name}`),
  );
  const made = new Set(Object.keys(generatedDocuments()).map((name) => `docs/${name}`));
  const wanted = files.filter((file) => file.endsWith('.md') && !made.has(file) && !file.includes('/results/'));
  return ['README.md', ...wanted].map((file) => ({ file, text: readFileSync(path.join(PACKAGE_ROOT, file), 'utf8') }));
}

const DOCUMENTS = documents();

/** Lines of fenced blocks, a line that ends in a backslash with the next one; and what stands between single backquotes elsewhere. */
function codeOf({ file, text }: { readonly file: string; readonly text: string }): Said[] {
  const said: Said[] = [];
  let fenced = false;
  let open: Said | undefined;
  for (const [i, line] of text.split('\n').entries()) {
    const where = `${file}:${i + 1}`;
    if (/^\s*```/.test(line)) fenced = !fenced;
    else if (fenced) {
      const whole = { where: open?.where ?? where, text: `${open?.text ?? ''}${line}` };
      open = line.endsWith('\\') ? { ...whole, text: whole.text.slice(0, -1) } : undefined;
      if (open === undefined) said.push(whole);
    } else for (const [, code = ''] of line.matchAll(/`([^`]+)`/g)) said.push({ where, text: code });
  }
  return said;
}

const CODE = DOCUMENTS.flatMap(codeOf);

/** Behind a prompt, and perhaps `sudo` and variables. */
const PROMPT = /^\s*(?:[a-z0-9-]*[$#]\s+)?(?:sudo\s+)?(?:[A-Z_]+=\S+\s+)*/;
const PROGRAM = /^(?:npm run (?:-s )?mc --|(?:npx )?(?:\S*\/)?musical-chair|mc)\s+/;
const NAMES = new Set(COMMANDS.map(({ name }) => name));
const GROUPS = new Set([...NAMES].flatMap((name) => (name.includes(' ') ? [name.split(' ')[0] ?? ''] : [])));

/** The words of a command line: to the end of the line, a pipe, a comment, or a bracket that says what else there is. */
function wordsOf(line: string): string[] {
  const [command = ''] = line.split(/\s+(?:#|\||>|&&|<(?=\S+$))\s*|\s*;\s+/);
  return command
    .replaceAll(/'[^']*'|"[^"]*"/g, 'QUOTED')
    .split(/\s+/)
    .filter(Boolean);
}

interface Typed {
  readonly where: string;
  readonly command: string;
  readonly words: readonly string[];
}

/** Commands of ours: all with the program before them, and in the text also those that begin with a command's name and have a flag. */
function typed(): Typed[] {
  return CODE.flatMap(({ where, text }) => {
    const line = text.replace(PROMPT, '');
    const bare = PROGRAM.test(line) ? line.replace(PROGRAM, '') : undefined;
    const words = wordsOf(bare ?? line);
    const [first = '', second = ''] = words;
    const known = NAMES.has(`${first} ${second}`)
      ? `${first} ${second}`
      : NAMES.has(first) && !(GROUPS.has(first) && second === '')
        ? first
        : '';
    // `status` alone may be a word of the text; `COMMAND` stands for any.
    if (bare === undefined && (known === '' || !words.some((word) => word.startsWith('--')))) return [];
    // A version is what the program says of itself.
    if (/^(?:[A-Z]+|--.*|\d.*)?$/.test(first)) return [];
    return [{ where, command: known === '' ? `${first} ${second}`.trim() : known, words: words.slice(known.split(' ').length) }];
  });
}

const flagsOf = (text: string): string[] => text.match(/--[a-z][a-z0-9-]*/g) ?? [];

describe('what README and docs/ say', () => {
  it('names commands that there are, with flags that they have', () => {
    const settings = listSettings();
    const wrong: string[] = [];
    const all = typed();
    for (const { where, command: name, words } of all) {
      const command = COMMANDS.find((one) => one.name === name);
      if (command === undefined) {
        wrong.push(`${where}: there is no command '${name}'`);
        continue;
      }
      const flags = new Set([
        ...['--help', '--verbose', '--config', '--json'],
        ...(command.options ?? []).flatMap((option) => flagsOf(option.flags)),
        ...settings.filter(({ key }) => command.settings?.includes(key)).map(({ flag }) => `--${flag}`),
      ]);
      const unknown = words.filter((word) => word.startsWith('--') && !flags.has(word.replace(/[=,.)].*$/, '')));
      if (unknown.length > 0) wrong.push(`${where}: ${name} has no ${unknown.join(', ')}`);
    }
    expect(wrong).toEqual([]);
    // It did look.
    expect(all.length).toBeGreaterThan(80);
  });

  it('needs --insecure where a broker is plain', () => {
    const plain = typed().filter(({ words }) => words.some((word) => word.startsWith('mqtt://')) && !words.includes('--insecure'));
    expect(plain.map(({ where }) => where)).toEqual([]);
  });

  it('names npm scripts, tests and variables that there are', () => {
    const { scripts } = JSON.parse(readFileSync(path.join(PACKAGE_ROOT, 'package.json'), 'utf8')) as { scripts: Record<string, string> };
    const wrong: string[] = [];
    const variables = new Set([
      ...listSettings().map(({ env }) => env),
      'MUSICAL_CHAIR_CONFIG',
      'MUSICAL_CHAIR_TESTDATA',
      'MUSICAL_CHAIR_TEST_BROKER',
    ]);
    for (const { where, text } of CODE) {
      for (const [, name = ''] of text.matchAll(/\bnpm run (?:-s )?([a-z][a-z:-]*)/g))
        if (!(name in scripts)) wrong.push(`${where}: npm run ${name}`);
      const [, tests = ''] = /\bvitest run ([^#|]+)/.exec(text) ?? [];
      for (const word of tests.split(/\s+/).filter((one) => one !== '' && !one.startsWith('-'))) {
        const folder = path.join(PACKAGE_ROOT, path.dirname(word));
        const there =
          existsSync(path.join(PACKAGE_ROOT, word)) ||
          (existsSync(folder) && readdirSync(folder).some((name) => name.startsWith(path.basename(word))));
        if (!there) wrong.push(`${where}: vitest run ${word}`);
      }
      for (const [name] of text.matchAll(/\bMUSICAL_CHAIR_[A-Z_]+\b/g)) if (!variables.has(name)) wrong.push(`${where}: ${name}`);
    }
    expect(wrong).toEqual([]);
  });

  it('links to files and headings that there are', () => {
    const slugsOf = (text: string): Set<string> =>
      new Set(
        [...text.matchAll(/^#+ (.+)$/gm)].map(([, title = '']) =>
          title
            .toLowerCase()
            .replaceAll(/[^\w\s-]/g, '')
            .trim()
            .replaceAll(/\s/g, '-'),
        ),
      );
    const wrong: string[] = [];
    for (const { file, text } of DOCUMENTS) {
      for (const [, to = '', anchor = ''] of text.matchAll(/\]\(([^)#\s]*)(?:#([^)\s]+))?\)/g)) {
        if (/^[a-z]+:/.test(to)) continue;
        const target = to === '' ? path.join(PACKAGE_ROOT, file) : path.join(PACKAGE_ROOT, path.dirname(file), to);
        if (!existsSync(target)) wrong.push(`${file}: ${to}`);
        else if (anchor !== '' && target.endsWith('.md') && !slugsOf(readFileSync(target, 'utf8')).has(anchor))
          wrong.push(`${file}: ${to}#${anchor}`);
      }
    }
    expect(wrong).toEqual([]);
  });
});

import { PassThrough } from 'node:stream';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { endLiveLine, errorLine, Output } from './output.js';
import { PROGRAM } from './package-root.js';
import { formatTable } from './table.js';

/** What a stranger may call himself, or put into a message. */
const HOSTILE = 'pi-1\n2026-01-01 00:00:00  joined  agent evil\r\u001b[2J\u001b]0;owned\u0007\u202e\u2028\u0085x';

function output(): { readonly output: Output; said(): { readonly stdout: string; readonly stderr: string } } {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const read = (stream: PassThrough): string => String(stream.read() ?? '');
  return { output: new Output(false, { stdout, stderr }), said: () => ({ stdout: read(stdout), stderr: read(stderr) }) };
}

/** Nothing in it acts on a terminal, and it has so many lines. */
function expectLines(text: string, lines: number): void {
  expect(text).toMatch(/^(?:[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]|\n)*$/u);
  expect(text.trimEnd().split('\n')).toHaveLength(lines);
}

describe('what is printed', () => {
  it('of a log is one line for each, whatever others put into it', () => {
    const { output: log, said } = output();
    log.note(`broker: client ${HOSTILE} dropped`);
    log.note('next');
    expectLines(said().stderr, 2);
  });

  it('of a table is one line for each row, whoever filled its cells', () => {
    const { output: report, said } = output();
    report.report({}, () => formatTable([{ title: 'cluster' }, { title: 'gateway' }], [[HOSTILE, HOSTILE]], 300));
    expectLines(said().stdout, 3);
  });

  it('of an error is one line', () => {
    expectLines(errorLine(new Error(HOSTILE)), 1);
  });

  it('of how far something is, is one line', () => {
    const { output: report, said } = output();
    report.progress(HOSTILE);
    expectLines(said().stderr, 1);
  });
});

afterEach(() => vi.unstubAllEnvs());

/** Streams that remember, and what a terminal of these columns would show of them. */
function streams(isTTY: boolean, columns = 40) {
  const written = { out: '', err: '' };
  const stream = (key: 'out' | 'err') =>
    Object.assign(Object.create(null) as NodeJS.WritableStream, {
      ...{ isTTY, columns },
      write: (text: string): boolean => {
        written[key] += text;
        return true;
      },
    });
  return { written, stdout: stream('out'), stderr: stream('err') };
}

/** The last row of a terminal after these bytes: a carriage return goes to its start, and what is there stays until it is written over. */
function lastRow(bytes: string): string {
  let row: string[] = [];
  let at = 0;
  for (const character of bytes) {
    if (character === '\n') [row, at] = [[], 0];
    else if (character === '\r') at = 0;
    else row[at++] = character;
  }
  return row.join('').trimEnd();
}

describe('progress', () => {
  it('is one line on a terminal, never wider than it, and leaves nothing of a longer one', () => {
    vi.stubEnv('TERM', 'xterm');
    const { written, ...s } = streams(true, 20);
    const output = new Output(false, s);
    output.progress('a long line that does not fit at all');
    expect(lastRow(written.err)).toBe('a long line that do');
    output.progress((columns) => `short, of ${columns}`);
    expect(lastRow(written.err)).toBe('short, of 19');
  });

  it('gives its place to whatever is written next: a result, a note, or the error that ends the command', () => {
    vi.stubEnv('TERM', 'xterm');
    const { written, ...s } = streams(true);
    const output = new Output(false, s);
    output.progress('measuring 3 of 20');
    output.note('pi-1: updated');
    expect(written.err).toMatch(/\rpi-1: updated\n$/);
    output.progress('measuring 4 of 20');
    endLiveLine(s.stderr);
    s.stderr.write('AGENT_UNKNOWN: no such agent');
    expect(lastRow(written.err)).toBe('AGENT_UNKNOWN: no such agent');
    const before = written.err;
    endLiveLine(s.stderr);
    expect(written.err).toBe(before);
  });

  it.each([
    ['a pipe', false, 'xterm'],
    ['a terminal that cannot go back in its line', true, 'dumb'],
  ])('is plain lines, few of them, in %s', (_, isTTY, term) => {
    vi.stubEnv('TERM', term);
    const { written, ...s } = streams(isTTY);
    const output = new Output(false, s);
    for (let i = 0; i < 100; i++) output.progress(`${i} of 100`);
    expect(written.err).toBe('0 of 100\n');
  });
});

describe('a command in a sentence', () => {
  it('is what can be typed here, in results and in errors, and stays as it is for programs', () => {
    const { written, ...s } = streams(false);
    new Output(false, s).text('See `musical-chair status`.');
    expect(written.out).toBe(`See \`${PROGRAM} status\`.\n`);
    new Output(true, s).report({ todo: 'See `musical-chair status`.' }, () => '');
    expect(written.out).toContain('`musical-chair status`');
    expect(errorLine(new Error('look at `musical-chair doctor`'))).toContain(`\`${PROGRAM} doctor\``);
    expect(errorLine(new Error('there: `token create --name YOU`; `a token` is `enrolled`, `enrol` here'))).toBe(
      `INTERNAL: there: \`${PROGRAM} token create --name YOU\`; \`a token\` is \`enrolled\`, \`${PROGRAM} enrol\` here (run again with --verbose for the stack)`,
    );
  });
});

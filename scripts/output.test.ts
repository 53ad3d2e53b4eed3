import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { errorLine, Output } from './output.js';
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

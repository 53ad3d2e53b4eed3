/** Questions to the person at the terminal. */
import { createInterface } from 'node:readline/promises';
import { Writable } from 'node:stream';
import { ChairError } from '../broker/errors.js';
import { endLiveLine } from './output.js';

/** `instead`: what to give when nobody can be asked. Throws USAGE. */
export async function ask(question: string, instead: string): Promise<string> {
  refuseWithoutTerminal(question, instead);
  endLiveLine(process.stderr);
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return await lines.question(question);
  } finally {
    lines.close();
  }
}

/** Like `ask`, and what is typed is not shown. */
export async function askHidden(question: string, instead: string): Promise<string> {
  refuseWithoutTerminal(question, instead);
  endLiveLine(process.stderr);
  process.stderr.write(question);
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input: process.stdin, output: nowhere, terminal: true });
  try {
    return await lines.question('');
  } finally {
    lines.close();
    process.stderr.write('\n');
  }
}

function refuseWithoutTerminal(question: string, instead: string): void {
  if (process.stdin.isTTY && process.stderr.isTTY) return;
  throw new ChairError('USAGE', `nobody can be asked here: "${question.trim()}"`, { expected: instead, came: 'no terminal' });
}

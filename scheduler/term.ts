/** The scheduler's reign: a number that grows with every start, so that agents can tell a late command of an older one. */
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** Reads the last term from the state folder, and writes the next one before it is used. `atLeast`: agents have obeyed a higher one. */
export async function nextTerm(stateDirectory: string, atLeast = 0): Promise<number> {
  const path = join(stateDirectory, 'term');
  let last = 0;
  try {
    last = Number.parseInt(await readFile(path, 'utf8'), 10) || 0;
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
  }
  const term = Math.max(last, atLeast) + 1;
  await writeFile(`${path}.new`, `${term}\n`);
  await rename(`${path}.new`, path);
  return term;
}

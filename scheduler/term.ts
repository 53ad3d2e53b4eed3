/** The scheduler's reign: a number that grows with every start, so that agents can tell a late command of an older one. */
import { join } from 'node:path';
import { ChairError, isChairError } from '../broker/errors.js';
import { MAX_TERM } from '../broker/plan.js';
import { putAside, readSealed, writeSealed } from '../broker/sealed-file.js';

/**
 * Reads the last term from the state folder, and writes the next one before it is used. `atLeast`: agents have obeyed a higher one. A damaged file is put aside and
 * reported: then agents say which terms there were. Throws GATEWAY_STORE_FULL.
 */
export async function nextTerm(stateDirectory: string, atLeast: number, onDamaged: (error: ChairError) => void): Promise<number> {
  const file = join(stateDirectory, 'term');
  let last = 0;
  try {
    last = await readTerm(file);
  } catch (error) {
    if (!isChairError(error, 'STATE_DAMAGED')) throw error;
    await putAside(file);
    onDamaged(error);
  }
  const term = Math.max(last, atLeast) + 1;
  await writeSealed(file, `${term}`, 'GATEWAY_STORE_FULL');
  return term;
}

async function readTerm(file: string): Promise<number> {
  const text = await readSealed(file);
  if (text === undefined) return 0;
  const term = Number(text);
  if (Number.isSafeInteger(term) && term > 0 && term <= MAX_TERM) return term;
  throw new ChairError('STATE_DAMAGED', `${file} holds no term`, { came: text.slice(0, 40) });
}

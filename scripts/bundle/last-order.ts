/**
 * Which order to update this machine has obeyed last: `last-order` beside the program, written by root alone. One line: term and number, the sha256 of the bundle and of
 * the CA, and `open` until `launch` has done what was to be done, whatever came of it; then `done`. Cut off in between, the same order goes on; later it is an old one.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { ChairError } from '../../broker/errors.js';
import { writeWhole } from '../../broker/sealed-file.js';
import { isLater, type UpdateOrder } from '../../broker/update-order.js';

const NAME = 'last-order';
const LINE = /^(\d{1,16}) (\d{1,16}) ([0-9a-f]{64}) ([0-9a-f]{64}) (open|done)$/;
/** Clocks that are behind are many (a Pi has none of its own), those that are ahead are few: what is a day old by them is not taken up any more. */
const GOOD_MS = 86_400_000;

/** Notes the order as the latest one; when this resolves, that is on the disk. Throws UPDATE_REFUSED for one of before, AGENT_STORE_FULL. */
export async function noteOrder(prefix: string, order: UpdateOrder, ca: string, nowMs: number): Promise<void> {
  if (nowMs > order.issuedMs + GOOD_MS) {
    throw new ChairError('UPDATE_REFUSED', 'the order to update is of another day', {
      expected: `one of the day before ${timeText(nowMs)}, by the clock of this machine`,
      came: timeText(order.issuedMs),
      todo: 'Update again. If the clock of this machine is ahead, set it.',
    });
  }
  const file = path.join(prefix, NAME);
  const cluster = createHash('sha256').update(ca).digest('hex');
  const last = await lastIn(file);
  // Of another cluster: it counts its own terms.
  if (last !== undefined && last.cluster === cluster && !isLater(order, last)) {
    const goesOn = last.isOpen && last.term === order.term && last.number === order.number && last.sha256 === order.sha256;
    if (!goesOn) {
      throw new ChairError('UPDATE_REFUSED', 'the order to update was given before one that was obeyed here', {
        expected: `one after number ${last.number} of term ${last.term}`,
        came: `number ${order.number} of term ${order.term}`,
        todo: `Update again: each update is a new order. A gateway restored from an old backup may count lower: then remove ${file} as root.`,
      });
    }
  }
  const line = `${order.term} ${order.number} ${order.sha256} ${cluster} open\n`;
  await writeWhole(file, line, { full: 'AGENT_STORE_FULL', mode: 0o644 });
}

interface LastOrder {
  readonly term: number;
  readonly number: number;
  readonly sha256: string;
  /** sha256 of its CA. */
  readonly cluster: string;
  readonly isOpen: boolean;
}

async function lastIn(file: string): Promise<LastOrder | undefined> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (text === undefined) return undefined;
  const [, term, number, sha256, cluster, state] = LINE.exec(text.trim()) ?? [];
  if (sha256 !== undefined && cluster !== undefined)
    return { term: Number(term), number: Number(number), sha256, cluster, isOpen: state === 'open' };
  // To believe that there was none would let every order of before come back.
  throw new ChairError('UPDATE_REFUSED', `${file} does not say which order came last`, {
    expected: 'a line that root wrote there',
    came: JSON.stringify(text.slice(0, 80)),
    todo: 'Remove it as root; the next update writes it anew.',
  });
}

function timeText(ms: number): string {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? `${ms} ms` : date.toISOString();
}

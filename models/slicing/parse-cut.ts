/** Cuts as people write them: `rows:4`, `channels:3`, `stages:5`, `auto:7`, `whole`. */
import { ChairError } from '../../broker/errors.js';
import { CUT_KINDS, type CutKind } from './partition.js';

/** `stages`: a pipeline of uncut stages. `auto`: for each region the kind of cut that a simple cost model likes best. */
export type CoverKind = CutKind | 'stages' | 'auto';
export const COVER_KINDS: readonly CoverKind[] = [...CUT_KINDS, 'stages', 'auto'];

export interface ParsedCut {
  readonly kind: CoverKind;
  readonly parts: number;
  /** One relative share per part, at least 0, not all 0. */
  readonly shares: readonly number[];
}

/** More parts than anyone has devices are a slip of the finger; the bound keeps analysis in bounded time. */
const MAX_PARTS = 64;

function invalid(message: string, expected: string, came: string): ChairError {
  return new ChairError('CUT_INVALID', message, { expected, came });
}

function isCoverKind(text: string): text is CoverKind {
  return COVER_KINDS.some((kind) => kind === text);
}

/**
 * Parses `KIND:PARTS` (`whole` needs no parts). Shares default to equal ones. Throws CUT_INVALID: unknown kind, parts no whole number of at least 1,
 * as many shares as parts not given, or shares that are no numbers of at least 0 with a positive sum.
 */
export function parseCut(text: string, shares?: readonly number[]): ParsedCut {
  const [kind = '', count, ...rest] = text.trim().split(':');
  if (kind === 'replicas') {
    throw new ChairError('CUT_INVALID', 'replicas run the same slices for different frames: there is nothing to cut', {
      todo: 'Verify the cut of one replica.',
    });
  }
  if (!isCoverKind(kind)) throw invalid('unknown kind of cut', `one of ${COVER_KINDS.join(', ')}`, `"${kind}"`);
  if (rest.length > 0) throw invalid('a cut is written KIND:PARTS', 'for example rows:4', `"${text}"`);
  if (count === undefined && kind !== 'whole')
    throw invalid(`the cut ${kind} needs a number of parts`, `for example ${kind}:4`, `"${text}"`);
  const parts = count === undefined ? 1 : /^\d+$/.test(count) ? Number(count) : Number.NaN;
  if (!(parts >= 1 && parts <= MAX_PARTS))
    throw invalid('the number of parts is wrong', `a whole number from 1 to ${MAX_PARTS}`, `"${count}"`);
  if (kind === 'whole' && parts !== 1) throw invalid('the cut whole has one part', 'whole', `"${text}"`);
  const given = shares ?? Array.from({ length: parts }, () => 1);
  if (given.length !== parts) throw invalid('the number of shares is wrong', `${parts} shares for ${text}`, `${given.length}`);
  const sum = given.reduce((a, b) => a + b, 0);
  if (!given.every((s) => s >= 0) || !(sum > 0 && Number.isFinite(sum))) {
    throw invalid('shares make no sense', 'numbers of at least 0, not all 0', given.join(','));
  }
  return { kind, parts, shares: [...given] };
}

/** What the panes have in common with each other: when there is room for words, how states look. */
import type { Tone } from './text.js';

/** From so many columns on there is room for words. */
export const WIDE = 110;
/** Columns of a sparkline. */
export const SPARK = 20;

export function stateTone(state: string): Tone {
  if (state === 'ready' || state === 'serving') return 'good';
  if (state === 'lost' || state === 'refused' || state === 'failed' || state === 'waiting') return 'bad';
  return state === 'stopped' ? 'dim' : 'warn';
}

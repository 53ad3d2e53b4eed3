/** Spans of time as people write them: `90s`, `30m`, `1h`, `7d`. */
import { ChairError } from '../broker/errors.js';

const UNITS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** ms. Throws USAGE. */
export function parseDuration(text: string, what: string): number {
  const [, count = '', unit = ''] = /^(\d{1,9}(?:\.\d{1,3})?)([smhd])$/.exec(text) ?? [];
  const known = Object.entries(UNITS).find(([letter]) => letter === unit)?.[1];
  if (known !== undefined) return Number(count) * known;
  throw new ChairError('USAGE', `${what} is wrong`, { expected: 'a number with s, m, h or d, as in 1h', came: `"${text}"` });
}

/** `7 d`, `36 h`, `20 min`: in one unit, rounded down. */
export function durationText(ms: number): string {
  const abs = Math.abs(ms);
  if (abs >= 2 * UNITS.d) return `${Math.floor(abs / UNITS.d)} d`;
  if (abs >= 2 * UNITS.h) return `${Math.floor(abs / UNITS.h)} h`;
  if (abs >= 2 * UNITS.m) return `${Math.floor(abs / UNITS.m)} min`;
  return `${Math.floor(abs / UNITS.s)} s`;
}

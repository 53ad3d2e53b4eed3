/** What a Raspberry Pi's firmware says of power and heat, in words. Bits: Raspberry Pi documentation, `vcgencmd get_throttled`. */
const NOW: readonly (readonly [bit: number, word: string])[] = [
  [0, 'under-voltage: its power supply or cable is too weak'],
  [1, 'clock capped'],
  [2, 'throttled'],
  [3, 'close to its temperature limit'],
];
/** The same, since it was started. */
const SINCE_START_SHIFT = 16;

/** What holds now; empty when all is well or nothing is known. */
export function throttledNow(flags: number): string[] {
  return flags < 0 ? [] : NOW.flatMap(([bit, word]) => ((flags >> bit) & 1 ? [word] : []));
}

/** What happened since the board was started, and does not hold now. */
export function throttledBefore(flags: number): string[] {
  if (flags < 0) return [];
  return NOW.flatMap(([bit, word]) => ((flags >> (bit + SINCE_START_SHIFT)) & 1 && !((flags >> bit) & 1) ? [word] : []));
}

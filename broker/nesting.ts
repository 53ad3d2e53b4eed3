/**
 * How deep a text that is JSON or YAML goes, seen before anything reads it: readers go down by calling themselves, and where the stack ends in the middle of a regular
 * expression, V8 ends the process.
 */

/** No file of ours is deeper than six. */
export const MAX_DEPTH = 64;
/** Lists, keys and values that begin on one line: each is one level deeper. */
const DEEP_LINE = new RegExp(`^[ \\t]*(?:[-?:][ \\t]+){${MAX_DEPTH}}`, 'm');

/** Deeper than MAX_DEPTH. Brackets in texts and comments count, too, which no honest file notices; levels by indentation do not: for them a text has to be long. */
export function isTooDeep(text: string): boolean {
  if (DEEP_LINE.test(text)) return true;
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === 0x5b || code === 0x7b) depth++;
    else if (code === 0x5d || code === 0x7d) depth = Math.max(0, depth - 1);
    if (depth > MAX_DEPTH) return true;
  }
  return false;
}

/**
 * Text that is safe in a log, whoever said it: printable ASCII on one line, the rest escaped as JSON does it. Nothing in it can begin a line that nobody wrote, or move a
 * terminal's cursor; what was said can still be read from it. (Screens show other languages, too: scripts/printable.ts.)
 */
export function printable(text: string): string {
  return text.replaceAll(/[^ -~]/g, (odd) => `\\u${odd.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** Characters that stand for themselves in a JSON text of printable ASCII. */
const ITSELF = /[ !#-[\]-~]/;
/** `\u001b`: the longest that one can become. */
const ESCAPED = 6;

/** The beginning of it, no longer than `characters` when it is escaped: what is cut can be told, and nothing grows by being escaped. */
export function cutPrintable(text: string, characters: number): string {
  let room = characters;
  for (let i = 0; i < text.length; i++) {
    room -= ITSELF.test(text.charAt(i)) ? 1 : ESCAPED;
    if (room < 0) return `${text.slice(0, i)}...`;
  }
  return text;
}

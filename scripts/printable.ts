/**
 * Text that is safe on a terminal. Names, reasons and events come from other machines: what could move the cursor, change colours, set titles, hide or turn round
 * text is replaced.
 */

const PLAIN_ASCII = /^[\x20-\x7e]*$/;
/** Line breaks and tabs become spaces. */
const BLANK = /[\t\n\r\v\f\u0085\u2028\u2029]/gu;
/** Controls (also C1, which some terminals obey), formats (joiners, turns of direction), halves, private and unassigned characters. */
const UNSAFE = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}]/gu;
/** What is drawn over the character before it; after normalization few are left. */
const MARKS = /\p{M}/gu;
/** As UNSAFE, but for line breaks and tabs. */
const UNSAFE_IN_LINES = /(?![\n\t])[\p{Cc}\p{Cf}\p{Cs}]/gu;

/** One line of it: what is not printable is a `?`. */
export function printable(text: string): string {
  if (PLAIN_ASCII.test(text)) return text;
  return text.replace(BLANK, ' ').normalize('NFC').replace(MARKS, '').replace(UNSAFE, '?');
}

/** Several lines of it. */
export function printableLines(text: string): string {
  return text.replace(UNSAFE_IN_LINES, '?');
}

/** A JSON document that a terminal may show: it means the same. */
export function printableJson(json: string): string {
  return json.replace(/(?!\n)[\p{Cc}\p{Cf}\p{Cs}]/gu, (character) =>
    character
      .split('')
      .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
      .join(''),
  );
}

/** For tests: any text there is. */
import fc from 'fast-check';

/**
 * Half of it ASCII, controls included. fast-check's own unit `binary` first makes a table of all characters, which takes seconds of CPU in each file, and half a
 * minute on a machine that is busy.
 */
export function anyText(maxLength = 12): fc.Arbitrary<string> {
  const code = fc.oneof(
    { weight: 2, arbitrary: fc.integer({ min: 0, max: 0x7f }) },
    { weight: 1, arbitrary: fc.integer({ min: 0x80, max: 0xd7ff }) },
    { weight: 1, arbitrary: fc.integer({ min: 0xe000, max: 0x10ffff }) },
  );
  return fc.array(code, { maxLength }).map((codes) => String.fromCodePoint(...codes));
}

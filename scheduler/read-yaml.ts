/**
 * YAML that people wrote. The library compares every key of a map with every other, descends by recursion, and takes minutes for a megabyte of nothing but
 * brackets or tags: keys are compared here, depth is bounded, and what comes over the network is JSON or short (MAX_SENT_YAML).
 */
import { type Document, isMap, isScalar, LineCounter, parseDocument, visit } from 'yaml';
import { isTooDeep, MAX_DEPTH } from '../broker/nesting.js';

/** Characters of YAML that the gateway reads between two heartbeats. Our clients send JSON. */
export const MAX_SENT_YAML = 16_384;

/** JSON is YAML, but is read as such a hundred times as fast. Throws an Error with one line for people: syntax, a key that stands twice, aliases, depth. */
export function readYaml(text: string): unknown {
  if (isTooDeep(text)) throw new Error(`it is nested more than ${MAX_DEPTH} deep`);
  if (looksLikeJson(text)) return JSON.parse(text);
  const lines = new LineCounter();
  const document = parsed(text, lines);
  const [wrong] = document.errors;
  if (wrong !== undefined) {
    const { line, col } = lines.linePos(wrong.pos[0]);
    throw new Error(`${wrong.message} at line ${line}, column ${col}`);
  }
  visit(document, (_, node) => {
    if (!isMap(node)) return;
    const seen = new Set<unknown>();
    for (const { key } of node.items) {
      const name = isScalar(key) ? key.value : key;
      const at = isScalar(key) && key.range != null ? ` at line ${lines.linePos(key.range[0]).line}` : '';
      if (seen.has(name)) throw new Error(`the key ${String(name).slice(0, 100)}${at} stands there twice`);
      seen.add(name);
    }
  });
  // Aliases may blow a small file up to gigabytes.
  return document.toJS({ maxAliasCount: 0 });
}

/** It goes on behind an error, so a short text has thousands: none of them quotes the text or looks at the stack, which takes most of the time. */
function parsed(text: string, lineCounter: LineCounter): Document {
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  try {
    return parseDocument(text, { uniqueKeys: false, logLevel: 'silent', prettyErrors: false, lineCounter });
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
}

/** An object with a quoted key; one with bare keys is YAML. */
export function looksLikeJson(text: string): boolean {
  return /^\s*\{\s*["}]/.test(text);
}

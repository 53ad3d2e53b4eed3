/**
 * Writes the schemas of the current version into the history: run it once when SCHEMA_VERSION grows, and commit the file.
 * `npx tsx broker/schema/freeze.ts`. A file of an earlier release is never changed (a test compares the newest with the `.avsc` files).
 */
import { writeFileSync } from 'node:fs';
import { readSchemaFiles } from './set.js';
import { historyUrl, SCHEMA_VERSION } from './version.js';

/** The history is for decoding: a comment may be mended without a new version, so none is kept. */
const lines = readSchemaFiles().map((schema) => JSON.stringify(schema, (key, value) => (key === 'doc' ? undefined : value)));
writeFileSync(historyUrl(SCHEMA_VERSION), `[\n${lines.join(',\n')}\n]\n`);

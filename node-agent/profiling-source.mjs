// Starts the measuring process in a checkout, from TypeScript source. Not part of the compiled package.
// Tests compile the checkout once (scripts/e2e/compiled.ts) and name the folder.
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const { CHAIR_COMPILED } = process.env;
if (CHAIR_COMPILED === undefined) {
  const { register } = await import('tsx/esm/api');
  register();
  await import('./profiling-process.ts');
} else await import(pathToFileURL(path.join(CHAIR_COMPILED, 'node-agent', 'profiling-process.js')).href);

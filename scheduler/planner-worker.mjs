// Starts the planners' thread in a checkout, from TypeScript source: tsx registers per thread. Not part of the compiled package.
// Tests start hundreds of such threads; they compile the checkout once (scripts/e2e/compiled.ts) and name the folder.
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const { CHAIR_COMPILED } = process.env;
if (CHAIR_COMPILED === undefined) {
  const { register } = await import('tsx/esm/api');
  register();
  await import('./planner-worker.ts');
} else await import(pathToFileURL(path.join(CHAIR_COMPILED, 'scheduler', 'planner-worker.js')).href);

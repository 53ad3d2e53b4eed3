/** Where the package stands: the folder with package.json, one up from `scripts/` in a checkout and two up from `dist/scripts/` when installed. */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(import.meta.url);

function findRoot(): string {
  let directory = path.dirname(here);
  while (!existsSync(path.join(directory, 'package.json'))) {
    const up = path.dirname(directory);
    if (up === directory) return path.dirname(path.dirname(here));
    directory = up;
  }
  return directory;
}

export const PACKAGE_ROOT = findRoot();

/** True in a checkout (TypeScript sources are run), false when compiled. */
export const RUNS_FROM_SOURCE = here.endsWith('.ts');

/** The CLI's entry file as this process can run it. */
export const CLI_PATH = path.join(path.dirname(here), RUNS_FROM_SOURCE ? 'cli.ts' : 'cli.js');

export function packageVersion(): string {
  const json: unknown = JSON.parse(readFileSync(path.join(PACKAGE_ROOT, 'package.json'), 'utf8'));
  return typeof json === 'object' && json !== null && 'version' in json ? String(json.version) : '0.0.0';
}

/** How the reader calls the CLI from here: `npm run -s mc --` in a checkout, `npx musical-chair` when installed. */
export const PROGRAM = RUNS_FROM_SOURCE ? 'npm run -s mc --' : 'npx musical-chair';

/** What the watchdog of a testbed runs when the testbed's process has ended: removes what it left. `clean.ts RUN-DIRECTORY` */
import { existsSync } from 'node:fs';
import { cleanRun } from './run-directory.js';

const [directory] = process.argv.slice(2);
if (directory !== undefined && existsSync(directory)) await cleanRun(directory);

#!/usr/bin/env node
/** The command line on an agent's machine: what a bundle brings, and nothing that only a gateway or an operator needs. */
import { discover } from './commands/discover.js';
import { doctorOfDevice } from './commands/doctor-device.js';
import { agent } from './commands/processes.js';
import { updateApply, updateCheck } from './commands/update-device.js';
import { beCommandLine, type CommandTable, isEntry } from './program.js';

export const DEVICE: CommandTable = {
  commands: [agent, discover, doctorOfDevice, updateCheck, updateApply],
  groups: { update: 'Bundles on this machine' },
};

if (isEntry(import.meta.url)) await beCommandLine(DEVICE);

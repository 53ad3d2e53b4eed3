/** `gateway backup` and `gateway restore`: the gateway's state folder as one file, and back. */
import path from 'node:path';
import type { CommandDefinition } from '../command.js';
import type { Settings } from '../config.js';
import { PROGRAM, packageVersion } from '../package-root.js';
import { counted } from '../report.js';
import { gatewayDirectory } from '../state-folder.js';
import { bytesText } from '../table.js';
import { inheritedLines } from '../trust-text.js';

const whenText = (ms: number): string => new Date(ms).toISOString().replace('T', ' ').slice(0, 19).concat(' UTC');
const named = (deployments: readonly string[]): string =>
  deployments.length === 0 ? 'no deployments' : `deployments ${deployments.join(', ')}`;
const KEY_WORDS =
  "The cluster's keys are in it: whoever can read it can act as the gateway. It is readable by its owner only (mode 0600); keep it so.";

export const gatewayBackup: CommandDefinition = {
  name: 'gateway backup',
  summary: "Write the gateway's whole state to one file, also while it runs",
  description:
    'An ordinary tar archive: keys, deployments, profiles, links, models and slices as they were at one moment, each with its sha256. To be run on the machine of the gateway, by a user who may read its state folder.',
  arguments: [{ syntax: '<file>', description: 'where to write it; must not be there yet' }],
  options: [{ flags: '--without-models', description: 'leave out models and slices, which are large and can be sent again' }],
  settings: ['cluster', 'gateway.directory'],
  json: true,
  examples: [
    { line: 'gateway backup /mnt/usb/gateway.tar', text: 'everything' },
    { line: 'gateway backup keys.tar --without-models', text: 'what cannot be made again, a few hundred kilobytes' },
  ],
  run: async ({ arguments: [file = ''], options, settings, output }) => {
    const { writeBackup } = await import('../../scheduler/backup/backup.js');
    const { checkBackup } = await import('../../scheduler/backup/restore.js');
    const report = await writeBackup({
      stateDirectory: gatewayDirectory(settings),
      file: path.resolve(file),
      cluster: settings.cluster,
      softwareVersion: packageVersion(),
      models: options.withoutModels !== true,
      nowMs: Date.now,
      onProgress: (bytes) => output.progress(`${bytesText(bytes)} written`),
    });
    // A memory card may take what it does not keep.
    await checkBackup(report.file);
    output.report(report, () =>
      [
        `${report.file}: ${counted(report.files, 'file')}, ${bytesText(report.sizeBytes)}; cluster '${report.cluster}', ${named(report.deployments)}. Read back and found right.`,
        ...(report.models ? [] : ['Models and slices are not in it.']),
        ...report.leftOut.map((line) => `left out  ${line}`),
        ...(report.keys ? [KEY_WORDS] : []),
      ].join('\n'),
    );
  },
};

export const gatewayRestore: CommandDefinition = {
  name: 'gateway restore',
  summary: "Put a backup in the place of the gateway's state",
  description:
    'Refuses while a gateway runs there. What stood there before is kept beside it. Who was revoked in it, or in what earlier restores put aside, stays revoked. Join tokens are not brought back: one that was used since would be good again.',
  arguments: [{ syntax: '<file>', description: 'what gateway backup wrote' }],
  options: [{ flags: '--check', description: 'only read it and check every byte' }],
  settings: ['cluster', 'gateway.directory'],
  json: true,
  examples: [
    { line: 'gateway restore /mnt/usb/gateway.tar', text: 'then start the gateway' },
    { line: 'gateway restore gateway.tar --check', text: 'is it whole?' },
  ],
  run: async ({ arguments: [given = ''], options, settings, output }) => {
    const { checkBackup, restoreBackup } = await import('../../scheduler/backup/restore.js');
    const { deploymentsOf } = await import('../../scheduler/backup/backup.js');
    const file = path.resolve(given);
    if (options.check === true) {
      const { about, rows } = await checkBackup(file);
      output.report(
        { ...about, files: rows.length, deployments: deploymentsOf(rows) },
        () =>
          `${file} is whole: cluster '${about.cluster}', ${whenText(about.madeAtMs)}, ${counted(rows.length, 'file')}, ${named(deploymentsOf(rows))}.`,
      );
      return;
    }
    const directory = gatewayDirectory(settings);
    const report = await restoreBackup({
      ...{ file, stateDirectory: directory, cluster: settings.cluster, nowMs: Date.now },
      onProgress: (bytes) => output.progress(`${bytesText(bytes)} restored`),
      log: (line) => output.note(line),
    });
    output.report({ ...report, directory }, () =>
      [
        `${directory} is as it was on ${whenText(report.madeAtMs)}: ${counted(report.files, 'file')}, ${named(report.deployments)}.`,
        ...(report.replaced === '' ? [] : [`What stood there before is in ${report.replaced}; remove it when the gateway serves.`]),
        ...report.leftOut.map((name) => `not brought back  ${name}`),
        ...(report.keys ? inheritedLines(report, PROGRAM) : []),
        ...(report.models ? [] : ['Models and slices were not in it: agents go on with the slices on their disks.']),
        `Start the gateway: systemctl start musical-chair-gateway, or ${PROGRAM} gateway${startFlags(settings)}`,
      ].join('\n'),
    );
  },
};

/** Flags without which a gateway would be of another cluster, or look for its state elsewhere. */
function startFlags({ cluster, gateway }: Pick<Settings, 'cluster' | 'gateway'>): string {
  return `${cluster === 'default' ? '' : ` --cluster ${cluster}`}${gateway.directory === '' ? '' : ` --directory ${path.resolve(gateway.directory)}`}`;
}

/** `gateway install` and `gateway uninstall`: the gateway as a systemd service. */
import path from 'node:path';
import { ChairError } from '../../broker/errors.js';
import { nodeFlags } from '../children.js';
import type { CommandDefinition } from '../command.js';
import { optionText } from '../deploy-options.js';
import { CLI_PATH, PACKAGE_ROOT, PROGRAM } from '../package-root.js';
import { gateway } from './processes.js';

const ROOT = { flags: '--root <directory>', description: 'write below this folder instead, and run nothing' } as const;

export const gatewayInstall: CommandDefinition = {
  name: 'gateway install',
  summary: 'Make the gateway a systemd service with limits: it starts with the machine, and again when it fails',
  description:
    'Writes a unit, a user of its own, and /etc/musical-chair/musical-chair.yaml with the settings given here; then starts it. Its state is in /var/lib/musical-chair-gateway. Installing again takes up a new version.',
  options: [
    { flags: '--dry-run', description: 'print what would be written and run' },
    ROOT,
    { flags: '--user <name>', description: 'run as this user, who must exist; default: one of its own, musical-chair-gateway' },
  ],
  settings: gateway.settings ?? [],
  examples: [
    { line: 'gateway install --cluster home', text: 'with sudo' },
    { line: 'gateway install --dry-run', text: 'look at the unit' },
  ],
  run: async ({ options, settings, output }) => {
    const { checkReadableByOthers, checkUser, folderAbove, installPlan, installService, planText, SERVICE_STATE } = await import(
      '../service/install.js'
    );
    const { SERVICE } = await import('../service/unit.js');
    const program = [process.execPath, ...nodeFlags(), CLI_PATH];
    const user = optionText(options, 'user', '');
    const plan = installPlan({ settings, program, ...(user === '' ? {} : { user }) });
    if (options.dryRun === true) {
      output.text(planText(plan));
      return;
    }
    const root = optionText(options, 'root', '');
    if (root === '') {
      const state = plan.folder === undefined ? [] : [folderAbove(plan.folder.path)];
      if (user === '') checkReadableByOthers([process.execPath, CLI_PATH, path.join(PACKAGE_ROOT, 'package.json'), ...state]);
      else checkUser(user);
    }
    for (const line of installService({ plan, settings, ...(root === '' ? {} : { root: path.resolve(root) }) })) output.text(line);
    if (root !== '') return;
    output.text(
      [
        `\nThe gateway of cluster '${settings.cluster}' is a service now.`,
        `  what it says      journalctl -u ${SERVICE} -e     (how agents join stands there)`,
        '  settings          /etc/musical-chair/musical-chair.yaml, then: systemctl restart musical-chair-gateway',
        `  state             ${settings.gateway.directory || SERVICE_STATE}`,
        `  is all well?      ${PROGRAM} doctor`,
      ].join('\n'),
    );
  },
};

export const gatewayUninstall: CommandDefinition = {
  name: 'gateway uninstall',
  summary: 'Stop and remove the service; settings and state stay',
  options: [ROOT],
  examples: [{ line: 'gateway uninstall', text: 'with sudo' }],
  run: async ({ options, output }) => {
    const { SERVICE_STATE, uninstallService } = await import('../service/install.js');
    const root = optionText(options, 'root', '');
    if (options.root === '') throw new ChairError('USAGE', '--root is empty');
    for (const line of uninstallService(root === '' ? {} : { root: path.resolve(root) })) output.text(line);
    output.text(
      `What it kept stays in ${SERVICE_STATE} and /etc/musical-chair: keys are in it. Remove them by hand when nobody needs them any more.`,
    );
  },
};

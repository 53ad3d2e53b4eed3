/** Installs the gateway as a systemd service, or removes it: the steps as data first, so that they can be shown, and tried in another root. */
import { execFileSync, spawnSync } from 'node:child_process';
import { constants, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ChairError } from '../../broker/errors.js';
import type { Settings } from '../config.js';
import { changedValues, configText } from '../config-text.js';
import { loadSettings, SYSTEM_CONFIG_FILE } from '../settings.js';
import { gatewayUnit, MARK, SERVICE, SERVICE_USER, STATE_DIRECTORY, sysusersFile } from './unit.js';

export interface ServiceFile {
  /** As it is called on the machine, without the root of `--root`. */
  readonly path: string;
  readonly text: string;
  /** It holds what people changed: it is not written when it is there. */
  readonly keep: boolean;
}

export interface ServicePlan {
  readonly files: readonly ServiceFile[];
  /** State that is not in the service's own folder: made for its user when it is not there, for systemd does not start the service without it. */
  readonly folder?: { readonly path: string; readonly user: string };
  /** Run after the files are there; not below another root. */
  readonly commands: readonly (readonly string[])[];
}

export const UNIT_FILE = `/etc/systemd/system/${SERVICE}.service`;
export const SYSUSERS_FILE = '/etc/sysusers.d/musical-chair-gateway.conf';
/** Where the service's state is. */
export const SERVICE_STATE = `/var/lib/${STATE_DIRECTORY}`;

export interface InstallFacts {
  readonly settings: Settings;
  /** Node, its flags, and the CLI, with absolute paths. */
  readonly program: readonly string[];
  /** An existing user that it runs as; default: one of its own, which is made. */
  readonly user?: string;
}

/** It runs its broker itself, and everybody may read the file: a URL that holds a password stays out of it. */
function serviceValues(settings: Settings): ReturnType<typeof changedValues> {
  const { broker: _, ...values } = changedValues(settings, 'gateway');
  return values;
}

/** What would be done. */
export function installPlan({ settings, program, user }: InstallFacts): ServicePlan {
  const { gateway } = settings;
  const state = gateway.directory === '' ? SERVICE_STATE : path.resolve(gateway.directory);
  const values = { ...serviceValues(settings), 'gateway.directory': state };
  const ports = Object.entries(gateway).flatMap(([key, value]) => (/port$/i.test(key) && typeof value === 'number' ? [value] : []));
  const unit = gatewayUnit({
    program,
    ...(state === SERVICE_STATE ? {} : { stateElsewhere: state }),
    configFile: SYSTEM_CONFIG_FILE,
    cluster: settings.cluster,
    lowPort: ports.some((port) => port > 0 && port < 1024),
    inHome: [...program, state].some((word) => /^\/(home|root)\//.test(word.replace(/^file:\/\//, ''))),
    user: user ?? SERVICE_USER,
  });
  return {
    ...(state === SERVICE_STATE ? {} : { folder: { path: state, user: user ?? SERVICE_USER } }),
    files: [
      { path: UNIT_FILE, text: unit, keep: false },
      ...(user === undefined ? [{ path: SYSUSERS_FILE, text: sysusersFile(), keep: false }] : []),
      { path: SYSTEM_CONFIG_FILE, text: configText(values, 'gateway'), keep: true },
    ],
    commands: [
      ...(user === undefined ? [['systemd-sysusers', SYSUSERS_FILE]] : []),
      ['systemctl', 'daemon-reload'],
      ['systemctl', 'enable', SERVICE],
      ['systemctl', 'restart', SERVICE],
    ],
  };
}

/** What `uninstall` runs and removes. The settings and the state stay: keys are in it. */
export const REMOVAL = {
  before: [['systemctl', 'disable', '--now', SERVICE]],
  files: [UNIT_FILE, SYSUSERS_FILE],
  after: [['systemctl', 'daemon-reload']],
} as const;

/** `--dry-run`. */
export function planText({ files, folder, commands }: ServicePlan): string {
  return [
    ...files.flatMap(({ path: file, text, keep }) => [`### ${file}${keep ? ' (written only when it is not there)' : ''}`, '', text]),
    '### then',
    '',
    ...stepsOf({ folder, commands }).map((words) => words.join(' ') + (words[0] === 'install' ? '   (when it is not there)' : '')),
  ].join('\n');
}

/** The folder after the user is there, and before the service starts. */
function stepsOf({ folder, commands }: Pick<ServicePlan, 'commands'> & { readonly folder: ServicePlan['folder'] }): (readonly string[])[] {
  const at = commands.findIndex(([program]) => program === 'systemctl');
  const made = folder === undefined ? [] : [['install', '-d', '-m', '0700', '-o', folder.user, '--', folder.path]];
  return [...commands.slice(0, Math.max(0, at)), ...made, ...commands.slice(Math.max(0, at))];
}

export interface InstallOptions {
  readonly plan: ServicePlan;
  /** Everything is written below this folder, and nothing is run. Default: the machine's own. */
  readonly root?: string;
  readonly settings: Settings;
  readonly run?: (words: readonly string[]) => void;
  readonly isRoot?: boolean;
}

/** Resolves with a line for each step. Throws SERVICE_FAILED, FILE_EXISTS, CONFIG_INVALID (settings that an existing file contradicts). */
export function installService({ plan, root = '', settings, run = runWords, isRoot = process.getuid?.() === 0 }: InstallOptions): string[] {
  if (root === '') needRoot(isRoot);
  const said: string[] = [];
  for (const file of plan.files) checkExisting(file, root, settings);
  said.push(...checkUnit(plan));
  for (const { path: file, text, keep } of plan.files) {
    const to = path.join(root, file);
    if (keep && existsSync(to)) {
      said.push(`kept   ${file}`);
      continue;
    }
    try {
      mkdirSync(path.dirname(to), { recursive: true, mode: 0o755 });
      writeFileSync(to, text, { mode: 0o644 });
    } catch (cause) {
      throw new ChairError('SERVICE_FAILED', `${to} cannot be written: ${cause instanceof Error ? cause.message : String(cause)}`, {
        cause,
      });
    }
    said.push(`wrote  ${file}`);
  }
  if (root !== '') return [...said, `Below ${root}: nothing was run.`];
  // A folder that is there keeps its owner: it may be anybody's.
  const folder = plan.folder !== undefined && existsSync(plan.folder.path) ? undefined : plan.folder;
  for (const words of stepsOf({ folder, commands: plan.commands })) {
    run(words);
    said.push(`ran    ${words.join(' ')}`);
  }
  return said;
}

/** Resolves with a line for each step. Throws SERVICE_FAILED. */
export function uninstallService({
  root = '',
  run = runWords,
  isRoot = process.getuid?.() === 0,
}: Pick<InstallOptions, 'root' | 'run' | 'isRoot'>): string[] {
  if (root === '') needRoot(isRoot);
  const mine = REMOVAL.files.filter((file) => isOurs(path.join(root, file)));
  if (!mine.some((file) => file === UNIT_FILE)) {
    throw new ChairError('SERVICE_FAILED', 'there is no service to remove', {
      expected: `${UNIT_FILE}, written by gateway install`,
      came: 'none',
    });
  }
  const said: string[] = [];
  const all = (list: readonly (readonly string[])[]): void => {
    if (root !== '') return;
    for (const words of list) {
      run(words);
      said.push(`ran      ${words.join(' ')}`);
    }
  };
  all(REMOVAL.before);
  for (const file of mine) {
    rmSync(path.join(root, file), { force: true });
    said.push(`removed  ${file}`);
  }
  all(REMOVAL.after);
  return said;
}

function isOurs(file: string): boolean {
  return existsSync(file) && readFileSync(file, 'utf8').startsWith(MARK);
}

function needRoot(isRoot: boolean): void {
  if (process.platform !== 'linux') {
    throw new ChairError('SERVICE_FAILED', 'services are installed on Linux with systemd only', {
      came: process.platform,
      todo: 'Elsewhere, start the command gateway from what starts services there.',
    });
  }
  if (isRoot) return;
  throw new ChairError('SERVICE_FAILED', 'a service is installed by root', {
    todo: 'Put sudo before it; --dry-run shows what it would do.',
  });
}

/** A file of somebody else is not overwritten, and one that is kept must say what was asked for. */
function checkExisting({ path: file, keep }: ServiceFile, root: string, settings: Settings): void {
  const at = path.join(root, file);
  if (!existsSync(at)) return;
  if (!keep) {
    if (isOurs(at)) return;
    throw new ChairError('FILE_EXISTS', `${file} was not written by gateway install`, { todo: 'Move it away, then install again.' });
  }
  const theirs = serviceValues(loadSettings({ file: at }));
  const ours: Readonly<Record<string, unknown>> = serviceValues(settings);
  const other = Object.keys(ours).filter((key) => ours[key] !== (theirs as Readonly<Record<string, unknown>>)[key]);
  if (other.length === 0) return;
  throw new ChairError('CONFIG_INVALID', `${file} is kept, and does not say what was asked for`, {
    expected: other.map((key) => `${key}: ${String(ours[key])}`).join(', '),
    todo: 'Change it there, or move it away, then install again.',
  });
}

/** What systemd itself says of the unit, where it is installed. Throws SERVICE_FAILED when it is wrong. */
function checkUnit({ files }: ServicePlan): string[] {
  const unit = files.find((file) => file.path === UNIT_FILE);
  if (unit === undefined) return [];
  const folder = mkdtempSync(path.join(tmpdir(), 'mc-unit-'));
  try {
    const file = path.join(folder, path.basename(UNIT_FILE));
    writeFileSync(file, unit.text);
    const { status, stderr, error } = spawnSync('systemd-analyze', ['verify', file], { encoding: 'utf8', timeout: 30_000 });
    if (error !== undefined) return 'code' in error && error.code === 'ENOENT' ? [] : [`systemd-analyze verify: ${error.message}`];
    // It speaks of other units of the machine, too.
    const mine = stderr.split('\n').filter((line) => line.includes(SERVICE));
    // What it does not know (an old systemd) or cannot read it leaves out, and says so with status 0.
    if (status === 0 || mine.length === 0) return ['systemd-analyze verify: ok', ...mine.map((line) => `note   ${line}`)];
    throw new ChairError('SERVICE_FAILED', `systemd does not take the unit: ${mine.join('; ')}`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function runWords(words: readonly string[]): void {
  const [program = '', ...rest] = words;
  try {
    execFileSync(program, rest, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: 180_000 });
  } catch (error) {
    const said = error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : '';
    throw new ChairError(
      'SERVICE_FAILED',
      `${words.join(' ')} failed: ${said || (error instanceof Error ? error.message : String(error))}`,
      {
        todo: `journalctl -u ${SERVICE} says more; gateway uninstall takes back what was done.`,
        cause: error,
      },
    );
  }
}

/**
 * A service of another user cannot run what is in somebody's home directory. Throws SERVICE_FAILED with the folder that is in the way. `files`: what is run and read.
 */
export function checkReadableByOthers(files: readonly string[]): void {
  for (const file of files) {
    for (let at = path.resolve(file); at !== path.dirname(at); at = path.dirname(at)) {
      const needed = at === path.resolve(file) && !statSync(at).isDirectory() ? constants.S_IROTH : constants.S_IXOTH;
      if ((statSync(at).mode & needed) !== 0) continue;
      throw new ChairError('SERVICE_FAILED', `the service's user could not read ${file}`, {
        expected: 'folders that everybody may enter',
        came: `${at}, which is closed to others`,
        todo: 'Install musical-chair outside of home directories (npm install --prefix /opt/musical-chair ...), or give --user, whose files it may read.',
      });
    }
  }
}

/** The nearest folder above that is there: whoever cannot enter it does not get to what is below, whoever owns that. */
export function folderAbove(file: string): string {
  let at = path.dirname(path.resolve(file));
  while (!existsSync(at)) at = path.dirname(at);
  return at;
}

/** For `--user`: throws SERVICE_FAILED when there is no such user here. */
export function checkUser(name: string): void {
  try {
    execFileSync('id', ['-u', '--', name], { stdio: 'ignore' });
  } catch (cause) {
    throw new ChairError('SERVICE_FAILED', `there is no user ${name} on this machine`, {
      todo: 'Without --user, one of its own is made.',
      cause,
    });
  }
}

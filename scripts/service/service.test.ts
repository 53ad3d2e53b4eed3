import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Settings, settingsSchema } from '../config.js';
import { loadSettings, SYSTEM_CONFIG_FILE } from '../settings.js';
import {
  checkReadableByOthers,
  checkUser,
  folderAbove,
  installPlan,
  installService,
  planText,
  REMOVAL,
  SYSUSERS_FILE,
  UNIT_FILE,
  uninstallService,
} from './install.js';
import { gatewayUnit, unitPath, unitWord } from './unit.js';

let root: string;
beforeEach(() => {
  root = mkdtempSync(path.join(tmpdir(), 'mc-service-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const settings = (gateway: Partial<Settings['gateway']> = {}, cluster = 'home'): Settings => settingsSchema.parse({ cluster, gateway });
const program = [process.execPath, '/opt/musical chair/100%/$x/cli.js'];
const read = (file: string): string => readFileSync(path.join(root, file), 'utf8');

function hasAnalyze(): boolean {
  try {
    execFileSync('systemd-analyze', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

describe('the unit', () => {
  it('quotes what systemd would read otherwise', () => {
    expect(unitWord('/usr/bin/node')).toBe('/usr/bin/node');
    expect(unitWord('/a b/100%/$x/"q"/\\')).toBe('"/a b/100%%/$$x/\\"q\\"/\\\\"');
  });

  it('quotes a path without doubling what is a variable in command lines only', () => {
    const stateElsewhere = '/srv/a $b 100%/"q"\\';
    expect(unitPath(stateElsewhere)).toBe('"/srv/a $b 100%%/\\"q\\"\\\\"');
    const unit = gatewayUnit({
      program: ['/opt/$x/node', '/opt/$x/cli.js'],
      configFile: '/c',
      cluster: 'x',
      lowPort: false,
      inHome: false,
      stateElsewhere,
      user: 'u',
    });
    expect(unit).toContain('\nReadWritePaths="/srv/a $b 100%%/\\"q\\"\\\\"\n');
    // systemd.service(5): variables are not looked for in the program itself.
    expect(unit).toContain('\nExecStart="/opt/$x/node" "/opt/$$x/cli.js" gateway');
  });

  it.each(['\n', '\r', '\t', '\0', '\u0085'])('has no place for a control character (%j)', (odd) => {
    const facts = { program, configFile: '/c', cluster: 'x', lowPort: false, inHome: false, user: 'u' };
    const name = `/srv/x${odd}ExecStartPre=/bin/sh`;
    const refused = expect.objectContaining({ code: 'SERVICE_FAILED' });
    expect(() => gatewayUnit({ ...facts, stateElsewhere: name })).toThrow(refused);
    expect(() => gatewayUnit({ ...facts, program: [process.execPath, name] })).toThrow(refused);
    expect(() => gatewayUnit({ ...facts, program: [name] })).toThrow(refused);
    expect(() => gatewayUnit({ ...facts, user: `u${odd}` })).toThrow(refused);
    expect(() => gatewayUnit({ ...facts, configFile: name })).toThrow(refused);
  });

  it('names a user whose group may have any name', () => {
    const unit = gatewayUnit({ program, configFile: '/c', cluster: 'x', lowPort: false, inHome: false, user: 'nobody' });
    expect(unit).toContain('\nUser=nobody\n');
    expect(unit).not.toMatch(/^Group=/m);
    const odd = (user: string) => gatewayUnit({ program, configFile: '/c', cluster: 'x', lowPort: false, inHome: false, user });
    expect(odd('100%n')).toContain('\nUser=100%%n\n');
    for (const user of ['', 'a b', '-x', 'a:b', '../root']) {
      expect(() => odd(user)).toThrow(expect.objectContaining({ code: 'SERVICE_FAILED' }));
    }
  });

  it('may have a low port, a state elsewhere, and a home directory, only when it needs them', () => {
    const plain = gatewayUnit({ program, configFile: '/c', cluster: 'x', lowPort: false, inHome: false, user: 'u' });
    expect(plain).toContain('\nCapabilityBoundingSet=\n');
    expect(plain).not.toContain('Ambient');
    expect(plain).toContain('ProtectHome=yes\n');
    const odd = gatewayUnit({
      program,
      configFile: '/c',
      cluster: 'x',
      lowPort: true,
      inHome: true,
      stateElsewhere: '/srv/my state',
      user: 'u',
    });
    expect(odd).toContain('AmbientCapabilities=CAP_NET_BIND_SERVICE');
    expect(odd).toContain('ProtectHome=read-only\nReadWritePaths="/srv/my state"');
  });

  it.skipIf(!hasAnalyze() && process.env.CI !== 'true')('is one that systemd takes without a word about it', () => {
    const folder = path.join(root, 'a b 100%');
    mkdirSync(folder);
    const script = path.join(folder, 'cli.js');
    writeFileSync(script, '');
    const odd = '/srv/a $b 100% "q" \\ ü';
    for (const [facts, user] of [
      [settings()],
      [settings({ port: 80, directory: '/srv/x' })],
      [settings({ directory: odd }), 'daemon'],
    ] as const) {
      const plan = installPlan({ settings: facts, program: [process.execPath, script], ...(user === undefined ? {} : { user }) });
      const unit = path.join(root, path.basename(UNIT_FILE));
      writeFileSync(unit, plan.files[0]?.text ?? '');
      const { output } = verify(unit);
      expect(output.filter((line) => line.includes('musical-chair'))).toEqual([]);
    }
    // And it can find fault.
    const wrong = path.join(root, 'musical-chair-wrong.service');
    writeFileSync(wrong, '[Service]\nExecStart=relative\nMemoryHigh=lots\n');
    expect(verify(wrong).output.join('\n')).toMatch(/musical-chair-wrong/);
  });
});

/** What it leaves out because it cannot read it, it says with status 0. */
function verify(unit: string): { output: string[] } {
  return { output: spawnSync('systemd-analyze', ['verify', unit], { encoding: 'utf8' }).stderr.split('\n') };
}

describe('gateway install', () => {
  it('writes unit, user and settings below another root, runs nothing there, and can be done again and undone', () => {
    const facts = settings({ port: 1999, hidden: true });
    const plan = installPlan({ settings: facts, program });
    const said = installService({ plan, settings: facts, root, run: () => expect.unreachable() });
    expect(said.filter((line) => line.startsWith('wrote'))).toHaveLength(3);
    expect(read(UNIT_FILE)).toContain(
      `ExecStart=${process.execPath} "/opt/musical chair/100%%/$$x/cli.js" gateway --config ${SYSTEM_CONFIG_FILE}`,
    );
    expect(read(SYSUSERS_FILE)).toMatch(/^u musical-chair-gateway /m);
    const written = loadSettings({ file: path.join(root, SYSTEM_CONFIG_FILE), env: {} });
    expect(written).toMatchObject({ cluster: 'home', gateway: { port: 1999, hidden: true, directory: '/var/lib/musical-chair-gateway' } });
    expect(installService({ plan, settings: facts, root }).join()).toContain(`kept   ${SYSTEM_CONFIG_FILE}`);
    const removed = uninstallService({ root, run: () => expect.unreachable() });
    expect(removed.filter((line) => line.startsWith('removed'))).toHaveLength(2);
    expect(existsSync(path.join(root, UNIT_FILE))).toBe(false);
    expect(existsSync(path.join(root, SYSTEM_CONFIG_FILE))).toBe(true);
    expect(() => uninstallService({ root })).toThrow(expect.objectContaining({ code: 'SERVICE_FAILED' }));
  });

  it('runs its steps in order, and says which one failed', () => {
    const facts = settings();
    const plan = installPlan({ settings: facts, program });
    // The machine's own files stay out of it.
    const here = { ...plan, files: [] };
    const ran: string[] = [];
    installService({ plan: here, settings: facts, isRoot: true, run: (words) => ran.push(words.join(' ')) });
    expect(ran).toEqual([
      `systemd-sysusers ${SYSUSERS_FILE}`,
      'systemctl daemon-reload',
      'systemctl enable musical-chair-gateway',
      'systemctl restart musical-chair-gateway',
    ]);
    expect(REMOVAL.before[0]).toEqual(['systemctl', 'disable', '--now', 'musical-chair-gateway']);
    const failing = { files: [], commands: [['false']] };
    expect(() => installService({ plan: failing, settings: facts, isRoot: true })).toThrow(
      expect.objectContaining({ code: 'SERVICE_FAILED', message: expect.stringContaining('false failed') }),
    );
  });

  it('makes the folder of a state that is elsewhere, for its user, and leaves one that is there alone', () => {
    const steps = (directory: string, user?: string): string[] => {
      const facts = settings({ directory });
      const plan = installPlan({ settings: facts, program, ...(user === undefined ? {} : { user }) });
      const ran: string[] = [];
      installService({ plan: { ...plan, files: [] }, settings: facts, isRoot: true, run: (words) => ran.push(words.join(' ')) });
      return ran;
    };
    const absent = path.join(root, 'not there');
    expect(steps(absent).slice(0, 3)).toEqual([
      `systemd-sysusers ${SYSUSERS_FILE}`,
      `install -d -m 0700 -o musical-chair-gateway -- ${absent}`,
      'systemctl daemon-reload',
    ]);
    expect(steps(absent, 'pi')[0]).toBe(`install -d -m 0700 -o pi -- ${absent}`);
    expect(steps(root).join()).not.toContain('install -d');
    expect(planText(installPlan({ settings: settings({ directory: absent }), program }))).toContain(
      `-- ${absent}   (when it is not there)`,
    );
  });

  it('refuses without root, on a file of somebody else, and when a kept file says something else', () => {
    const facts = settings();
    const plan = installPlan({ settings: facts, program });
    expect(() => installService({ plan, settings: facts, isRoot: false })).toThrow(expect.objectContaining({ code: 'SERVICE_FAILED' }));
    mkdirSync(path.join(root, path.dirname(UNIT_FILE)), { recursive: true });
    writeFileSync(path.join(root, UNIT_FILE), '[Unit]\n');
    expect(() => installService({ plan, settings: facts, root })).toThrow(expect.objectContaining({ code: 'FILE_EXISTS' }));
    expect(read(UNIT_FILE)).toBe('[Unit]\n');
    rmSync(path.join(root, UNIT_FILE));
    installService({ plan, settings: facts, root });
    const other = settings({ port: 4000 });
    expect(() => installService({ plan: installPlan({ settings: other, program }), settings: other, root })).toThrow(
      expect.objectContaining({ code: 'CONFIG_INVALID', message: expect.stringContaining('gateway.port: 4000') }),
    );
  });

  it('shows everything beforehand', () => {
    const text = planText(installPlan({ settings: settings(), program, user: 'pi' }));
    expect(text).toContain('User=pi');
    expect(text).toContain(`### ${SYSTEM_CONFIG_FILE} (written only when it is not there)`);
    expect(text).toContain('systemctl restart musical-chair-gateway');
    expect(text).not.toContain('sysusers');
  });

  it('does not make a service of a program that its user could not read', () => {
    const closed = path.join(root, 'closed');
    mkdirSync(closed);
    const file = path.join(closed, 'cli.js');
    writeFileSync(file, '');
    chmodSync(root, 0o755);
    expect(() => checkReadableByOthers([file])).not.toThrow();
    chmodSync(closed, 0o700);
    expect(() => checkReadableByOthers([file])).toThrow(
      expect.objectContaining({ code: 'SERVICE_FAILED', message: expect.stringContaining(closed) }),
    );
    // Nor of a state that is to be in such a folder.
    expect(folderAbove(path.join(closed, 'state', 'gateway'))).toBe(closed);
    expect(() => checkReadableByOthers([folderAbove(path.join(closed, 'state'))])).toThrow(
      expect.objectContaining({ code: 'SERVICE_FAILED' }),
    );
    expect(folderAbove(closed)).toBe(root);
    expect(() => checkUser('nobody-of-this-name')).toThrow(expect.objectContaining({ code: 'SERVICE_FAILED' }));
  });
});

import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, describe, expect, it, vi } from 'vitest';
import type { Card } from './card.js';
import { editCmdline } from './cmdline.js';
import { firstrun, quote } from './firstrun.js';
import { BARE, contextOf, FULL, SSH_KEY } from './test-card.js';
import { lacking, testFolder } from './test-image.js';

// Each makes images with a dozen programs, which wait for each other on a busy machine.
vi.setConfig({ testTimeout: 120_000 });

const { folder, remove } = testFolder();
afterAll(remove);
const CMDLINE = 'console=tty1 root=PARTUUID=4d3f1a2b-02 rootwait quiet init=/usr/lib/raspberrypi-sys-mods/firstboot\n';
/** A real `sync` waits for the whole machine's disks. */
const BIN = path.join(folder, 'bin');
mkdirSync(BIN);
writeFileSync(path.join(BIN, 'sync'), '#!/bin/sh\n');
chmodSync(path.join(BIN, 'sync'), 0o755);
const ENV = { ...process.env, PATH: `${BIN}:${process.env.PATH}` };
let roots = 0;

/** A Pi before its first boot, as far as the script looks at it; `pi` is whoever runs the test. */
function newRoot(card: Card = FULL): string {
  const root = path.join(folder, `root-${roots++}`);
  const boot = firstrun.write(contextOf(card, { cmdline: CMDLINE }));
  const files: Record<string, string> = {
    'etc/hostname': 'raspberrypi\n',
    'etc/hosts': '127.0.0.1\tlocalhost\n::1\t\tlocalhost ip6-localhost\n\n127.0.1.1\traspberrypi\n',
    'etc/passwd': `root:x:0:0:root:/root:/bin/bash\npi:x:${process.getuid?.()}:${process.getgid?.()}:,,,:/home/pi:/bin/bash\n`,
    'usr/share/zoneinfo/Europe/Berlin': 'TZif',
    'usr/lib/userconf-pi/userconf': '#!/bin/sh\necho "$#:$1:$2" >>"$MC_ROOT/userconf.log"\n',
    'var/lib/systemd/rfkill/platform-fe300000.mmcnr:wlan': '1\n',
    'boot/firmware/cmdline.txt': editCmdline(CMDLINE, boot.cmdline),
    'boot/firmware/musical-chair/start.sh': 'exit 0\n',
    ...Object.fromEntries(Object.entries(boot.files).map(([name, text]) => [`boot/firmware/${name}`, text])),
  };
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
    writeFileSync(path.join(root, name), text);
  }
  mkdirSync(path.join(root, 'home/pi'), { recursive: true });
  chmodSync(path.join(root, 'usr/lib/userconf-pi/userconf'), 0o755);
  return root;
}

function run(root: string): void {
  execFileSync('sh', [path.join(root, 'boot/firmware/firstrun.sh')], { env: { ...ENV, MC_ROOT: root }, stdio: 'pipe' });
}

const textOf = (root: string, name: string): string => readFileSync(path.join(root, name), 'utf8');

/** Every file with mode and content, but for logs. */
function snapshot(root: string): Record<string, string> {
  return Object.fromEntries(
    readdirSync(root, { recursive: true, withFileTypes: true })
      .filter((entry) => !entry.isDirectory() && !entry.name.endsWith('.log'))
      .map((entry) => path.join(entry.parentPath, entry.name))
      .sort()
      .map((file) => [path.relative(root, file), linkOrText(file)]),
  );
}

function linkOrText(file: string): string {
  try {
    return `-> ${readlinkSync(file)}`;
  } catch {
    return `${(statSync(file).mode & 0o777).toString(8)} ${readFileSync(file, 'utf8')}`;
  }
}

describe('firstrun.sh', () => {
  it('is started by the command line, and the Pi starts again when it ended', () => {
    const { cmdline } = firstrun.write(contextOf(FULL));
    expect(editCmdline(CMDLINE, cmdline)).toBe(
      `${CMDLINE.trim()} cfg80211.ieee80211_regdom=DE systemd.run=/boot/firmware/firstrun.sh systemd.run_success_action=reboot systemd.unit=kernel-command-line.target cgroup_enable=memory cgroup_memory=1\n`,
    );
  });

  it('sets up host name, time, user, keys and Wi-Fi', () => {
    const root = newRoot();
    run(root);
    expect(textOf(root, 'boot/firmware/musical-chair/first-boot.log')).not.toContain('FAILED');
    expect(textOf(root, 'etc/hostname')).toBe('pi-1\n');
    expect(textOf(root, 'etc/hosts')).toBe('127.0.0.1\tlocalhost\n::1\t\tlocalhost ip6-localhost\n\n127.0.1.1\tpi-1\n');
    expect(readlinkSync(path.join(root, 'etc/localtime'))).toBe('/usr/share/zoneinfo/Europe/Berlin');
    expect(textOf(root, 'etc/systemd/timesyncd.conf.d/10-musical-chair.conf')).toBe('[Time]\nNTP=192.168.1.10 ntp.example.org\n');
    expect(textOf(root, 'userconf.log')).toBe('2:pi:\n');
    expect(textOf(root, 'home/pi/.ssh/authorized_keys')).toBe(`${SSH_KEY}\n`);
    expect(statSync(path.join(root, 'home/pi/.ssh')).mode & 0o777).toBe(0o700);
    expect(textOf(root, 'etc/ssh/sshd_config.d/10-musical-chair.conf')).toBe('PasswordAuthentication no\n');
    const wifi = 'etc/NetworkManager/system-connections/musical-chair-wifi.nmconnection';
    expect(statSync(path.join(root, wifi)).mode & 0o777).toBe(0o600);
    expect(textOf(root, wifi)).toContain(`ssid=${[...Buffer.from(FULL.wifi?.ssid ?? '')].join(';')};\n`);
    expect(textOf(root, wifi)).toContain(`psk=${FULL.wifi?.key}\n`);
    expect(textOf(root, 'var/lib/systemd/rfkill/platform-fe300000.mmcnr:wlan')).toBe('0\n');
    expect(textOf(root, 'etc/NetworkManager/conf.d/10-musical-chair-wifi.conf')).toBe('[connection]\nwifi.powersave = 2\n');
  });

  it('enables the first boot for the next start, and takes itself out of the command line in place', () => {
    const root = newRoot();
    const before = statSync(path.join(root, 'boot/firmware/cmdline.txt'));
    run(root);
    const after = statSync(path.join(root, 'boot/firmware/cmdline.txt'));
    expect([after.ino, after.size]).toEqual([before.ino, before.size]);
    const cmdline = textOf(root, 'boot/firmware/cmdline.txt');
    expect(cmdline.trim()).toBe(`${CMDLINE.trim()} cfg80211.ieee80211_regdom=DE cgroup_enable=memory cgroup_memory=1`);
    expect(cmdline.endsWith(' \n')).toBe(true);
    const unit = '/etc/systemd/system/musical-chair-first-boot.service';
    expect(textOf(root, unit)).toContain('ConditionPathExists=/boot/firmware/musical-chair/start.sh\n');
    expect(readlinkSync(path.join(root, 'etc/systemd/system/multi-user.target.wants/musical-chair-first-boot.service'))).toBe(unit);
    expect(existsSync(path.join(root, 'boot/firmware/firstrun.sh'))).toBe(false);
  });

  it('leaves alone what was not asked for', () => {
    const root = newRoot(BARE);
    run(root);
    for (const name of ['userconf.log', 'etc/localtime', 'etc/NetworkManager', 'home/pi/.ssh', 'boot/firmware/ssh'])
      expect(existsSync(path.join(root, name)), name).toBe(false);
    expect(textOf(root, 'var/lib/systemd/rfkill/platform-fe300000.mmcnr:wlan')).toBe('1\n');
    expect(textOf(root, 'etc/hostname')).toBe('pi-1\n');
  });

  it('tells a step that failed, does the others, and ends with 0 all the same', () => {
    const root = newRoot({ ...FULL, user: 'anna' });
    run(root);
    expect(textOf(root, 'boot/firmware/musical-chair/first-boot.log')).toContain('set_user FAILED');
    expect(textOf(root, 'etc/systemd/system/musical-chair-first-boot.service')).toContain('[Service]');
    expect(textOf(root, 'boot/firmware/cmdline.txt')).not.toContain('systemd.run');
  });

  it('may lose power before every fourth of its commands: the next boot ends as if it had not', () => {
    const whole = newRoot();
    run(whole);
    const wanted = snapshot(whole);
    let cuts = 0;
    for (; cuts < 400; cuts += 4) {
      const root = newRoot();
      // In bash, which can count commands; a process group of its own, so that nothing goes on after the cut.
      const script = `set -T; n=0; trap 'n=$((n+1)); if [ "$n" -gt ${cuts} ]; then kill -9 -$$; fi' DEBUG; . "$MC_ROOT/boot/firmware/firstrun.sh"`;
      const cut = spawnSync('setsid', ['-w', 'bash', '-c', script], { env: { ...ENV, MC_ROOT: root }, stdio: 'ignore' });
      const uncut = !cut.signal && cut.status === 0;
      const left = textOf(root, 'boot/firmware/cmdline.txt');
      expect(left.length, 'cmdline.txt is whole at any time').toBe(textOf(whole, 'boot/firmware/cmdline.txt').length);
      // What the kernel's command line names is there.
      if (left.includes('systemd.run=')) run(root);
      const got = snapshot(root);
      delete got['boot/firmware/firstrun.sh'];
      expect(got, `cut before command ${cuts + 1}`).toEqual(wanted);
      if (uncut) break;
    }
    expect(cuts).toBeGreaterThan(20);
    expect(cuts).toBeLessThan(400);
  }, 240_000);

  it('is sh that dash and shellcheck take', (context) => {
    const root = newRoot();
    const file = path.join(root, 'boot/firmware/firstrun.sh');
    execFileSync('sh', ['-n', file]);
    const absent = lacking('shellcheck');
    if (absent !== '') context.skip(`not here: ${absent}`);
    // SC2317: it does not see that `step` calls what it is given.
    execFileSync('shellcheck', ['-s', 'sh', '-e', 'SC2317', file], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  });

  it('quotes any word', () => {
    const word = `it's $HOME "x" \`y\``;
    expect(execFileSync('sh', ['-c', `printf %s ${quote(word)}`], { encoding: 'utf8' })).toBe(word);
  });
});

import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { cloudInit } from './cloud-init.js';
import { editCmdline } from './cmdline.js';
import { BARE, contextOf, FACTS, FULL, SSH_KEY, SSID } from './test-card.js';
import { testFolder } from './test-image.js';

const { folder, remove } = testFolder();
afterAll(remove);

const write = (card = FULL) => cloudInit.write(contextOf(card));
const yaml = (name: string, card = FULL): Record<string, unknown> => parse(write(card).files[name] ?? '');

describe('cloud-init', () => {
  it('has its mark in the first line, and says nothing of the token', () => {
    const { files } = write();
    expect(files['user-data']?.split('\n')[0]).toBe('#cloud-config');
    expect(Object.keys(files).sort()).toEqual(['meta-data', 'network-config', 'ssh', 'user-data']);
  });

  it('sets host name, user, keys, time', () => {
    const data = yaml('user-data');
    expect(data).toMatchObject({ hostname: 'pi-1', manage_etc_hosts: true, timezone: 'Europe/Berlin', ssh_pwauth: false });
    expect(data.users).toMatchObject([{ name: 'pi', lock_passwd: true, ssh_authorized_keys: [SSH_KEY] }]);
    expect(data.write_files).toMatchObject([
      { path: '/etc/NetworkManager/conf.d/10-musical-chair-wifi.conf', content: '[connection]\nwifi.powersave = 2\n' },
      { path: '/etc/systemd/timesyncd.conf.d/10-musical-chair.conf', content: '[Time]\nNTP=192.168.1.10 ntp.example.org\n' },
    ]);
  });

  it("brings the network's name through YAML as it is, and the key instead of the password", () => {
    const { network } = yaml('network-config') as { network: { wifis: { wlan0: Record<string, unknown> }; ethernets: unknown } };
    expect(network.ethernets).toEqual({ eth0: { dhcp4: true, optional: true } });
    expect(network.wifis.wlan0).toEqual({
      dhcp4: true,
      optional: true,
      'regulatory-domain': 'DE',
      'access-points': { [SSID]: { password: FULL.wifi?.key, hidden: true } },
    });
    expect(JSON.stringify(write().files)).not.toContain('correct horse');
  });

  it.each(['yes', '0x1', '12:30', '~', 'null'])('keeps a network called %s a string', (ssid) => {
    const wifi = FULL.wifi === undefined ? undefined : { ...FULL.wifi, ssid };
    const text = cloudInit.write(contextOf({ ...FULL, ...(wifi === undefined ? {} : { wifi }) })).files['network-config'] ?? '';
    expect(text).toContain(`"${ssid}":`);
  });

  it('has its own instance id, in meta-data and on the command line, which beats it', () => {
    const id = 'musical-chair-pi-1-0123456789ab';
    expect(yaml('meta-data')).toEqual({ dsmode: 'local', 'instance-id': id });
    expect(editCmdline(FACTS.cmdline, write().cmdline)).toBe(
      `${FACTS.cmdline.trim()} ds=nocloud;i=${id} cfg80211.ieee80211_regdom=DE cgroup_enable=memory cgroup_memory=1\n`,
    );
  });

  it('leaves out what was not asked for', () => {
    const { files, cmdline } = write(BARE);
    expect(Object.keys(parse(files['user-data'] ?? '')).sort()).toEqual(['bootcmd', 'hostname', 'manage_etc_hosts', 'ssh_pwauth']);
    expect(files.ssh).toBeUndefined();
    expect(Object.keys(parse(files['network-config'] ?? '').network)).toEqual(['version', 'ethernets']);
    expect(Object.keys(cmdline.set ?? {})).toEqual(['ds']);
  });

  it('starts the first boot at every boot for as long as start.sh is there', () => {
    const root = path.join(folder, 'root');
    const bin = path.join(folder, 'bin');
    const units = path.join(root, 'run/systemd/system');
    for (const directory of [bin, units, path.join(root, 'boot/firmware/musical-chair')]) mkdirSync(directory, { recursive: true });
    writeFileSync(path.join(bin, 'systemctl'), `#!/bin/sh\necho "$@" >>${folder}/systemctl.log\n`);
    chmodSync(path.join(bin, 'systemctl'), 0o755);
    const [command = ''] = yaml('user-data').bootcmd as string[];
    const script = command.replaceAll('/boot/firmware', `${root}/boot/firmware`).replaceAll('/run/systemd', `${root}/run/systemd`);
    const run = (): void => {
      execFileSync('sh', ['-e', '-c', script], { env: { ...process.env, PATH: `${bin}:${process.env.PATH}` } });
    };
    run();
    expect(existsSync(path.join(units, 'musical-chair-first-boot.service'))).toBe(false);
    writeFileSync(path.join(root, 'boot/firmware/musical-chair/start.sh'), '');
    run();
    run();
    const unit = readFileSync(path.join(units, 'musical-chair-first-boot.service'), 'utf8');
    expect(unit).toContain(`ExecStart=/bin/sh ${root}/boot/firmware/musical-chair/start.sh\n`);
    // Written by a here-document: what the unit says to systemd must not have been said to the shell.
    expect(unit).toContain("'test $$(date +%%s) -ge 1795262400 || date -s @1795262400'");
    expect(readFileSync(path.join(folder, 'systemctl.log'), 'utf8')).toBe(
      'daemon-reload\nstart --no-block musical-chair-first-boot.service\n'.repeat(2),
    );
  });
});

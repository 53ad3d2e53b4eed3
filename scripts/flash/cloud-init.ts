/**
 * The first boot of Raspberry Pi OS 13 and later: cloud-init reads `user-data`, `network-config` and `meta-data` from the boot partition.
 *
 * What happens in which stage matters: `bootcmd` runs at every boot, and what it starts goes on after a power cut; `runcmd` is marked as done
 * before it ran, so only what may be lost stands there. The instance id stands on the kernel's command line too, as Raspberry Pi Imager puts
 * it there: it beats the one in `meta-data`, and edits after the first boot under the same id would be ignored.
 */
import { Document, Scalar, type ToStringOptions, visit } from 'yaml';
import type { FirstBootContext, FirstBootWriter } from './first-boot.js';
import { firstBootUnit, MEMORY_CGROUP, POWER_SAVE_FILE, POWER_SAVE_TEXT, TIME_FILE, timeText, UNIT_NAME } from './first-boot.js';

/** Groups that the first user of Raspberry Pi OS is in. */
const GROUPS = 'users,adm,dialout,audio,netdev,video,plugdev,cdrom,games,input,gpio,spi,i2c,render,sudo';

/** Names of networks look like numbers and booleans to YAML 1.1, which cloud-init reads: every string is quoted, and scripts stay readable. */
function yamlText(value: object, defaultKeyType: 'PLAIN' | 'QUOTE_DOUBLE' = 'PLAIN'): string {
  const document = new Document(value);
  visit(document, {
    Scalar: (_key, node) => {
      if (typeof node.value === 'string' && node.value.includes('\n')) node.type = Scalar.BLOCK_LITERAL;
    },
  });
  const options: ToStringOptions = { defaultStringType: 'QUOTE_DOUBLE', defaultKeyType, lineWidth: 0 };
  return document.toString(options);
}

export const cloudInit: FirstBootWriter = {
  name: 'cloud-init',
  lacks: (facts) => (facts.cloudInit ? undefined : 'not installed, or its files are not in the boot partition'),
  write: (context) => ({
    files: {
      'user-data': `#cloud-config\n# Written by musical-chair; read once, at the first boot. The join token is not in here.\n${yamlText(userData(context))}`,
      'meta-data': yamlText({ dsmode: 'local', 'instance-id': context.instanceId }),
      'network-config': yamlText(networkConfig(context), 'QUOTE_DOUBLE'),
      // Raspberry Pi OS switches ssh on when it finds this file, whatever cloud-init does.
      ...(context.card.sshKeys.length === 0 ? {} : { ssh: '' }),
    },
    cmdline: {
      ...MEMORY_CGROUP,
      set: {
        ds: `nocloud;i=${context.instanceId}`,
        ...(context.card.wifi === undefined ? {} : { 'cfg80211.ieee80211_regdom': context.card.wifi.country }),
      },
    },
  }),
};

function userData({ card, facts, flashedAtMs }: FirstBootContext): Record<string, unknown> {
  const files = [
    ...(card.wifi === undefined ? [] : [{ path: POWER_SAVE_FILE, content: POWER_SAVE_TEXT, permissions: '0644' }]),
    ...(card.timeServers.length === 0 ? [] : [{ path: TIME_FILE, content: timeText(card.timeServers), permissions: '0644' }]),
  ];
  const commands = [
    ...(card.wifi === undefined
      ? []
      : [
          ['rfkill', 'unblock', 'wifi'],
          // The file that says so is read at the next boot: for this one.
          ['iw', 'dev', 'wlan0', 'set', 'power_save', 'off'],
        ]),
    ...(card.timeServers.length === 0 ? [] : [['systemctl', 'try-restart', '--no-block', 'systemd-timesyncd.service']]),
    // The first user of an image has no shell until somebody sets it up.
    ...(card.sshKeys.length === 0 ? [] : [['usermod', '--shell', '/bin/bash', card.user]]),
  ];
  return {
    hostname: card.name,
    manage_etc_hosts: true,
    ...(card.timezone === undefined ? {} : { timezone: card.timezone }),
    ssh_pwauth: false,
    ...(card.sshKeys.length === 0
      ? {}
      : {
          users: [
            {
              name: card.user,
              groups: GROUPS,
              shell: '/bin/bash',
              lock_passwd: true,
              sudo: 'ALL=(ALL) NOPASSWD:ALL',
              ssh_authorized_keys: card.sshKeys,
            },
          ],
        }),
    ...(files.length === 0 ? {} : { write_files: files }),
    bootcmd: [startUnit(facts.bootPath, firstBootUnit(facts, flashedAtMs))],
    ...(commands.length === 0 ? {} : { runcmd: commands }),
  };
}

/** A unit below /run is gone after the next boot, so nothing has to be cleaned up; as long as start.sh is there it is made again. */
function startUnit(bootPath: string, unit: string): string {
  return `if [ -e ${bootPath}/musical-chair/start.sh ]; then
cat >/run/systemd/system/${UNIT_NAME} <<'END_OF_UNIT'
${unit}END_OF_UNIT
systemctl daemon-reload
systemctl start --no-block ${UNIT_NAME}
fi
`;
}

/** netplan's format, version 2: the cable by DHCP if there is one, and the network named. Nothing waits for either. */
function networkConfig({ card: { wifi } }: FirstBootContext): Record<string, unknown> {
  return {
    network: {
      version: 2,
      ethernets: { eth0: { dhcp4: true, optional: true } },
      ...(wifi === undefined
        ? {}
        : {
            wifis: {
              wlan0: {
                dhcp4: true,
                optional: true,
                'regulatory-domain': wifi.country,
                'access-points': { [wifi.ssid]: { password: wifi.key, ...(wifi.hidden ? { hidden: true } : {}) } },
              },
            },
          }),
    },
  };
}

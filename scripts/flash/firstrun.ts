/**
 * The first boot of Raspberry Pi OS 12 and before: systemd runs `firstrun.sh` because the kernel's command line says so, before the system
 * is up, and the Pi starts again. Raspberry Pi Imager did the same.
 *
 * The script may be cut off anywhere: every step may be done again, and the last one takes the script out of the command line by writing
 * over it in place, one sector, since replacing a file on FAT is no single step. It always ends with 0: one that failed would leave a Pi
 * that does not boot.
 */
import type { Card, Wifi } from './card.js';
import type { FirstBootContext, FirstBootWriter } from './first-boot.js';
import { firstBootUnit, MEMORY_CGROUP, POWER_SAVE_FILE, POWER_SAVE_TEXT, TIME_FILE, timeText, UNIT_NAME } from './first-boot.js';

export const firstrun: FirstBootWriter = {
  name: 'firstrun.sh',
  lacks: (facts) => (facts.systemdRun ? undefined : "systemd has no generator for the command line's systemd.run"),
  write: (context) => ({
    files: {
      'firstrun.sh': script(context),
      ...(context.card.sshKeys.length === 0 ? {} : { ssh: '' }),
    },
    cmdline: {
      ...MEMORY_CGROUP,
      set: {
        ...(context.card.wifi === undefined ? {} : { 'cfg80211.ieee80211_regdom': context.card.wifi.country }),
        'systemd.run': `${context.facts.bootPath}/firstrun.sh`,
        'systemd.run_success_action': 'reboot',
        'systemd.unit': 'kernel-command-line.target',
      },
    },
  }),
};

/** One word of sh, whatever is in it. */
export function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function script({ card, facts, flashedAtMs, uuid }: FirstBootContext): string {
  const steps: [string, string][] = [
    ['set_host_name', hostName(card)],
    ...(card.timezone === undefined ? [] : ([['set_time_zone', timeZone(card.timezone)]] as [string, string][])),
    ...(card.timeServers.length === 0
      ? []
      : ([['set_time_servers', putText(TIME_FILE, timeText(card.timeServers), '644')]] as [string, string][])),
    ...(card.sshKeys.length === 0 ? [] : ([['set_user', user(card)]] as [string, string][])),
    ...(card.wifi === undefined ? [] : ([['set_wifi', wifi(card.wifi, uuid)]] as [string, string][])),
    ['set_first_boot', firstBoot(firstBootUnit(facts, flashedAtMs))],
  ];
  const functions = steps.map(([name, body]) => `${name}() {\n${body}}\n`).join('\n');
  return `${head(facts.bootPath)}
${functions}
${steps.map(([name]) => `step ${name}`).join('\n')}
sync
${tail(facts.bootPath)}`;
}

function head(bootPath: string): string {
  return `#!/bin/sh
# Written by musical-chair. Runs as root before the system is up, and once more if the power was cut. The join token is not in here.
# For tests: MC_ROOT is put before every path of the system.
root=\${MC_ROOT:-}
boot=$root${bootPath}
log=$boot/musical-chair/first-boot.log

say() {
    echo "musical-chair: $*"
    echo "$*" >>"$log"
}

# In a subshell, so that \`set -e\` ends the step and not the script.
step() {
    (set -e; "$1") 2>>"$log"
    status=$?
    if [ $status -eq 0 ]; then say "firstrun: $1"; else say "firstrun: $1 FAILED (status $status)"; fi
}

# Standard input into a file: written beside it, flushed, renamed. put PATH MODE
put() {
    mkdir -p "$(dirname "$root$1")"
    cat >"$root$1.part"
    chmod "$2" "$root$1.part"
    sync
    mv "$root$1.part" "$root$1"
}
`;
}

/** `put` with a here-document; the text ends in a line break. */
function putText(path: string, text: string, mode: string): string {
  return `    put ${path} ${mode} <<'END_OF_FILE'\n${text}END_OF_FILE\n`;
}

function hostName({ name }: Card): string {
  return `    grep -v '^127\\.0\\.1\\.1' "$root/etc/hosts" | put /etc/hosts.new 644
    printf '127.0.1.1\\t%s\\n' ${quote(name)} >>"$root/etc/hosts.new"
    mv "$root/etc/hosts.new" "$root/etc/hosts"
    echo ${quote(name)} | put /etc/hostname 644
`;
}

function timeZone(zone: string): string {
  return `    test -e "$root/usr/share/zoneinfo/${zone}"
    ln -sf "/usr/share/zoneinfo/${zone}" "$root/etc/localtime"
    echo '${zone}' | put /etc/timezone 644
`;
}

/** userconf-pi gives the image's first user this name and ends the question for it on the screen; without a password nobody logs in by one. */
function user({ user: name, sshKeys }: Card): string {
  return `    if [ -x "$root/usr/lib/userconf-pi/userconf" ]; then "$root/usr/lib/userconf-pi/userconf" ${name} ''; fi
    line=$(grep '^${name}:' "$root/etc/passwd")
    home=$(echo "$line" | cut -d: -f6)
    ids=$(echo "$line" | cut -d: -f3,4)
    mkdir -p "$root$home/.ssh"
    put "$home/.ssh/authorized_keys" 600 <<'END_OF_FILE'
${sshKeys.join('\n')}
END_OF_FILE
    chmod 700 "$root$home/.ssh"
    chown -R "$ids" "$root$home/.ssh"
${putText('/etc/ssh/sshd_config.d/10-musical-chair.conf', 'PasswordAuthentication no\n', '644')}`;
}

/** NetworkManager's keyfile. A name in it may also be a list of bytes, which needs no escaping. The radio is blocked until it is released. */
function wifi({ ssid, key, hidden }: Wifi, uuid: string): string {
  const name = /^[A-Za-z0-9_.-]+$/.test(ssid) ? ssid : [...Buffer.from(ssid)].map((byte) => `${byte};`).join('');
  const connection = `[connection]
id=musical-chair-wifi
uuid=${uuid}
type=wifi

[wifi]
mode=infrastructure
ssid=${name}
hidden=${hidden}

[wifi-security]
key-mgmt=wpa-psk
psk=${key}

[ipv4]
method=auto

[ipv6]
method=auto
addr-gen-mode=default
`;
  return `${putText('/etc/NetworkManager/system-connections/musical-chair-wifi.nmconnection', connection, '600')}${putText(POWER_SAVE_FILE, POWER_SAVE_TEXT, '644')}    for file in "$root"/var/lib/systemd/rfkill/*:wlan; do
        if [ -e "$file" ]; then echo 0 >"$file"; fi
    done
`;
}

function firstBoot(unit: string): string {
  return `${putText(`/etc/systemd/system/${UNIT_NAME}`, unit, '644')}    mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
    ln -sf /etc/systemd/system/${UNIT_NAME} "$root/etc/systemd/system/multi-user.target.wants/${UNIT_NAME}"
`;
}

/** As long as before, the rest filled with spaces: the same sector is written over, and nothing else changes on the FAT. */
function tail(bootPath: string): string {
  return `old=$(head -n 1 "$boot/cmdline.txt")
new=$(echo "$old" | sed 's| systemd\\.run=${bootPath}/firstrun\\.sh||; s| systemd\\.run_success_action=reboot||; s| systemd\\.unit=kernel-command-line\\.target||')
printf "%-\${#old}s\\n" "$new" | dd of="$boot/cmdline.txt" bs=4096 conv=notrunc,fsync 2>/dev/null
say "firstrun: done"
rm -f "$boot/firstrun.sh"
sync
exit 0
`;
}

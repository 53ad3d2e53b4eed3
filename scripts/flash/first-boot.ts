/**
 * How a card sets itself up at its first boot: what a writer is, and the pieces that all of them use. There is one writer per mechanism that
 * images know (`writers.ts`); each says which files go to the boot partition beside the bundle's folder, and what the kernel's command line gets.
 */
import { BOOT_FOLDER } from '../bundle/boot-files.js';
import type { Card } from './card.js';
import type { CmdlineEdit } from './cmdline.js';
import type { ImageFacts } from './image.js';

/** What a writer needs to know of this run; values that differ between two runs come in here. */
export interface FirstBootContext {
  readonly card: Card;
  readonly facts: ImageFacts;
  /** Unique among all cards ever flashed: cloud-init takes a card with a new one for a new machine. */
  readonly instanceId: string;
  /** The clock of a Pi without one is set forward to this. */
  readonly flashedAtMs: number;
  readonly uuid: string;
}

export interface FirstBoot {
  /** In the root of the boot partition: name -> text. */
  readonly files: Readonly<Record<string, string>>;
  readonly cmdline: CmdlineEdit;
}

export interface FirstBootWriter {
  readonly name: string;
  /** Why it cannot work on this image, as a noun phrase; undefined when it can. */
  readonly lacks: (facts: ImageFacts) => string | undefined;
  readonly write: (context: FirstBootContext) => FirstBoot;
}

/** Part of every command line: without it no unit can have a memory limit, and the agent's has one. */
export const MEMORY_CGROUP: CmdlineEdit = { add: ['cgroup_enable=memory', 'cgroup_memory=1'], remove: ['cgroup_disable=memory'] };

export const UNIT_NAME = 'musical-chair-first-boot.service';

/**
 * The unit that runs the bundle's start.sh at every boot for as long as it is there; a cut-off or failed run is begun again. It waits until
 * the root file system has grown to the card's size, since an image has little room in itself. In a unit % and $ are written twice.
 */
export function firstBootUnit(facts: ImageFacts, flashedAtMs: number): string {
  const folder = `${facts.bootPath}/${BOOT_FOLDER}`;
  const seconds = Math.floor(flashedAtMs / 1_000);
  const links = `/etc/systemd/system/${UNIT_NAME} /etc/systemd/system/multi-user.target.wants/${UNIT_NAME}`;
  return `[Unit]
Description=First boot of the musical-chair agent
Documentation=file:${folder}/first-boot.log
ConditionPathExists=${folder}/start.sh
RequiresMountsFor=${facts.bootPath}
After=local-fs.target systemd-remount-fs.service rpi-resize.service systemd-growfs-root.service resize2fs_once.service
After=cloud-init.service cloud-init-network.service
StartLimitIntervalSec=1h
StartLimitBurst=5

[Service]
Type=oneshot
ExecStartPre=-/bin/sh -c 'test $$(date +%%s) -ge ${seconds} || date -s @${seconds}'
ExecStart=/bin/sh ${folder}/start.sh
ExecStartPost=-/bin/rm -f ${links}
Restart=on-failure
RestartSec=30
TimeoutStartSec=15min

[Install]
WantedBy=multi-user.target
`;
}

/** Wi-Fi that saves power answers late: 2 means off. */
export const POWER_SAVE_FILE = '/etc/NetworkManager/conf.d/10-musical-chair-wifi.conf';
export const POWER_SAVE_TEXT = '[connection]\nwifi.powersave = 2\n';

export const TIME_FILE = '/etc/systemd/timesyncd.conf.d/10-musical-chair.conf';

export function timeText(servers: readonly string[]): string {
  return `[Time]\nNTP=${servers.join(' ')}\n`;
}

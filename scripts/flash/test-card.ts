/** For tests: a card with everything, and what a writer is given. */
import { type Card, makeWifi } from './card.js';
import type { FirstBootContext } from './first-boot.js';
import type { ImageFacts } from './image.js';

export const SSH_KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBx4Wp1PpH0Qm5b6kG5a0bq0nZ4s2yY1j0mQ3v5fYk8e it\'s "me"@laptop';
/** Quotes, a dollar, an umlaut, a semicolon: all that quoting can go wrong with. */
export const SSID = `a"b'c $HOME;ü`;

export const FACTS: ImageFacts = {
  boot: { number: 1, offset: 4 * 1024 * 1024, sizeBytes: 512 * 1024 * 1024, type: '0c' },
  bootPath: '/boot/firmware',
  release: '2025-12-04',
  system: 'Debian GNU/Linux 13 (trixie)',
  cmdline: 'console=serial0,115200 console=tty1 root=PARTUUID=4d3f1a2b-02 rootfstype=ext4 fsck.repair=yes rootwait resize\n',
  cloudInit: true,
  systemdRun: true,
  networkManager: true,
};

export const BARE: Card = { name: 'pi-1', cluster: 'default', user: 'pi', sshKeys: [], timeServers: [] };

export const FULL: Card = {
  ...BARE,
  gateway: '192.168.1.10',
  wifi: makeWifi({ ssid: SSID, password: 'correct horse', country: 'DE', hidden: true }),
  sshKeys: [SSH_KEY],
  timezone: 'Europe/Berlin',
  timeServers: ['192.168.1.10', 'ntp.example.org'],
};

export function contextOf(card: Card, facts: Partial<ImageFacts> = {}): FirstBootContext {
  return {
    card,
    facts: { ...FACTS, ...facts },
    instanceId: 'musical-chair-pi-1-0123456789ab',
    flashedAtMs: Date.UTC(2026, 10, 21, 12),
    uuid: '6f3c0f5e-0b5e-4c57-9c0e-2f4f5f6f7f8f',
  };
}

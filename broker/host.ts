/** Which machine this process runs on: the same answer for all processes of one machine, in containers, namespaces or none. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { hostname, networkInterfaces } from 'node:os';

/**
 * Sixteen hex digits; '' when nothing tells machines apart. On Linux from the kernel's boot id: containers of one machine share it, cloned SD cards (which
 * share /etc/machine-id) do not. Elsewhere from the host's name and its network cards.
 */
export function hostId(read: (file: string) => string = readText): string {
  const boot = read('/proc/sys/kernel/random/boot_id').trim();
  if (boot !== '') return digest(`boot ${boot}`);
  const cards = Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ mac }) => mac));
  const real = [...new Set(cards)].filter((mac) => mac !== '00:00:00:00:00:00').sort();
  return real.length === 0 ? '' : digest(`${hostname()} ${real.join()}`);
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

/** An address of a socket as network interfaces call it: without the zone of a link-local one, IPv4 as such. */
export function plainAddress(address: string): string {
  return address.replace(/%.*$/, '').replace(/^::ffff:(?=\d+\.)/, '');
}

/** The network interfaces of this machine, as multicast sees them. IPv4 only: an MQTT URL cannot carry the zone of a link-local IPv6 address. */
import { networkInterfaces } from 'node:os';

export interface NetworkInterface {
  readonly name: string;
  readonly address: string;
  readonly netmask: string;
  /** Loopback. */
  readonly internal: boolean;
}

/** Interfaces that are up, loopback included: a gateway and an agent on one machine find each other without any network. */
export function ipv4Interfaces(): NetworkInterface[] {
  return Object.entries(networkInterfaces()).flatMap(([name, list]) =>
    (list ?? []).flatMap(({ family, address, netmask, internal }) => (family === 'IPv4' ? [{ name, address, netmask, internal }] : [])),
  );
}

/** True when `address` is on the link of this interface: nobody else is listened to (RFC 6762, section 11). */
export function isOnLink({ address: own, netmask }: Pick<NetworkInterface, 'address' | 'netmask'>, address: string): boolean {
  const mask = toNumber(netmask);
  return (toNumber(own) & mask) === (toNumber(address) & mask);
}

function toNumber(address: string): number {
  return address.split('.').reduce((sum, part) => ((sum << 8) | Number(part)) >>> 0, 0);
}

/** For tests: gateways that announce themselves on loopback, to nobody but the test that asks. */
import { createSocket } from 'node:dgram';
import { onTestFinished } from 'vitest';
import { Announcer, type AnnouncerOptions } from './announcer.js';
import type { GatewayNotice } from './gateway-notice.js';

/** Loopback is a network like others, and nobody else hears it. */
const LOOPBACK = { name: 'lo', address: '127.0.0.1', netmask: '255.0.0.0', internal: true };
export const interfaces = () => [LOOPBACK];

/** A group port of one test's own. */
export async function freePort(): Promise<number> {
  const socket = createSocket('udp4');
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve));
  const { port } = socket.address();
  await new Promise<void>((resolve) => socket.close(() => resolve()));
  return port;
}

export async function announce(groupPort: number, gateway: GatewayNotice, extra: Partial<AnnouncerOptions> = {}): Promise<Announcer> {
  const announcer = new Announcer({ notice: gateway, host: '0.0.0.0', interfaces, groupPort, random: () => 0, ...extra });
  onTestFinished(() => announcer.stop());
  await announcer.start();
  return announcer;
}

import { createServer } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { ipv4Interfaces } from '../broker/discovery/interfaces.js';
import { listen } from '../broker/listen.js';
import { announced, announcerOf, saidToJoiners } from './announcement.js';

const outside = ipv4Interfaces().some(({ internal }) => !internal);

async function listening(host: string): Promise<number> {
  const server = createServer((socket) => socket.destroy());
  onTestFinished(() => void server.close());
  return listen(server, host, 0);
}

describe('what a gateway announces', () => {
  it('is its own broker where that listens', async () => {
    expect(await announced({ host: '192.168.1.5', port: 1884 })).toEqual({ host: '192.168.1.5', port: 1884 });
  });

  it('is the URL of a broker elsewhere, to everybody', async () => {
    const brokerUrl = 'mqtt://mosquitto.lan:1884';
    expect(await announced({ url: brokerUrl })).toEqual({ host: '0.0.0.0', port: 0, brokerUrl });
  });

  it("is a broker on this machine by this machine's addresses only if it answers there", async () => {
    const open = await listening('0.0.0.0');
    const closed = await listening('127.0.0.1');
    const here = (port: number) => ({ host: '127.0.0.1', port: 0, brokerUrl: `mqtt://localhost:${port}` });
    expect(await announced({ url: `mqtt://localhost:${open}` })).toEqual(outside ? { host: '0.0.0.0', port: open } : here(open));
    expect(await announced({ url: `mqtt://localhost:${closed}` })).toEqual(here(closed));
  });

  it('is said to those who join also when it is not announced: a port of the machine that they ask, or the URL of a broker elsewhere', () => {
    expect(saidToJoiners({ port: 18_883 })).toBe(':18883');
    expect(saidToJoiners({ port: 0 })).toBe('');
    expect(saidToJoiners({ url: 'mqtts://localhost' })).toBe(':8883');
    expect(saidToJoiners({ url: 'mqtts://mosquitto.lan:9883' })).toBe('mqtts://mosquitto.lan:9883');
    // Neither a password nor a broker that anybody could be goes into an answer.
    expect(saidToJoiners({ url: 'mqtts://user:secret@mosquitto.lan' })).toBe('');
    expect(saidToJoiners({ url: 'mqtt://mosquitto.lan' })).toBe('');
  });

  it('is nothing, and that is said, when the URL holds a password', async () => {
    const lines: string[] = [];
    const where = { url: 'mqtt://user:secret@broker:1883' };
    expect(await announcerOf({ cluster: 'lab', softwareVersion: '1', where, log: (line) => lines.push(line) })).toBeUndefined();
    expect(lines).toEqual([expect.stringMatching(/^not announced.*password.*--broker$/)]);
  });
});

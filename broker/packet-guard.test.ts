import { connect, createServer, type Socket } from 'node:net';
import { expect, it, onTestFinished } from 'vitest';
import { isChairError } from './errors.js';
import { listen } from './listen.js';
import { PacketGuard } from './packet-guard.js';
import { until } from './test-brokers.js';

/** A guard whose client reads nothing until it is told to. */
async function guarded(waitingBytes: number) {
  const accepted: Socket[] = [];
  const server = createServer((socket) => accepted.push(socket));
  const client = connect({ port: await listen(server, '127.0.0.1', 0), host: '127.0.0.1' }).on('error', () => undefined);
  onTestFinished(() => {
    for (const socket of [client, ...accepted]) socket.destroy();
    server.close();
  });
  await until('the connection', () => accepted.length === 1);
  const guard = new PacketGuard(accepted[0] as Socket, 1000, { waitingBytes });
  let error: unknown;
  guard.on('error', (came) => {
    error = came;
  });
  return { guard, client, error: () => error };
}
const PONG = Buffer.of(0xd0, 0);

it('a client that asks and does not read is given up for many small answers as for few large ones', async () => {
  const { guard, error } = await guarded(1_000_000);
  let given = 0;
  for (; given < 400_000 && !guard.destroyed; given++) guard.write(PONG);
  // 8 million bytes of Node's memory for each million of theirs, if only bytes were counted.
  expect(given).toBeLessThan(10_000);
  await until('the error', () => isChairError(error(), 'QUEUE_FULL'));
});

it('what a client has taken is not counted any more', async () => {
  const { guard, client, error } = await guarded(1_000_000);
  let read = 0;
  client.on('data', (chunk) => {
    read += chunk.length;
  });
  for (let i = 1; i <= 10; i++) {
    for (let j = 0; j < 5000; j++) guard.write(PONG);
    await until('it has them', () => read === i * 10_000 && guard.writableLength === 0, 20_000);
  }
  expect([guard.destroyed, error()]).toEqual([false, undefined]);
});

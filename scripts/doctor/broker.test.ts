import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { writeCredentials } from '../../broker/credentials/credentials.js';
import { type BrokerServer, startBroker } from '../../broker/server.js';
import { type TestAuthority, type TestTrust, testAuthority } from '../../broker/test-credentials.js';
import { lookAtBroker } from './broker.js';
import type { Finding } from './findings.js';

async function folderOf(authority: TestAuthority, name: string): Promise<string> {
  const folder = mkdtempSync(path.join(tmpdir(), 'mc-doctor-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  await writeCredentials(folder, await authority.make('agent', name));
  return folder;
}

async function brokerOf(authority: TestAuthority): Promise<{ readonly server: BrokerServer; readonly trust: TestTrust }> {
  const trust = authority.trust(await authority.make('gateway', 'gateway'));
  const server = await startBroker({ host: '127.0.0.1', port: 0, trust, log: () => undefined });
  onTestFinished(() => server.stop());
  return { server, trust };
}

const look = async (url: string, directory: string, withinMs = 20_000): Promise<Finding | undefined> =>
  (await lookAtBroker({ area: 'agent pi-1', url, directory, nowMs: Date.now, withinMs }))[0];

it('a device sees whether the broker lets its agent in, and that it does no more once it was revoked', async () => {
  const authority = await testAuthority();
  const { server, trust } = await brokerOf(authority);
  const directory = await folderOf(authority, 'pi-1');
  expect(await look(server.url, directory)).toMatchObject({ grade: 'ok', text: expect.stringContaining('lets this agent in') });
  // Looking is no attempt: nothing of it stands in the audit log.
  expect(trust.refusals).toEqual([]);
  authority.revoke('pi-1');
  expect(await look(server.url, directory)).toMatchObject({ grade: 'bad', todo: expect.stringContaining('token create') });
});

it('a device sees a broker of another cluster, one that is not there, and one that says nothing', async () => {
  const [ours, others] = [await testAuthority(), await testAuthority('others')];
  const directory = await folderOf(ours, 'pi-1');
  const { server } = await brokerOf(others);
  expect(await look(server.url, directory)).toMatchObject({ grade: 'bad', text: expect.stringContaining('CERTIFICATE_FOREIGN') });
  await server.stop();
  expect(await look(server.url, directory)).toMatchObject({ grade: 'bad', text: expect.stringContaining('ECONNREFUSED') });
  const silent = createServer(() => undefined).listen(0, '127.0.0.1');
  await new Promise((resolve) => silent.once('listening', resolve));
  onTestFinished(() => void silent.close());
  const address = silent.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  expect(await look(`mqtts://127.0.0.1:${port}`, directory, 300)).toMatchObject({
    grade: 'bad',
    text: expect.stringContaining('no answer within 300 ms'),
  });
  expect(await look(`mqtt://127.0.0.1:${port}`, directory)).toMatchObject({ grade: 'ok' });
  expect(await look(server.url, path.join(directory, 'nowhere'))).toBeUndefined();
});

import { afterEach, describe, expect, it } from 'vitest';
import { createFakeBroker, type FakeBus } from '../broker/fake-bus.js';
import { topicsOf } from '../broker/topics.js';
import { ClientRequests } from './client-requests.js';

const topics = topicsOf('lab');
const buses: FakeBus[] = [];
afterEach(async () => {
  for (const bus of buses.splice(0)) await bus.stop();
});

/** A client, and a gateway that answers each question with these bytes. */
async function world(answer: Uint8Array | undefined) {
  const broker = createFakeBroker();
  const [own, gateway] = [broker.bus('alice'), broker.bus('scheduler')];
  buses.push(own, gateway);
  const requests = new ClientRequests({ bus: own, topics, client: 'alice', cluster: 'lab' });
  await requests.start();
  await gateway.subscribe(topics.ask, () => {
    if (answer !== undefined) void gateway.publishBytes(topics.response('alice').name, answer);
  });
  return requests;
}

describe('a request whose answer cannot be read', () => {
  it('says that the gateway is of another version, and what to do; not that nobody answered', async () => {
    const requests = await world(Uint8Array.of(1, 2, 3, 4, 5));
    await expect(requests.request({ kind: 'status', status: { name: '' } }, 200, 'status')).rejects.toMatchObject({
      code: 'SCHEMA_MISMATCH',
      message: expect.stringContaining('Restart the gateway'),
    });
  });

  it('is told apart from one that nobody answers, also after another one was', async () => {
    const requests = await world(undefined);
    await expect(requests.request({ kind: 'status', status: { name: '' } }, 50, 'status')).rejects.toMatchObject({
      code: 'REQUEST_TIMEOUT',
    });
  });
});

import { describe, expect, it } from 'vitest';
import { createFakeBroker } from '../broker/fake-bus.js';
import type { RequestBody, Response } from '../broker/messages.js';
import { topicsOf } from '../broker/topics.js';
import { RequestDesk } from './request-desk.js';

const topics = topicsOf('c');
const undeploy = (name: string): RequestBody => ({ kind: 'undeploy', undeploy: { name } });
const status: RequestBody = { kind: 'status', status: { name: '' } };

async function world() {
  const broker = createFakeBroker();
  const done: string[] = [];
  const heard: Record<string, Response[]> = { x: [], y: [] };
  let finish = (): void => undefined;
  const desk = new RequestDesk({
    ...{ bus: broker.bus('scheduler'), topics, ignore: () => false, log: () => undefined },
    answer: async (body, client) => {
      done.push(`${body.kind} of ${client}`);
      if (body.kind === 'undeploy' && body.undeploy.name === 'slow') {
        await new Promise<void>((resolve) => {
          finish = resolve;
        });
      }
      return {};
    },
  });
  for (const client of ['x', 'y']) await broker.bus(client).subscribe(topics.response(client), (response) => heard[client]?.push(response));
  const ask = (id: string, body: RequestBody, client = 'x') => desk.request({ id, client, deadlineMs: 1000, body });
  return { desk, done, heard, ask, finish: () => finish() };
}

const delivered = () => new Promise((resolve) => setTimeout(resolve, 5));

describe('a request that comes again', () => {
  it('is not done again; its answer, which may have been lost, is said again, to who asked and to nobody else', async () => {
    const { done, heard, ask } = await world();
    await ask('one', undeploy('m'));
    await ask('one', undeploy('m'));
    await ask('one', undeploy('m'), 'y');
    await delivered();
    expect(done).toEqual(['undeploy of x']);
    expect(heard.x?.map(({ id }) => id)).toEqual(['one', 'one']);
    expect(heard.y).toEqual([]);
  });

  it('while it is worked on, is answered once, however many others come in between', async () => {
    const { done, heard, ask, finish } = await world();
    const slow = ask('slow', undeploy('slow'));
    for (let i = 0; i < 1000; i++) await ask(`${i}`, status);
    await ask('slow', undeploy('slow'));
    finish();
    await slow;
    await delivered();
    expect(done.filter((what) => what.startsWith('undeploy'))).toHaveLength(1);
    expect(heard.x?.filter(({ id }) => id === 'slow')).toHaveLength(1);
  });

  it('only asked for what is so now: nothing of it is kept', async () => {
    const { heard, ask } = await world();
    await ask('one', status);
    await ask('one', status);
    await delivered();
    expect(heard.x).toHaveLength(1);
  });
});

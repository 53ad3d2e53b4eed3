import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ChairError } from '../broker/errors.js';
import { createFakeBroker, type FakeBroker, type FakeBus } from '../broker/fake-bus.js';
import type { Command, CommandBody } from '../broker/messages.js';
import { topicsOf } from '../broker/topics.js';
import { Commands } from './commands.js';

const topics = topicsOf('c');
const release: CommandBody = { kind: 'release', release: { deployment: 'd', epoch: 1 } };
const done = {
  agent: 'a',
  code: '',
  message: '',
  fetchedBytes: 0,
  loadMs: 0,
  link: null,
  profile: null,
  standing: null,
  clockUs: 0,
  trace: null,
};

let broker: FakeBroker;
let bus: FakeBus;
let commands: Commands;
let got: Command[];

beforeEach(async () => {
  broker = createFakeBroker();
  bus = broker.bus('scheduler');
  commands = new Commands(bus, topics, 's');
  got = [];
  await broker.bus('a').subscribe(topics.command('a'), (command) => got.push(command));
});
afterEach(async () => {
  commands.stop();
  await bus.stop();
});
const delivered = () => new Promise((resolve) => setTimeout(resolve, 10));

describe('a command', () => {
  it('is sent again, as it was, to a process that reconnects before it answered, and answered once', async () => {
    const reply = commands.send('a', 'n1', 1, release, 5000);
    await delivered();
    commands.again('a', 'another process');
    await delivered();
    expect(got).toHaveLength(1);
    commands.again('a', 'n1');
    await delivered();
    expect(got).toHaveLength(2);
    expect(got[1]).toEqual(got[0]);
    for (const { id } of got) commands.settle({ ...done, id });
    expect(await reply).toMatchObject({ code: '' });
    commands.again('a', 'n1');
    await delivered();
    expect(got).toHaveLength(2);
  });

  it('is not answered by an agent that was not asked', async () => {
    const reply = commands.send('a', 'n1', 1, release, 5000);
    await delivered();
    const id = got[0]?.id ?? '';
    expect(commands.settle({ ...done, id, agent: 'b', code: 'AGENT_BUSY' })).toBe(false);
    expect(commands.settle({ ...done, id })).toBe(true);
    expect(await reply).toMatchObject({ agent: 'a', code: '' });
    // What nobody waits for is nobody's.
    expect(commands.settle({ ...done, id: 'another' })).toBe(true);
  });

  it('that is given up ends at once with the reason, and the agent is told which one; never before, nor after it answered', async () => {
    const stop = (id: string): CommandBody => ({ kind: 'stopProfile', stopProfile: { id } });
    const abort = new AbortController();
    const answered = commands.send('a', 'n1', 1, release, 5000, { signal: abort.signal, body: stop });
    await delivered();
    commands.settle({ ...done, id: got[0]?.id ?? '' });
    await answered;
    const given = commands.send('a', 'n1', 1, release, 5000, { signal: abort.signal, body: stop });
    await delivered();
    expect(got).toHaveLength(2);
    abort.abort(new ChairError('PROFILE_CANCELLED', 'enough'));
    await expect(given).rejects.toMatchObject({ code: 'PROFILE_CANCELLED', message: 'enough' });
    await delivered();
    expect(got.slice(2)).toMatchObject([{ nonce: 'n1', term: 1, body: stop(got[1]?.id ?? '') }]);
    // It is not sent again to an agent that reconnects.
    commands.again('a', 'n1');
    await expect(commands.send('a', 'n1', 1, release, 5000, { signal: abort.signal, body: stop })).rejects.toThrow('enough');
    await delivered();
    expect(got).toHaveLength(3);
  });

  it('ends with the words of the agent, with the agent, with its deadline, or with the scheduler', async () => {
    const refused = commands.send('a', 'n1', 1, release, 5000);
    await delivered();
    commands.settle({ ...done, id: got[0]?.id ?? '', code: 'AGENT_BUSY', message: 'later' });
    await expect(refused).rejects.toMatchObject({ code: 'AGENT_BUSY', message: 'later' });
    const lost = commands.send('a', 'n1', 1, release, 5000);
    await delivered();
    commands.lost('a', 'n1', 'it stopped');
    await expect(lost).rejects.toMatchObject({ code: 'AGENT_UNKNOWN' });
    await expect(commands.send('a', 'n1', 1, release, 5)).rejects.toMatchObject({ code: 'REQUEST_TIMEOUT' });
    const stopped = commands.send('a', 'n1', 1, release, 5000);
    await delivered();
    commands.stop();
    await expect(stopped).rejects.toMatchObject({ code: 'STOPPED' });
  });
});

import { describe, expect, it } from 'vitest';
import { ChairError } from '../broker/errors.js';
import type { Command, CommandBody } from '../broker/messages.js';
import { NO_SEAL } from '../broker/seal.js';
import { type CommandOptions, Commands } from './commands.js';

const measure: CommandBody = {
  kind: 'measure',
  measure: { peer: { agent: 'b', addresses: [], lanePort: 1 }, budgetMs: 10, budgetBytes: 10, evenIfBusy: false, expect: false },
};
const command = (id: string, body: CommandBody): Command => ({
  id,
  term: 1,
  scheduler: 's',
  nonce: 'n',
  deadlineMs: 0,
  body,
  seal: NO_SEAL,
});

/** Of an agent whose link to b is measured; `busy` at first. */
function world(busyTimes = 0) {
  const seen = { measured: 0, asked: 0, traces: 0 };
  const commands = new Commands({
    nonce: 'n',
    term: { value: 1, obey: async () => undefined },
    peers: { borrow: () => undefined, all: [] },
    lanes: { setPeers: () => undefined },
    probe: { measure: async () => ({ peer: `b, measurement ${++seen.measured}` }) },
    tracer: { start: () => void seen.traces++ },
    nowMs: () => 0,
    isBusy: () => seen.asked++ < busyTimes,
  } as unknown as CommandOptions);
  return { commands, seen };
}

describe('measurements', () => {
  it('are given up when nobody waits for them, or another scheduler reigns: it asks again for what it wants', async () => {
    const given: string[] = [];
    let highest = 1;
    const commands = new Commands({
      nonce: 'n',
      term: {
        get value() {
          return highest;
        },
        obey: async (term: number) => {
          highest = term;
        },
      },
      profiler: { giveUp: (id: string) => given.push(id), giveUpAll: () => given.push('all') },
      epochs: { releaseBefore: async () => undefined },
      orphanMs: 1000,
    } as unknown as CommandOptions);
    const ping: CommandBody = { kind: 'ping', ping: { padBytes: 0 } };
    await commands.obey(command('one', { kind: 'stopProfile', stopProfile: { id: 'a measurement' } }));
    await commands.obey(command('two', ping));
    expect(given).toEqual(['a measurement']);
    await commands.obey({ ...command('three', ping), term: 2 });
    commands.stop();
    expect(given).toEqual(['a measurement', 'all']);
  });
});

describe('a command that comes again', () => {
  it('measures nothing again, and gives the answer that it gave, also when others came in between', async () => {
    const { commands, seen } = world();
    const first = await commands.obey(command('one', measure));
    for (let i = 0; i < 1000; i++) await commands.obey(command(`other ${i}`, measure));
    expect(await commands.obey(command('one', measure))).toEqual(first);
    const both = await Promise.all([commands.obey(command('two', measure)), commands.obey(command('two', measure))]);
    expect(both[0]).toEqual(both[1]);
    expect(seen.measured).toBe(1002);
  });

  it('is refused again as it was, and asked anew under another id', async () => {
    const { commands } = world(1);
    const codeOf = (id: string) =>
      commands.obey(command(id, measure)).then(
        () => 'done',
        (error: unknown) => (error instanceof ChairError ? error.code : String(error)),
      );
    expect([await codeOf('one'), await codeOf('one'), await codeOf('two')]).toEqual(['AGENT_BUSY', 'AGENT_BUSY', 'done']);
  });

  it('begins no trace anew', async () => {
    const { commands, seen } = world();
    const trace: CommandBody = { kind: 'trace', trace: { deployment: 'd', frames: 1, forMs: 1000, collect: false } };
    await commands.obey(command('one', trace));
    await commands.obey(command('one', trace));
    expect(seen.traces).toBe(1);
  });

  it('is not remembered without end', async () => {
    const { commands, seen } = world();
    for (let i = 0; i < 5000; i++) await commands.obey(command(`${i}`, measure));
    await commands.obey(command('4999', measure));
    expect(seen.measured).toBe(5000);
    await commands.obey(command('0', measure));
    expect(seen.measured).toBe(5001);
  });
});

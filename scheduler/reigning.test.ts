import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createFakeBroker, type FakeBroker, type FakeBus } from '../broker/fake-bus.js';
import { topicsOf } from '../broker/topics.js';
import { Reigning } from './reigning.js';

const topics = topicsOf('test');
const status = {
  ...{
    cluster: 'test',
    encrypted: false,
    uptimeMs: 0,
    dispatcherAddresses: [],
    dispatcherPort: 0,
    problems: [],
    lanes: [],
    agents: [],
    deployments: [],
    host: '',
  },
  ...{ links: [], events: [], refusals: [] },
};

/** A scheduler with a state folder of its own, of which only what reigns is there. */
class Rival {
  readonly reigning: Reigning;
  readonly bus: FakeBus;
  readonly lines: string[] = [];
  replaced = '';
  /** Stopped by SIGSTOP: it hears nothing and answers nothing. */
  paused = false;
  #term: number;

  constructor(broker: FakeBroker, term: number) {
    this.#term = term;
    this.bus = broker.bus('scheduler');
    const { bus } = this;
    const nextTerm = async (atLeast: number): Promise<number> => {
      this.#term = Math.max(this.#term, atLeast) + 1;
      return this.#term;
    };
    const onReplaced = (error: Error): void => {
      this.replaced = error.message;
    };
    const log = (kind: string, text: string): void => void this.lines.push(`${kind}: ${text}`);
    this.reigning = new Reigning(
      { cluster: 'test', bus, topics, nextTerm, sharedBroker: true, onReplaced, rivalMs: 150 },
      () => performance.now(),
      log,
    );
  }

  async start(): Promise<void> {
    const { bus, reigning } = this;
    await reigning.begin();
    await bus.subscribe(topics.request, ({ id, client }) => {
      if (this.paused || reigning.isOurs(client)) return;
      const answer = {
        id,
        code: '',
        message: '',
        status: { ...status, term: reigning.term },
        plan: null,
        model: null,
        profile: null,
        clockUs: 0,
        trace: null,
        peers: null,
        trust: null,
      };
      void bus.publish(topics.response(client), answer);
    });
    await bus.subscribe(topics.reign, (reign) => {
      if (!this.paused && this.replaced === '') void reigning.reigned(reign);
    });
    reigning.reign();
  }
}

let broker: FakeBroker;
const rivals: Rival[] = [];
beforeEach(() => {
  broker = createFakeBroker();
});
afterEach(() => {
  for (const { reigning } of rivals.splice(0)) reigning.stop();
});
async function rival(term = 0): Promise<Rival> {
  const made = new Rival(broker, term);
  rivals.push(made);
  await made.start();
  return made;
}
async function until(what: string, holds: () => boolean): Promise<void> {
  for (const end = performance.now() + 10_000; performance.now() < end; ) {
    if (holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`never: ${what}`);
}

describe('reigning', () => {
  it('is for one: a second scheduler is refused while the first answers', async () => {
    const first = await rival();
    expect(first.reigning.term).toBe(1);
    await expect(rival()).rejects.toMatchObject({ code: 'CLUSTER_TAKEN' });
  });

  it('goes over to the second when the first stands still, though both counted to the same term; the first stops when it wakes up', async () => {
    const first = await rival();
    first.paused = true;
    const second = await rival();
    expect([first.reigning.term, second.reigning.term]).toEqual([1, 1]);
    // An agent that the first has commanded.
    const hello = { agent: 'a', term: 1, scheduler: first.reigning.id };
    await first.reigning.obeyed(hello);
    await second.reigning.obeyed(hello);
    expect(second.reigning.term).toBe(2);
    expect(second.replaced).toBe('');
    first.paused = false;
    expect(await first.reigning.confirm()).toBe(false);
    expect(first.replaced).toContain('in term 2');
    expect([first.reigning.term, second.replaced]).toEqual([1, '']);
  });

  it('does not come back with a hello to the one that was replaced', async () => {
    const first = await rival();
    first.paused = true;
    const second = await rival(5);
    first.paused = false;
    const hello = { agent: 'a', term: second.reigning.term, scheduler: second.reigning.id };
    await Promise.all([first.reigning.obeyed(hello), first.reigning.obeyed(hello), second.reigning.obeyed(hello)]);
    expect(first.replaced).toContain(`in term ${second.reigning.term}`);
    expect(first.reigning.term).toBe(1);
    expect(second.replaced).toBe('');
  });

  it('is taken after terms that others had who are gone, above the highest that any agent names', async () => {
    const only = await rival();
    const hellos = [4, 9, 6].map((term) => ({ agent: `a${term}`, term, scheduler: 'gone' }));
    await Promise.all(hellos.map((hello) => only.reigning.obeyed(hello)));
    expect(only.reigning.term).toBe(10);
    for (const hello of hellos) await only.reigning.obeyed(hello);
    await only.reigning.obeyed({ agent: 'a', term: 10, scheduler: only.reigning.id });
    expect(only.reigning.term).toBe(10);
    expect(only.lines.filter((line) => line.startsWith('term'))).toHaveLength(1);
  });

  it('of two that both go on after a split is for the later one, whoever of them looks first', async () => {
    for (const laterLooks of [true, false]) {
      broker = createFakeBroker();
      const first = await rival();
      first.paused = true;
      const later = await rival(3);
      first.paused = false;
      await Promise.all(
        laterLooks ? [later.reigning.confirm(), first.reigning.confirm()] : [first.reigning.confirm(), later.reigning.confirm()],
      );
      await until('the first has stopped', () => first.replaced !== '');
      expect(later.replaced).toBe('');
    }
  });

  it('asks again when it was cut off while it asked', async () => {
    const only = await rival();
    only.bus.lose();
    expect(await only.reigning.confirm()).toBe(true);
    const other = await rival(7);
    expect(other.reigning.term).toBe(8);
    only.bus.restore();
    expect(await only.reigning.confirm()).toBe(false);
  });
});

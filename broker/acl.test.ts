import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Action, aclTable, covers, permits, permitsClient, rightsOf } from './acl.js';
import { type Identity, ROLES, type Role } from './credentials/credentials.js';
import { byAnyone, spokenBy, type Topic, topicsOf } from './topics.js';

const topics = topicsOf('lab');
const identity = (role: Role, name: string, cluster = 'lab'): Identity => ({ cluster, role, name });
const AGENT = identity('agent', 'pi-1');
const OPERATOR = identity('operator', 'alice');
const VIEWER = identity('viewer', 'bob');
const GATEWAY = identity('gateway', 'gateway');
const WHO: Readonly<Record<string, Identity>> = { A: AGENT, O: OPERATOR, V: VIEWER, G: GATEWAY };

const nameIn = (topic: Topic<unknown> | string): string => (typeof topic === 'string' ? topic : topic.name);
const MINE = 'alice-1a2b3c4d';

/**
 * Every topic of the table as each role's own and as another's, with the letters of the roles that may write and read it; written out, and not made from acl.ts.
 * `own`: said by, or addressed to, the role's own name.
 */
const EXPECTED: Readonly<
  Record<keyof typeof topics, { readonly writeAs: string; readonly writeTo: string; readonly read: string; readonly readOther: string }>
> = {
  hello: { writeAs: 'AG', writeTo: '', read: 'G', readOther: 'G' },
  health: { writeAs: 'AG', writeTo: '', read: 'G', readOther: 'G' },
  gone: { writeAs: 'AG', writeTo: '', read: 'G', readOther: 'G' },
  reply: { writeAs: 'AG', writeTo: '', read: 'G', readOther: 'G' },
  progress: { writeAs: 'AG', writeTo: '', read: 'G', readOther: 'G' },
  trouble: { writeAs: 'AG', writeTo: '', read: 'G', readOther: 'G' },
  peersQuestion: { writeAs: 'AG', writeTo: '', read: 'G', readOther: 'G' },
  reign: { writeAs: '', writeTo: 'G', read: 'AOVG', readOther: 'AOVG' },
  command: { writeAs: '', writeTo: 'G', read: 'AG', readOther: 'G' },
  blobRequest: { writeAs: 'AG', writeTo: '', read: 'G', readOther: 'G' },
  blobChunk: { writeAs: '', writeTo: 'G', read: 'AG', readOther: 'G' },
  uploadChunk: { writeAs: 'OG', writeTo: '', read: 'G', readOther: 'G' },
  uploadAck: { writeAs: '', writeTo: 'G', read: 'OG', readOther: 'G' },
  request: { writeAs: 'OG', writeTo: '', read: 'G', readOther: 'G' },
  ask: { writeAs: 'OVG', writeTo: '', read: 'G', readOther: 'G' },
  response: { writeAs: '', writeTo: 'G', read: 'OVG', readOther: 'G' },
  activation: { writeAs: 'AG', writeTo: '', read: 'AG', readOther: 'G' },
  cancel: { writeAs: 'G', writeTo: '', read: 'AG', readOther: 'G' },
  probe: { writeAs: 'AG', writeTo: '', read: 'AG', readOther: 'G' },
  submit: { writeAs: 'OG', writeTo: '', read: 'G', readOther: 'G' },
  result: { writeAs: 'G', writeTo: '', read: 'OVG', readOther: 'G' },
  resultAck: { writeAs: 'OG', writeTo: '', read: 'G', readOther: 'G' },
};

/** Lane topics are said by their senders, too, when they are relayed. */
const RELAYED = new Set(['activation', 'cancel', 'probe', 'submit', 'result', 'resultAck']);

/** The topic of this entry that is addressed to, or said by, `name`. `session`: a client's. */
function topicOf(key: keyof typeof topics, name: string, session: string): { readonly name: string; readonly spoken: boolean } {
  const entry = topics[key];
  const isClients = key === 'uploadAck' || key === 'response' || key === 'result';
  const topic = typeof entry === 'function' ? entry(isClients ? session : name) : entry;
  const spoken = RELAYED.has(key) || (typeof topic !== 'string' && topic.speaker !== undefined);
  return { name: nameIn(topic), spoken };
}

function letters(may: (who: Identity) => boolean): string {
  return [...'AOVG'].filter((letter) => may(WHO[letter] ?? AGENT)).join('');
}

describe('access list', () => {
  it('permits on every topic what is written out here, and nothing else', () => {
    const found = Object.fromEntries(
      (Object.keys(topics) as (keyof typeof topics)[]).map((key) => {
        const own = (who: Identity) => topicOf(key, who.name, `${who.name}-1a2b3c4d`);
        const other = () => topicOf(key, 'other', 'other-1a2b3c4d');
        const may = (who: Identity, action: Action, topic: string): boolean => permits(who, { action, topic }) === '';
        return [
          key,
          {
            writeAs: letters((who) => own(who).spoken && may(who, 'publish', spokenBy(own(who).name, who.name))),
            writeTo: letters((who) => !own(who).spoken && may(who, 'publish', own(who).name)),
            read: letters((who) => may(who, 'subscribe', own(who).spoken ? byAnyone(own(who).name) : own(who).name)),
            readOther: letters((who) => may(who, 'subscribe', other().spoken ? byAnyone(other().name) : other().name)),
          },
        ];
      }),
    );
    expect(found).toEqual(EXPECTED);
  });

  it('lets nobody but the gateway speak as somebody else, in any topic of any cluster', () => {
    const name = fc.stringMatching(/^[a-c][a-c.-]{0,3}$/);
    const key = fc.constantFrom(...(Object.keys(topics) as (keyof typeof topics)[]));
    fc.assert(
      fc.property(
        fc.constantFrom(...ROLES),
        name,
        name,
        name,
        fc.constantFrom('lab', 'lab.2', 'other'),
        key,
        (role, own, speaker, to, cluster, k) => {
          const entry = topicsOf(cluster)[k];
          const topic = nameIn(typeof entry === 'function' ? entry(to) : entry);
          const who = identity(role, own);
          if (role === 'gateway') return;
          if (permits(who, { action: 'publish', topic: spokenBy(topic, speaker) }) === '') expect([speaker, cluster]).toEqual([own, 'lab']);
          // What is not said by anybody is the scheduler's.
          expect(permits(who, { action: 'publish', topic })).not.toBe('');
        },
      ),
    );
  });

  it('lets an agent leave one Last Will: that it is gone, in its own name', () => {
    const will = (topic: string) => permits(AGENT, { action: 'will', topic });
    expect(will(spokenBy(topics.gone.name, 'pi-1'))).toBe('');
    expect(will(spokenBy(topics.gone.name, 'pi-2'))).toMatch(/agent pi-1 may not leave a Last Will/);
    for (const topic of [spokenBy(topics.hello.name, 'pi-1'), topics.command('pi-2').name, spokenBy(topics.activation('pi-2'), 'pi-1')])
      expect(will(topic)).not.toBe('');
    expect(permits(OPERATOR, { action: 'will', topic: spokenBy(topics.request.name, 'alice') })).not.toBe('');
  });

  it('lets nobody retain anything, not even the gateway', () => {
    for (const who of [AGENT, GATEWAY]) {
      expect(permits(who, { action: 'publish', topic: spokenBy(topics.hello.name, who.name), retain: true })).toMatch(
        /nothing is retained/,
      );
      expect(permits(who, { action: 'will', topic: spokenBy(topics.gone.name, who.name), retain: true })).toMatch(/nothing is retained/);
    }
  });

  it('refuses wildcards, topics of the broker and of other clusters, and what is too long', () => {
    for (const topic of [
      '#',
      '+/lab/#',
      'mc/#',
      'mc/lab/#',
      'mc/lab/+',
      'mc/lab/hello/by/+',
      'mc/lab/lane/+/by/+',
      'mc/lab/agent/+/command',
      'mc/lab/agent/pi-1/#',
      '$SYS/#',
      '',
    ])
      expect([topic, permits(AGENT, { action: 'subscribe', topic })]).not.toEqual([topic, '']);
    for (const topic of [
      '#',
      '$SYS/x',
      'mc/lab/lane/+/by/pi-1',
      'mc/lab/hello/by/pi-1/',
      '/mc/lab/hello/by/pi-1',
      'mc/lab/hello/by/pi-1\0',
      `mc/lab/lane/${'x'.repeat(600)}/by/pi-1`,
    ])
      expect([topic, permits(AGENT, { action: 'publish', topic })]).not.toEqual([topic, '']);
    for (const topic of ['mc/other/hello', '#', '$SYS/x']) expect(permits(GATEWAY, { action: 'publish', topic })).not.toBe('');
  });

  it('keeps names apart that differ in a dot only, or look like a part of one', () => {
    const dotted = identity('agent', 'pi.local');
    expect(permits(dotted, { action: 'publish', topic: spokenBy(topics.hello.name, 'pi.local') })).toBe('');
    expect(permits(dotted, { action: 'publish', topic: 'mc/lab/hello/by/pi/local' })).not.toBe('');
    expect(permits(dotted, { action: 'subscribe', topic: topics.command('pi').name })).not.toBe('');
    // Sessions of a client are its owner's; those of an owner whose name goes on are not.
    expect(permits(OPERATOR, { action: 'subscribe', topic: topics.response(MINE).name })).toBe('');
    expect(permits(identity('operator', 'ali'), { action: 'subscribe', topic: topics.response(MINE).name })).not.toBe('');
    expect(permits(OPERATOR, { action: 'subscribe', topic: topics.response('alice-x-1a2b3c4d').name })).not.toBe('');
  });

  it('knows whose client id it is', () => {
    expect(permitsClient(AGENT, 'pi-1')).toBe('');
    for (const client of ['pi-2', '', 'pi-1-1a2b3c4d', 'scheduler', 'dispatcher'])
      expect(permitsClient(AGENT, client)).toMatch(/agent pi-1's/);
    expect(permitsClient(OPERATOR, MINE)).toBe('');
    for (const client of ['bob-1a2b3c4d', 'alice-xyz', 'dispatcher', 'pi-1']) expect(permitsClient(OPERATOR, client)).not.toBe('');
    for (const client of ['scheduler', 'dispatcher', 'gateway']) expect(permitsClient(GATEWAY, client)).toBe('');
    expect(permitsClient(GATEWAY, 'pi-1')).not.toBe('');
  });

  it('takes a filter to be covered only when all that it stands for is', () => {
    const cases: readonly (readonly [string, string, boolean])[] = [
      ['a/+/c', 'a/b/c', true],
      ['a/+/c', 'a/+/c', true],
      ['a/b', 'a/+', false],
      ['a/+', 'a/#', false],
      ['a/+', 'a', false],
      ['a/+', 'a/b/c', false],
      ['a/#', 'a/b/+', true],
      ['a/#', 'a/#', true],
      ['a/#', '#', false],
      ['a/b', 'a/b', true],
      ['a/+', 'a/', false],
    ];
    for (const [pattern, topic, expected] of cases) expect([pattern, topic, covers(pattern, topic)]).toEqual([pattern, topic, expected]);
  });

  it('is the table in docs/security.md', () => {
    const text = readFileSync(fileURLToPath(new URL('../docs/security.md', import.meta.url)), 'utf8');
    const [, table] = /<!-- acl -->\n([\s\S]*?)\n<!-- \/acl -->/.exec(text) ?? [];
    expect(table).toBe(aclTable());
    expect(rightsOf(AGENT).length).toBeGreaterThan(10);
  });
});

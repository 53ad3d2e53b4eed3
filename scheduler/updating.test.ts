import { describe, expect, it } from 'vitest';
import { ChairError } from '../broker/errors.js';
import type { CommandBody, Hello, Reply, UpdateRequest } from '../broker/messages.js';
import type { UpdateFacts } from '../broker/update-order.js';
import type { AgentRecord, AgentState } from './registry.js';
import { Updating } from './updating.js';

const [OLD, NEW] = ['1.0.0-0000000000000000', '1.1.0-1111111111111111'];
const REQUEST: UpdateRequest = { agent: 'pi-1', name: NEW, arch: 'arm64', sha256: 'a'.repeat(64), sizeBytes: 50 };
const REPLY = {
  id: '',
  agent: 'pi-1',
  code: '',
  message: '',
  fetchedBytes: 0,
  loadMs: 0,
  link: null,
  profile: null,
  standing: null,
} as Reply;

/** A cluster of one agent whose time goes by in pauses. `during` is called in each, with what has passed, ms. */
function cluster(during: (passedMs: number, be: (state: AgentState, nonce: string, version: string) => void) => void = () => undefined) {
  let nowMs = 0;
  let record: AgentRecord | undefined;
  const be = (state: AgentState, nonce: string, softwareVersion: string): void => {
    record = { agent: 'pi-1', nonce, state, why: '', hello: { arch: 'arm64', softwareVersion } as Hello, health: null, seenMs: nowMs };
  };
  const sent: CommandBody[] = [];
  const lent: string[] = [];
  let refusal: ChairError | undefined;
  be('ready', 'n1', OLD);
  const updating = new Updating({
    registry: {
      get: (agent) => (agent === 'pi-1' ? record : undefined),
      serves: (_agent, nonce) => record?.nonce === nonce && record.state !== 'lost',
    },
    commands: {
      send: async (_agent, _nonce, _term, body) => {
        sent.push(body);
        if (refusal !== undefined) throw refusal;
        return REPLY;
      },
    },
    term: () => 3,
    sign: (facts: UpdateFacts) => ({ ...facts, certificate: 'c', signature: 's' }),
    lend: async (sha256) => {
      lent.push(sha256);
      return () => void lent.push('back');
    },
    log: () => undefined,
    now: () => nowMs,
    wallMs: () => 1_000,
    pause: async (ms) => {
      nowMs += ms;
      during(nowMs, be);
    },
  });
  return { updating, sent, lent, be, refuse: (error: ChairError) => (refusal = error) };
}

const returning = (version: string, atMs = 3_000) =>
  cluster((passedMs, be) => {
    if (passedMs < atMs) be('draining', 'n1', OLD);
    else be('ready', 'n2', version);
  });

describe('an update of an agent', () => {
  it('is ordered, signed for that agent, watched, and confirmed', async () => {
    const { updating, sent, lent } = returning(NEW);
    await updating.update(REQUEST);
    expect(sent.map(({ kind }) => kind)).toEqual(['update', 'confirm']);
    expect(sent[0]).toMatchObject({ update: { agent: 'pi-1', name: NEW, issuedMs: 1_000, signature: 's' } });
    expect(lent).toEqual([REQUEST.sha256, 'back']);
  });

  it('is ordered as the latest of this gateway, also when the one before went wrong', async () => {
    const { updating, sent } = returning(OLD);
    for (let i = 0; i < 2; i++) await updating.update(REQUEST).catch(() => undefined);
    expect(sent).toMatchObject([{ update: { term: 3, number: 1 } }, { update: { term: 3, number: 2 } }]);
  });

  it('has failed when the former program comes back, and nothing is confirmed', async () => {
    const { updating, sent } = returning(OLD);
    await expect(updating.update(REQUEST)).rejects.toMatchObject({ code: 'UPDATE_FAILED' });
    expect(sent.map(({ kind }) => kind)).toEqual(['update']);
  });

  it('has failed when the new program does not stay', async () => {
    const { updating, sent } = cluster((passedMs, be) => be(passedMs > 3_000 ? 'lost' : 'ready', 'n2', NEW));
    await expect(updating.update(REQUEST)).rejects.toMatchObject({
      code: 'UPDATE_FAILED',
      message: expect.stringContaining('did not stay'),
    });
    expect(sent.map(({ kind }) => kind)).toEqual(['update']);
  });

  it('has failed when the agent never comes back', async () => {
    const { updating } = cluster((_ms, be) => be('lost', 'n1', OLD));
    await expect(updating.update(REQUEST)).rejects.toMatchObject({ code: 'UPDATE_FAILED' });
  });

  it('is not done again where the bundle runs already', async () => {
    const { updating, sent, be } = cluster();
    be('ready', 'n1', NEW);
    await updating.update(REQUEST);
    expect(sent).toEqual([]);
  });

  it('is one at a time', async () => {
    const { updating } = returning(NEW);
    const first = updating.update(REQUEST);
    await expect(updating.update(REQUEST)).rejects.toMatchObject({ code: 'UPDATE_REFUSED' });
    await first;
    await updating.update({ ...REQUEST, name: NEW });
  });

  it('gives the bundle back when the agent refuses it, and the next one may be tried', async () => {
    const { updating, lent, refuse } = cluster();
    refuse(new ChairError('AGENT_STORE_FULL', 'no room'));
    await expect(updating.update(REQUEST)).rejects.toMatchObject({ code: 'AGENT_STORE_FULL' });
    expect(lent.at(-1)).toBe('back');
    await expect(updating.update(REQUEST)).rejects.toMatchObject({ code: 'AGENT_STORE_FULL' });
  });

  it.each([
    ['an agent that is not here', { agent: 'pi-2' }, OLD, 'AGENT_UNKNOWN'],
    ['a bundle for another processor', { arch: 'x64' }, OLD, 'BUNDLE_WRONG_ARCH'],
    ['an agent that was not installed from a bundle', {}, '1.0.0', 'UPDATE_REFUSED'],
    ['a name that is none', { name: '../x' }, OLD, 'UPDATE_REFUSED'],
  ])('is refused for %s', async (_what, change, version, code) => {
    const { updating, sent, be } = cluster();
    be('ready', 'n1', version);
    await expect(updating.update({ ...REQUEST, ...change })).rejects.toMatchObject({ code });
    expect(sent).toEqual([]);
  });

  it('ends when the gateway stops', async () => {
    const { updating } = cluster((passedMs) => {
      if (passedMs > 1_000) updating.stop();
    });
    await expect(updating.update(REQUEST)).rejects.toMatchObject({ code: 'STOPPED' });
  });
});

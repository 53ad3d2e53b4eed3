import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { ChairError } from '../broker/errors.js';
import { writeSealed } from '../broker/sealed-file.js';
import { startBroker } from '../broker/server.js';
import type { ChairClient, DeployOptions } from './client.js';
import type { Gateway, GatewayOptions } from './gateway.js';
import type { ModelSource } from './model-source.js';
import { type ScriptedAgent, type ScriptedOptions, scriptedSource } from './scripted-agent.js';
import { answer, codeOf, frame, TestCluster, until, untilReady, values } from './test-cluster.js';

const SLICE = 'the bytes of a slice';
const SLICE_SHA = createHash('sha256').update(SLICE).digest('hex');

const made = TestCluster.forEachTest();

/** A cluster on a broker that outlives its gateway, as agents and clients do. */
class World {
  private constructor(
    readonly brokerUrl: string,
    readonly stateDirectory: string,
  ) {}

  static async make(): Promise<World> {
    const broker = await startBroker({ host: '127.0.0.1', port: 0 });
    made.also(() => broker.stop());
    return new World(broker.url, await made.folder());
  }

  gateway(options: Partial<GatewayOptions> = {}): Promise<Gateway> {
    const { brokerUrl: url, stateDirectory } = this;
    return made.gateway({ stateDirectory, broker: { url }, measureLinks: false, rivalMs: 100, ...options });
  }

  agent(name: string, options: Partial<ScriptedOptions> = {}): Promise<ScriptedAgent> {
    return made.agent(this.brokerUrl, name, options);
  }

  client(): Promise<ChairClient> {
    return made.client(this.brokerUrl);
  }

  /** A gateway with these agents and what is deployed on them. */
  async serving(names: string[], request: Partial<DeployOptions> = {}, options: Partial<ScriptedOptions> = {}) {
    const gateway = await this.gateway();
    const agents = await Promise.all(names.map((name) => this.agent(name, options)));
    await untilReady(gateway, names.length);
    const client = await this.client();
    const report = await client.deploy({ name: 'm', model: 'scripted', agents: names, ...request });
    return { gateway, agents, client, report };
  }
}

/** A model whose file is gone, or slow to read: what is restored must not need it. */
function withoutModel(): ModelSource {
  const load = async (): Promise<never> => {
    throw new ChairError('MODEL_NOT_FOUND', 'the file is gone');
  };
  return { ...scriptedSource(), load };
}

describe('a gateway that is started again', () => {
  it('serves what was deployed, with the plan and the seats that agents hold, without planning, and in a later term', async () => {
    const world = await World.make();
    const { gateway, agents, client, report } = await world.serving(['a', 'b'], { cut: 'rows:2' });
    const before = gateway.status();
    await gateway.stop();
    const commandsBefore = agents.map(({ commands }) => commands.length);
    const again = await world.gateway({ source: withoutModel() });
    for (const seed of [1, 2, 3]) expect(values((await client.infer('m', frame(seed))).outputs.out)).toEqual(answer(seed));
    const { deployments, term } = again.status();
    expect(term).toBe(before.term + 1);
    expect(deployments[0]?.plan?.seats).toEqual(report.seats);
    expect(deployments[0]).toMatchObject({ state: 'serving', failed: 0, inputs: before.deployments[0]?.inputs });
    expect(deployments[0]?.epoch).toBeGreaterThan(before.deployments[0]?.epoch ?? 0);
    await until('the seats of the term before are released', () => agents.every(({ epochs }) => epochs.size === 1));
    for (const [i, { commands }] of agents.entries()) {
      const kinds = commands.slice(commandsBefore[i]).filter((kind) => kind !== 'ping' && kind !== 'peers');
      // One whose answer was late is sent again.
      expect(kinds.filter((kind, at) => kind !== kinds[at - 1])).toEqual(['prepare', 'commit', 'release']);
    }
  });

  it('tells whoever waits for an answer of the one before that it will not come', async () => {
    const world = await World.make();
    const { gateway } = await world.serving(['a']);
    const client = await made.client(world.brokerUrl, { requestTimeoutMs: 5_000 });
    // Its seats have nowhere to go: that takes a minute.
    const waiting = codeOf(client.drain('a'));
    await until('it drains', () => gateway.status().agents[0]?.state === 'draining');
    await gateway.stop();
    const stoppedMs = performance.now();
    await world.gateway();
    expect(await waiting).toBe('STOPPED');
    expect(performance.now() - stoppedMs).toBeLessThan(30_000);
  });

  it('gives no seats to an agent that an operator had drained, until that is taken back', async () => {
    const world = await World.make();
    const { gateway, client, report } = await world.serving(['a', 'b']);
    const drained = report.seats[0]?.agent === 'a' ? 'a' : 'b';
    const stateOf = (at: Gateway) => at.status().agents.find(({ agent }) => agent === drained);
    await client.drain(drained);
    // As a kill leaves it: what was answered is on the disk, whatever is written at the end is not.
    const kept = await readFile(join(world.stateDirectory, 'drains'));
    await gateway.stop();
    await writeFile(join(world.stateDirectory, 'drains'), kept);
    const again = await world.gateway();
    await until('it is back', () => stateOf(again)?.health != null);
    expect(stateOf(again)).toMatchObject({ state: 'draining', why: 'an operator asked for it' });
    expect(again.status().deployments[0]?.plan?.seats.map(({ agent }) => agent)).not.toContain(drained);
    await client.drain(drained, { undo: true });
    expect(stateOf(again)?.state).toBe('ready');
    await again.stop();
    const third = await world.gateway();
    await until('it is back', () => stateOf(third)?.health != null);
    expect(stateOf(third)?.state).toBe('ready');
  });

  it('finishes the frames that were under way: each has one result, and it is right', async () => {
    const world = await World.make();
    const { gateway, client } = await world.serving(['a', 'b'], { cut: 'stages:2' }, { runMs: 20 });
    const frames = Array.from({ length: 40 }, (_, i) => client.infer('m', frame(i)));
    await frames[3];
    await gateway.stop();
    const more = Array.from({ length: 5 }, (_, i) => client.infer('m', frame(40 + i)));
    await world.gateway();
    for (const [i, result] of (await Promise.all([...frames, ...more])).entries()) expect(values(result.outputs.out)).toEqual(answer(i));
  });

  it('brings back what agents lost that were started anew, too', async () => {
    const world = await World.make();
    const { gateway, agents, client } = await world.serving(['a', 'b'], { cut: 'rows:2' });
    await gateway.stop();
    await agents[0]?.stop();
    await world.agent('a');
    await world.gateway({ source: withoutModel() });
    expect(values((await client.infer('m', frame(1))).outputs.out)).toEqual(answer(1));
  });

  it('plans anew without an agent that does not come back, once nobody else comes', async () => {
    const world = await World.make();
    const { gateway, agents, client } = await world.serving(['a', 'b', 'c'], { planner: 'replicas' });
    await gateway.stop();
    await agents[1]?.stop();
    const again = await world.gateway();
    await until('it waits', () => /waits for b/.test(again.status().deployments[0]?.why ?? ''));
    expect(again.status().deployments[0]?.state).toBe('restoring');
    expect(values((await client.infer('m', frame(1))).outputs.out)).toEqual(answer(1));
    expect(new Set(again.status().deployments[0]?.plan?.seats.map(({ agent }) => agent))).toEqual(new Set(['a', 'c']));
  }, 30_000);

  it('does not bring back what was undeployed, nor what never served', async () => {
    const world = await World.make();
    const { gateway, client } = await world.serving(['a']);
    await client.undeploy('m');
    expect(await codeOf(client.deploy({ name: 'n', model: 'scripted', agents: ['nobody'] }))).toBe('AGENT_UNKNOWN');
    await gateway.stop();
    const again = await world.gateway();
    expect(again.status().deployments).toEqual([]);
    expect(await codeOf(client.infer('m', frame(1)))).toBe('DEPLOYMENT_UNKNOWN');
  });

  it('takes no file whose bytes were changed: the others come back, and it is said which one does not', async () => {
    const world = await World.make();
    const { gateway, client } = await world.serving(['a']);
    await client.deploy({ name: 'n', model: 'scripted', agents: ['a'] });
    await gateway.stop();
    const directory = join(world.stateDirectory, 'deployments');
    const bytes = await readFile(join(directory, 'm.json'));
    bytes[200] = (bytes[200] ?? 0) ^ 1;
    await writeFile(join(directory, 'm.json'), bytes);
    // A file of a later version, sealed by it, and one under another name.
    await writeSealed(join(directory, 'later.json'), JSON.stringify({ format: 99 }), 'INTERNAL');
    await writeFile(join(directory, 'copy.json'), await readFile(join(directory, 'n.json')));
    const again = await world.gateway();
    expect(values((await client.infer('n', frame(1))).outputs.out)).toEqual(answer(1));
    expect(again.status().deployments.map(({ name }) => name)).toEqual(['n']);
    const { problems } = again.status();
    for (const name of ['m', 'later', 'copy']) expect(problems.join()).toContain(`deployment '${name}' was not restored`);
    expect((await readdir(directory)).filter((name) => !name.endsWith('.new')).sort()).toEqual([
      'copy.json.damaged',
      'later.json.damaged',
      'm.json.damaged',
      'n.json',
    ]);
    // The name is free: it can be deployed again.
    await client.deploy({ name: 'm', model: 'scripted', agents: ['a'] });
    expect(values((await client.infer('m', frame(2))).outputs.out)).toEqual(answer(2));
  });

  it('serves on when the model was changed meanwhile, but does not mix the two', async () => {
    const world = await World.make();
    const { gateway, agents, client } = await world.serving(['a', 'b'], { planner: 'replicas' });
    await gateway.stop();
    const source = scriptedSource();
    const load: ModelSource['load'] = async (request) => ({ ...(await source.load(request)), sha256: 'e'.repeat(64) });
    const again = await world.gateway({ source: { ...source, load } });
    expect(values((await client.infer('m', frame(1))).outputs.out)).toEqual(answer(1));
    await until('it is said', () => /was changed while it served/.test(again.status().deployments[0]?.why ?? ''));
    expect(again.status().deployments[0]?.state).toBe('serving');
    // What is loaded goes on, by the replica that is left.
    await agents[1]?.kill();
    await until('the loss is known', () => again.status().agents.some(({ state }) => state === 'lost'));
    expect(values((await client.infer('m', frame(3))).outputs.out)).toEqual(answer(3));
    await agents[0]?.kill();
    await until('it waits', () => again.status().deployments[0]?.state === 'failed');
    expect(await codeOf(client.infer('m', frame(2), { deadlineMs: 500 }))).toBe('FRAME_DEADLINE');
  });

  it('writes slices anew when an agent cannot fetch them because ours are damaged, and does not hold it against the agent', async () => {
    const world = await World.make();
    const slices = join(world.stateDirectory, 'gateway-cache', 'slices');
    const source = scriptedSource();
    let written = 0;
    // The scripted model has no files: here it has one a slice, as the real one does.
    const load: ModelSource['load'] = async (request) => {
      const model = await source.load(request);
      const write: typeof model.write = async (draft) => {
        const cut = await model.write(draft);
        const graph = { sha256: SLICE_SHA, sizeBytes: SLICE.length };
        const isNew = await writeFile(join(slices, SLICE_SHA), SLICE, { flag: 'wx' }).then(
          () => true,
          () => false,
        );
        if (isNew) written++;
        return { ...cut, slices: cut.slices.map((parts) => parts.map((slice) => ({ ...slice, graph }))) };
      };
      return { ...model, write };
    };
    const gateway = await world.gateway({ source: { ...source, load } });
    const prepareFails = (): 'BLOB_CORRUPT' | '' => (readFileSync(join(slices, SLICE_SHA), 'utf8') === SLICE ? '' : 'BLOB_CORRUPT');
    const agent = await world.agent('a', { prepareFails });
    await until('ready', () => gateway.status().agents[0]?.state === 'ready');
    const client = await world.client();
    await client.deploy({ name: 'm', model: 'scripted' });
    await gateway.stop();
    await agent.stop();
    await writeFile(join(slices, SLICE_SHA), `x${SLICE.slice(1)}`);
    await world.agent('a', { prepareFails });
    const again = await world.gateway({ source: { ...source, load } });
    await until('it serves', () => again.status().deployments[0]?.state === 'serving');
    expect(written).toBe(2);
    expect(again.status().deployments[0]?.why).toBe('');
    expect(again.status().events.some(({ kind }) => kind === 'damaged')).toBe(true);
  });

  it('keeps what an operator changed: an objective, and the epoch numbers that were used', async () => {
    const world = await World.make();
    const { gateway, client } = await world.serving(['a']);
    await client.undeploy('m');
    await client.deploy({ name: 'm', model: 'scripted', agents: ['a'], deadlineMs: 700 });
    const { epoch } = gateway.status().deployments[0] ?? { epoch: 0 };
    await gateway.stop();
    const again = await world.gateway();
    await until('it serves', () => again.status().deployments[0]?.state === 'serving');
    expect(again.status().deployments[0]?.epoch).toBeGreaterThan(epoch);
  });
});

describe('a clock that jumps', () => {
  afterEach(() => {
    vi.restoreAllMocks();
  });

  it('by years, forth and back, at every look, changes nothing: no agent is lost, no frame, and a restart finds everything', async () => {
    const world = await World.make();
    const realNow = Date.now;
    let looks = 0;
    // Before 1970 and after 2100, and each time elsewhere.
    vi.spyOn(Date, 'now').mockImplementation(() => realNow() + (((++looks * 7919) % 200) - 100) * 365 * 24 * 3_600_000);
    const { gateway, client } = await world.serving(['a', 'b'], { cut: 'rows:2' });
    for (let seed = 0; seed < 30; seed++) {
      expect(values((await client.infer('m', frame(seed))).outputs.out)).toEqual(answer(seed));
      Date.now();
    }
    const { agents, deployments, events, problems } = gateway.status();
    expect(agents.map(({ state }) => state)).toEqual(['ready', 'ready']);
    expect(deployments[0]).toMatchObject({ state: 'serving', failed: 0, reissued: 0 });
    expect(events.filter(({ kind }) => ['lost', 'suspect', 'offline', 'stood still'].includes(kind))).toEqual([]);
    expect(problems).toEqual([]);
    await gateway.stop();
    await world.gateway({ source: withoutModel() });
    expect(values((await client.infer('m', frame(7))).outputs.out)).toEqual(answer(7));
  });
});

import { access, chmod, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ChairError, isChairError } from '../broker/errors.js';
import { connectBus } from '../broker/mqtt-bus.js';
import { OUR_SCHEMAS } from '../broker/schema/version.js';
import { startBroker } from '../broker/server.js';
import { topicsOf } from '../broker/topics.js';
import { ChairClient, type ClientOptions, type DeployOptions } from './client.js';
import { Gateway, type GatewayOptions } from './gateway.js';
import { type ScriptedOptions, scriptedSource } from './scripted-agent.js';
import { answer, codeOf, frame, TestCluster, until, untilReady, values } from './test-cluster.js';

const made = TestCluster.forEachTest();
// What of links is measured before a plan stands in learning.test.ts.
const startGateway = (options: Partial<GatewayOptions> = {}): Promise<Gateway> => made.gateway({ measureLinks: false, ...options });
const startAgent = ({ brokerUrl }: Gateway, name: string, options: Partial<ScriptedOptions> = {}) => made.agent(brokerUrl, name, options);
const connect = ({ brokerUrl }: Gateway, options: Partial<ClientOptions> = {}) => made.client(brokerUrl, options);

/** A gateway with ready agents and a client. */
async function cluster(names: string[], options: Partial<ScriptedOptions> = {}, source = scriptedSource()) {
  const gateway = await startGateway({ source });
  const agents = await Promise.all(names.map((name) => startAgent(gateway, name, options)));
  await untilReady(gateway, names.length);
  return { gateway, agents, client: await connect(gateway) };
}

const request = (extra: Partial<DeployOptions> = {}): DeployOptions => ({ name: 'm', model: 'scripted', ...extra });

describe('an operator', () => {
  it('drains an agent: it is answered when others hold its seats, no frame fails, and it may have seats again', async () => {
    const { gateway, client } = await cluster(['a', 'b', 'c']);
    await client.deploy(request({ cut: 'rows:2' }));
    const seated = () => [...new Set(gateway.status().deployments[0]?.plan?.seats.map(({ agent }) => agent))];
    const [leaving = ''] = seated();
    const frames = Array.from({ length: 30 }, (_, i) => client.infer('m', frame(i)));
    await client.drain(leaving);
    expect(seated()).not.toContain(leaving);
    expect(gateway.status().agents.find(({ agent }) => agent === leaving)).toMatchObject({ state: 'draining' });
    const results = await Promise.all(frames);
    expect(results.map(({ outputs }) => values(outputs.out))).toEqual(Array.from({ length: 30 }, (_, i) => answer(i)));
    expect(gateway.status().deployments[0]?.failed).toBe(0);
    await client.drain(leaving, { undo: true });
    expect(gateway.status().agents.find(({ agent }) => agent === leaving)).toMatchObject({ state: 'ready', why: '' });
  });

  it('is told when there is no such agent, or it is not at work', async () => {
    const { gateway, client, agents } = await cluster(['a', 'b']);
    expect(await codeOf(client.drain('z'))).toBe('AGENT_UNKNOWN');
    expect(await codeOf(client.drain('a', { undo: true }))).toBe('no error');
    await agents[1]?.kill();
    await until('b is lost', () => gateway.status().agents.find(({ agent }) => agent === 'b')?.state === 'lost');
    expect(await codeOf(client.drain('b'))).toBe('AGENT_BUSY');
  });
});

describe('gateway', () => {
  for (const cut of ['rows:3', 'stages:2', 'replicas:3', '']) {
    it(`serves frames cut as ${cut || 'the planner likes'}, with the results of the whole`, async () => {
      const { gateway, client, agents } = await cluster(['a', 'b', 'c']);
      const report = await client.deploy(request({ cut }));
      expect(report.seats.length).toBeGreaterThan(0);
      const results = await Promise.all([1, 2, 3, 4, 5].map((seed) => client.infer('m', frame(seed))));
      for (const [i, result] of results.entries()) expect(values(result.outputs.out)).toEqual(answer(i + 1));
      expect(client.lane()).toBe('direct');
      await until('all counted', () => gateway.status().deployments[0]?.completed === 5);
      expect(gateway.status().deployments[0]).toMatchObject({ state: 'serving', inFlight: 0, queued: 0, failed: 0 });
      await client.undeploy('m');
      for (const agent of agents) expect(agent.epochs.size).toBe(0);
      expect(gateway.status().deployments).toEqual([]);
    });
  }

  it('serves clients that cannot reach the dispatcher directly', async () => {
    const { gateway, client } = await cluster(['a']);
    await client.deploy(request());
    const relayed = await connect(gateway, { relayOnly: true });
    expect(values((await relayed.infer('m', frame(1))).outputs.out)).toEqual(answer(1));
    expect(relayed.lane()).toBe('relay');
  });

  it('yields results in the order of the frames on request', async () => {
    let runs = 0;
    const { client } = await cluster(['a', 'b'], {
      onRun: () => {
        if (++runs === 1) throw new ChairError('ENGINE_RUN_FAILED', 'once');
      },
    });
    await client.deploy(request({ cut: 'replicas:2' }));
    const got: number[][] = [];
    for await (const result of client.inferStream('m', [1, 2, 3, 4].map(frame))) got.push(values(result.outputs.out));
    expect(got).toEqual([1, 2, 3, 4].map(answer));
  });

  it('gives every frame its result when an agent is killed in the middle, and once', async () => {
    const { gateway, agents, client } = await cluster(['a', 'b', 'c', 'd'], { runMs: 5 });
    await client.deploy(request({ cut: 'rows:4' }));
    const frames = Array.from({ length: 60 }, (_, i) => client.infer('m', frame(i)));
    await frames[10];
    await agents[2]?.kill();
    const results = await Promise.all(frames);
    for (const [i, result] of results.entries()) expect(values(result.outputs.out)).toEqual(answer(i));
    expect(gateway.status().deployments[0]).toMatchObject({ completed: 60, failed: 0 });
    await until('a plan is in force', () => gateway.status().deployments[0]?.state === 'serving');
    expect(gateway.status().agents.find((agent) => agent.agent === 'c')?.state).toBe('lost');
  });

  it('moves to another plan when an agent wants to leave, and releases the old one', async () => {
    const { gateway, agents, client } = await cluster(['a', 'b']);
    await client.deploy(request({ agents: ['a', 'b'], planner: 'replicas' }));
    await agents[0]?.drain();
    await until('a holds nothing', () => agents[0]?.epochs.size === 0 && agents[1]?.epochs.size === 1);
    expect(values((await client.infer('m', frame(1))).outputs.out)).toEqual(answer(1));
    expect(gateway.status().deployments[0]?.failed).toBe(0);
  });

  it('waits when no agent is left, says so at the deadline, and serves again when one comes', async () => {
    const { gateway, agents, client } = await cluster(['a']);
    await client.deploy(request());
    await agents[0]?.kill();
    await until('it waits', () => gateway.status().deployments[0]?.state === 'waiting');
    const error = await client.infer('m', frame(1), { deadlineMs: 200 }).catch((e: unknown) => e);
    expect(isChairError(error, 'FRAME_DEADLINE') && error.message).toContain('no ready agent');
    const waiting = client.infer('m', frame(2));
    await startAgent(gateway, 'b');
    expect(values((await waiting).outputs.out)).toEqual(answer(2));
  });

  it('plans again without an agent that cannot prepare, and says so', async () => {
    const gateway = await startGateway();
    await startAgent(gateway, 'a', { hello: { probeMacsPerSecond: 5e12 }, prepareFails: 'AGENT_STORE_FULL' });
    await startAgent(gateway, 'b');
    await until('both ready', () => gateway.status().agents.filter((agent) => agent.state === 'ready').length === 2);
    const client = await connect(gateway);
    const report = await client.deploy(request({ planner: 'single' }));
    expect(report.seats.map((seat) => seat.agent)).toEqual(['b']);
    expect(report.why).toContain('left out a: AGENT_STORE_FULL');
  });

  it('fails a deployment that nobody can prepare, with the code and words of the agent', async () => {
    const { gateway, client } = await cluster(['a', 'b'], { prepareFails: 'AGENT_OUT_OF_MEMORY' });
    for (const cut of ['rows:2', '']) {
      const error = await client.deploy(request({ cut })).catch((e: unknown) => e);
      expect(isChairError(error, 'PREPARE_FAILED') && error.message).toContain('AGENT_OUT_OF_MEMORY: scripted to fail');
    }
    expect(gateway.status().deployments).toEqual([]);
  });

  it('refuses a second agent of one name and leaves the first at work', async () => {
    const { gateway, client } = await cluster(['a']);
    await client.deploy(request());
    const second = await startAgent(gateway, 'a');
    await until('the second was refused', () => second.refused === 'AGENT_NAME_TAKEN');
    expect(values((await client.infer('m', frame(1))).outputs.out)).toEqual(answer(1));
  });

  it('answers frames under way with DEPLOYMENT_REMOVED when the deployment is removed', async () => {
    const { gateway, client } = await cluster(['a'], { runMs: 3000 });
    await client.deploy(request());
    const frames = [1, 2, 3, 4, 5, 6].map((seed) => codeOf(client.infer('m', frame(seed))));
    await until(
      'all are under way',
      () => (gateway.status().deployments[0]?.inFlight ?? 0) + (gateway.status().deployments[0]?.queued ?? 0) === 6,
    );
    await client.undeploy('m');
    expect(new Set(await Promise.all(frames))).toEqual(new Set(['DEPLOYMENT_REMOVED']));
  });

  it('does not give a client the answers that were meant for an earlier process of its name', async () => {
    const { gateway, client } = await cluster(['a'], { runMs: 50 });
    await client.deploy(request());
    const first = await connect(gateway, { name: 'worker' });
    const unanswered = [1, 2, 3].map((seed) => codeOf(first.infer('m', frame(seed))));
    await until(
      'all are under way',
      () => (gateway.status().deployments[0]?.inFlight ?? 0) + (gateway.status().deployments[0]?.queued ?? 0) === 3,
    );
    await first.close();
    expect(await Promise.all(unanswered)).toEqual(['STOPPED', 'STOPPED', 'STOPPED']);
    await until('they are computed', () => gateway.status().deployments[0]?.completed === 3);
    const second = await connect(gateway, { name: 'worker' });
    for (const seed of [7, 8, 9]) expect(values((await second.infer('m', frame(seed))).outputs.out)).toEqual(answer(seed));
  });

  it('numbers frames on when a deployment comes back under its name', async () => {
    const { client } = await cluster(['a']);
    for (const seed of [1, 2]) {
      await client.deploy(request());
      expect(values((await client.infer('m', frame(seed))).outputs.out)).toEqual(answer(seed));
      await client.undeploy('m');
    }
  });

  it('fails a frame after three attempts with the words of the last trouble', async () => {
    const { client } = await cluster(['a'], {
      onRun: () => {
        throw new ChairError('ENGINE_RUN_FAILED', 'the engine is broken');
      },
    });
    await client.deploy(request());
    const error = await client.infer('m', frame(1)).catch((e: unknown) => e);
    expect(isChairError(error, 'FRAME_FAILED') && error.message).toContain('the engine is broken');
  });

  it('answers what cannot be with a code', async () => {
    const { client } = await cluster(['a']);
    expect(await codeOf(client.infer('nope', frame(1)))).toBe('DEPLOYMENT_UNKNOWN');
    expect(await codeOf(client.undeploy('nope'))).toBe('DEPLOYMENT_UNKNOWN');
    expect(await codeOf(client.deploy(request({ model: 'nope.onnx' })))).toBe('MODEL_NOT_FOUND');
    expect(await codeOf(client.deploy(request({ cut: 'rows:2' })))).toBe('PLAN_NOT_POSSIBLE');
    expect(await codeOf(client.deploy(request({ cut: 'rows' })))).toBe('CUT_INVALID');
    expect(await codeOf(client.deploy(request({ agents: ['x'] })))).toBe('AGENT_UNKNOWN');
    expect(await codeOf(client.deploy(request({ objective: 'cheap' })))).toBe('PLAN_INVALID');
    expect(await codeOf(client.deploy(request({ name: 'a/b' })))).toBe('AGENT_NAME_INVALID');
    await client.deploy(request());
    expect(await codeOf(client.deploy(request()))).toBe('DEPLOYMENT_EXISTS');
    const wrong = { in: { dtype: 'float32' as const, dims: [2, 2], bytes: new Uint8Array(16) } };
    const error = await client.infer('m', wrong).catch((e: unknown) => e);
    expect(isChairError(error, 'FRAME_INVALID') && error.message).toContain('in: float32[12,256]');
  });

  it('shows a plan without deploying it', async () => {
    const { gateway, client } = await cluster(['a', 'b']);
    const report = await client.plan(request({ cut: 'rows:2' }));
    expect(report).toMatchObject({ planner: 'rows:2', deployment: 'm' });
    expect(report.memory).toHaveLength(2);
    expect(gateway.status().deployments).toEqual([]);
  });

  it('does not deploy what does not verify', async () => {
    const verify = async (): Promise<number> => {
      throw new ChairError('VERIFY_FAILED', 'off by one');
    };
    const { gateway, client } = await cluster(['a'], {}, scriptedSource(3, { verify }));
    expect(await codeOf(client.deploy(request({ verify: true })))).toBe('VERIFY_FAILED');
    expect(gateway.status().deployments).toEqual([]);
  });

  it('says that no agent is there, and that no scheduler answers', async () => {
    const gateway = await startGateway();
    const client = await connect(gateway);
    expect(await codeOf(client.deploy(request()))).toBe('NO_AGENTS');
    const stranger = await ChairClient.connect({ brokerUrl: gateway.brokerUrl, cluster: 'other', requestTimeoutMs: 100 });
    made.also(() => stranger.close());
    expect(await codeOf(stranger.status())).toBe('REQUEST_TIMEOUT');
  });

  it('waits a little for agents that have just come, and plans with all of them', async () => {
    const lines: string[] = [];
    const gateway = await startGateway({ log: (line) => lines.push(line) });
    const client = await connect(gateway);
    await startAgent(gateway, 'a');
    let release = (): void => undefined;
    await startAgent(gateway, 'b', {
      healthy: new Promise<void>((resolve) => {
        release = resolve;
      }),
    });
    await until('both have come', () => gateway.status().agents.length === 2);
    const deployed = client.deploy(request({ cut: 'rows:2' }));
    const waits = /m: agents that have just come are waited for, 5 s at most: (a, )?b$/m;
    await until('it is said', () => waits.test(lines.join('\n')));
    expect(gateway.status().deployments[0]?.why).toContain('waited for');
    release();
    expect((await deployed).seats.map(({ agent }) => agent).sort()).toEqual(['a', 'b']);
  });

  it('says which broker cannot be reached', async () => {
    const nowhere = 'mqtt://127.0.0.1:1';
    expect(await codeOf(startGateway({ broker: { url: nowhere } }))).toBe('BROKER_UNREACHABLE');
    expect(await codeOf(ChairClient.connect({ brokerUrl: nowhere, cluster: 'test' }))).toBe('BROKER_UNREACHABLE');
  });

  it('keeps models and plans to its owner, also those of a folder that everybody could read', async () => {
    const outer = await made.folder();
    const stateDirectory = join(outer, 'state');
    const modes = async (): Promise<string[]> => {
      const of = async (name: string): Promise<string> => ((await stat(join(stateDirectory, name))).mode & 0o777).toString(8);
      return Promise.all(['', 'gateway-cache', 'uploads', 'deployments'].map(of));
    };
    const first = await startGateway({ stateDirectory });
    expect(await modes()).toEqual(['700', '700', '700', '700']);
    await first.stop();
    for (const name of ['', 'gateway-cache', 'uploads']) await chmod(join(stateDirectory, name), 0o755);
    await startGateway({ stateDirectory });
    // Who may look into the folder itself is for whoever made it so.
    expect(await modes()).toEqual(['755', '700', '700', '700']);
  });

  it('does not share its state folder, and leaves alone what the first one keeps there', async () => {
    const stateDirectory = await made.folder();
    const first = await startGateway({ stateDirectory });
    const slices = join(stateDirectory, 'gateway-cache', 'slices', 'kept');
    await writeFile(slices, '');
    const second = new Gateway({ cluster: 'other', stateDirectory, broker: { host: '127.0.0.1', port: 0 }, source: scriptedSource() });
    await expect(second.start()).rejects.toMatchObject({ code: 'CLUSTER_TAKEN', message: expect.stringContaining(`${process.pid}`) });
    await access(slices);
    await first.stop();
    await startGateway({ stateDirectory });
  });

  it('removes the files of what is deployed no more, and of nothing else', async () => {
    const stateDirectory = await made.folder();
    const source = scriptedSource();
    const slices = join(stateDirectory, 'gateway-cache', 'slices');
    // The scripted model has no files: they are put where the real one writes them.
    const load: typeof source.load = async (request) => {
      const model = await source.load(request);
      return {
        ...model,
        write: async (draft) => {
          const cut = await model.write(draft);
          for (const slice of cut.slices.flat()) await writeFile(join(slices, slice.graph.sha256), '');
          await writeFile(join(slices, 'unused'), '');
          return cut;
        },
      };
    };
    const gateway = await startGateway({ stateDirectory, source: { ...source, load } });
    await Promise.all(['a', 'b'].map((name) => startAgent(gateway, name)));
    await untilReady(gateway, 2);
    const client = await connect(gateway);
    const files = async () => (await readdir(slices)).length;
    await client.deploy(request({ cut: 'stages:2' }));
    await client.deploy(request({ name: 'n', cut: 'rows:2' }));
    expect(await files()).toBe(4);
    await client.undeploy('m');
    await until('only one is left', async () => (await files()) === 1);
    expect(values((await client.infer('n', frame(1))).outputs.out)).toEqual(answer(1));
    await client.undeploy('n');
    await until('nothing is left', async () => (await files()) === 0);
    await client.deploy(request({ cut: 'stages:2' }));
    expect(values((await client.infer('m', frame(2))).outputs.out)).toEqual(answer(2));
  });

  it('is refused where another scheduler serves the cluster, and may serve another one', async () => {
    const broker = await startBroker({ host: '127.0.0.1', port: 0 });
    made.also(() => broker.stop());
    const first = await startGateway({ broker: { url: broker.url }, rivalMs: 400 });
    expect(await codeOf(startGateway({ broker: { url: broker.url }, rivalMs: 400 }))).toBe('CLUSTER_TAKEN');
    await startGateway({ broker: { url: broker.url }, rivalMs: 400, cluster: 'other' });
    expect(first.status().term).toBe(1);
    await first.stop();
    expect(await first.closed).toBeUndefined();
    await startGateway({ broker: { url: broker.url }, rivalMs: 400 });
  });

  it('steps down when another scheduler reigns in a later term, but not for a message that says so', async () => {
    const broker = await startBroker({ host: '127.0.0.1', port: 0 });
    made.also(() => broker.stop());
    const first = await startGateway({ broker: { url: broker.url }, rivalMs: 400 });
    const bus = await connectBus({ url: broker.url, id: 'rival' });
    made.also(() => bus.stop());
    const topics = topicsOf('test');
    await bus.publish(topics.reign, { term: 7, scheduler: 'other', ...OUR_SCHEMAS });
    await new Promise((resolve) => setTimeout(resolve, 600));
    expect(first.status().term).toBe(1);
    const status = { ...first.status(), term: 7 };
    await bus.subscribe(topics.request, ({ id, client }) => {
      void bus.publish(topics.response(client), {
        id,
        code: '',
        message: '',
        status,
        plan: null,
        model: null,
        profile: null,
        peers: null,
        trust: null,
        trace: null,
      });
    });
    await bus.publish(topics.reign, { term: 7, scheduler: 'other', ...OUR_SCHEMAS });
    expect(await first.closed).toMatchObject({ code: 'CLUSTER_TAKEN' });
  });

  it('reigns in a later term after each start', async () => {
    const stateDirectory = await made.folder();
    const first = await startGateway({ stateDirectory });
    const { term } = first.status();
    await first.stop();
    const second = await startGateway({ stateDirectory });
    expect(second.status().term).toBe(term + 1);
    await startAgent(second, 'a', { hello: { term: 40 } });
    await until('the term is raised', () => second.status().term === 41);
    // A term that is no count of starts would leave no room for ours: agents would refuse each that comes after it, for ever.
    for (const [i, wrong] of [2 ** 51, 2 ** 40, 2 ** 40 - 1, 1_000_042].entries()) {
      await startAgent(second, `b${i}`, { hello: { term: wrong } });
      const said = new RegExp(`agent b${i} .* term`);
      await until('it is said', () => second.status().events.some(({ kind, text }) => kind === 'refuse' && said.test(text)));
    }
    expect(second.status().term).toBe(41);
  });

  it('goes on when the broker dies and comes back: frames under way travel directly, requests work again', async () => {
    const first = await startBroker({ host: '127.0.0.1', port: 0 });
    const gateway = await startGateway({ broker: { url: first.url }, rivalMs: 100 });
    const agent = await startAgent(gateway, 'a', { runMs: 10 });
    await untilReady(gateway, 1);
    const client = await connect(gateway, { requestTimeoutMs: 500 });
    await client.deploy(request());
    const warm = await client.infer('m', frame(0));
    expect(values(warm.outputs.out)).toEqual(answer(0));
    const frames = Array.from({ length: 30 }, (_, i) => client.infer('m', frame(i)));
    await first.stop();
    for (const [i, result] of (await Promise.all(frames)).entries()) expect(values(result.outputs.out)).toEqual(answer(i));
    const again = await startBroker({ host: '127.0.0.1', port: first.port });
    made.also(() => again.stop());
    await until('requests work', async () => (await codeOf(client.status())) === 'no error', 15_000);
    expect(gateway.status()).toMatchObject({ agents: [{ state: 'ready' }], deployments: [{ state: 'serving', completed: 31, failed: 0 }] });
    expect(agent.epochs.size).toBe(1);
  });

  it('ends a deploy request whose gateway was started anew meanwhile', async () => {
    const broker = await startBroker({ host: '127.0.0.1', port: 0 });
    made.also(() => broker.stop());
    const source = scriptedSource(3, { verify: () => new Promise(() => undefined) });
    const first = await startGateway({ broker: { url: broker.url }, rivalMs: 100, source });
    await startAgent(first, 'a');
    await untilReady(first, 1);
    const client = await connect(first, { requestTimeoutMs: 2_000 });
    const deployed = codeOf(client.deploy(request({ verify: true })));
    await until('planning', () => first.status().deployments[0]?.state === 'planning');
    await first.stop();
    await startGateway({ broker: { url: broker.url }, rivalMs: 100 });
    expect(await deployed).toBe('STOPPED');
  });

  it('answers frames of a gateway that was started anew', async () => {
    const broker = await startBroker({ host: '127.0.0.1', port: 0 });
    made.also(() => broker.stop());
    const first = await startGateway({ broker: { url: broker.url }, rivalMs: 100 });
    await startAgent(first, 'a', { runMs: 2000 });
    await untilReady(first, 1);
    const client = await connect(first);
    await client.deploy(request());
    const slow = codeOf(client.infer('m', frame(1)));
    await new Promise((resolve) => setTimeout(resolve, 200));
    await first.stop();
    await startGateway({ broker: { url: broker.url }, rivalMs: 100 });
    expect(['DEPLOYMENT_REMOVED', 'DEPLOYMENT_UNKNOWN']).toContain(await slow);
    expect(await codeOf(client.infer('m', frame(2)))).toBe('DEPLOYMENT_UNKNOWN');
  });

  it('leaves nothing behind when it stops, twice, or when the port is taken', async () => {
    const held = () => process.getActiveResourcesInfo().filter((kind) => /^TCP|Timeout|Worker|MessagePort/.test(kind)).length;
    const before = held();
    const { gateway, client, agents } = await cluster(['a']);
    await client.deploy(request());
    await client.infer('m', frame(1));
    const port = Number(new URL(gateway.brokerUrl).port);
    expect(await codeOf(startGateway({ broker: { host: '127.0.0.1', port } }))).toBe('PORT_IN_USE');
    await client.close();
    await agents[0]?.stop();
    await gateway.stop();
    await gateway.stop();
    await until('sockets and timers are gone', () => held() <= before);
  });
});

describe('a plan file', () => {
  const file = (agents: string): string =>
    `version: 1\nmodel: "${'f'.repeat(64)}"\ninFlight: 3\nstages:\n  - {blocks: [0, 3], cut: rows, agents: [${agents}]}\n`;
  const planOf = (gateway: Gateway) => gateway.status().deployments[0]?.plan;
  const holders = (gateway: Gateway) => planOf(gateway)?.seats.map(({ agent }) => agent);

  it('is what the agents get, and comes back as it was', async () => {
    const { gateway, client } = await cluster(['a', 'b', 'c']);
    const report = await client.deploy(request({ plan: file('c, a') }));
    expect(report.seats.map(({ agent, part }) => `${agent} ${part}`)).toEqual(['c 0', 'a 1']);
    expect(report.details).toMatchObject({ inFlight: 3, maxRelDiff: -1 });
    expect(values((await client.infer('m', frame(1))).outputs.out)).toEqual(answer(1));
    await client.undeploy('m');
    const again = await client.deploy(request({ plan: report.details?.file ?? '' }));
    expect(again.seats).toEqual(report.seats);
    expect(gateway.status().deployments[0]?.inFlight).toBe(0);
  });

  it('is left when an agent of it is lost, and taken up again when that is back', async () => {
    const { gateway, agents, client } = await cluster(['a', 'b', 'c']);
    await client.deploy(request({ plan: file('c, a') }));
    await agents[2]?.kill();
    await until(
      'a plan without c',
      () => holders(gateway)?.includes('c') === false && gateway.status().deployments[0]?.state === 'serving',
    );
    expect(planOf(gateway)?.planner).not.toBe('file');
    expect(values((await client.infer('m', frame(2))).outputs.out)).toEqual(answer(2));
    await startAgent(gateway, 'c');
    await until('the plan of the file again', () => planOf(gateway)?.planner === 'file');
    expect(holders(gateway)).toEqual(['c', 'a']);
    expect(values((await client.infer('m', frame(3))).outputs.out)).toEqual(answer(3));
  });

  it('that is wrong is refused, and what was served is served on', async () => {
    const { gateway, client } = await cluster(['a', 'b']);
    await client.deploy(request({ cut: 'rows:2' }));
    const wrong = (plan: string): Promise<string> => codeOf(client.deploy(request({ name: 'wrong', plan })));
    expect(await wrong(file('a, z'))).toBe('AGENT_UNKNOWN');
    expect(await wrong(file('a, a'))).toBe('PLAN_INVALID');
    expect(await wrong(file('a, b').replace('[0, 3]', '[0, 2]'))).toBe('PLAN_INVALID');
    expect(await wrong(file('a, b').replace('version: 1', 'version: 3'))).toBe('PLAN_FILE_UNREADABLE');
    expect(await wrong(file('a, b').replace(/"f+"/, `"${'e'.repeat(64)}"`))).toBe('PLAN_MODEL_MISMATCH');
    expect(await wrong('x'.repeat(900_000))).toBe('PLAN_FILE_UNREADABLE');
    expect(await wrong('x'.repeat(2 << 20))).toBe('CODEC_LIMIT');
    expect(gateway.status().deployments.map(({ name, state }) => `${name} ${state}`)).toEqual(['m serving']);
    expect(values((await client.infer('m', frame(4))).outputs.out)).toEqual(answer(4));
  });

  it('that an agent cannot prepare fails the deployment: another division is not ours to choose', async () => {
    const { gateway, client } = await cluster(['a', 'b']);
    await startAgent(gateway, 'full', { prepareFails: 'AGENT_STORE_FULL' });
    await until('full is ready', () => gateway.status().agents.filter((agent) => agent.state === 'ready').length === 3);
    expect(await codeOf(client.deploy(request({ plan: file('a, full') })))).toBe('PREPARE_FAILED');
    expect(gateway.status().deployments).toEqual([]);
  });
});

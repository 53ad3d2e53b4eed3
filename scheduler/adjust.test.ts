import { describe, expect, it } from 'vitest';
import { isChairError } from '../broker/errors.js';
import { allocTensor, type Tensor } from '../broker/tensor.js';
import type { ChairClient } from './client.js';
import { ROWS, type ScriptedOptions, scriptedAnswer, scriptedSource } from './scripted-agent.js';
import { TestCluster, until, untilReady } from './test-cluster.js';

const made = TestCluster.forEachTest();

/** Agents that take 300 ms for the whole model, as their probes say: for latency it is cut, for throughput each has it whole. */
async function cluster(
  names: readonly string[],
  options: Partial<ScriptedOptions> = {},
  { holdPlans = true, source = scriptedSource() } = {},
) {
  const gateway = await made.gateway({ holdPlans, source });
  const usual = { runMs: 5, hello: { probeMacsPerSecond: 1e10 } };
  const agents = await Promise.all(names.map((name) => made.agent(gateway.brokerUrl, name, { ...usual, ...options })));
  await untilReady(gateway, names.length);
  const client = await made.client(gateway.brokerUrl);
  return { gateway, agents, client };
}

function frame(seed: number): { in: Tensor } {
  const tensor = allocTensor('float32', [ROWS, 256]);
  new Float32Array(tensor.bytes.buffer, tensor.bytes.byteOffset, ROWS * 256).fill(seed);
  return { in: tensor };
}

/** Sends frames without a pause; `stop` gives how many were answered, after it looked at each of them. */
function load(client: ChairClient, window = 4): { stop: () => Promise<number> } {
  let sent = 0;
  let stopped = false;
  const lane = async (): Promise<void> => {
    while (!stopped) {
      const input = frame(++sent);
      const { outputs } = await client.infer('m', input);
      const out = outputs.out as Tensor;
      // As bytes: a matcher that goes from value to value took a third of the time of this file.
      expect(Buffer.compare(out.bytes, new Uint8Array(scriptedAnswer(input.in).buffer))).toBe(0);
    }
  };
  const lanes = Promise.all(Array.from({ length: window }, lane));
  return {
    stop: async () => {
      stopped = true;
      await lanes;
      return sent;
    },
  };
}

const adjust = { name: 'm', objective: '', weight: 0, dryRun: false };
const cutsOf = (report: { readonly seats: readonly { readonly cut: string }[] }): string[] => [
  ...new Set(report.seats.map(({ cut }) => cut)),
];

describe('a deployment whose objective changes', () => {
  it('moves to the plan for it while frames run: none is lost, none is sent twice, and the old seats are given back', async () => {
    const { gateway, agents, client } = await cluster(['a', 'b', 'c']);
    const first = await client.deploy({ name: 'm', model: 'scripted', objective: 'latency' });
    expect(cutsOf(first)).toEqual(['rows']);
    const frames = load(client);
    await until('frames run', () => (gateway.status().deployments[0]?.completed ?? 0) > 10);
    const second = await client.adjust({ ...adjust, objective: 'throughput' });
    expect(cutsOf(second)).toEqual(['whole']);
    const before = gateway.status().deployments[0]?.completed ?? 0;
    await until('frames run on', () => (gateway.status().deployments[0]?.completed ?? 0) > before + 10);
    const sent = await frames.stop();
    const [deployment] = gateway.status().deployments;
    expect(deployment).toMatchObject({ completed: sent, failed: 0, reissued: 0, objective: 'throughput', epoch: second.epoch });
    await until('the old epoch is gone', () => agents.every(({ epochs }) => epochs.size === 1));
  });

  it('follows one of several who ask at once; the others are told so, and nobody waits for ever', async () => {
    const { gateway, client } = await cluster(['a', 'b']);
    await client.deploy({ name: 'm', model: 'scripted', objective: 'latency' });
    const asked = [1, 2, 3].map((weight) => client.adjust({ ...adjust, objective: 'throughput', weight }));
    const outcomes = (await Promise.allSettled(asked)).map((one) =>
      one.status === 'fulfilled' ? '' : (one.reason as { code: string }).code,
    );
    expect(outcomes.toSorted()).toEqual(['', 'DEPLOYMENT_NOT_READY', 'DEPLOYMENT_NOT_READY']);
    expect(gateway.status().deployments[0]).toMatchObject({ weight: outcomes.indexOf('') + 1, objective: 'throughput', state: 'serving' });
  });

  it('may be removed while it moves: who asked is told', async () => {
    const { client } = await cluster(['a', 'b']);
    for (const waitMs of [0, 2, 5, 10, 20, 40]) {
      await client.deploy({ name: 'm', model: 'scripted', objective: 'latency' });
      const asked = client.adjust({ ...adjust, objective: 'throughput' }).then(
        () => '',
        ({ code }: { code: string }) => code,
      );
      await new Promise((resolve) => setTimeout(resolve, waitMs));
      await client.undeploy('m');
      expect(['', 'DEPLOYMENT_REMOVED', 'DEPLOYMENT_UNKNOWN']).toContain(await asked);
    }
  });

  it('stays where it is when its plan is the best one, and is told so', async () => {
    const { gateway, client } = await cluster(['a', 'b']);
    await client.deploy({ name: 'm', model: 'scripted', objective: 'throughput' });
    const shown = await client.adjust({ ...adjust, dryRun: true });
    expect(shown.why.split('\n').at(-1)).toBe('It is the plan in force.');
    await client.adjust({ ...adjust, weight: 3 });
    expect(gateway.status().deployments[0]).toMatchObject({ epoch: 1, weight: 3, state: 'serving' });
  });

  it('is told what moving takes before it moves', async () => {
    const { gateway, client } = await cluster(['a', 'b']);
    await client.deploy({ name: 'm', model: 'scripted', objective: 'throughput' });
    const shown = await client.adjust({ ...adjust, objective: 'latency', dryRun: true });
    expect(shown.why.split('\n').at(-1)).toMatch(
      /^Moving to it: at most 6\.0 MB to fetch, about 0\.\d s to prepare beside the frames; no pause\.$/,
    );
    expect(gateway.status().deployments[0]).toMatchObject({ epoch: 1, objective: 'throughput' });
  });

  it('is refused what cannot be, with a code, and serves on', async () => {
    const { gateway, client } = await cluster(['a', 'b']);
    await client.deploy({ name: 'm', model: 'scripted', cut: 'rows:2' });
    const code = async (over: Partial<typeof adjust>): Promise<string> => {
      const error = await client.adjust({ ...adjust, ...over }).catch((thrown: unknown) => thrown);
      return isChairError(error) ? error.code : 'none';
    };
    expect(await code({ name: 'other' })).toBe('DEPLOYMENT_UNKNOWN');
    expect(await code({ objective: 'speed' })).toBe('PLAN_INVALID');
    expect(await code({ weight: -1 })).toBe('PLAN_INVALID');
    expect(await code({ objective: 'throughput' })).toBe('PLAN_INVALID');
    expect(gateway.status().deployments[0]).toMatchObject({ epoch: 1, state: 'serving' });
  });
});

describe('old and new seats that do not fit together', () => {
  it('are handed over one by one, the pause is said first, and no frame is lost', async () => {
    const { gateway, agents, client } = await cluster(['a', 'b', 'c'], { mostEpochs: 1 });
    await client.deploy({ name: 'm', model: 'scripted', objective: 'throughput' });
    const frames = load(client);
    await until('frames run', () => (gateway.status().deployments[0]?.completed ?? 0) > 10);
    const second = await client.adjust({ ...adjust, objective: 'latency' });
    expect(cutsOf(second)).toEqual(['rows']);
    const sent = await frames.stop();
    expect(gateway.status().deployments[0]).toMatchObject({ completed: sent, failed: 0, reissued: 0, state: 'serving' });
    for (const agent of agents) expect([...agent.epochs.keys()]).toEqual([`m ${second.epoch}`]);
    // What the new seats need was asked to be on every disk beforehand.
    const slices = new Set(second.seats.map(({ slice }) => slice));
    for (const agent of agents) {
      expect(agent.standby.get('m/next')?.length).toBeGreaterThan(0);
      expect(agent.standby.get('m/next')?.every((graph) => slices.has(graph))).toBe(true);
      const order = agent.commands.filter((kind) => kind === 'standby' || kind === 'release' || kind === 'commit');
      expect(order.lastIndexOf('commit')).toBeGreaterThan(order.indexOf('release'));
      expect(order.indexOf('standby')).toBeLessThan(order.indexOf('release'));
    }
    const said = gateway.status().events.filter(({ kind }) => kind === 'handing over');
    expect(said.at(-1)?.text).toMatch(
      // In the order in which they said so.
      /([abc](, )?){3} cannot hold old and new seats together; one by one: [abc], then [abc], then [abc]; frames will wait for about 0\.\d s/,
    );
  });

  it('follow after the switch where the new plan can do without them at first', async () => {
    const { gateway, agents, client } = await cluster(['a', 'b', 'c'], { mostEpochs: 1 });
    await client.deploy({ name: 'm', model: 'scripted', objective: 'latency', agents: ['a', 'b', 'c'] });
    const frames = load(client);
    await until('frames run', () => (gateway.status().deployments[0]?.completed ?? 0) > 10);
    await client.adjust({ ...adjust, objective: 'throughput' });
    await until('all hold the new seats', () => agents.every(({ epochs }) => [...epochs.keys()].join() === 'm 2'));
    // Each of them gets frames.
    const runs = agents.map((agent) => agent.runs);
    await until('all run', () => agents.every((agent, i) => agent.runs > (runs[i] ?? 0) + 3));
    const sent = await frames.stop();
    expect(gateway.status().deployments[0]).toMatchObject({ completed: sent, failed: 0, reissued: 0, state: 'serving' });
  });

  it('are planned for anew when an agent is lost half-way, and no frame is lost', async () => {
    const { gateway, agents, client } = await cluster(['a', 'b', 'c'], { mostEpochs: 1 });
    await client.deploy({ name: 'm', model: 'scripted', objective: 'throughput' });
    const frames = load(client);
    await until('frames run', () => (gateway.status().deployments[0]?.completed ?? 0) > 10);
    const moving = client.adjust({ ...adjust, objective: 'latency' });
    await until('a is handed over', () => gateway.status().events.some(({ kind }) => kind === 'handing over'));
    await agents[1]?.kill();
    await moving;
    await until('two agents serve', () => [agents[0], agents[2]].every((agent) => agent?.epochs.size === 1));
    const before = gateway.status().deployments[0]?.completed ?? 0;
    await until('frames run on', () => (gateway.status().deployments[0]?.completed ?? 0) > before + 10);
    // A repair may serve first, and a plan of what is left follow it.
    await until('it is settled', () => gateway.status().deployments[0]?.state === 'serving');
    const sent = await frames.stop();
    expect(gateway.status().deployments[0]).toMatchObject({ completed: sent, failed: 0 });
  });
});

describe('a deployment that has no plan on what another one leaves', () => {
  it('is given room: the other serves on with fewer agents, and loses no frame', async () => {
    // Memory for the engine and one of both models.
    const hello = { probeMacsPerSecond: 1e10, memoryBytes: 112 * 2 ** 20 + 1e9 };
    const { gateway, client } = await cluster(
      ['a', 'b', 'c'],
      { hello },
      { holdPlans: false, source: scriptedSource(3, { weightBytes: 2e8 }) },
    );
    const agentsOf = (name: string): string[] => {
      const seats = gateway.status().deployments.find((each) => each.name === name)?.plan?.seats ?? [];
      return seats.map(({ agent }) => agent).sort();
    };
    await client.deploy({ name: 'm', model: 'scripted', objective: 'throughput', planner: 'replicas' });
    expect(agentsOf('m')).toEqual(['a', 'b', 'c']);
    const frames = load(client);
    await until('frames run, and the demand is known', () => {
      const { completed = 0, demandFps = 0 } = gateway.status().deployments[0] ?? {};
      return completed > 200 && demandFps > 0;
    });
    await client.deploy({ name: 'n', model: 'scripted', objective: 'throughput', planner: 'replicas' });
    const sent = await frames.stop();
    expect([...agentsOf('m'), ...agentsOf('n')].sort()).toEqual(['a', 'b', 'c']);
    expect(gateway.status().deployments.find(({ name }) => name === 'm')).toMatchObject({ completed: sent, failed: 0 });
  });
});

/** Loss of agents in a whole cluster of scripted agents: repaired at once by what stands by, planned anew afterwards. */
import { describe, expect, it } from 'vitest';
import type { Tensor } from '../broker/tensor.js';
import type { ChairClient, DeployOptions } from './client.js';
import { ROWS, type ScriptedAgent, type ScriptedOptions, scriptedAnswer, scriptedSource } from './scripted-agent.js';
import { TestCluster, until, untilReady } from './test-cluster.js';

const BLOCKS = 5;

const made = TestCluster.forEachTest();

async function cluster(names: string, options: Partial<ScriptedOptions> = {}) {
  const source = scriptedSource(BLOCKS, { macs: 3e10 });
  const gateway = await made.gateway({ measureLinks: false, holdPlans: true, source });
  const start = (name: string, more: Partial<ScriptedOptions> = {}): Promise<ScriptedAgent> =>
    made.agent(gateway.brokerUrl, name, { ...options, ...more });
  const agents = new Map<string, ScriptedAgent>();
  for (const name of names) agents.set(name, await start(name));
  const ready = () => gateway.status().agents.filter(({ state }) => state === 'ready').length;
  await untilReady(gateway, names.length);
  const client = await made.client(gateway.brokerUrl);
  const deployment = () => gateway.status().deployments[0];
  return {
    ...{ gateway, client, start, ready, deployment },
    deploy: (more: Partial<DeployOptions>) => client.deploy({ name: 'm', model: 'scripted', ...more }),
    kill: (name: string) => agents.get(name)?.kill(),
    standby: (name: string) => agents.get(name)?.standby.get('m') ?? [],
    seats: () => deployment()?.plan?.seats.map(({ agent }) => agent) ?? [],
    events: (kind: string) => gateway.status().events.filter((event) => event.kind === kind),
    standsBy: () => until('somebody stands by', () => [...agents.values()].some((agent) => (agent.standby.get('m') ?? []).length > 0)),
  };
}

function frame(seed: number): Record<string, Tensor> {
  const values = Float32Array.from({ length: ROWS * 256 }, (_, i) => seed + i / 1000);
  return { in: { dtype: 'float32', dims: [ROWS, 256], bytes: new Uint8Array(values.buffer) } };
}
const values = (tensor: Tensor | undefined): Float32Array => {
  if (tensor === undefined) throw new Error('no output');
  return Float32Array.from(new Float32Array(tensor.bytes.buffer, tensor.bytes.byteOffset, tensor.bytes.length / 4));
};
const input = (seed: number): Tensor => frame(seed).in as Tensor;

/** Frames one after another on several strands until stopped; every result is compared, every error kept. */
function load(client: ChairClient, strands = 4, deadlineMs = 30_000) {
  const state = { on: true, done: 0, wrong: 0, codes: [] as string[] };
  const strand = async (k: number): Promise<void> => {
    for (let i = 0; state.on; i++) {
      try {
        const { outputs } = await client.infer('m', frame(k * 1000 + i), { deadlineMs });
        const expected = scriptedAnswer(input(k * 1000 + i), BLOCKS);
        if (values(outputs.out).some((value, at) => value !== expected[at])) state.wrong++;
        state.done++;
      } catch (error) {
        state.codes.push(String((error as { code?: string }).code));
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  };
  const all = Promise.all(Array.from({ length: strands }, (_, k) => strand(k)));
  // Also when a test fails: first of all the load ends.
  made.also(async () => {
    state.on = false;
  });
  return {
    state,
    more: (frames: number) => {
      const goal = state.done + frames;
      return until(`${frames} more results`, () => state.done >= goal);
    },
    stop: async () => {
      state.on = false;
      await all;
      return state;
    },
  };
}

describe('an agent that is lost', () => {
  it('is replaced at once by the spare that stands by; then a full plan is looked for, and no frame fails', async () => {
    const { deploy, standsBy, standby, seats, kill, client, events, deployment } = await cluster('abcd', { runMs: 3 });
    await deploy({ cut: 'stages:3', objective: 'throughput' });
    const spare = 'abcd'.split('').find((name) => !seats().includes(name)) ?? '';
    await standsBy();
    expect(standby(spare)).toHaveLength(3);
    // `status` says so before anybody is lost.
    await until('all repairs are at hand', () => (deployment()?.losses ?? []).every(({ outcome }) => outcome === 'repair'));
    expect(deployment()?.losses.map(({ agent, takers, missingBytes }) => [agent, takers, missingBytes])).toEqual(
      seats().map((agent) => [agent, [spare], 0]),
    );
    const frames = load(client);
    await frames.more(20);
    const [victim = ''] = seats().slice(1, 2);
    await kill(victim);
    await frames.more(40);
    const { codes, wrong } = await frames.stop();
    expect([codes, wrong]).toEqual([[], 0]);
    expect(events('repair')[0]?.text).toContain(`after the loss of ${victim}: ${spare} takes stage 2 part 1`);
    await until('it is judged', () => deployment()?.state === 'serving');
    expect(seats()).not.toContain(victim);
    expect(deployment()).toMatchObject({ failed: 0 });
  });

  it('is replaced by a neighbour where there is no spare, whichever it is', async () => {
    for (const victim of 'abc') {
      const { deploy, standsBy, kill, client, deployment, events } = await cluster('abc', { runMs: 2 });
      await deploy({ cut: 'stages:3' });
      await standsBy();
      const frames = load(client);
      await frames.more(10);
      await kill(victim);
      await frames.more(20);
      const { codes, wrong } = await frames.stop();
      expect([codes, wrong, deployment()?.failed]).toEqual([[], 0, 0]);
      expect(events('repair')).toHaveLength(1);
    }
  }, 60_000);

  it('together with another, or one after the other while that is repaired, costs no frame', async () => {
    const { deploy, standsBy, kill, client, seats, deployment } = await cluster('abcde', { runMs: 2 });
    await deploy({ cut: 'stages:5' });
    await standsBy();
    const frames = load(client);
    await frames.more(10);
    await Promise.all([kill('a'), kill('c')]);
    await frames.more(10);
    await kill('b');
    await frames.more(20);
    const { codes, wrong } = await frames.stop();
    expect([codes, wrong, deployment()?.failed]).toEqual([[], 0, 0]);
    await until('a plan without them', () => deployment()?.state === 'serving' && seats().every((agent) => agent === 'd' || agent === 'e'));
  });

  it('as all others: frames wait or fail with a code, and service resumes by itself when they are back', async () => {
    const { deploy, kill, client, start, deployment } = await cluster('abc', { runMs: 2 });
    await deploy({ cut: 'stages:3' });
    const frames = load(client, 2, 3000);
    await frames.more(5);
    await Promise.all([kill('a'), kill('b')]);
    // The last one alone has the memory for all of it.
    await frames.more(5);
    await kill('c');
    await until('frames fail with a code', () => frames.state.codes.length > 0);
    expect(deployment()?.state).toBe('waiting');
    for (const name of 'abc') await start(name);
    await frames.more(10);
    const { codes, wrong } = await frames.stop();
    expect(wrong).toBe(0);
    expect(new Set(codes)).toEqual(new Set(['FRAME_DEADLINE']));
  });

  it('is repaired, too, where a plan failed before', async () => {
    const { deploy, kill, client, start, events, standsBy, deployment } = await cluster('abcd', { runMs: 2 });
    await deploy({ cut: 'stages:4' });
    await standsBy();
    await kill('b');
    await until('it is repaired', () => events('repair').length === 1 && deployment()?.state === 'serving');
    // Comes back without memory for anything: the plan with it fails, and a cut made by hand has no other.
    await start('b', { prepareFails: 'AGENT_STORE_FULL' });
    await until('the plan fails', () => events('failed').length > 0);
    await kill('a');
    await until('it is repaired again', () => events('repair').length === 2 && deployment()?.state === 'serving');
    const { codes, wrong } = await load(client).stop();
    expect([codes, wrong]).toEqual([[], 0]);
  });

  it('while a better plan is only prepared: that one is given up for a repair', async () => {
    const { deploy, kill, client, start, events, standsBy } = await cluster('abc', { runMs: 2 });
    await deploy({ cut: 'stages:3' });
    await standsBy();
    const frames = load(client);
    await frames.more(5);
    await kill('b');
    await frames.more(5);
    // Its return asks for the full cut again; another agent goes while that is under way.
    await start('b');
    await kill('a');
    await frames.more(10);
    const { codes, wrong } = await frames.stop();
    expect([codes, wrong]).toEqual([[], 0]);
    expect(events('repair').length).toBeGreaterThanOrEqual(1);
  });

  it('and its deployment, too: nothing stands by for what was removed', async () => {
    const { deploy, standsBy, client, standby } = await cluster('abcd');
    await deploy({ cut: 'stages:3' });
    await standsBy();
    await client.undeploy('m');
    await until('nobody stands by', () => [...'abcd'].every((name) => standby(name).length === 0));
  });
});

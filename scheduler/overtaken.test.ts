import { describe, expect, it } from 'vitest';
import type { ModelSource } from './model-source.js';
import { auto } from './planners/auto.js';
import { type ScriptedAgent, scriptedSource } from './scripted-agent.js';
import { TestCluster, until } from './test-cluster.js';

const made = TestCluster.forEachTest();

/** As `scriptedSource`, with a planner in a place of its own that answers when it is let. */
function slowPlanner(): { readonly source: ModelSource; readonly asked: string[][]; hold: () => () => void } {
  const source = scriptedSource();
  const asked: string[][] = [];
  let held: Promise<void> = Promise.resolve();
  const hold = (): (() => void) => {
    let release = (): void => undefined;
    held = new Promise((resolve) => {
      release = resolve;
    });
    return release;
  };
  const load: ModelSource['load'] = async (request) => {
    const model = await source.load(request);
    const elsewhere: typeof model.facts.elsewhere = async (_planner, question) => {
      asked.push(question.devices.map(({ agent }) => agent));
      await held;
      return auto({ ...question, facts: model.facts });
    };
    return { ...model, facts: { ...model.facts, elsewhere } };
  };
  return { source: { ...source, load }, asked, hold };
}

describe('a deployment for which there is no plan', () => {
  it('is planned again when an agent came while a planner was finding that out', async () => {
    const { source, asked, hold } = slowPlanner();
    const gateway = await made.gateway({ source, holdPlans: true });
    const start = async (name: string, memoryBytes = 1e9): Promise<ScriptedAgent> => {
      const agent = await made.agent(gateway.brokerUrl, name, { runMs: 5, hello: { memoryBytes } });
      await until(`${name} is ready`, () => gateway.status().agents.some(({ agent: known, state }) => known === name && state === 'ready'));
      return agent;
    };
    const first = await start('a');
    const client = await made.client(gateway.brokerUrl);
    await client.deploy({ name: 'm', model: 'scripted' });
    const state = () => gateway.status().deployments[0]?.state;
    await first.stop();
    await until('it waits for agents', () => state() === 'waiting');
    const release = hold();
    // The model does not fit into this one.
    await start('small', 64e6);
    await until('a planner looks at it', () => asked.at(-1)?.includes('small') === true);
    await start('b');
    expect(asked.at(-1)).toEqual(['small']);
    release();
    await until('it is served', () => state() === 'serving');
    expect(gateway.status().deployments[0]?.plan?.seats.map(({ agent }) => agent)).toEqual(['b']);
  });
});

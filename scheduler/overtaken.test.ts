import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { ChairClient } from './client.js';
import { Gateway } from './gateway.js';
import type { ModelSource } from './model-source.js';
import { auto } from './planners/auto.js';
import { ScriptedAgent, scriptedSource } from './scripted-agent.js';

const running: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const stop of running.splice(0).reverse()) await stop();
});

async function until(what: string, holds: () => boolean, timeoutMs = 20_000): Promise<void> {
  for (const end = performance.now() + timeoutMs; performance.now() < end; ) {
    if (holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`not within ${timeoutMs} ms: ${what}`);
}

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
    const stateDirectory = await mkdtemp(join(tmpdir(), 'chair-overtaken-'));
    const { source, asked, hold } = slowPlanner();
    const gateway = new Gateway({
      ...{ cluster: 'test', stateDirectory, source, holdPlans: true },
      ...{ broker: { host: '127.0.0.1', port: 0 }, laneHost: '127.0.0.1' },
    });
    running.push(async () => {
      await gateway.stop();
      await rm(stateDirectory, { recursive: true, force: true });
    });
    await gateway.start();
    const start = async (name: string, memoryBytes = 1e9): Promise<ScriptedAgent> => {
      const agent = await ScriptedAgent.start({ brokerUrl: gateway.brokerUrl, cluster: 'test', name, runMs: 5, hello: { memoryBytes } });
      running.push(() => agent.stop());
      await until(`${name} is ready`, () => gateway.status().agents.some(({ agent: known, state }) => known === name && state === 'ready'));
      return agent;
    };
    const first = await start('a');
    const client = await ChairClient.connect({ brokerUrl: gateway.brokerUrl, cluster: 'test' });
    running.push(() => client.close());
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

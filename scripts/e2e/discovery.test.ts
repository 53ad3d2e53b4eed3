/** No process is told an address: gateways, agents and commands find each other on a network by multicast DNS. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { StatusReport } from '../../broker/messages.js';
import { Child } from '../children.js';
import { CLI_PATH } from '../package-root.js';
import { startTestbed, whyPlainProcesses } from '../testbed/testbed.js';
import { compiled, compiledCli } from './compiled.js';
import { until } from './fixture.js';
import { runCli } from './run-cli.js';

const why = whyPlainProcesses();
const running: (() => unknown)[] = [];
afterEach(async () => {
  for (const stop of running.splice(0).reverse()) await stop();
}, 60_000);

describe('processes that know only the name of their cluster', () => {
  it('find the gateway, also when it comes back on another port, and say which clusters there are instead', {
    timeout: 120_000,
  }, async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'mc-discovery-'));
    running.push(() => rmSync(folder, { recursive: true, force: true }));
    // Other clusters may be announced on the machine that runs this.
    const cluster = `c-${randomBytes(4).toString('hex')}`;
    const start = (name: string, args: readonly string[]): Child => {
      const all = [...args, '--cluster', cluster, '--directory', path.join(folder, name)];
      const child = new Child(name, all, undefined, { command: compiled(CLI_PATH) });
      running.push(() => child.stop());
      return child;
    };
    const gateway = ['gateway', '--insecure', '--host', '127.0.0.1', '--port', '0'];
    const agent = start('agent', ['agent', '--insecure', '--name', 'a', '--lane-host', '127.0.0.1', '--threads', '1']);
    await agent.ready;
    const first = start('gateway', gateway);
    const { url } = await first.ready;

    const joined = async (): Promise<boolean> => {
      const { status, stdout } = await runCli(['status', '--insecure', '--cluster', cluster, '--json']);
      if (status !== 0) return false;
      const report: StatusReport = JSON.parse(stdout);
      return report.agents.some(({ agent: name, state }) => name === 'a' && state === 'ready');
    };
    await until('the agent joins', joined);
    const { stdout } = await runCli(['discover', '--json']);
    expect(JSON.parse(stdout).gateways).toContainEqual(expect.objectContaining({ cluster, url }));
    const other = await runCli(['status', '--insecure', '--cluster', `${cluster}-x`]);
    expect(other.status).not.toBe(0);
    expect(other.stderr).toMatch(new RegExp(`GATEWAY_NOT_FOUND: .*'${cluster}-x'.*gateways of .*'${cluster}' at ${url}`));

    await first.stop();
    const second = start('gateway', gateway);
    expect((await second.ready).url).not.toBe(url);
    await until('the agent joins again', joined);
  });
});

describe.skipIf(why !== '')(`a network of three machines${why === '' ? '' : ` (not here: ${why})`}`, () => {
  it('brings agents and gateway together without an address', { timeout: 120_000 }, async () => {
    const lines: string[] = [];
    const testbed = await startTestbed({
      agents: 2,
      cli: compiledCli(),
      cluster: 'lan',
      agentArguments: ['--broker', 'auto'],
      onLine: (child, line) => lines.push(`${child}: ${line}`),
    });
    running.push(() => testbed.stop());
    const client = await testbed.client();
    await client.untilReady(2);
    const found = lines.filter((line) => /found the gateway of cluster 'lan'/.test(line));
    expect(found.map((line) => line.split(' at ')[1])).toEqual([testbed.gateway.url, testbed.gateway.url]);
  });
});

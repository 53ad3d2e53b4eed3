/** `npm run testbed -- --agents 6 --cpu 0.18 --memory 1g --rate 100mbit`: starts a testbed, shows it, and removes it. See README.md here. */
import { spawn } from 'node:child_process';
import { parseArgs } from 'node:util';
import { ChairError } from '../../broker/errors.js';
import type { StatusReport } from '../../broker/messages.js';
import { untilStopped } from '../lifetime.js';
import { errorLine, exitStatus, wholeNumber } from '../output.js';
import { bytesText, countText, formatTable } from '../table.js';
import { DEFAULT_DEVICE, DEVICE_CLASSES, parseDevices, parseMemory, parseRate } from './devices.js';
import { sweepDeadRuns } from './run-directory.js';
import { startTestbed, type Testbed, type TestbedOptions } from './testbed.js';

const OPTIONS = {
  agents: { type: 'string', default: '4' },
  device: { type: 'string' },
  cpu: { type: 'string', default: String(DEFAULT_DEVICE.cpu) },
  memory: { type: 'string', default: '1g' },
  rate: { type: 'string', default: '1gbit' },
  threads: { type: 'string' },
  'gateway-rate': { type: 'string', default: '1gbit' },
  'gateway-cpu': { type: 'string' },
  plain: { type: 'boolean', default: false },
  stay: { type: 'boolean', default: false },
  json: { type: 'boolean', default: false },
  log: { type: 'boolean', default: false },
  clean: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
} as const;

const HELP = `npm run testbed -- [options] [-- command ...]

Starts a gateway and agents as small devices on this machine: a network namespace with a shaped link, a share of a core and a memory
limit each (Linux, root); elsewhere as plain processes. Shows them, and removes everything again.

  --agents COUNT         number of equal agents (${OPTIONS.agents.default})
  --device LIST          devices of named classes instead, as in pi3:2,pi4:3
  --cpu CORES            share of a core of an agent; of a class, times its factor (${OPTIONS.cpu.default})
  --memory SIZE          memory of an agent, as in 512m (${OPTIONS.memory.default})
  --rate RATE            link of an agent, each direction, as in 100mbit (${OPTIONS.rate.default})
  --threads COUNT        engine threads of an agent (its cores, rounded up)
  --gateway-rate RATE    link of the gateway (${OPTIONS['gateway-rate'].default})
  --gateway-cpu CORES    share of the gateway (no limit)
  --plain                plain processes even where limits could be set
  --stay                 stay until Ctrl-C
  -- COMMAND ...         run a command on the gateway's machine, then stop; the environment says which cluster is meant
  --log                  show what the processes write
  --json                 print one JSON object instead of text
  --clean                only remove what dead testbeds have left

Classes (share of --cpu, memory, link):
${Object.entries(DEVICE_CLASSES)
  .map(([name, c]) => `  ${name}  x${c.cpuFactor}  ${c.meaning}`)
  .join('\n')}
`;

function readOptions(argv: readonly string[]) {
  try {
    // What follows `--` is a command line of its own.
    const split = argv.indexOf('--');
    const own = split < 0 ? argv : argv.slice(0, split);
    const { values } = parseArgs({ args: [...own], options: OPTIONS, strict: true });
    return { values, command: split < 0 ? [] : argv.slice(split + 1) };
  } catch (error) {
    const message = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
    throw new ChairError('USAGE', message, { todo: 'See npm run testbed -- --help', cause: error });
  }
}

function cores(text: string, what: string): number {
  const value = Number(text);
  if (text.trim() !== '' && value > 0 && value <= 1024) return value;
  throw new ChairError('USAGE', `${what} is wrong`, { expected: 'cores above 0, as in 0.18', came: `"${text}"` });
}

type Values = ReturnType<typeof readOptions>['values'];

/** Throws USAGE, CONFIG_INVALID. */
function testbedOptions(v: Values): TestbedOptions {
  const cpu = cores(v.cpu, '--cpu');
  const spec = { cpu, memoryBytes: parseMemory(v.memory), rateBits: parseRate(v.rate) };
  const count = wholeNumber(v.agents, '--agents', 1, 99);
  return {
    agents: v.device === undefined ? Array.from({ length: count }, () => spec) : parseDevices(v.device, cpu),
    gatewayRateBits: parseRate(v['gateway-rate']),
    isolated: !v.plain,
    ...(v['gateway-cpu'] === undefined ? {} : { gatewayCpu: cores(v['gateway-cpu'], '--gateway-cpu') }),
    ...(v.threads === undefined ? {} : { threads: wholeNumber(v.threads, '--threads', 1, 256) }),
    ...(v.log ? { onLine: (child: string, line: string) => console.error(`${child}: ${line}`) } : {}),
  };
}

function show(testbed: Testbed, status: StatusReport): string {
  const { conditions, agents, gateway } = testbed;
  const plain = conditions.isolation === 'processes';
  const rows = agents.map((agent, i) => {
    const { cpu = 0, memoryBytes = 0, rateBits = 0 } = conditions.agents[i] ?? {};
    const macs = status.agents.find((a) => a.agent === agent.name)?.probeMacsPerSecond ?? 0;
    const limits = plain ? ['-', '-', '-'] : [String(Number(cpu.toFixed(3))), bytesText(memoryBytes), `${countText(rateBits)}bit/s`];
    return [agent.name, agent.address, String(agent.pid), ...limits, `${countText(macs)}MAC/s`];
  });
  const titles = ['agent', 'address', 'pid', 'cores', 'memory', 'link', 'probe'];
  const lines = [
    formatTable(
      titles.map((title, i) => ({ title, align: i > 1 ? ('right' as const) : ('left' as const) })),
      rows,
    ),
    '',
  ];
  if (plain)
    lines.push(`Plain processes without limits, links or addresses of their own (${conditions.why}): no figure measured here counts.`);
  if (conditions.oversubscribed) {
    lines.push(
      `Promised ${conditions.coresPromised.toFixed(2)} cores of ${conditions.coresOfMachine}: agents will be slower than they say.`,
    );
  }
  const inside = plain ? '' : `nsenter --net=/run/netns/${gateway.device.namespace} `;
  lines.push(
    'The gateway, and a command on its machine:',
    `  ${inside}npm run -s mc -- status --insecure --broker ${gateway.url} --cluster ${testbed.cluster}`,
  );
  return lines.join('\n');
}

/** Runs a command on the gateway's machine; resolves with its exit status. */
function runOnGateway({ gateway, cluster }: Testbed, command: readonly string[]): Promise<number> {
  const [program = '', ...args] = gateway.device.command(command);
  const env = { ...process.env, MUSICAL_CHAIR_BROKER: gateway.url, MUSICAL_CHAIR_CLUSTER: cluster, MUSICAL_CHAIR_INSECURE: 'true' };
  const child = spawn(program, args, { stdio: 'inherit', env });
  gateway.device.own(child);
  return new Promise((resolve, reject) => {
    child.once('error', (error) => reject(new ChairError('USAGE', `${command[0]} could not be started`, { came: error.message })));
    child.once('close', (code) => resolve(code ?? 1));
  });
}

async function main(argv: readonly string[]): Promise<number> {
  const { values, command } = readOptions(argv);
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  if (values.clean) {
    const swept = await sweepDeadRuns();
    console.log(swept.length === 0 ? 'Dead testbeds have left nothing.' : `Removed what ${swept.length} dead testbeds had left.`);
    return 0;
  }
  const options = testbedOptions(values);
  const stopped = untilStopped();
  console.error(`starting a gateway and ${typeof options.agents === 'number' ? options.agents : options.agents.length} agents ...`);
  const testbed = await startTestbed(options);
  try {
    const client = await testbed.client();
    const status = await client.untilReady(testbed.agents.length);
    await client.close();
    const facts = {
      conditions: testbed.conditions,
      gateway: testbed.gateway.url,
      agents: testbed.agents.map(({ name, address, pid }) => ({ name, address, pid })),
    };
    console.log(values.json ? JSON.stringify(facts, null, 2) : show(testbed, status));
    if (command.length > 0) return await Promise.race([runOnGateway(testbed, command), stopped.then(() => 130)]);
    if (values.stay) {
      console.error('Ctrl-C stops everything.');
      await stopped;
    }
    return 0;
  } finally {
    await testbed.stop();
  }
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  console.error(errorLine(error));
  process.exitCode = exitStatus(error);
}

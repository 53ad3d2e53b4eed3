/** `doctor`: what is wrong on this machine and in the cluster, and what to do about it. */
import { isChairError } from '../../broker/errors.js';
import type { StatusReport } from '../../broker/messages.js';
import type { CommandDefinition, Invocation } from '../command.js';
import { brokerPort, isSecure, type Settings } from '../config.js';
import { withClient } from '../connection.js';
import { judgeAgent, judgeGateway, judgeLanes } from '../doctor/cluster.js';
import { bad, type Finding, findingsText, note } from '../doctor/findings.js';
import { lookHere, type Role, rolesOf } from '../doctor/here.js';

/** Of larger clusters only links that plans need are measured: all pairs would take many minutes. */
const MOST_MEASURED = 12;

export const doctor: CommandDefinition = {
  name: 'doctor',
  summary: 'Look for what is wrong on this machine and in the cluster, and say what to do about it',
  description:
    "Engine, memory, disk, clock, ports, multicast DNS, certificates; then each agent, and the lane between each pair, measured. For a gateway's or an agent's machine, or both, as their state folders say. Exit status 1 when something is bad.",
  arguments: [{ syntax: '[role]', description: 'gateway or agent: what this machine is, when it was not started here yet' }],
  options: [{ flags: '--skip-lanes', description: 'do not measure lanes: a second or so for each pair, a few MB each' }],
  settings: ['cluster', 'broker', 'credentials', 'insecure', 'agent.name'],
  json: true,
  examples: [
    { line: 'doctor', text: 'on the gateway, or on a device' },
    { line: 'doctor agent --skip-lanes', text: 'before the first start of an agent' },
  ],
  run: async (invocation) => {
    const { output } = invocation;
    const findings = await examine(invocation);
    const isBad = findings.some(({ grade }) => grade === 'bad');
    output.report({ ok: !isBad, findings }, () => findingsText(findings, output.columns));
    if (isBad) process.exitCode = 1;
  },
};

async function examine(invocation: Invocation): Promise<Finding[]> {
  const { settings, output, arguments: said } = invocation;
  const roles = rolesOf(said[0], settings);
  const { findings } = await lookHere(settings, roles, (line) => output.progress(line));
  output.progress('asking the gateway');
  return [...findings, ...(await lookAtCluster(invocation, roles))];
}

/** On the gateway's own machine nothing has to be looked for. */
function withBroker(settings: Settings, roles: readonly Role[]): Settings {
  const { gateway, broker } = settings;
  const port = brokerPort(settings);
  if (broker !== 'auto' || !roles.includes('gateway') || port === 0) return settings;
  const host = gateway.host === '0.0.0.0' || gateway.host === '::' ? '127.0.0.1' : gateway.host;
  return { ...settings, broker: `${isSecure(settings) ? 'mqtts' : 'mqtt'}://${host}:${port}` };
}

async function lookAtCluster({ settings, options, output }: Invocation, roles: readonly Role[]): Promise<Finding[]> {
  const { thrownAt } = await import('../doctor/machine.js');
  try {
    return await withClient(withBroker(settings, roles), async (client) => {
      let report = await client.status();
      const own = roles.includes('agent') && !roles.includes('gateway') ? settings.agent.name : undefined;
      const names = namesOf(report, own);
      const measured = options.skipLanes !== true && names.length > 0;
      if (measured) {
        output.progress(`measuring lanes of ${names.length} agents`);
        const { links } = await client.links({ measure: true, evenIfBusy: false, agents: names.length > MOST_MEASURED ? [] : names });
        report = { ...(await client.status()), links };
      }
      return findingsOfCluster(report, names, measured && names.length <= MOST_MEASURED, own);
    });
  } catch (error) {
    if (isChairError(error, 'CREDENTIALS_MISSING') && !roles.includes('gateway')) {
      const todo = 'Run doctor on the gateway, or join as a person: token create --role operator there, enrol here.';
      return [note('cluster', 'gateway', 'not asked: people on this machine have no certificate of the cluster', todo)];
    }
    return [thrownAt('cluster', 'gateway', error)];
  }
}

const byName = (a: string, b: string): number => a.localeCompare(b, 'en', { numeric: true });

/** Of a device only its own lanes are looked at. */
function namesOf({ agents }: StatusReport, own: string | undefined): string[] {
  const here = agents
    .filter(({ state }) => state !== 'lost' && state !== 'stopped' && state !== 'refused')
    .map(({ agent }) => agent)
    .sort(byName);
  return own === undefined ? here : here.filter((name) => name === own);
}

function findingsOfCluster(report: StatusReport, names: readonly string[], asked: boolean, own: string | undefined): Finding[] {
  const isDevice = own !== undefined;
  const sorted = [...report.agents].sort((x, y) => byName(x.agent, y.agent));
  const shown = isDevice ? sorted.filter(({ agent }) => agent === own) : sorted;
  const isUnknown = isDevice && shown.length === 0;
  return [
    ...judgeGateway(report),
    ...(isUnknown
      ? [
          bad(
            'cluster',
            'joined',
            'the gateway does not know this agent',
            'Does the agent run here, under the name that is meant (--name)? Its own lines say what it waits for.',
          ),
        ]
      : []),
    ...shown.flatMap((agent) => judgeAgent(agent, report.agents)),
    ...judgeLanes(report, names, asked),
  ];
}

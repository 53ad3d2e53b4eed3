/** `doctor`: what is wrong on this machine and in the cluster, and what to do about it. */
import { accessSync, constants, existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { isChairError } from '../../broker/errors.js';
import type { StatusReport } from '../../broker/messages.js';
import type { CommandDefinition, Invocation } from '../command.js';
import { brokerPort, brokerUrl, isSecure, type Settings } from '../config.js';
import { withClient } from '../connection.js';
import { judgeAgent, judgeGateway, judgeLanes } from '../doctor/cluster.js';
import { bad, type Finding, findingsText, note, ok } from '../doctor/findings.js';
import type { ClockFacts } from '../doctor/machine.js';
import { agentDirectory, gatewayDirectory } from '../state-folder.js';

/** Of larger clusters only links that plans need are measured: all pairs would take many minutes. */
const MOST_MEASURED = 12;
const MDNS_MS = 2000;

type Role = 'gateway' | 'agent';

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
  const { settings, output } = invocation;
  const roles = rolesOf(invocation);
  const { lookAtMachine } = await import('../doctor/machine.js');
  output.progress('looking at this machine');
  const closed = roles.filter((role) => isClosed(directoryOf(role, settings)));
  const open = roles.filter((role) => !closed.includes(role));
  const folders = open.map((role) => ({ area: areaOf(role, settings), directory: directoryOf(role, settings) }));
  const trust = await lookAtTrust(settings, open);
  const here = await lookAtMachine({ folders, ahead: trust.ahead });
  for (const role of open) here.push(...(await lookAtRole(role, settings)));
  for (const role of closed) {
    const text = `${directoryOf(role, settings)} belongs to another user: not looked into`;
    here.push(note(areaOf(role, settings), 'state', text, 'Run doctor as that user, or with sudo.'));
  }
  here.push(...trust.findings);
  output.progress('looking for gateways on the network');
  const found = await lookAtNetwork(settings, roles);
  output.progress('asking the gateway');
  return [...here, ...found, ...(await lookAtCluster(invocation, roles))];
}

/** There, and of another user. */
function isClosed(directory: string): boolean {
  try {
    accessSync(directory, constants.R_OK | constants.X_OK);
    return false;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EACCES';
  }
}

function rolesOf({ arguments: [said], settings }: Invocation): Role[] {
  if (said === 'gateway' || said === 'agent') return [said];
  return (['gateway', 'agent'] as const).filter((role) => existsSync(directoryOf(role, settings)));
}

const areaOf = (role: Role, { agent }: Settings): string => (role === 'gateway' ? 'gateway' : `agent ${agent.name}`);
const directoryOf = (role: Role, settings: Settings): string =>
  role === 'gateway' ? gatewayDirectory(settings) : agentDirectory(settings);

/** Whether it runs, its ports when it does not, and what was put aside in its folder. */
async function lookAtRole(role: Role, settings: Settings): Promise<Finding[]> {
  const area = areaOf(role, settings);
  const directory = directoryOf(role, settings);
  const { holderOf } = await import('../../broker/lock.js');
  const { lookAtPort } = await import('../doctor/ports.js');
  const pid = await holderOf(directory);
  const findings: Finding[] = [];
  if (pid === undefined) {
    findings.push(note(area, 'process', 'it does not run on this machine', `Start it: ${role}, or systemctl start musical-chair-${role}.`));
    for (const check of portsOf(role, settings)) findings.push(await lookAtPort(area, check));
  } else findings.push(ok(area, 'process', `runs as process ${pid}`));
  const aside = asideIn(directory);
  if (aside.length > 0) {
    const todo =
      'A power cut, or a disk that fails. What it held was learned or made again where possible; remove the files when you have looked at them.';
    findings.push(note(area, 'state', `put aside as damaged: ${aside.join(', ')}`, todo));
  }
  return findings;
}

function portsOf(role: Role, settings: Settings) {
  const { gateway, agent } = settings;
  if (role === 'agent') {
    return agent.relayOnly ? [] : [{ what: 'lane port', host: agent.host, port: agent.lanePort, setting: 'agent.lanePort' }];
  }
  return [
    { what: 'broker port', host: gateway.host, port: brokerPort(settings), setting: 'gateway.port' },
    ...(isSecure(settings) ? [{ what: 'join port', host: gateway.host, port: gateway.enrolPort, setting: 'gateway.enrolPort' }] : []),
    { what: 'frames port', host: gateway.host, port: gateway.dispatcherPort, setting: 'gateway.dispatcherPort' },
  ];
}

function asideIn(directory: string): string[] {
  const into = (folder: string): string[] => {
    try {
      return readdirSync(path.join(directory, folder))
        .filter((name) => /\.(damaged|unusable)$/.test(name))
        .map((name) => path.join(folder, name));
    } catch {
      return [];
    }
  };
  return ['', 'deployments', 'profiles', 'credentials'].flatMap(into);
}

/** Certificates of what runs here, and on a device the gateway's time. */
async function lookAtTrust(settings: Settings, roles: readonly Role[]): Promise<{ ahead: ClockFacts['ahead']; findings: Finding[] }> {
  if (!isSecure(settings)) {
    const todo = 'In a network that you do not trust alone: start gateway and agents without --insecure.';
    return {
      ahead: undefined,
      findings: [note('network', 'trust', 'no certificates: anybody who reaches the ports can listen and join', todo)],
    };
  }
  const { askTime, judgeKeys, lookAtCertificate, openKeys } = await import('../doctor/certificates.js');
  const { cluster, agent, credentials } = settings;
  const findings: Finding[] = [];
  let ahead: ClockFacts['ahead'];
  if (roles.includes('agent')) {
    const area = areaOf('agent', settings);
    const directory = credentials === '' ? path.join(agentDirectory(settings), 'credentials') : credentials;
    const time = await askTime(area, directory);
    ahead = time.ahead;
    const join = `On the gateway: token create --name ${agent.name}; it prints what to type here.`;
    const nowMs = Date.now() - (ahead?.ms ?? 0);
    const wanted = { cluster, role: 'agent', name: agent.name } as const;
    findings.push(...(await lookAtCertificate({ area, directory, wanted, join, nowMs })), ...time.findings);
  }
  if (roles.includes('gateway')) {
    const area = areaOf('gateway', settings);
    const directory = path.join(gatewayDirectory(settings), 'credentials');
    const wanted = { cluster, role: 'gateway' } as const;
    const join = 'They are made when the gateway starts for the first time.';
    findings.push(
      ...(await lookAtCertificate({ area, directory: path.join(directory, 'gateway'), wanted, join, nowMs: Date.now() })),
      ...judgeKeys(area, await openKeys(directory)),
    );
  }
  return { ahead, findings };
}

/** Multicast DNS: who answers for this cluster. */
async function lookAtNetwork(settings: Settings, roles: readonly Role[]): Promise<Finding[]> {
  const { findGateways } = await import('../../broker/discovery/finder.js');
  const { thrownAt } = await import('../doctor/machine.js');
  const area = 'network';
  const { cluster } = settings;
  const said = brokerUrl(settings);
  try {
    const { gateways, interfaces } = await findGateways({ waitMs: MDNS_MS });
    const ours = [...new Set(gateways.filter((one) => one.cluster === cluster).map(({ url }) => url))];
    const where = [...new Set(interfaces)].join(', ') || 'no interface';
    if (interfaces.length === 0) return [bad(area, 'interfaces', 'there is no network', 'Plug in a cable, or join a Wi-Fi network.')];
    if (ours.length > 1 && isSecure(settings)) {
      const text = `several say that they are the gateway of cluster '${cluster}': ${ours.join(', ')}`;
      return [note(area, 'mdns', text, 'Machines with a certificate take the one that has its own; find out who the others are.')];
    }
    if (ours.length > 1) {
      const todo = 'Stop one of them, or give each a cluster of its own (--cluster): nobody chooses between them.';
      return [bad(area, 'mdns', `several gateways say that they serve cluster '${cluster}': ${ours.join(', ')}`, todo)];
    }
    if (ours.length === 1) return [ok(area, 'mdns', `the gateway of cluster '${cluster}' answers: ${ours[0]}`)];
    const others = gateways.map((one) => `'${one.cluster}'`).join(', ');
    const text = `no gateway of cluster '${cluster}' answers on ${where}${others === '' ? '' : `; there are ${others}`}`;
    if (settings.gateway.hidden && roles.includes('gateway'))
      return [ok(area, 'mdns', 'the gateway is hidden: agents and commands need --broker')];
    const todo = 'Is the gateway up? Multicast does not cross routers, and some Wi-Fi drops it: there --broker says where it is.';
    return [said === undefined ? note(area, 'mdns', text, todo) : ok(area, 'mdns', `${text}; not needed, as the broker is known`)];
  } catch (error) {
    return [thrownAt(area, 'mdns', error)];
  }
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

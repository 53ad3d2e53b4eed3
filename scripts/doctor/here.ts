/** What doctor looks at without the cluster: this machine, what runs on it, its certificates and ports, and who answers on the network. Also in an agent's bundle. */
import { accessSync, constants, existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { brokerPort, brokerUrl, isSecure, type Settings } from '../config.js';
import { agentDirectory, gatewayDirectory } from '../state-folder.js';
import { bad, type Finding, note, ok } from './findings.js';
import type { ClockFacts } from './machine.js';

const MDNS_MS = 2000;

export type Role = 'gateway' | 'agent';

export interface Here {
  readonly findings: readonly Finding[];
  /** Where the cluster's broker is, as far as it was said or found. */
  readonly url: string | undefined;
  /** How far this machine's clock is ahead of the gateway's; undefined = not known. */
  readonly aheadMs: number | undefined;
}

export async function lookHere(settings: Settings, roles: readonly Role[], progress: (line: string) => void): Promise<Here> {
  const { lookAtMachine } = await import('./machine.js');
  progress('looking at this machine');
  const closed = roles.filter((role) => isClosed(directoryOf(role, settings)));
  const open = roles.filter((role) => !closed.includes(role));
  const folders = open.map((role) => ({ area: areaOf(role, settings), directory: directoryOf(role, settings) }));
  const trust = await lookAtTrust(settings, open);
  const findings = await lookAtMachine({ folders, ahead: trust.ahead });
  for (const role of open) findings.push(...(await lookAtRole(role, settings)));
  for (const role of closed) {
    const text = `${directoryOf(role, settings)} belongs to another user: not looked into`;
    findings.push(note(areaOf(role, settings), 'state', text, 'Run doctor as that user, or with sudo.'));
  }
  findings.push(...trust.findings);
  progress('looking for gateways on the network');
  const network = await lookAtNetwork(settings, roles);
  return { findings: [...findings, ...network.findings], url: network.url, aheadMs: trust.ahead?.ms };
}

/** What this machine is: as it was said, else as its state folders say. */
export function rolesOf(said: string | undefined, settings: Settings): Role[] {
  if (said === 'gateway' || said === 'agent') return [said];
  return (['gateway', 'agent'] as const).filter((role) => existsSync(directoryOf(role, settings)));
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

export const areaOf = (role: Role, { agent }: Settings): string => (role === 'gateway' ? 'gateway' : `agent ${agent.name}`);
const directoryOf = (role: Role, settings: Settings): string =>
  role === 'gateway' ? gatewayDirectory(settings) : agentDirectory(settings);

/** Whether it runs, its ports when it does not, and what was put aside in its folder. */
async function lookAtRole(role: Role, settings: Settings): Promise<Finding[]> {
  const area = areaOf(role, settings);
  const directory = directoryOf(role, settings);
  const { holderOf } = await import('../../broker/lock.js');
  const { lookAtPort } = await import('./ports.js');
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
  const { askTime, judgeKeys, lookAtCertificate, openKeys } = await import('./certificates.js');
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
async function lookAtNetwork(settings: Settings, roles: readonly Role[]): Promise<Pick<Here, 'findings' | 'url'>> {
  const { findGateways } = await import('../../broker/discovery/finder.js');
  const { thrownAt } = await import('./machine.js');
  const area = 'network';
  const { cluster } = settings;
  const said = brokerUrl(settings);
  const only = (finding: Finding, url = said): Pick<Here, 'findings' | 'url'> => ({ findings: [finding], url });
  try {
    const { gateways, interfaces } = await findGateways({ waitMs: MDNS_MS });
    const ours = [...new Set(gateways.filter((one) => one.cluster === cluster).map(({ url }) => url))];
    const where = [...new Set(interfaces)].join(', ') || 'no interface';
    if (interfaces.length === 0) return only(bad(area, 'interfaces', 'there is no network', 'Plug in a cable, or join a Wi-Fi network.'));
    if (ours.length > 1 && isSecure(settings)) {
      const text = `several say that they are the gateway of cluster '${cluster}': ${ours.join(', ')}`;
      return only(note(area, 'mdns', text, 'Machines with a certificate take the one that has its own; find out who the others are.'));
    }
    if (ours.length > 1) {
      const todo = 'Stop one of them, or give each a cluster of its own (--cluster): nobody chooses between them.';
      return only(bad(area, 'mdns', `several gateways say that they serve cluster '${cluster}': ${ours.join(', ')}`, todo));
    }
    if (ours.length === 1) return only(ok(area, 'mdns', `the gateway of cluster '${cluster}' answers: ${ours[0]}`), said ?? ours[0]);
    const others = gateways.map((one) => `'${one.cluster}'`).join(', ');
    const text = `no gateway of cluster '${cluster}' answers on ${where}${others === '' ? '' : `; there are ${others}`}`;
    if (settings.gateway.hidden && roles.includes('gateway'))
      return only(ok(area, 'mdns', 'the gateway is hidden: agents and commands need --broker'));
    const todo = 'Is the gateway up? Multicast does not cross routers, and some Wi-Fi drops it: there --broker says where it is.';
    return only(said === undefined ? note(area, 'mdns', text, todo) : ok(area, 'mdns', `${text}; not needed, as the broker is known`));
  } catch (error) {
    return only(thrownAt(area, 'mdns', error));
  }
}

/** Which agents share the cores of one machine, and how much of them each can take. Pure. */
import type { Hello } from '../broker/messages.js';

export interface HostShare {
  /** Of people: the machine. */
  readonly host: string;
  /** Of its cores, what this agent can keep busy: 0..1. */
  readonly share: number;
}

/** Quotas are handed out in whole microseconds, and people round: this much above the machine's cores is still within them. */
const SLACK = 1.02;

type Limits = Pick<Hello, 'agent' | 'host' | 'hostCores' | 'cores' | 'cpuLimit' | 'engineThreads'>;

/** Cores that one agent can keep busy: its quota, the threads of its engine, what it may be scheduled on; the least of them. */
export function coresOf({ cores, hostCores, cpuLimit, engineThreads }: Limits): number {
  const limits = [cores, hostCores, cpuLimit, engineThreads].filter((limit) => limit > 0);
  return limits.length === 0 ? 1 : Math.min(...limits);
}

/**
 * The agents whose limits together exceed the cores of their machine: they cannot all run at once at the speed that each has alone. Agents that cannot get
 * into each other's way (six of 0.18 core on two cores) are not named, nor is one that has its machine to itself.
 */
export function hostShares(hellos: readonly Limits[]): Map<string, HostShare> {
  const machines = new Map<string, Limits[]>();
  for (const hello of hellos) {
    if (hello.host === '' || hello.hostCores <= 0) continue;
    const members = machines.get(hello.host);
    if (members === undefined) machines.set(hello.host, [hello]);
    else members.push(hello);
  }
  const shares = new Map<string, HostShare>();
  for (const members of machines.values()) {
    const have = Math.max(...members.map(({ hostCores }) => hostCores));
    const wanted = members.reduce((sum, hello) => sum + coresOf(hello), 0);
    if (members.length < 2 || wanted <= have * SLACK) continue;
    const host = `of ${members.map(({ agent }) => agent).sort()[0] ?? ''}`;
    for (const hello of members) shares.set(hello.agent, { host, share: Math.min(1, coresOf(hello) / have) });
  }
  return shares;
}

/** For people: who shares what, a line for each machine with more than one agent, or with the gateway on it. */
export function hostLines(agents: readonly Limits[], gateway: string): string[] {
  const machines = new Map<string, Limits[]>();
  for (const agent of agents) if (agent.host !== '') machines.set(agent.host, [...(machines.get(agent.host) ?? []), agent]);
  return [...machines].flatMap(([host, members]) => {
    if (members.length < 2 && host !== gateway) return [];
    const have = Math.max(...members.map(({ hostCores }) => hostCores));
    const wanted = members.reduce((sum, agent) => sum + coresOf(agent), 0);
    const cores = `${have} ${have === 1 ? 'core' : 'cores'}`;
    const where = host === gateway ? "on the gateway's own machine" : 'on one machine';
    if (members.length === 1) return [`${members[0]?.agent} runs ${where} (${cores}).`];
    const shared = wanted > have * SLACK ? ` and share its ${cores}` : `, which has ${cores}, enough for what they may use`;
    return [`${namesText(members)} run ${where}${shared}.`];
  });
}

function namesText(members: readonly Limits[]): string {
  const names = members.map(({ agent }) => agent).sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
  return names.length > 3 ? `${names[0]}, ..., ${names.at(-1)} (${names.length} agents)` : names.join(', ');
}

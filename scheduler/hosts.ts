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

/** Cores that one agent can keep busy: its quota, the threads of its engine, what it may be scheduled on; the least of them. */
export function coresOf({ cores, hostCores, cpuLimit, engineThreads }: Hello): number {
  const limits = [cores, hostCores, cpuLimit, engineThreads].filter((limit) => limit > 0);
  return limits.length === 0 ? 1 : Math.min(...limits);
}

/**
 * The agents whose limits together exceed the cores of their machine: they cannot all run at once at the speed that each has alone. Agents that cannot get
 * into each other's way (six of 0.18 core on two cores) are not named, nor is one that has its machine to itself.
 */
export function hostShares(hellos: readonly Hello[]): Map<string, HostShare> {
  const machines = new Map<string, Hello[]>();
  for (const hello of hellos) {
    if (hello.host === '' || hello.hostCores <= 0) continue;
    machines.set(hello.host, [...(machines.get(hello.host) ?? []), hello]);
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
export function hostLines(
  hellos: readonly Pick<Hello, 'agent' | 'host' | 'hostCores' | 'cores' | 'cpuLimit' | 'engineThreads'>[],
  gateway: string,
): string[] {
  const machines = new Map<string, (typeof hellos)[number][]>();
  for (const hello of hellos) if (hello.host !== '') machines.set(hello.host, [...(machines.get(hello.host) ?? []), hello]);
  return [...machines].flatMap(([host, members]) => {
    const here = host === gateway;
    if (members.length < 2 && !here) return [];
    const have = Math.max(...members.map(({ hostCores }) => hostCores));
    const wanted = members.reduce((sum, hello) => sum + coresOf(hello as Hello), 0);
    const names = members.map(({ agent }) => agent).sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
    const who = names.length > 3 ? `${names[0]}, ..., ${names.at(-1)} (${names.length} agents)` : names.join(', ');
    const together = members.length === 1 ? 'runs' : 'run';
    const where = here ? "on the gateway's own machine" : 'on one machine';
    const cores = `${have} ${have === 1 ? 'core' : 'cores'}`;
    const text =
      wanted > have * SLACK && members.length > 1 ? `and share its ${cores}` : `which has ${cores}, enough for what they may use`;
    return [`${who} ${together} ${where}${members.length > 1 ? `${text.startsWith('which') ? ',' : ''} ${text}` : ` (${cores})`}.`];
  });
}

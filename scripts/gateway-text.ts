/** What a gateway prints when it is ready: where things are, and how an agent joins. Pure. */

export interface GatewayTrust {
  readonly host: string;
  readonly port: number;
  /** sha256 of the CA's certificate, hexadecimal. */
  readonly fingerprint: string;
}

export interface GatewayFacts {
  readonly cluster: string;
  /** As another machine reaches it; without a password. */
  readonly brokerUrl: string;
  /** The broker is not this process's own. */
  readonly external: boolean;
  readonly dispatcherAddresses: readonly string[];
  readonly dispatcherPort: number;
  readonly stateDirectory: string;
  /** The settings file that was read; undefined = none. */
  readonly settingsFile: string | undefined;
  /** It is announced on the local network. */
  readonly announced: boolean;
  /** Where machines join, and the CA that they compare; undefined: anybody can listen and join. */
  readonly trust: GatewayTrust | undefined;
  /** Flags that commands on this machine need to find this gateway and its operator's key: '' when it is where they look anyway. */
  readonly hereFlags: string;
  readonly startedInMs: number;
  /** How the CLI is called here, and on another machine. */
  readonly program: string;
}

/**
 * The command lines that let an agent join, with a word on each: what is typed here, then what is typed on the device. The one place that knows them.
 */
export function joinLines({ cluster, brokerUrl, announced, trust, hereFlags, program }: GatewayFacts): string[] {
  const named = cluster === 'default' ? '' : ` --cluster ${cluster}`;
  const agent = `${program} agent --name NAME${named}`;
  const address = `${agent} --broker ${brokerUrl}`;
  if (trust === undefined) {
    const plain = ['An agent joins with, on its machine:', `  ${announced ? agent : address} --insecure`];
    return announced ? [...plain, 'or, where multicast does not get through:', `  ${address} --insecure`] : plain;
  }
  return [
    'An agent joins with a token of its own. Here, for the agent NAME:',
    `  ${program} token create --name NAME${named}${hereFlags === '' ? '' : ` ${hereFlags}`}`,
    'It prints the line that is then run on its machine:',
    `  ${agent} --gateway ${trust.host}:${trust.port} --token TOKEN`,
  ];
}

export function gatewayText(facts: GatewayFacts): string {
  const { cluster, brokerUrl, external, dispatcherAddresses, dispatcherPort, stateDirectory, settingsFile, announced, startedInMs, trust } =
    facts;
  const rows = [
    ['broker', `${brokerUrl}${external ? ' (not part of this process)' : ''}`],
    ...(trust === undefined ? [] : [['joining', `${trust.host}:${trust.port}, CA ${trust.fingerprint.slice(0, 16)}`]]),
    ['frames', `${dispatcherAddresses[0] ?? '-'}:${dispatcherPort}`],
    ['state', stateDirectory],
    ['settings', settingsFile ?? 'no file: defaults, environment and flags'],
    ['traffic', facts.trust === undefined ? 'plain, unprotected' : 'encrypted, with certificates (docs/security.md)'],
    ['found by', announced ? `multicast DNS, as cluster '${cluster}'` : 'its address only'],
  ];
  return [
    `Ready ${(startedInMs / 1000).toFixed(2)} s after its start: the gateway of cluster '${cluster}'.`,
    ...rows.map(([what = '', where]) => `  ${what.padEnd(10)}${where}`),
    ...(facts.trust === undefined ? ['INSECURE: anybody who reaches these ports can listen, join and give orders.'] : []),
    ...joinLines(facts),
  ].join('\n');
}

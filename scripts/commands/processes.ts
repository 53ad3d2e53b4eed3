/** The commands that run until they are stopped: `gateway`, `broker`, `scheduler`, `agent`. Each is one process. */
import path from 'node:path';
import { type EnrolmentAddress, parseAddress } from '../../broker/credentials/enrolment-client.js';
import type { CredentialKeeper } from '../../broker/credentials/keeper.js';
import { ChairError, isChairError } from '../../broker/errors.js';
import { publicUrl } from '../../broker/public-url.js';
import { trustOf } from '../../broker/trust.js';
import type { Installation } from '../../node-agent/updating.js';
import type { Gateway } from '../../scheduler/gateway.js';
import { BUNDLE_NAME } from '../bundle/manifest.js';
import type { CommandDefinition, Invocation } from '../command.js';
import { brokerPort, brokerUrl, checkPlain, isSecure, type Settings } from '../config.js';
import { type GatewayFacts, gatewayText } from '../gateway-text.js';
import { announceReady, onAsked, untilStopped } from '../lifetime.js';
import { PACKAGE_ROOT, PROGRAM, packageVersion } from '../package-root.js';
import { withAnotherToken } from '../refused-token.js';
import { configFile, loadSettings } from '../settings.js';
import { agentDirectory, gatewayDirectory } from '../state-folder.js';
import { service as ofSystemd } from '../systemd.js';

/** Lines of a server, on stderr, so that stdout stays for reports. */
function logger({ output }: Invocation): (line: string) => void {
  return (line) => output.note(line);
}

async function runGateway(
  invocation: Invocation,
  broker: { readonly url: string } | { readonly host: string; readonly port: number },
): Promise<void> {
  const { cluster, gateway: g } = invocation.settings;
  const { Gateway } = await import('../../scheduler/gateway.js');
  const gateway = new Gateway({
    cluster,
    broker,
    stateDirectory: gatewayDirectory(invocation.settings),
    laneHost: g.host,
    lanePort: g.dispatcherPort,
    ...(isSecure(invocation.settings) ? { gatehouse: { host: g.host, port: g.enrolPort } } : {}),
    uploadLimitBytes: g.uploadMb * 1_000_000,
    link: { bytesPerSecond: g.linkMbit * BYTES_PER_MBIT },
    ...(g.sharedMbit > 0 ? { sharedBytesPerSecond: g.sharedMbit * BYTES_PER_MBIT } : {}),
    measureLinks: !g.assumeLinks,
    ...(g.hidden ? {} : { announce: { softwareVersion: packageVersion() } }),
    membership: { missedHealth: g.missedHealth, holdDown: { baseMs: g.holdDownMs } },
    holdPlans: g.holdPlans,
    standbyBytes: g.standbyMb * 1_000_000,
    log: logger(invocation),
  });
  const stopped = untilStopped();
  const isWell = (): string => (gateway.serves ? '' : 'it does not reach the broker that it runs');
  const told = ofSystemd({ isWell, log: logger(invocation) });
  const before = process.cpuUsage();
  await gateway.start();
  try {
    const startedInMs = performance.now();
    invocation.output.text(gatewayText({ ...factsOf(invocation, broker, gateway), startedInMs }));
    const { user, system } = process.cpuUsage(before);
    onAsked('start', () => ({ startedInMs, cpuMs: (user + system) / 1000 }));
    announceReady({ url: gateway.brokerUrl, startedInMs });
    told.ready();
    told.status(`cluster '${cluster}', ${publicUrl(gateway.brokerUrl)}`);
    await Promise.race([stopped, gateway.closed]);
  } finally {
    told.stopping();
    await gateway.stop();
  }
  const failure = await gateway.closed;
  if (failure !== undefined) throw failure;
}

/** For people: where this gateway is, as other machines see it. */
function factsOf(
  { settings, options }: Invocation,
  broker: { readonly url: string } | { readonly host: string },
  gateway: Gateway,
): Omit<GatewayFacts, 'startedInMs'> {
  const { dispatcherAddresses } = gateway.status();
  // What is copied to a device must not say 127.0.0.1, when others can reach this machine.
  const everywhere = 'host' in broker && broker.host === '0.0.0.0';
  const outside = everywhere ? gateway.brokerUrl.replace('127.0.0.1', dispatcherAddresses[0] ?? '127.0.0.1') : gateway.brokerUrl;
  const { config } = options;
  const { gatehouse } = gateway;
  return {
    cluster: settings.cluster,
    brokerUrl: publicUrl(outside),
    external: 'url' in broker,
    dispatcherAddresses,
    dispatcherPort: gateway.lanePort,
    stateDirectory: gatewayDirectory(settings),
    settingsFile: configFile({ env: process.env, ...(typeof config === 'string' ? { file: config } : {}) }),
    announced: !settings.gateway.hidden,
    trust:
      gatehouse === undefined
        ? undefined
        : { host: new URL(publicUrl(outside)).hostname, port: gatehouse.port, fingerprint: gatehouse.authority.fingerprint },
    hereFlags: hereFlags(settings, typeof config === 'string' ? config : undefined, gateway.brokerUrl),
    program: PROGRAM,
  };
}

/** What commands on this machine must be told because this gateway was told it by flags. */
function hereFlags(settings: Settings, config: string | undefined, url: string): string {
  if (config !== undefined) return `--config ${config}`;
  const usual = loadSettings({ env: process.env });
  const isElsewhere = gatewayDirectory(settings) !== gatewayDirectory({ ...usual, cluster: settings.cluster });
  return [
    ...(settings.gateway.hidden ? [`--broker ${publicUrl(url)}`] : []),
    ...(isElsewhere ? [`--credentials ${path.join(gatewayDirectory(settings), 'credentials', 'operator')}`] : []),
  ].join(' ');
}

const BYTES_PER_MBIT = 125_000;
const LINK_SETTINGS = ['gateway.linkMbit', 'gateway.sharedMbit', 'gateway.assumeLinks'] as const;
const MEMBER_SETTINGS = ['gateway.missedHealth', 'gateway.holdDownMs'] as const;

export const gateway: CommandDefinition = {
  name: 'gateway',
  summary: 'Run broker, scheduler and dispatcher: the machine that decides',
  settings: [
    'cluster',
    'gateway.host',
    'insecure',
    'gateway.port',
    'gateway.enrolPort',
    'gateway.dispatcherPort',
    'gateway.directory',
    'gateway.uploadMb',
    'gateway.hidden',
    'gateway.holdPlans',
    'gateway.standbyMb',
    ...LINK_SETTINGS,
    ...MEMBER_SETTINGS,
  ],
  examples: [{ line: 'gateway', text: 'agents and clients connect to this machine, on port 8883' }],
  run: (invocation) => {
    const { host } = invocation.settings.gateway;
    return runGateway(invocation, { host, port: brokerPort(invocation.settings) });
  },
};

export const scheduler: CommandDefinition = {
  name: 'scheduler',
  summary: 'Run scheduler and dispatcher on a broker that runs elsewhere (Mosquitto, say)',
  settings: [
    'cluster',
    'broker',
    'gateway.host',
    'insecure',
    'gateway.enrolPort',
    'gateway.dispatcherPort',
    'gateway.directory',
    'gateway.uploadMb',
    'gateway.hidden',
    'gateway.holdPlans',
    'gateway.standbyMb',
    ...LINK_SETTINGS,
    ...MEMBER_SETTINGS,
  ],
  examples: [{ line: 'scheduler --broker mqtts://mosquitto:8883', text: 'only the broker is external (docs/brokers.md: its access list)' }],
  run: (invocation) => {
    const url = brokerUrl(invocation.settings);
    if (url === undefined) {
      throw new ChairError('CONFIG_INVALID', 'a scheduler must be told its broker', {
        expected: '--broker with a URL',
        came: 'auto',
        todo: 'Gateways look for nobody: to run a broker, too, use the command gateway.',
      });
    }
    checkPlain(invocation.settings, url);
    return runGateway(invocation, { url });
  },
};

export const broker: CommandDefinition = {
  name: 'broker',
  summary: 'Run the MQTT broker alone',
  description:
    'For anything that speaks MQTT: it knows no certificates and no rights, so it wants --insecure. `gateway` has a broker of its own that does.',
  settings: ['gateway.host', 'gateway.port', 'insecure'],
  examples: [{ line: 'broker --insecure --port 1884', text: 'an MQTT 3.1.1 broker on port 1884' }],
  run: async (invocation) => {
    if (!invocation.settings.insecure) {
      throw new ChairError('INSECURE_REFUSED', 'a broker alone has no certificates', { expected: '--insecure', todo: 'Or use `gateway`.' });
    }
    const { host, port = 1883 } = invocation.settings.gateway;
    const { startBroker } = await import('../../broker/server.js');
    const stopped = untilStopped();
    const server = await startBroker({ host, port, log: logger(invocation) });
    try {
      invocation.output.text(`Ready at ${server.url}.`);
      announceReady({ url: server.url });
      await stopped;
    } finally {
      await server.stop();
    }
  },
};

/** How long an agent that was asked to leave serves on until others hold its seats, and how long its stop may take after that. */
const DRAIN_MS = 30_000;
const STOP_MS = 8_000;

/** The agent's credentials, after joining if it has to; undefined when everything is plain. `signal` ends the wait for a gateway. */
async function agentCredentials(
  settings: Settings,
  log: (line: string) => void,
  signal: AbortSignal,
): Promise<CredentialKeeper | undefined> {
  if (!isSecure(settings)) return undefined;
  const { cluster, credentials, agent } = settings;
  const { openCredentials } = await import('../../node-agent/credentials.js');
  return openCredentials({
    ...{ cluster, name: agent.name, token: agent.token, tokenFile: agent.tokenFile, log, signal },
    directory: credentials === '' ? path.join(agentDirectory(settings), 'credentials') : credentials,
    gateway: gatewayOf(settings),
    brokerUrl: brokerUrl(settings),
  });
}

function gatewayOf({ agent }: Settings): EnrolmentAddress | undefined {
  return agent.gateway === '' ? undefined : parseAddress(agent.gateway);
}

/** The agent's own options from the settings. */
export function agentConfig(settings: Settings) {
  const { agent, broker: url, cluster } = settings;
  return {
    name: agent.name,
    cluster,
    broker: url,
    directory: agentDirectory(settings),
    storeLimitBytes: agent.storeMb * 1_000_000,
    memoryLimitBytes: agent.memoryMb * 1_000_000,
    threads: agent.threads,
    laneHost: agent.relayOnly ? '' : agent.host,
    lanePort: agent.lanePort,
    drainMs: DRAIN_MS,
    healthMs: agent.healthMs,
    addresses: agent.addresses === '' ? [] : agent.addresses.split(','),
  };
}

export const agent: CommandDefinition = {
  name: 'agent',
  summary: 'Run an agent: this machine stores slices, runs them and passes activations on',
  description:
    'Without --broker it looks for the gateway of its cluster on the local network. Waits for it when it is not there yet. SIGTERM hands its seats over to others before it ends.',
  settings: [
    'cluster',
    'broker',
    'agent.name',
    'agent.directory',
    'credentials',
    'insecure',
    'agent.token',
    'agent.tokenFile',
    'agent.gateway',
    'agent.storeMb',
    'agent.memoryMb',
    'agent.threads',
    'agent.host',
    'agent.lanePort',
    'agent.addresses',
    'agent.relayOnly',
    'agent.healthMs',
  ],
  examples: [
    { line: 'agent --name pi-3', text: 'one of these on each device' },
    { line: 'agent --name pi-3 --broker mqtts://gateway:8883', text: 'where multicast does not get through' },
  ],
  options: [
    {
      flags: '--installation <folder>',
      description: 'where bundles are installed, so that the gateway can update this agent; set by the service of a bundle',
    },
  ],
  run: async (invocation) => {
    const { settings } = invocation;
    checkPlain(settings, brokerUrl(settings));
    const stopped = untilStopped(DRAIN_MS + STOP_MS);
    const stop = new AbortController();
    void stopped.then(() => stop.abort());
    const log = logger(invocation);
    let stuckMs = (): number => 0;
    const service = ofSystemd({
      log,
      isWell: () => (stuckMs() > STUCK_MS ? `a slice has run for ${(stuckMs() / 1000).toFixed(0)} s` : ''),
    });
    // Waiting for the gateway is what it is there for: systemd need not wait for that.
    service.ready();
    const told = (line: string): void => {
      log(line);
      service.status(line);
    };
    const join = () => agentCredentials(settings, told, stop.signal);
    const { tokenFile } = settings.agent;
    const keeper = await (service.isSupervised && tokenFile !== ''
      ? withAnotherToken(join, { tokenFile, signal: stop.signal, say: told })
      : join()
    ).catch((error: unknown) => {
      // Asked to end while it waited for its gateway.
      if (isChairError(error, 'STOPPED')) return error;
      throw error;
    });
    if (keeper instanceof Error) return;
    try {
      const watch = (agent: { readonly stuckMs: number }): void => {
        stuckMs = () => agent.stuckMs;
        service.status(`agent ${settings.agent.name} of cluster ${settings.cluster} runs`);
      };
      await serveAsAgent({ settings, log, stopped, keeper, watch, installation: installationIn(invocation.options.installation) });
    } finally {
      service.stopping();
      await keeper?.stop();
    }
  },
};

/** A slice that takes as long hangs: the slowest ever measured took 10 s. */
const STUCK_MS = 120_000;

/** The bundle that this program was unpacked from, when it was. */
function installationIn(prefix: unknown): Installation | undefined {
  const name = path.basename(path.dirname(PACKAGE_ROOT));
  return typeof prefix === 'string' && BUNDLE_NAME.test(name) ? { prefix, name } : undefined;
}

interface Serving {
  readonly settings: Settings;
  readonly log: (line: string) => void;
  readonly stopped: Promise<NodeJS.Signals>;
  readonly keeper: CredentialKeeper | undefined;
  readonly installation: Installation | undefined;
  readonly watch: (agent: { readonly stuckMs: number }) => void;
}

async function serveAsAgent({ settings, log, stopped, keeper, installation, watch }: Serving): Promise<void> {
  const { runAgent } = await import('../../node-agent/main.js');
  const { knownBrokers } = await import('../../broker/credentials/enrolment.js');
  const running = await runAgent(agentConfig(settings), {
    softwareVersion: installation?.name ?? packageVersion(),
    log,
    ...(keeper === undefined ? {} : { knownBrokers: await knownBrokers(keeper.directory, gatewayOf(settings)) }),
    ...(installation === undefined ? {} : { installation }),
    ...(keeper === undefined ? {} : { trust: trustOf(keeper), authority: () => ({ ca: keeper.current.ca, nowMs: keeper.nowMs() }) }),
  });
  watch(running.agent);
  const leaving = new Promise<'drain'>((resolve) => onAsked('drain', () => resolve('drain')));
  announceReady({ name: settings.agent.name });
  const first = await Promise.race([stopped, running.closed, leaving]);
  // Ctrl-C and the end of the parent are in a hurry; SIGTERM (systemd, docker) leaves time to move the seats.
  if (first === 'drain') await Promise.race([running.drain(), stopped.then(() => running.stop())]);
  else if (first === 'SIGTERM' && process.channel === undefined) await running.drain();
  else await running.stop();
  const failure = await running.closed;
  if (failure !== undefined) throw failure;
}

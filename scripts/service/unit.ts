/** The gateway as a systemd service: the texts of its files. Pure. */
import { ChairError } from '../../broker/errors.js';

export const SERVICE = 'musical-chair-gateway';
/** Not the agent's: it has no business with the cluster's keys. */
export const SERVICE_USER = 'musical-chair-gateway';
/** Below the folder that systemd makes for the service's user. */
export const STATE_DIRECTORY = 'musical-chair-gateway';
/** First line of every file that is ours: a file without it is somebody else's. */
export const MARK = '# Written by musical-chair gateway install.';

export interface UnitFacts {
  /** Node, its flags, and the CLI. */
  readonly program: readonly string[];
  readonly configFile: string;
  readonly cluster: string;
  /** A port below 1024 is listened on. */
  readonly lowPort: boolean;
  /** The program, or its state, is in a home directory. */
  readonly inHome: boolean;
  /** State that is not in the service's own folder below /var/lib. */
  readonly stateElsewhere?: string;
  readonly user: string;
}

/**
 * A path, or the program that is run, as systemd.syntax(7) quotes it: `%` begins a specifier; a `$` is one. Throws SERVICE_FAILED for control characters: a line
 * would end there, and what comes after it be another setting.
 */
export function unitPath(text: string): string {
  if (/\p{Cc}/u.test(text)) {
    throw new ChairError('SERVICE_FAILED', 'a name with control characters cannot stand in a unit', {
      expected: 'a path in one line',
      came: JSON.stringify(text.slice(0, 200)),
      todo: 'Give the folder another name.',
    });
  }
  const escaped = text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('%', '%%');
  return /^[A-Za-z0-9._/:=@%+,-]+$/.test(escaped) ? escaped : `"${escaped}"`;
}

/** A word after the program of a command line, as systemd.service(5) quotes it: there, `$` begins a variable. Throws SERVICE_FAILED. */
export function unitWord(text: string): string {
  return unitPath(text.replaceAll('$', '$$$$'));
}

/** What `User=` takes: it is not unquoted. Throws SERVICE_FAILED. */
function unitUser(name: string): string {
  if (/^(?!-)[^\s\p{Cc}:/"'\\]+$/u.test(name)) return name.replaceAll('%', '%%');
  throw new ChairError('SERVICE_FAILED', 'a user cannot be called so', { came: JSON.stringify(name.slice(0, 100)) });
}

/** systemd.service(5), systemd.exec(5), systemd.resource-control(5). Throws SERVICE_FAILED for names that cannot stand there. */
export function gatewayUnit({ program, configFile, cluster, lowPort, inHome, stateElsewhere, user }: UnitFacts): string {
  const [executable = '', ...flags] = program;
  const command = [unitPath(executable), ...[...flags, 'gateway', '--config', configFile].map(unitWord)].join(' ');
  return `${MARK} Changes belong in: systemctl edit ${SERVICE}
[Unit]
Description=musical-chair gateway of cluster ${cluster.replaceAll('%', '%%')}
Wants=network-online.target
After=network-online.target time-sync.target
# A gateway that cannot start (a port in use) is tried for ever: nobody may be there at night.
StartLimitIntervalSec=0

[Service]
# Ready is said when agents are served; then the gateway says that it lives, for as long as it serves its own broker.
Type=notify
NotifyAccess=all
WatchdogSec=60
TimeoutStartSec=120
TimeoutStopSec=30
# Its group is the user's own: one of the user's name need not be there.
User=${unitUser(user)}
ExecStart=${command}
Restart=always
RestartSec=2
# Exit status 2: a setting is wrong, which trying again does not mend.
RestartPreventExitStatus=2

# /var/lib/${STATE_DIRECTORY}, the service user's own.
StateDirectory=${STATE_DIRECTORY}
StateDirectoryMode=0700
UMask=0077
# The C library gives large buffers back to the system.
Environment=MALLOC_MMAP_THRESHOLD_=131072

# Above the first it is slowed down, at the second it is ended and started again, before the machine is out of memory.
MemoryHigh=75%
MemoryMax=90%
TasksMax=512
LimitNOFILE=65536
OOMPolicy=stop

# It needs the network, its state folder, and nothing else. No MemoryDenyWriteExecute: JavaScript is compiled while it runs.
NoNewPrivileges=yes
CapabilityBoundingSet=${lowPort ? 'CAP_NET_BIND_SERVICE\nAmbientCapabilities=CAP_NET_BIND_SERVICE' : ''}
ProtectSystem=strict
ProtectHome=${inHome ? 'read-only' : 'yes'}${stateElsewhere === undefined ? '' : `\nReadWritePaths=${unitPath(stateElsewhere)}`}
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
`;
}

/** sysusers.d(5): the service's user, made when the package or the machine is set up. */
export function sysusersFile(): string {
  return `${MARK}\nu ${SERVICE_USER} - "musical-chair gateway" /var/lib/${STATE_DIRECTORY}\n`;
}

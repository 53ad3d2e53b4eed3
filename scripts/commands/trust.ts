/** `token`, `agents`, `audit`: who may be in the cluster. Requests of an operator to the gateway, from any machine; and `enrol`, the other end of a token. */
import { ChairError } from '../../broker/errors.js';
import type { AuditEntryRow, TrustReport, TrustRequest } from '../../broker/messages.js';
import type { ChairClient } from '../../scheduler/client.js';
import type { CommandDefinition, Invocation } from '../command.js';
import { CLIENT_SETTINGS } from '../config.js';
import { withClient } from '../connection.js';
import { ownDirectory } from '../credentials.js';
import { checkName, optionText } from '../deploy-options.js';
import { parseDuration } from '../duration.js';
import { onAskedToEnd } from '../lifetime.js';
import { wholeNumber } from '../output.js';
import { PROGRAM } from '../package-root.js';
import { agentDirectory } from '../state-folder.js';
import { auditText, invitedText, membersText, tokensText } from '../trust-text.js';

async function ask(
  invocation: Invocation,
  request: Partial<TrustRequest> & Pick<TrustRequest, 'action'>,
  show: (report: TrustReport, client: ChairClient) => Promise<void> | void,
): Promise<void> {
  await withClient(invocation.settings, async (client) => show(await client.trust(request), client));
}

export const tokenCreate: CommandDefinition = {
  name: 'token create',
  summary: 'Invite a machine or a person: make a token that lets one of them join',
  description:
    'The token carries the fingerprint of the gateway, so that the machine that joins with it knows whom it talks to before it sends anything. It is good once, for this name, and is shown only now.',
  options: [
    { flags: '--name <name>', description: 'who is to join with it' },
    { flags: '--ttl <time>', description: 'how long it can be used: 30m, 1h, 7d, at most 90d', default: '1h' },
    {
      flags: '--role <role>',
      description: 'agent: computes; operator: may do everything; viewer: may look',
      choices: ['agent', 'operator', 'viewer'],
      default: 'agent',
    },
    { flags: '--hold', description: 'the join waits until `agents approve`: for tokens that travel, on cards say' },
    { flags: '--replace', description: 'the name has joined already, and its certificate is to end when the new machine joins' },
    { flags: '--bare', description: 'print the token alone, for scripts' },
  ],
  settings: CLIENT_SETTINGS,
  json: true,
  examples: [
    { line: 'token create --name pi-1', text: 'then, on pi-1: agent --name pi-1 --token TOKEN' },
    { line: 'token create --name pi-7 --ttl 7d --hold', text: 'for a card that goes by post' },
    { line: 'token create --name alice --role viewer', text: 'for a person who may look at everything from her own machine' },
  ],
  run: async (invocation) => {
    const { options, settings, output } = invocation;
    const name = optionText(options, 'name');
    if (name === '') throw new ChairError('USAGE', 'a token is for somebody', { expected: '--name NAME' });
    checkName(name, 'who joins');
    const role = optionText(options, 'role', 'agent');
    const ttlMs = parseDuration(optionText(options, 'ttl', '1h'), '--ttl');
    const request = { action: 'invite', name, role, ttlMs, hold: options.hold === true, replace: options.replace === true } as const;
    await ask(invocation, request, async ({ token, tokens, fingerprint, enrolmentPort }, client) => {
      const [row] = tokens;
      if (row === undefined) throw new ChairError('INTERNAL', 'the gateway answered an invitation without a token');
      if (options.bare === true) return output.text(token);
      const [host = 'GATEWAY'] = (await client.status('-')).dispatcherAddresses;
      const gateway = `${host.includes(':') ? `[${host}]` : host}${enrolmentPort === 8884 ? '' : `:${enrolmentPort}`}`;
      const facts = { token, row, cluster: settings.cluster, gateway, program: PROGRAM, nowMs: row.createdMs };
      output.report({ token, name, role, expiresMs: row.expiresMs, id: row.id, fingerprint, gateway }, () => invitedText(facts));
    });
  },
};

export const tokenList: CommandDefinition = {
  name: 'token list',
  summary: 'Show the tokens there are, without their secrets',
  settings: CLIENT_SETTINGS,
  json: true,
  examples: [{ line: 'token list', text: 'who is invited, and whose token was used, when, by which key' }],
  run: (invocation) =>
    ask(invocation, { action: 'tokens' }, ({ tokens }) =>
      invocation.output.report({ tokens }, () => tokensText(tokens, Date.now(), invocation.output.columns)),
    ),
};

export const tokenRevoke: CommandDefinition = {
  name: 'token revoke',
  summary: 'End a token: nobody joins with it any more',
  description: 'Whoever has joined with it stays: that is `agents revoke`.',
  arguments: [{ syntax: '<id>', description: 'as `token list` shows it; its beginning will do' }],
  settings: CLIENT_SETTINGS,
  json: true,
  examples: [{ line: 'token revoke 3f2a', text: 'a token went to the wrong person' }],
  run: async (invocation) => {
    const [key = ''] = invocation.arguments;
    await ask(invocation, { action: 'revoke token', key }, ({ tokens: [row] }) =>
      invocation.output.report({ token: row }, () => `revoked: the token ${row?.id} for ${row?.name}`),
    );
  },
};

export const agentsList: CommandDefinition = {
  name: 'agents list',
  summary: 'Show who has joined or may: agents, operators, viewers, and their certificates',
  settings: CLIENT_SETTINGS,
  json: true,
  examples: [{ line: 'agents list', text: 'names, roles, how long certificates are good, who waits to be approved' }],
  run: (invocation) =>
    ask(invocation, { action: 'members' }, async ({ members, fingerprint }, client) => {
      const { agents } = await client.status();
      const { output } = invocation;
      output.report({ fingerprint, members }, () => membersText(members, agents, Date.now(), output.columns));
    }),
};

export const agentsApprove: CommandDefinition = {
  name: 'agents approve',
  summary: 'Let a join go on that waits: its token was made with --hold',
  description:
    'The machine that waits shows how the fingerprint of its key begins, and so does `agents list`. With --key they are compared here.',
  arguments: [{ syntax: '<name>', description: 'who waits' }],
  options: [{ flags: '--key <digits>', description: 'how the fingerprint of its key must begin' }],
  settings: CLIENT_SETTINGS,
  json: true,
  examples: [{ line: 'agents approve pi-7 --key 3f2a90c1', text: 'if pi-7 shows these digits' }],
  run: async (invocation) => {
    const [name = ''] = invocation.arguments;
    checkName(name, 'who waits');
    const key = optionText(invocation.options, 'key');
    await ask(invocation, { action: 'approve', name, key }, ({ members }) =>
      invocation.output.report({ members }, () => `approved: ${name} joins within seconds`),
    );
  },
};

export const agentsRevoke: CommandDefinition = {
  name: 'agents revoke',
  summary: 'Throw somebody out: every certificate and every token of this name is void at once',
  description:
    'Its connections are cut, others take its seats, and it cannot renew. It comes back only by a new token. For operators and viewers, too; whatever the clock says, and also of certificates that the gateway does not remember.',
  arguments: [{ syntax: '<name>', description: 'whose' }],
  options: [
    { flags: '--why <text>', description: 'for the audit log' },
    {
      flags: '--unknown',
      description: 'also when the gateway knows nobody of this name: who joined after the backup it was restored from, say',
    },
  ],
  settings: CLIENT_SETTINGS,
  json: true,
  examples: [
    { line: "agents revoke pi-3 --why 'lost on the train'", text: 'whoever finds it has nothing' },
    { line: 'agents revoke pi-9 --unknown', text: 'after a restore: pi-9 had joined since, was stolen, and agents list does not show it' },
  ],
  run: async (invocation) => {
    const [name = ''] = invocation.arguments;
    checkName(name, 'who is revoked');
    const why = optionText(invocation.options, 'why');
    const unknown = invocation.options.unknown === true;
    await ask(invocation, { action: 'revoke', name, why, unknown }, ({ members }) => {
      const isKnown = members.some(({ role }) => role !== '');
      const who = isKnown ? `${name} is out` : `nobody called ${name} was known; whoever has a certificate of that name is out`;
      invocation.output.report({ members }, () => `revoked: ${who}`);
    });
  },
};

export const audit: CommandDefinition = {
  name: 'audit',
  summary: 'Show the audit log: joins, refusals, revocations, deployments',
  description:
    'Times are UTC. Refusals are at most half of it when there is as much of the rest: what anybody on the network can cause does not hide what was done. Equal ones are counted.',
  options: [
    { flags: '--count <number>', description: 'so many of the latest entries, at most 1000', default: '50' },
    {
      flags: '--only <part>',
      description: 'done: what operators, machines and the gateway did; refused: who was turned away',
      choices: ['done', 'refused'],
    },
  ],
  settings: CLIENT_SETTINGS,
  json: true,
  examples: [
    { line: 'audit --only refused', text: 'who was turned away, and why' },
    {
      line: 'audit --count 200 --json',
      text: 'for other programs, with whole keys; the files are audit.log, refused.log and strangers.log in credentials/ in the state folder of the gateway',
    },
  ],
  run: async (invocation) => {
    const { options, output } = invocation;
    const count = wholeNumber(optionText(options, 'count', '50'), '--count', 1, 1000);
    const only = optionText(options, 'only');
    const columns = output.isTerminal ? output.columns : Number.POSITIVE_INFINITY;
    await ask(invocation, { action: only === '' ? 'audit' : `audit ${only}`, count }, ({ audit: rows }) =>
      output.report({ audit: rows }, () => [auditText(rows, columns), ...crowdedLines(rows, count, only)].join('\n')),
    );
  },
};

/** Refusals have all the room that they may have. */
function crowdedLines(rows: readonly AuditEntryRow[], count: number, only: string): string[] {
  const refused = rows.filter(({ event }) => event === 'refused').length;
  if (only !== '' || rows.length < count || refused < Math.floor(count / 2)) return [];
  return [`There may be more refusals: ${PROGRAM} audit --only refused`];
}

export const enrol: CommandDefinition = {
  name: 'enrol',
  summary: 'Join with a token: get a certificate for a key that is made here',
  description:
    'For people (operator, viewer), and for agents that are to join before they run; an agent does it by itself when it is given a token. Where: the folder of --credentials, else that of the role and name that the token is for.',
  options: [
    { flags: '--token <text>', description: 'the token; others on this machine can see it while this runs' },
    { flags: '--token-file <file>', description: 'a file that holds it; - = standard input' },
    { flags: '--gateway <address>', description: 'HOST or HOST:PORT; port 8884 when none is given' },
  ],
  settings: ['credentials', 'agent.directory'],
  json: true,
  examples: [{ line: 'enrol --gateway gateway.local --token mc1.…', text: 'on the machine that is to join' }],
  run: async ({ options, settings, output }) => {
    const { parseToken } = await import('../../broker/credentials/token-text.js');
    const { enrolPatiently } = await import('../../broker/credentials/enrolment.js');
    const { parseAddress } = await import('../../broker/credentials/enrolment-client.js');
    const { GatewayClock } = await import('../../broker/credentials/gateway-clock.js');
    const { seekEnrolment } = await import('../../broker/discovery/finder.js');
    const token = await tokenOf(optionText(options, 'token'), optionText(options, 'tokenFile'));
    const { cluster, role, name } = parseToken(token);
    const own = role === 'agent' ? `${agentDirectory({ ...settings, cluster }, name)}/credentials` : ownDirectory(cluster);
    const directory = settings.credentials === '' ? own : settings.credentials;
    const address = optionText(options, 'gateway');
    const stop = new AbortController();
    onAskedToEnd(() => stop.abort());
    const find = async () => (address === '' ? seekEnrolment({ cluster, signal: stop.signal }) : [parseAddress(address)]);
    // Before anything is waited for.
    if (address !== '') await find();
    const { identity, notAfterMs, serial } = await enrolPatiently({
      directory,
      token,
      clock: new GatewayClock(),
      find,
      isGuess: address === '',
      signal: stop.signal,
      log: (line) => output.note(line),
    });
    const report = { ...identity, directory, serial, notAfterMs };
    output.report(
      report,
      () =>
        `${role} ${name} of cluster '${cluster}': certificate and key are in ${directory}, good until ${new Date(notAfterMs).toISOString().slice(0, 10)}; renewed by themselves`,
    );
  },
};

async function tokenOf(text: string, file: string): Promise<string> {
  if ((text === '') === (file === '')) throw new ChairError('USAGE', 'a token is needed', { expected: 'either --token or --token-file' });
  if (text !== '') return text;
  const { readFile } = await import('node:fs/promises');
  try {
    return await readFile(file === '-' ? '/dev/stdin' : file, 'utf8');
  } catch (cause) {
    throw new ChairError('FILE_NOT_FOUND', `the token in ${file} cannot be read`, { cause });
  }
}

/**
 * Who may say and hear what: a pure function over the table of topics, so that the gateway's broker, direct lanes, our own clients (which do not even try) and the
 * access list of an external broker all go by the same rules. What is not permitted here is refused.
 */
import { type Identity, ROLES, type Role } from './credentials/credentials.js';
import { byAnyone, DISPATCHER, ownerOf, rootOf, SCHEDULER, spokenBy, topicsOf } from './topics.js';

export type Action = 'publish' | 'will' | 'subscribe';

export interface Attempt {
  readonly action: Action;
  readonly topic: string;
  /** The broker is to keep it for those who come later. */
  readonly retain?: boolean;
}

/** One right. `topic` may have `+` for any one level, and end in `#` for all below. */
export interface Right {
  readonly may: 'publish' | 'subscribe';
  readonly topic: string;
  /** What it is for, for people. */
  readonly what: string;
  /** It may be the topic of a Last Will, too. */
  readonly will?: boolean;
}

/** A name that stands for any one: `level` of topics.ts leaves it as it is. */
const ANY = '+';
/** Longest topic that makes sense: four names of 64. */
const MOST_CHARACTERS = 512;

/** Everything that this identity may do. */
export function rightsOf({ cluster, role, name }: Identity): readonly Right[] {
  const topics = topicsOf(cluster);
  const say = (topic: string, what: string, will = false): Right => ({
    may: 'publish',
    topic: spokenBy(topic, name),
    what,
    ...(will ? { will } : {}),
  });
  const hear = (topic: string, what: string): Right => ({ may: 'subscribe', topic, what });
  const reign = hear(topics.reign.name, 'who schedules');
  /** Sessions of a client are not told apart: whoever owns one owns all. */
  const answers = (topic: (client: string) => string): string => topic(`${name}-00000000`).replace('/00000000/', `/${ANY}/`);
  const responses = hear(
    answers((client) => topics.response(client).name),
    'answers to its own requests',
  );
  switch (role) {
    case 'gateway':
      return [
        { may: 'publish', topic: `${rootOf(cluster)}/#`, what: 'everything: it decides', will: true },
        { may: 'subscribe', topic: `${rootOf(cluster)}/#`, what: 'everything: it decides' },
      ];
    case 'agent':
      return [
        say(topics.hello.name, 'who it is and where it listens'),
        say(topics.health.name, 'how it is'),
        say(topics.gone.name, 'that it leaves', true),
        say(topics.reply.name, 'answers to commands'),
        say(topics.progress.name, 'how far it is with fetching'),
        say(topics.trouble.name, 'frames that failed'),
        say(topics.peersQuestion.name, 'which peers it has'),
        say(topics.blobRequest.name, 'chunks of slices it wants'),
        say(topics.activation(ANY), 'relayed activations; the receiver checks them against the plan'),
        say(topics.probe(ANY), 'relayed measurements of links'),
        reign,
        hear(topics.command(name).name, 'commands to it'),
        hear(topics.blobChunk(name).name, 'chunks it asked for'),
        hear(byAnyone(topics.activation(name)), 'activations relayed to it'),
        hear(byAnyone(topics.cancel(name).name), 'attempts that are not wanted any more'),
        hear(byAnyone(topics.probe(name)), 'measurements of links to it'),
      ];
    case 'operator':
      return [
        say(topics.request.name, 'deploy, undeploy, adjust, profile, measure, tokens, approve, revoke'),
        say(topics.ask.name, 'status, peers, links'),
        say(topics.uploadChunk.name, 'models'),
        say(topics.submit, 'relayed frames'),
        say(topics.resultAck.name, 'results it has'),
        reign,
        responses,
        hear(
          answers((client) => topics.uploadAck(client).name),
          'how far its uploads are',
        ),
        hear(byAnyone(answers(topics.result)), 'results of its frames'),
      ];
    case 'viewer':
      return [
        say(topics.ask.name, 'status, peers, links'),
        reign,
        responses,
        // Asked for by every client; nothing comes, since a viewer sends no frames.
        hear(byAnyone(answers(topics.result)), 'results of its frames (it may send none)'),
      ];
  }
}

/** '' when it is permitted, else why it is not. */
export function permits(identity: Identity, { action, topic, retain = false }: Attempt): string {
  if (topic.length > MOST_CHARACTERS || topic.startsWith('$') || topic.includes('\0')) return 'it is no topic of a cluster';
  if (action !== 'subscribe' && /[+#]/.test(topic)) return 'it has a wildcard';
  if (retain && action !== 'subscribe') return 'nothing is retained here: what comes late is asked for';
  const { exact, patterns } = compiled(identity);
  const may = action === 'subscribe' ? 'subscribe' : 'publish';
  const covered = ({ topic: pattern, ...right }: Right): boolean =>
    right.may === may && (action !== 'will' || right.will === true) && covers(pattern, topic);
  const found = exact.get(`${may} ${topic}`);
  if (found !== undefined && (action !== 'will' || found.will === true)) return '';
  if (patterns.some(covered)) return '';
  return `${identity.role} ${identity.name} may not ${action === 'subscribe' ? 'read' : action === 'will' ? 'leave a Last Will' : 'write'} there`;
}

/**
 * May a client of this identity have this MQTT client id? Its name part is the certificate's name, or for operators and viewers a session of it; the gateway is the
 * scheduler on the bus and the dispatcher on lanes. '' or why not.
 */
export function permitsClient({ role, name }: Identity, client: string): string {
  const own = role === 'gateway' ? [SCHEDULER, DISPATCHER, name] : [name];
  const allowed = own.includes(client) || ((role === 'operator' || role === 'viewer') && ownerOf(client) === name);
  return allowed ? '' : `the certificate is ${role} ${name}'s, and the client id says '${client.slice(0, 100)}'`;
}

/** Does `pattern` cover everything that `topic`, which may be a filter itself, stands for? */
export function covers(pattern: string, topic: string): boolean {
  const [wide, narrow] = [pattern.split('/'), topic.split('/')];
  for (const [i, level] of wide.entries()) {
    if (level === '#') return true;
    const other = narrow[i];
    if (other === undefined || other === '#' || other === '') return false;
    if (level !== '+' && level !== other) return false;
  }
  return wide.length === narrow.length;
}

interface Compiled {
  readonly exact: ReadonlyMap<string, Right>;
  readonly patterns: readonly Right[];
}

/** Asked for every message: rules are made once for each identity, and forgotten with it. */
const made = new WeakMap<Identity, Compiled>();

function compiled(identity: Identity): Compiled {
  const known = made.get(identity);
  if (known !== undefined) return known;
  const rights = rightsOf(identity);
  const isExact = ({ topic }: Right): boolean => !/[+#]/.test(topic);
  const exact = new Map(rights.filter(isExact).map((right) => [`${right.may} ${right.topic}`, right]));
  const rules = { exact, patterns: rights.filter((right) => !isExact(right)) };
  made.set(identity, rules);
  return rules;
}

/** The table for people: docs/security.md holds it, and a test compares. */
export function aclTable(): string {
  const rows = ROLES.flatMap((role: Role) =>
    rightsOf({ cluster: 'CLUSTER', role, name: 'NAME' }).map(
      ({ may, topic, what, will }) =>
        `| ${role} | ${may === 'publish' ? (will === true ? 'write, Last Will' : 'write') : 'read'} | \`${topic}\` | ${what} |`,
    ),
  );
  return ['| role | may | topic | what |', '| --- | --- | --- | --- |', ...rows].join('\n');
}

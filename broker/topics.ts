/**
 * Every topic in one typed table. Nothing depends on a retained message. What agents and clients say stands on a name of each speaker's own, `mc/lab/hello/by/pi-1`, so
 * that any broker can hold them to it by its access list; whoever listens to all of them subscribes to `mc/lab/hello/by/+`. That is the only wildcard.
 */
import type {
  BlobChunk,
  BlobRequest,
  Cancel,
  Command,
  Gone,
  Health,
  Hello,
  PeersQuestion,
  Progress,
  Reign,
  Reply,
  Request,
  Response,
  ResultAck,
  Trouble,
  UploadAck,
  UploadChunk,
} from './messages.js';
import type { SchemaVersion } from './schema/version.js';

/** A topic's name with its payload schema. `retain` is always false: correctness must not rest on it. */
export interface Topic<T> {
  readonly name: string;
  /** Name of the Avro record in broker/schema/. */
  readonly schema: string;
  readonly qos: 0 | 1;
  /** Said on a name of the speaker's own (`spokenBy`), which this field of the message repeats. */
  readonly speaker?: 'agent' | 'client';
  /** Write in this version (a peer that is older, see `reconcile`); default our own. Reading needs no such word: the prologue tells. */
  readonly version?: SchemaVersion;
  /** Phantom: the payload type. */
  readonly payload?: T;
}

/** A dot in a name is a `~` in its topic (which no name has): RabbitMQ's MQTT plug-in takes dots for slashes, and what is published to `pi.local` would reach nobody. */
function level(name: string): string {
  return name.replaceAll('.', '~');
}

/** What all topics of a cluster begin with. */
export function rootOf(cluster: string): string {
  return `mc/${level(cluster)}`;
}

/**
 * Topics of one cluster. Names of agents, clients and clusters match NAME_PATTERN, so they cannot escape their level.
 * `version` is for publishing to peers that speak an older schema version.
 */
export function topicsOf(cluster: string, version?: SchemaVersion) {
  function topic<T>(name: string, schema: string, qos: 0 | 1, speaker?: 'agent' | 'client'): Topic<T> {
    return { name, schema, qos, ...(speaker === undefined ? {} : { speaker }), ...(version === undefined ? {} : { version }) };
  }
  const root = rootOf(cluster);
  /** Owner and session are levels of their own: an access list knows whole levels only. */
  const home = (client: string): string => `${root}/client/${level(ownerOf(client))}/${sessionOf(client)}`;
  return {
    /** agents -> scheduler */
    hello: topic<Hello>(`${root}/hello`, 'Hello', 1, 'agent'),
    health: topic<Health>(`${root}/health`, 'Health', 0, 'agent'),
    gone: topic<Gone>(`${root}/gone`, 'Gone', 1, 'agent'),
    reply: topic<Reply>(`${root}/reply`, 'Reply', 1, 'agent'),
    progress: topic<Progress>(`${root}/progress`, 'Progress', 0, 'agent'),
    trouble: topic<Trouble>(`${root}/trouble`, 'Trouble', 1, 'agent'),
    /** Answered by a `peers` command. */
    peersQuestion: topic<PeersQuestion>(`${root}/peers`, 'PeersQuestion', 1, 'agent'),
    /** scheduler -> everyone */
    reign: topic<Reign>(`${root}/reign`, 'Reign', 1),
    /** scheduler -> one agent */
    command: (agent: string) => topic<Command>(`${root}/agent/${level(agent)}/command`, 'Command', 1),
    /** blobs: agent -> gateway, gateway -> agent */
    blobRequest: topic<BlobRequest>(`${root}/blob/request`, 'BlobRequest', 0, 'agent'),
    blobChunk: (agent: string) => topic<BlobChunk>(`${root}/agent/${level(agent)}/blob`, 'BlobChunk', 0),
    /** model files: client -> gateway, gateway -> client */
    uploadChunk: topic<UploadChunk>(`${root}/upload`, 'UploadChunk', 0, 'client'),
    uploadAck: (client: string) => topic<UploadAck>(`${home(client)}/upload`, 'UploadAck', 0),
    /** clients <-> scheduler */
    request: topic<Request>(`${root}/request`, 'Request', 1, 'client'),
    /** As `request`, for what changes nothing and costs little: viewers may. */
    ask: topic<Request>(`${root}/ask`, 'Request', 1, 'client'),
    response: (client: string) => topic<Response>(`${home(client)}/response`, 'Response', 1),
    /**
     * Lane messages (bytes, see broker/activation.ts): direct on the receiver's own listener; relayed through the broker on the same names, `spokenBy` the sender.
     */
    activation: (agent: string) => `${root}/lane/${level(agent)}`,
    cancel: (agent: string) => topic<Cancel>(`${root}/lane/${level(agent)}/cancel`, 'Cancel', 0),
    probe: (peer: string) => `${root}/lane/${level(peer)}/probe`,
    submit: `${root}/submit`,
    result: (client: string) => `${home(client)}/result`,
    resultAck: topic<ResultAck>(`${root}/submit/ack`, 'ResultAck', 0),
  };
}

export type Topics = ReturnType<typeof topicsOf>;

/** The name on which `speaker` says what is said on `name`. */
export function spokenBy(name: string, speaker: string): string {
  return `${name}/by/${level(speaker)}`;
}

/** To listen to all of them. */
export function byAnyone(name: string): string {
  return `${name}/by/+`;
}

/** Undoes `spokenBy`; undefined for a topic without a speaker. */
export function speakerOf(topic: string): { readonly name: string; readonly speaker: string } | undefined {
  const at = topic.lastIndexOf('/by/');
  if (at < 0) return undefined;
  return { name: topic.slice(0, at), speaker: topic.slice(at + '/by/'.length).replaceAll('~', '.') };
}

/** What a client's process adds to the name of whoever runs it: `alice-1a2b3c4d`. */
const SESSION = /-([0-9a-f]{8})$/;

/** Whose client this is: one person or program may run several at once. */
export function ownerOf(client: string): string {
  return client.replace(SESSION, '');
}

function sessionOf(client: string): string {
  return SESSION.exec(client)?.[1] ?? '0';
}

/** A name for a client of `owner`. `nonce`: eight hexadecimal digits. */
export function sessionName(owner: string, nonce: string): string {
  return `${owner}-${nonce}`;
}

/** The name in an MQTT client id: what stands before `~` and the nonce. */
export function nameOf(clientId: string): string {
  const end = clientId.indexOf('~');
  return end < 0 ? clientId : clientId.slice(0, end);
}

/** Who speaks on the bus as `id`, in messages of this topic. */
export function speakerOn({ speaker }: Pick<Topic<unknown>, 'speaker'>, id: string): string {
  return speaker === 'client' ? ownerOf(id) : id;
}

/** Letters, digits, dot, dash, underscore; 1 to 64. */
export const NAME_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/** The dispatcher's name as a lane peer. No agent may take it. */
export const DISPATCHER = 'dispatcher';

/** The scheduler's name on the bus. It may say what others say: it asks itself as a client would. */
export const SCHEDULER = 'scheduler';

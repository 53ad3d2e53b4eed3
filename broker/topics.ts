/** Every topic in one typed table. No wildcard is ever subscribed, and nothing depends on a retained message. */
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
  /** Write in this version (a peer that is older, see `reconcile`); default our own. Reading needs no such word: the prologue tells. */
  readonly version?: SchemaVersion;
  /** Phantom: the payload type. */
  readonly payload?: T;
}

/**
 * Topics of one cluster. Names of agents, clients and clusters match NAME_PATTERN, so they cannot escape their level. A dot in a name is a `~` in its topic (which no
 * name has): RabbitMQ's MQTT plug-in takes dots for slashes, and what is published to `pi.local` would reach nobody.
 * `version` is for publishing to peers that speak an older schema version.
 */
export function topicsOf(cluster: string, version?: SchemaVersion) {
  function topic<T>(name: string, schema: string, qos: 0 | 1): Topic<T> {
    return { name, schema, qos, ...(version === undefined ? {} : { version }) };
  }
  const level = (name: string): string => name.replaceAll('.', '~');
  const root = `mc/${level(cluster)}`;
  return {
    /** agents -> scheduler */
    hello: topic<Hello>(`${root}/hello`, 'Hello', 1),
    health: topic<Health>(`${root}/health`, 'Health', 0),
    gone: topic<Gone>(`${root}/gone`, 'Gone', 1),
    reply: topic<Reply>(`${root}/reply`, 'Reply', 1),
    progress: topic<Progress>(`${root}/progress`, 'Progress', 0),
    trouble: topic<Trouble>(`${root}/trouble`, 'Trouble', 1),
    /** Answered by a `peers` command. */
    peersQuestion: topic<PeersQuestion>(`${root}/peers`, 'PeersQuestion', 1),
    /** scheduler -> everyone */
    reign: topic<Reign>(`${root}/reign`, 'Reign', 1),
    /** scheduler -> one agent */
    command: (agent: string) => topic<Command>(`${root}/agent/${level(agent)}/command`, 'Command', 1),
    /** blobs: agent -> gateway, gateway -> agent */
    blobRequest: topic<BlobRequest>(`${root}/blob/request`, 'BlobRequest', 0),
    blobChunk: (agent: string) => topic<BlobChunk>(`${root}/agent/${level(agent)}/blob`, 'BlobChunk', 0),
    /** model files: client -> gateway, gateway -> client */
    uploadChunk: topic<UploadChunk>(`${root}/upload`, 'UploadChunk', 0),
    uploadAck: (client: string) => topic<UploadAck>(`${root}/client/${level(client)}/upload`, 'UploadAck', 0),
    /** clients <-> scheduler */
    request: topic<Request>(`${root}/request`, 'Request', 1),
    response: (client: string) => topic<Response>(`${root}/client/${level(client)}/response`, 'Response', 1),
    /** Lane messages (bytes, see broker/activation.ts): direct on the receiver's own listener, relayed through the broker; the same names on both. */
    activation: (agent: string) => `${root}/lane/${level(agent)}`,
    cancel: (agent: string) => topic<Cancel>(`${root}/lane/${level(agent)}/cancel`, 'Cancel', 0),
    probe: (peer: string) => `${root}/lane/${level(peer)}/probe`,
    submit: `${root}/submit`,
    result: (client: string) => `${root}/client/${level(client)}/result`,
    resultAck: topic<ResultAck>(`${root}/submit/ack`, 'ResultAck', 0),
  };
}

export type Topics = ReturnType<typeof topicsOf>;

/** Letters, digits, dot, dash, underscore; 1 to 64. */
export const NAME_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/** The dispatcher's name as a lane peer. No agent may take it. */
export const DISPATCHER = 'dispatcher';

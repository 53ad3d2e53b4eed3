/**
 * What a gateway says of itself on the local network, as DNS-SD records (RFC 6763): PTR from the service type to an instance, SRV and TXT of the instance, A of
 * a host name of its own. Pure: which records answer which question, and what records say.
 */
import { DNS_TYPE, type DnsMessage, type DnsName, type DnsQuestion, type DnsRecord, sameName } from './dns-message.js';

/** What is announced. */
export interface GatewayNotice {
  /** Random per start, hex: makes names unique, so nothing has to be probed for. */
  readonly id: string;
  readonly cluster: string;
  /** The machine's name, for people. */
  readonly host: string;
  /** Port of the MQTT broker on the gateway; ignored when `brokerUrl` is given. */
  readonly port: number;
  /** Where machines join, on the gateway itself; default: nobody needs to. */
  readonly enrolmentPort?: number;
  /** It speaks TLS; default: it does not. */
  readonly encrypted?: boolean;
  /** A broker that runs elsewhere. */
  readonly brokerUrl?: string;
  readonly softwareVersion: string;
}

/** What was found. */
export interface FoundGateway {
  /** Name of the instance, for people: `lab on pi-1 3f2a90`. */
  readonly name: string;
  readonly cluster: string;
  /** The broker, at the address that answered first. */
  readonly url: string;
  readonly softwareVersion: string;
  /** Where machines join, if that is said: on the gateway itself, wherever its broker is. */
  readonly enrolment?: { readonly host: string; readonly port: number };
}

const TYPE: DnsName = ['_musical-chair', '_tcp', 'local'];
/** Answers "which services are there at all?" (RFC 6763, section 9). */
const ALL_SERVICES: DnsName = ['_services', '_dns-sd', '_udp', 'local'];
const TTL_SECONDS = 120;
/** For askers that do not follow multicast DNS and would keep an answer too long (RFC 6762, 6.7). */
const LEGACY_TTL_SECONDS = 10;

/** The question that every gateway answers. */
export const GATEWAYS_QUESTION: DnsQuestion = { name: TYPE, type: DNS_TYPE.ptr, unicast: false };

// ---- the gateway's side --------------------------------------------------------------------------------------------------------

/** All records of a gateway as seen from a link where it has these addresses. */
export function recordsOf(notice: GatewayNotice, addresses: readonly string[], ttlSeconds = TTL_SECONDS): DnsRecord[] {
  const instance = instanceName(notice);
  const host: DnsName = [`musical-chair-${notice.id}`, 'local'];
  const strings = [
    'txtvers=1',
    `cluster=${notice.cluster}`,
    `version=${notice.softwareVersion}`,
    ...(notice.encrypted === true ? ['tls=1'] : []),
    ...(notice.enrolmentPort === undefined ? [] : [`enrol=${notice.enrolmentPort}`]),
    ...(notice.brokerUrl === undefined ? [] : [`broker=${notice.brokerUrl}`]),
  ];
  return [
    { type: 'ptr', name: TYPE, ttlSeconds, unique: false, target: instance },
    { type: 'srv', name: instance, ttlSeconds, unique: true, port: notice.port, target: host },
    { type: 'txt', name: instance, ttlSeconds, unique: true, strings },
    ...addresses.map((address): DnsRecord => ({ type: 'a', name: host, ttlSeconds, unique: true, address })),
  ];
}

/** A label has at most 63 bytes and a cluster's name up to 64: the TXT record has it whole. */
function instanceName({ cluster, host, id }: GatewayNotice): DnsName {
  const machine = host.replaceAll(/[^A-Za-z0-9._-]/g, '-').slice(0, 20);
  return [`${cluster.slice(0, 24)} on ${machine} ${id.slice(0, 6)}`, ...TYPE];
}

/** Multicast, unasked: when a gateway comes up, and with `ttlSeconds` 0 when it goes. */
export function announcement(records: readonly DnsRecord[]): DnsMessage {
  return { id: 0, response: true, questions: [], answers: records, additionals: [] };
}

/**
 * The answer to a query; undefined when it asks for nothing of ours, or knows the answer already. `legacy`: the asker is no multicast DNS responder itself (its
 * port is not 5353), so it gets its question and id back, and records that it will soon forget (RFC 6762, 6.7).
 */
export function answerTo(query: DnsMessage, records: readonly DnsRecord[], legacy: boolean): DnsMessage | undefined {
  if (query.response) return undefined;
  const asked = query.questions.filter((question) => records.some((record) => answers(question, record)) || isServicesQuestion(question));
  const listing: readonly DnsRecord[] = asked.some(isServicesQuestion)
    ? [{ type: 'ptr', name: ALL_SERVICES, ttlSeconds: TTL_SECONDS, unique: false, target: TYPE }]
    : [];
  const found = [...records.filter((record) => asked.some((question) => answers(question, record))), ...listing];
  const fresh = found.filter((record) => !query.answers.some((known) => isKnown(known, record)));
  if (fresh.length === 0) return undefined;
  const additionals = records.filter((record) => !found.includes(record));
  if (!legacy) return { id: 0, response: true, questions: [], answers: fresh, additionals };
  const short = (record: DnsRecord): DnsRecord => ({ ...record, ttlSeconds: LEGACY_TTL_SECONDS, unique: false });
  return { id: query.id, response: true, questions: asked, answers: fresh.map(short), additionals: additionals.map(short) };
}

function answers({ name, type }: DnsQuestion, record: DnsRecord): boolean {
  return (type === DNS_TYPE.any || type === DNS_TYPE[record.type]) && sameName(name, record.name);
}

function isServicesQuestion({ name, type }: DnsQuestion): boolean {
  return (type === DNS_TYPE.ptr || type === DNS_TYPE.any) && sameName(name, ALL_SERVICES);
}

/** Known-answer suppression (RFC 6762, 7.1), for shared records: that is where a crowd would answer. */
function isKnown(known: DnsRecord, record: DnsRecord): boolean {
  if (known.type !== 'ptr' || record.type !== 'ptr') return false;
  return sameName(known.name, record.name) && sameName(known.target, record.target) && known.ttlSeconds >= record.ttlSeconds / 2;
}

// ---- the finder's side ---------------------------------------------------------------------------------------------------------

/** What was heard of gateways so far, oldest first. Everything else that is said on a network is passed over. */
export class HeardRecords {
  readonly #records = new Map<string, DnsRecord>();
  /** Address that an instance's SRV record came from. */
  readonly #sources = new Map<string, string>();

  /** Takes in a response that came from `source`. A goodbye takes an instance away. */
  add(message: DnsMessage, source: string): void {
    if (!message.response) return;
    const records = [...message.answers, ...message.additionals];
    for (const record of records) {
      const ofInstance = (record.type === 'srv' || record.type === 'txt') && sameName(record.name.slice(1), TYPE);
      if (record.type === 'ptr' && sameName(record.name, TYPE)) {
        if (record.ttlSeconds === 0) this.#remove(record.target);
        else this.#keep(record);
      } else if (ofInstance && record.ttlSeconds > 0) {
        this.#keep(record);
        if (record.type === 'srv' && !this.#sources.has(keyOf(record.name))) this.#sources.set(keyOf(record.name), source);
      }
    }
    const hosts = this.#all('srv').map(({ target }) => keyOf(target));
    for (const record of records)
      if (record.type === 'a' && record.ttlSeconds > 0 && hosts.includes(keyOf(record.name))) this.#keep(record);
  }

  /** Gateways whose cluster and address are known. */
  gateways(): FoundGateway[] {
    return this.#instances().flatMap((instance) => {
      const txt = this.#find(instance, 'txt');
      const srv = this.#find(instance, 'srv');
      const cluster = txt === undefined ? undefined : entry(txt.strings, 'cluster');
      if (txt === undefined || srv === undefined || cluster === undefined) return [];
      const scheme = entry(txt.strings, 'tls') === '1' ? 'mqtts' : 'mqtt';
      const address = this.#addressOf(srv, this.#sources.get(keyOf(instance)) ?? '');
      const url =
        entry(txt.strings, 'broker') ?? (address === undefined || srv.port === 0 ? undefined : `${scheme}://${address}:${srv.port}`);
      if (url === undefined || !URL_PATTERN.test(url)) return [];
      const port = Number(entry(txt.strings, 'enrol'));
      const enrolment = address !== undefined && port > 0 && port < 65_536 ? { enrolment: { host: address, port } } : {};
      return [{ name: instance[0] ?? '', cluster, url, softwareVersion: entry(txt.strings, 'version') ?? '', ...enrolment }];
    });
  }

  /** What to ask for next: responders may leave out what they were not asked for. */
  questions(): DnsQuestion[] {
    const missing = this.#instances().flatMap((instance): DnsQuestion[] => {
      const srv = this.#find(instance, 'srv');
      if (srv === undefined || this.#find(instance, 'txt') === undefined) return [{ name: instance, type: DNS_TYPE.any, unicast: false }];
      return this.#find(srv.target, 'a') === undefined ? [{ name: srv.target, type: DNS_TYPE.a, unicast: false }] : [];
    });
    return [GATEWAYS_QUESTION, ...missing.slice(0, MOST_QUESTIONS)];
  }

  #instances(): DnsName[] {
    return this.#all('ptr').map(({ target }) => target);
  }

  #all<T extends DnsRecord['type']>(type: T): RecordOf<T>[] {
    return [...this.#records.values()].filter((record): record is RecordOf<T> => record.type === type);
  }

  #find<T extends DnsRecord['type']>(name: DnsName, type: T): RecordOf<T> | undefined {
    return this.#all(type).find((record) => sameName(record.name, name));
  }

  /** The address that answered is one that can be reached; else the first that is named. */
  #addressOf(srv: RecordOf<'srv'>, source: string): string | undefined {
    const named = this.#all('a').flatMap((record) => (sameName(record.name, srv.target) ? [record.address] : []));
    return named.includes(source) ? source : named[0];
  }

  #keep(record: DnsRecord): void {
    const { ttlSeconds: _ttl, unique: _unique, ...said } = record;
    if (this.#records.size < MOST_RECORDS) this.#records.set(JSON.stringify(said), record);
  }

  #remove(instance: DnsName): void {
    for (const [key, record] of this.#records) {
      const points = record.type === 'ptr' && sameName(record.target, instance);
      if (points || sameName(record.name, instance)) this.#records.delete(key);
    }
    this.#sources.delete(keyOf(instance));
  }
}

type RecordOf<T extends DnsRecord['type']> = Extract<DnsRecord, { type: T }>;

/** As the setting `broker` takes them. */
const URL_PATTERN = /^mqtts?:\/\/[^/\s]+$/;
/** Of more than a hundred gateways; beyond that somebody makes them up. */
const MOST_RECORDS = 400;
const MOST_QUESTIONS = 20;

function entry(strings: readonly string[], key: string): string | undefined {
  const found = strings.find((text) => text.toLowerCase().startsWith(`${key}=`));
  return found?.slice(key.length + 1);
}

function keyOf(name: DnsName): string {
  return JSON.stringify(name.map((label) => label.toLowerCase()));
}

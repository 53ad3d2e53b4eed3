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

/** Where a gateway is. */
export interface Place {
  /** The broker, at the address that answered first. */
  readonly url: string;
  /** Where machines join, if that is said: on the gateway itself, wherever its broker is. */
  readonly enrolment?: { readonly host: string; readonly port: number };
}

/** What was found. */
export interface FoundGateway extends Place {
  /** Name of the instance, for people: `lab on pi-1 3f2a90`. */
  readonly name: string;
  readonly cluster: string;
  readonly softwareVersion: string;
  /** Where others say that it is: it answers from several addresses, or somebody speaks in its name. For those who can tell who is there. */
  readonly also?: readonly Place[];
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

/**
 * What was heard of gateways so far, oldest first. Everything else that is said on a network is passed over. Anybody can say anything, in the name of a gateway, too: so
 * what each machine says stands by itself, and nothing of it takes away, replaces or crowds out what another said.
 */
export class HeardRecords {
  /** By the address of who said them, first heard first. */
  readonly #sources = new Map<string, Map<string, DnsRecord>>();
  #count = 0;

  /** Takes in a response that came from `source`. A goodbye takes an instance away, as far as the same source spoke of it. */
  add(message: DnsMessage, source: string): void {
    if (!message.response) return;
    const records = [...message.answers, ...message.additionals];
    for (const record of records) {
      const ofInstance = (record.type === 'srv' || record.type === 'txt') && sameName(record.name.slice(1), TYPE);
      if (record.type === 'ptr' && sameName(record.name, TYPE)) {
        if (record.ttlSeconds === 0) this.#remove(record.target, source);
        else this.#keep(record, source);
      } else if (ofInstance && record.ttlSeconds > 0) this.#keep(record, source);
    }
    const hosts = this.#said(source, 'srv').map(({ target }) => keyOf(target));
    for (const record of records)
      if (record.type === 'a' && record.ttlSeconds > 0 && hosts.includes(keyOf(record.name))) this.#keep(record, source);
  }

  /** Gateways whose cluster and address are known. What several sources say of one instance of a cluster is one gateway, at the first one's place. */
  gateways(): FoundGateway[] {
    const found = new Map<string, FoundGateway>();
    for (const source of this.#sources.keys()) {
      for (const gateway of this.#gatewaysOf(source)) {
        const key = `${gateway.cluster} ${gateway.name}`;
        const first = found.get(key);
        const { url, enrolment } = gateway;
        const also = [...(first?.also ?? []), { url, ...(enrolment === undefined ? {} : { enrolment }) }];
        if (first === undefined) found.set(key, gateway);
        else if (![first, ...(first.also ?? [])].some((place) => place.url === url)) found.set(key, { ...first, also });
      }
    }
    return [...found.values()];
  }

  #gatewaysOf(source: string): FoundGateway[] {
    return this.#instances(source).flatMap((instance) => {
      const txt = this.#find(source, instance, 'txt');
      const srv = this.#find(source, instance, 'srv');
      const cluster = txt === undefined ? undefined : entry(txt.strings, 'cluster');
      if (txt === undefined || srv === undefined || cluster === undefined) return [];
      const scheme = entry(txt.strings, 'tls') === '1' ? 'mqtts' : 'mqtt';
      const address = this.#addressOf(source, srv);
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
    const missing = [...this.#sources.keys()].map((source) =>
      this.#instances(source).flatMap((instance): DnsQuestion[] => {
        const srv = this.#find(source, instance, 'srv');
        if (srv === undefined || this.#find(source, instance, 'txt') === undefined)
          return [{ name: instance, type: DNS_TYPE.any, unicast: false }];
        return this.#find(source, srv.target, 'a') === undefined ? [{ name: srv.target, type: DNS_TYPE.a, unicast: false }] : [];
      }),
    );
    // In turn: one who leaves much out does not keep others from being asked.
    const longest = Math.max(0, ...missing.map(({ length }) => length));
    const inTurn = Array.from({ length: longest }, (_, i) => missing.flatMap((questions) => questions[i] ?? [])).flat();
    return [GATEWAYS_QUESTION, ...inTurn.slice(0, MOST_QUESTIONS)];
  }

  #instances(source: string): DnsName[] {
    return this.#said(source, 'ptr').map(({ target }) => target);
  }

  #said<T extends DnsRecord['type']>(source: string, type: T): RecordOf<T>[] {
    return [...(this.#sources.get(source)?.values() ?? [])].filter((record): record is RecordOf<T> => record.type === type);
  }

  #find<T extends DnsRecord['type']>(source: string, name: DnsName, type: T): RecordOf<T> | undefined {
    return this.#said(source, type).find((record) => sameName(record.name, name));
  }

  /** The address that answered is one that can be reached; else the first that is named. */
  #addressOf(source: string, srv: RecordOf<'srv'>): string | undefined {
    const named = this.#said(source, 'a').flatMap((record) => (sameName(record.name, srv.target) ? [record.address] : []));
    return named.includes(source) ? source : named[0];
  }

  #keep(record: DnsRecord, source: string): void {
    const { ttlSeconds: _ttl, unique: _unique, ...what } = record;
    const key = JSON.stringify(what);
    if (this.#sources.get(source)?.has(key) === true || !this.#hasRoom(source)) return;
    const records = this.#sources.get(source) ?? new Map<string, DnsRecord>();
    this.#sources.set(source, records.set(key, record));
    this.#count++;
  }

  /** When there is none, whoever has said most has his latest words forgotten; if that is the same one, he is not listened to. */
  #hasRoom(source: string): boolean {
    if (this.#count < MOST_RECORDS) return true;
    const [loudest, records] = [...this.#sources].reduce((most, one) => (one[1].size > most[1].size ? one : most));
    if (loudest === source) return false;
    this.#drop(loudest, [...records.keys()].at(-1) ?? '');
    return true;
  }

  #remove(instance: DnsName, source: string): void {
    for (const [key, record] of this.#sources.get(source) ?? []) {
      const points = record.type === 'ptr' && sameName(record.target, instance);
      if (points || sameName(record.name, instance)) this.#drop(source, key);
    }
  }

  #drop(source: string, key: string): void {
    const records = this.#sources.get(source);
    if (records?.delete(key) === true) this.#count--;
    if (records?.size === 0) this.#sources.delete(source);
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

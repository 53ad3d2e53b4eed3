/**
 * DNS messages as multicast DNS sends them (RFC 1035 section 4.1, RFC 6762 section 18): the five kinds of records that DNS-SD needs. Any bytes decode to a
 * message or to undefined, in time proportional to their length: what strangers multicast on a network is no error of ours.
 */

export const DNS_TYPE = { a: 1, ptr: 12, txt: 16, aaaa: 28, srv: 33, any: 255 } as const;

/** Labels from the leaf: `['lab on pi', '_musical-chair', '_tcp', 'local']`. A label may hold dots and spaces. */
export type DnsName = readonly string[];

export interface DnsQuestion {
  readonly name: DnsName;
  readonly type: number;
  /** QU: the asker also takes an answer to its own address (RFC 6762, 5.4). */
  readonly unicast: boolean;
}

export type DnsRecord = {
  readonly name: DnsName;
  readonly ttlSeconds: number;
  /** Cache flush: the sender owns the name, and these records replace others of it (RFC 6762, 10.2). */
  readonly unique: boolean;
} & DnsData;

export type DnsData =
  | { readonly type: 'ptr'; readonly target: DnsName }
  | { readonly type: 'srv'; readonly port: number; readonly target: DnsName }
  | { readonly type: 'txt'; readonly strings: readonly string[] }
  /** Dotted IPv4. */
  | { readonly type: 'a'; readonly address: string };

export interface DnsMessage {
  readonly id: number;
  readonly response: boolean;
  readonly questions: readonly DnsQuestion[];
  readonly answers: readonly DnsRecord[];
  readonly additionals: readonly DnsRecord[];
}

const HEADER_BYTES = 12;
const CLASS_IN = 1;
const CLASS_ANY = 255;
/** Top bit of the class: cache flush in a record, QU in a question. */
const TOP_BIT = 0x8000;
const RESPONSE_FLAGS = 0x8400;
const MAX_LABEL_BYTES = 63;
const MAX_NAME_BYTES = 255;
/** RFC 6762, 17: no multicast DNS message is larger. */
const MAX_MESSAGE_BYTES = 9000;
/** More than any answer on a network of ours needs; the counts of a header are only claims. */
const MAX_RECORDS = 200;

// ---- encoding ----------------------------------------------------------------------------------------------------------------

/** Bytes of a message, without name compression: ours are below 1 KB. Throws RangeError for a name or string that DNS cannot hold. */
export function encodeDns(message: DnsMessage): Buffer {
  const { id, response, questions, answers, additionals } = message;
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt16BE(id, 0);
  header.writeUInt16BE(response ? RESPONSE_FLAGS : 0, 2);
  header.writeUInt16BE(questions.length, 4);
  header.writeUInt16BE(answers.length, 6);
  header.writeUInt16BE(additionals.length, 10);
  const body = [
    ...questions.map(({ name, type, unicast }) => Buffer.concat([nameBytes(name), shorts(type, CLASS_IN | (unicast ? TOP_BIT : 0))])),
    ...[...answers, ...additionals].map(recordBytes),
  ];
  return Buffer.concat([header, ...body]);
}

function recordBytes(record: DnsRecord): Buffer {
  const data = dataBytes(record);
  const { ttlSeconds } = record;
  const kind = shorts(DNS_TYPE[record.type], CLASS_IN | (record.unique ? TOP_BIT : 0), ttlSeconds >>> 16, ttlSeconds & 0xffff, data.length);
  return Buffer.concat([nameBytes(record.name), kind, data]);
}

function dataBytes(data: DnsData): Buffer {
  switch (data.type) {
    case 'ptr':
      return nameBytes(data.target);
    case 'srv':
      // Priority and weight 0: there is one target.
      return Buffer.concat([shorts(0, 0, data.port), nameBytes(data.target)]);
    case 'txt':
      // An empty TXT record holds one empty string (RFC 6763, 6.1).
      return Buffer.concat((data.strings.length === 0 ? [''] : data.strings).map((text) => counted(text, 255)));
    case 'a':
      return Buffer.from(data.address.split('.').map(Number));
  }
}

function nameBytes(name: DnsName): Buffer {
  const bytes = Buffer.concat([...name.map((label) => counted(label, MAX_LABEL_BYTES)), Buffer.of(0)]);
  if (name.includes('') || bytes.length > MAX_NAME_BYTES) throw new RangeError(`no DNS name: ${name.join('.')}`);
  return bytes;
}

function counted(text: string, limit: number): Buffer {
  const bytes = Buffer.from(text);
  if (bytes.length > limit) throw new RangeError(`longer than ${limit} bytes: ${text}`);
  return Buffer.concat([Buffer.of(bytes.length), bytes]);
}

function shorts(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(2 * values.length);
  for (const [i, value] of values.entries()) bytes.writeUInt16BE(value, 2 * i);
  return bytes;
}

// ---- decoding ----------------------------------------------------------------------------------------------------------------

/** The message, with records of other types and classes left out; undefined when the bytes are no DNS message of a standard query or its answer. */
export function decodeDns(bytes: Buffer): DnsMessage | undefined {
  if (bytes.length > MAX_MESSAGE_BYTES) return undefined;
  try {
    return new Reader(bytes).message();
  } catch (error) {
    if (error instanceof Malformed) return undefined;
    throw error;
  }
}

class Malformed extends Error {}

class Reader {
  #at = 0;

  constructor(private readonly bytes: Buffer) {}

  message(): DnsMessage | undefined {
    const [id, flags, questionCount, answerCount, authorityCount, additionalCount] = [
      this.#short(),
      this.#short(),
      this.#short(),
      this.#short(),
      this.#short(),
      this.#short(),
    ];
    // Opcode and response code must be 0 (RFC 6762, 18.3 and 18.11).
    if ((flags & 0x780f) !== 0 || questionCount + answerCount + authorityCount + additionalCount > MAX_RECORDS) return undefined;
    const questions: DnsQuestion[] = [];
    for (let i = 0; i < questionCount; i++) {
      const [name, type, kind] = [this.#name(), this.#short(), this.#short()];
      const asked = kind & ~TOP_BIT;
      if (asked === CLASS_IN || asked === CLASS_ANY) questions.push({ name, type, unicast: (kind & TOP_BIT) !== 0 });
    }
    const answers = this.#records(answerCount);
    this.#records(authorityCount);
    return { id, response: (flags & 0x8000) !== 0, questions, answers, additionals: this.#records(additionalCount) };
  }

  #records(count: number): DnsRecord[] {
    const records: DnsRecord[] = [];
    for (let i = 0; i < count; i++) {
      const [name, type, kind] = [this.#name(), this.#short(), this.#short()];
      const ttlSeconds = this.#short() * 0x10000 + this.#short();
      const length = this.#short();
      const end = this.#at + length;
      if (end > this.bytes.length) throw new Malformed();
      const data = (kind & ~TOP_BIT) === CLASS_IN ? this.#data(type, end) : undefined;
      this.#at = end;
      if (data !== undefined) records.push({ name, ttlSeconds, unique: (kind & TOP_BIT) !== 0, ...data });
    }
    return records;
  }

  #data(type: number, end: number): DnsData | undefined {
    switch (type) {
      case DNS_TYPE.ptr:
        return { type: 'ptr', target: this.#name() };
      case DNS_TYPE.srv: {
        this.#short();
        this.#short();
        return { type: 'srv', port: this.#short(), target: this.#name() };
      }
      case DNS_TYPE.txt: {
        const strings: string[] = [];
        while (this.#at < end) strings.push(this.#text(this.#byte()));
        return { type: 'txt', strings: strings.filter((text) => text !== '') };
      }
      case DNS_TYPE.a:
        return { type: 'a', address: [this.#byte(), this.#byte(), this.#byte(), this.#byte()].join('.') };
      default:
        return undefined;
    }
  }

  /** A name may end in a pointer to an earlier one (RFC 1035, 4.1.4). Pointers only go back, so they cannot turn in circles. */
  #name(): DnsName {
    const labels: string[] = [];
    let [from, length, resume] = [this.#at, 0, -1];
    for (;;) {
      const head = this.#byte();
      if (head === 0) break;
      if ((head & 0xc0) === 0xc0) {
        const target = ((head & 0x3f) << 8) | this.#byte();
        if (resume < 0) resume = this.#at;
        if (target >= from) throw new Malformed();
        from = target;
        this.#at = target;
      } else if (head > MAX_LABEL_BYTES) throw new Malformed();
      else {
        length += head + 1;
        if (length >= MAX_NAME_BYTES) throw new Malformed();
        labels.push(this.#text(head));
      }
    }
    if (resume >= 0) this.#at = resume;
    return labels;
  }

  #text(length: number): string {
    const end = this.#at + length;
    if (end > this.bytes.length) throw new Malformed();
    const text = this.bytes.toString('utf8', this.#at, end);
    this.#at = end;
    return text;
  }

  #byte(): number {
    const byte = this.bytes[this.#at++];
    if (byte === undefined) throw new Malformed();
    return byte;
  }

  #short(): number {
    return this.#byte() * 0x100 + this.#byte();
  }
}

/** DNS names are the same whatever the case of their ASCII letters (RFC 6762, 16). */
export function sameName(a: DnsName, b: DnsName): boolean {
  return a.length === b.length && a.every((label, i) => label.toLowerCase() === b[i]?.toLowerCase());
}

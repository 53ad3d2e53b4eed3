/** What the commands on tokens, members and the audit log print. Pure. */
import type { AgentStatus, AuditEntryRow, MemberRow, TokenRow } from '../broker/messages.js';
import type { RestoreReport } from '../scheduler/backup/restore.js';
import { durationText } from './duration.js';
import { printable } from './printable.js';
import { formatTable } from './table.js';

const time = (ms: number): string => new Date(ms).toISOString().slice(0, 16).replace('T', ' ');
const day = (ms: number): string => time(ms).slice(0, 10);
/** As much of a fingerprint as people compare: 64 bits. */
const short = (key: string): string => key.slice(0, 16);

export interface Invited {
  readonly token: string;
  readonly row: TokenRow;
  readonly cluster: string;
  /** Where the machine finds the gateway, `host:8884`. */
  readonly gateway: string;
  readonly program: string;
  readonly nowMs: number;
}

/** The token, and what is to be typed where. */
export function invitedText({ token, row, cluster, gateway, program, nowMs }: Invited): string {
  const named = cluster === 'default' ? '' : ` --cluster ${cluster}`;
  const line = row.role === 'agent' ? `agent --name ${row.name}${named} --gateway ${gateway}` : `enrol --gateway ${gateway}`;
  return [
    `Token for ${row.role} ${row.name}, good for one machine and ${durationText(row.expiresMs - nowMs)} (until ${time(row.expiresMs)} UTC):`,
    '',
    `  ${token}`,
    '',
    'It is shown only now. On that machine:',
    '',
    `  ${program} ${line} --token ${token}`,
    ...(row.role === 'agent' ? bundleLines(row.name, named, gateway) : []),
    ...(row.hold ? ['', `Its join waits until you say: ${program} agents approve ${row.name}`] : []),
  ].join('\n');
}

/** install.sh knows the usual ports only: another one stands in a settings file, for which it has --config. */
function bundleLines(name: string, named: string, gateway: string): string[] {
  const host = gateway.replace(/^\[(.*)\]$/, '$1');
  if (/^[^:]*:\d+$/.test(host) || gateway.includes(']:')) return [];
  return [
    '',
    'or, where a bundle was unpacked (docs/flashing.md), with the token on standard input:',
    '',
    `  sudo ./musical-chair/install.sh --name ${name}${named} --gateway ${host} --token-file -`,
  ];
}

export function tokensText(rows: readonly TokenRow[], nowMs: number, columns: number): string {
  if (rows.length === 0) return 'no tokens';
  const failed = rows.some(({ failures }) => failures > 0);
  const table = rows.map((row) => {
    const over = row.state === 'expired' || (row.state === 'open' && row.expiresMs < nowMs);
    const when = row.state === 'open' && !over ? `for ${durationText(row.expiresMs - nowMs)}` : time(over ? row.expiresMs : row.sinceMs);
    const wrong = row.failures === 0 ? '' : String(row.failures);
    return [row.id, row.role, row.name, over ? 'expired' : row.state, when, short(row.key), ...(failed ? [wrong] : [])];
  });
  return formatTable(
    [
      { title: 'id', whole: true },
      { title: 'role', drop: 1 },
      { title: 'name', whole: true },
      { title: 'state', whole: true },
      { title: 'when (UTC)', whole: true },
      { title: 'key', align: 'right', drop: 2 },
      ...(failed ? [{ title: 'wrong tries', align: 'right' } as const] : []),
    ],
    table,
    columns,
  );
}

/** Who has joined, and who of the agents is here now. */
export function membersText(
  rows: readonly MemberRow[],
  agents: readonly Pick<AgentStatus, 'agent' | 'state'>[],
  nowMs: number,
  columns: number,
): string {
  const here = new Map(agents.map(({ agent, state }) => [agent, state]));
  // Keys are compared before somebody is let in, and not after.
  const keys = rows.some(({ state }) => state === 'held');
  const table = rows.map((row) => {
    const left =
      row.notAfterMs === 0 ? '' : row.state === 'valid' ? `for ${durationText(row.notAfterMs - nowMs)}` : `until ${day(row.notAfterMs)}`;
    return [
      row.name,
      row.role,
      row.state,
      row.role === 'agent' ? (here.get(row.name) ?? '-') : '',
      left,
      ...(keys ? [row.state === 'held' ? short(row.key) : ''] : []),
      row.why,
    ];
  });
  return formatTable(
    [
      { title: 'name', whole: true },
      { title: 'role' },
      { title: 'certificate' },
      { title: 'agent' },
      { title: 'good', whole: true },
      ...(keys ? [{ title: 'key', align: 'right' } as const] : []),
      { title: 'by, why' },
    ],
    table,
    columns,
  );
}

/** What a restore says: who is out, who may not be, and what a clock does that is behind. */
export function inheritedLines(
  { trust, clockBehindMs, madeAtMs }: Pick<RestoreReport, 'trust' | 'clockBehindMs' | 'madeAtMs'>,
  program: string,
): string[] {
  const { stillRevoked, read, unread } = trust;
  const others = stillRevoked.length === 0 ? 'nobody else' : stillRevoked.join(', ');
  const elsewhere = `Who was revoked after that time is in again: revoke them again (${program} agents revoke NAME; with --unknown who joined after it).`;
  return [
    read.length === 0
      ? elsewhere
      : `Still revoked, as ${read.join(', ')} says: ${others}. Only a new token lets anybody in again who was revoked.`,
    ...unread.map((folder) => `Who was revoked in ${folder} cannot be read there: revoke again whom you know of.`),
    `Tokens of before are void: ${program} token create.`,
    ...(clockBehindMs < 60_000
      ? []
      : [
          `The clock says ${time(madeAtMs - clockBehindMs)} UTC, before the backup was made: set it first, or new tokens are good for the wrong time.`,
        ]),
  ];
}

const TIME_COLUMNS = 19;
const EVENT_COLUMNS = 14;
/** Of the words of an entry: in a line of their own they begin under the event. */
const WORDS_AT = TIME_COLUMNS + 2 + EVENT_COLUMNS + 2;
const FURTHER_AT = TIME_COLUMNS + 4;

/**
 * An entry as one line, or where that is longer than `columns`, as several. Keys are cut to what people compare, and what a machine that was refused should do is left
 * out: --json has all of it.
 */
export function auditText(rows: readonly AuditEntryRow[], columns = Number.POSITIVE_INFINITY): string {
  if (rows.length === 0) return 'nothing of this is in the audit log';
  const head = `${'time (UTC)'.padEnd(TIME_COLUMNS)}  ${'what'.padEnd(EVENT_COLUMNS)}  to whom, by whom, from where`;
  return [head, ...rows.flatMap((row) => auditLines(row, columns))].join('\n');
}

function auditLines({ at, event, ...words }: AuditEntryRow, columns: number): string[] {
  const { about, by, from, code, detail, unsaid } = words;
  const parts = [code, about, by === '' ? '' : `by ${by}`, from === '' ? '' : `from ${from}`].filter((part) => part !== '');
  const why = event === 'refused' ? detail.replace(ADVICE, '') : detail;
  const said = [parts.join(', '), why].filter((part) => part !== '').join(': ');
  const before = unsaid === 0 ? '' : ` (and ${unsaid} more before it)`;
  const text = printable(`${shortened(said)}${before}`);
  const start = `${at.slice(0, TIME_COLUMNS).replace('T', ' ')}  ${event.padEnd(EVENT_COLUMNS)}  `;
  const [first = '', ...further] = broken(text, columns - WORDS_AT, columns - FURTHER_AT);
  return [`${start}${first}`.trimEnd(), ...further.map((line) => `${' '.repeat(FURTHER_AT)}${line}`)];
}

/** Behind what is wrong: a sentence to whoever was refused. */
const ADVICE = /\. [A-Z].*$/s;

/** Keys and fingerprints: as much as people compare, and that it is not all. Times as they are shown elsewhere. */
function shortened(text: string): string {
  const times = text.replaceAll(/\b(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(?:\.\d+)?Z/g, '$1 $2');
  return times.replaceAll(/\b([0-9a-f]{16})[0-9a-f]{16,}\b/gi, '$1…');
}

/** Lines of at most `first` and then `further` characters, broken at spaces; a word that is longer than a line, in the middle. */
function broken(text: string, first: number, further: number): string[] {
  if (text.length <= first) return [text];
  const space = text.lastIndexOf(' ', first);
  const end = space > 0 ? space : first;
  return [text.slice(0, end), ...broken(text.slice(end).trimStart(), further, further)];
}

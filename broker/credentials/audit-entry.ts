/** What stands in the audit log, as plain data and as a line. Pure. */
import type { ErrorCode } from '../errors.js';
import { plainAddress } from '../host.js';
import { cutPrintable, printable } from '../printable.js';
import { NAME_PATTERN } from '../topics.js';
import { ROLES } from './credentials.js';

export const AUDIT_EVENTS = [
  'authority made',
  'token created',
  'token revoked',
  'token locked',
  'joined',
  'held',
  'approved',
  'renewed',
  'revoked',
  'refused',
  'deployed',
  'undeployed',
  'adjusted',
  'drained',
  'drain undone',
  'update ordered',
  'updated',
  'update failed',
  'backed up',
  'restored',
] as const;
export type AuditEvent = (typeof AUDIT_EVENTS)[number];

export interface AuditEntry {
  readonly event: AuditEvent;
  /** Who did it: `operator alice`, `agent pi-1`; '' = unknown. */
  readonly by?: string;
  /** To what or whom. */
  readonly about?: string;
  /** Address of the machine, when there is one. */
  readonly from?: string;
  /** Of a refusal: an error code. */
  readonly code?: string;
  readonly detail?: string;
  /** Refusals of this code, or renewals of this name, before this one that are not in the log. */
  readonly unsaid?: number;
}

export interface AuditRow extends AuditEntry {
  readonly at: string;
}

/** Refusals that take neither a secret nor a certificate of ours, or may not: anybody who reaches a port can cause as many as he likes. */
const STRANGERS = new Set<string>([
  'TOKEN_INVALID',
  'TOKEN_REFUSED',
  'JOIN_REFUSED',
  'JOIN_BUSY',
  'CERTIFICATE_FOREIGN',
  'TLS_FAILED',
  'INTERNAL',
] satisfies ErrorCode[]);

export function isStrangers(code: string): boolean {
  return STRANGERS.has(code);
}

/** Of a field, when it is escaped; of a text in the place of a name. */
const FIELD_CHARACTERS = 300;
const ODD_NAME_CHARACTERS = 24;

/** As much of it as is kept: no field is longer than it should be, escaped as it will be, and nobody is called by what is no name. */
export function brief(entry: AuditEntry): AuditEntry {
  const { by = '', about = '', from = '', code = '', detail = '' } = entry;
  const subject = entry.event === 'refused' ? subjectOf(about) : about;
  const said = Object.entries({ by, about: subject, from: plainAddress(from), code, detail }).filter(([, text]) => text !== '');
  return { ...entry, ...Object.fromEntries(said.map(([key, text]) => [key, cutPrintable(text, FIELD_CHARACTERS)])) };
}

/** One line of the log, printable ASCII; of what `brief` has cut. */
export function auditLine(row: AuditRow): string {
  const said = Object.entries(row).filter(([, value]) => value !== undefined && value !== '' && value !== 0);
  return `${printable(JSON.stringify(Object.fromEntries(said)))}\n`;
}

/** Whom a refusal is about is what somebody calls himself: what cannot be a name is no more than a sample. */
function subjectOf(about: string): string {
  const [, role = '', name = ''] = /^(\w+) (\S+)$/.exec(about) ?? [];
  if (about === '' || NAME_PATTERN.test(about) || (ROLES.some((known) => known === role) && NAME_PATTERN.test(name))) return about;
  return `no name of ${about.length} characters: ${cutPrintable(about, ODD_NAME_CHARACTERS)}`;
}

/** The row of a line; none of what is not one. */
export function auditRows(line: string): AuditRow[] {
  try {
    const row: unknown = JSON.parse(line);
    const known =
      typeof row === 'object' && row !== null && 'at' in row && 'event' in row && AUDIT_EVENTS.some((event) => event === row.event);
    return known ? [row as AuditRow] : [];
  } catch {
    return [];
  }
}

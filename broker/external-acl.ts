/**
 * The same rights on brokers that are not ours, in their own words. Mosquitto knows users by the subject of their certificates and topics by the whole level, as acl.ts
 * does: its file says the same. Others are refused rather than half-guarded.
 */
import { rightsOf } from './acl.js';
import type { Identity } from './credentials/credentials.js';
import { ChairError } from './errors.js';

/** The subject as Mosquitto shows it (RFC 2253: last part first), with `use_subject_as_username`. */
export function subjectOf({ cluster, role, name }: Identity): string {
  return `CN=${name},OU=${role},O=${cluster}`;
}

/** For `acl_file`: everything that is not listed is refused. */
function mosquittoAcl(identities: readonly Identity[]): string {
  const sections = identities.map((identity) => {
    const lines = rightsOf(identity).map(({ may, topic }) => `topic ${may === 'publish' ? 'write' : 'read'} ${topic}`);
    return [`user ${subjectOf(identity)}`, ...lines].join('\n');
  });
  const head = ['# Made by musical-chair. Make it anew, and send Mosquitto a SIGHUP, whenever somebody joins or is revoked.'];
  return `${[...head, ...sections].join('\n\n')}\n`;
}

export const EXTERNAL_BROKERS = ['mosquitto', 'rabbitmq', 'emqx'] as const;
export type ExternalBroker = (typeof EXTERNAL_BROKERS)[number];

/**
 * The access list of these identities for a broker of this make. Throws BROKER_REFUSED for one whose access list cannot say what ours does: it runs with --insecure
 * in a network of its own, or not at all.
 */
export function externalAcl(make: ExternalBroker, identities: readonly Identity[]): string {
  if (make === 'mosquitto') return mosquittoAcl(identities);
  const why =
    make === 'rabbitmq'
      ? 'its permissions are patterns on an account for each certificate, which nobody has tried with ours'
      : 'nobody has tried one with ours';
  throw new ChairError('BROKER_REFUSED', `there is no access list for ${make}: ${why}`, {
    expected: "the gateway's own broker, or Mosquitto",
    todo: 'Use `gateway`, whose broker holds everybody to the rights in docs/security.md.',
  });
}

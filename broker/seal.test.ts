import { beforeAll, describe, expect, it } from 'vitest';
import { decode, encode } from './codec.js';
import type { Credentials } from './credentials/credentials.js';
import type { Command } from './messages.js';
import { NO_SEAL, sealCheck, sealCommand } from './seal.js';
import { RenewedSource, type TestAuthority, testAuthority } from './test-credentials.js';

const BODY = { kind: 'standby', standby: { deployment: 'd', slices: [], leaseMs: 1000.5, urgent: false } } as const;
const COMMAND: Command = { id: 'c1', term: 3, scheduler: 's', nonce: 'n', deadlineMs: 12.25, body: BODY, seal: NO_SEAL };
const TO = { cluster: 'test', agent: 'pi-1' };

let authority: TestAuthority;
let gateway: Credentials;
let agent: Credentials;
beforeAll(async () => {
  authority = await testAuthority();
  gateway = await authority.make('gateway', 'gateway');
  agent = await authority.make('agent', 'pi-1');
});

/** As it comes out of the wire at the agent; the code of what its check throws, or 'obeyed'. */
function judged(command: Command, name = 'pi-1', source = new RenewedSource(agent)): string {
  try {
    sealCheck(authority.trust(source), name)(decode('Command', encode('Command', command)) as Command);
    return 'obeyed';
  } catch (error) {
    return error instanceof Error && 'code' in error ? `${error.code}: ${error.message}` : String(error);
  }
}

describe('signed commands', () => {
  it('are obeyed by the agent that they are to, with all that they say', () => {
    expect(judged(sealCommand(COMMAND, TO, gateway))).toBe('obeyed');
  });

  it('are not obeyed when anything of them was changed', () => {
    const sealed = sealCommand(COMMAND, TO, gateway);
    const ref = { sha256: 'e'.repeat(64), sizeBytes: 4 };
    const slice = { graph: ref, blobs: [ref], macs: 1, weightBytes: 4, activationBytes: 4 };
    const changed: readonly Command[] = [
      { ...sealed, term: 4 },
      { ...sealed, id: 'c2' },
      { ...sealed, nonce: 'm' },
      { ...sealed, scheduler: 't' },
      { ...sealed, deadlineMs: 13 },
      { ...sealed, body: { kind: 'standby', standby: { ...BODY.standby, slices: [slice] } } },
      { ...sealed, body: { kind: 'release', release: { deployment: 'd', epoch: 1 } } },
    ];
    for (const command of changed) expect(judged(command)).toMatch(/SIGNATURE_WRONG.*not of this command/);
  });

  it('are not obeyed by another agent, nor in another cluster', async () => {
    expect(judged(sealCommand(COMMAND, TO, gateway), 'pi-2')).toMatch(/SIGNATURE_WRONG/);
    expect(judged(sealCommand(COMMAND, { ...TO, cluster: 'other' }, gateway))).toMatch(/SIGNATURE_WRONG/);
  });

  it('are not obeyed unsigned, or signed by an agent, an operator, another cluster, or with rubbish', async () => {
    const other = await testAuthority();
    expect(judged(COMMAND)).toMatch(/SIGNATURE_WRONG.*no signature/);
    for (const credentials of [agent, await authority.make('operator', 'alice'), await other.make('gateway', 'gateway')]) {
      expect(judged(sealCommand(COMMAND, TO, credentials))).toMatch(/SIGNATURE_WRONG/);
    }
    const { seal } = sealCommand(COMMAND, TO, gateway);
    for (const rubbish of [Buffer.from('rubbish'), seal.subarray(0, 64), seal.subarray(64), Buffer.concat([seal, Buffer.alloc(1)])]) {
      expect(judged({ ...COMMAND, seal: rubbish })).toMatch(/SIGNATURE_WRONG/);
    }
    // The right certificate with somebody else's signature.
    const forged = sealCommand(COMMAND, TO, agent).seal;
    expect(judged({ ...COMMAND, seal: Buffer.concat([forged.subarray(0, 64), seal.subarray(64)]) })).toMatch(/SIGNATURE_WRONG/);
  });

  it('are obeyed after the gateway renewed its certificate, and not when that was over', async () => {
    const renewed = await authority.make('gateway', 'gateway');
    expect(judged(sealCommand(COMMAND, TO, renewed))).toBe('obeyed');
    const later = new RenewedSource(agent, () => Date.now() + 3 * 24 * 3_600_000);
    expect(judged(sealCommand(COMMAND, TO, renewed), 'pi-1', later)).toMatch(/SIGNATURE_WRONG.*expired/);
  });
});

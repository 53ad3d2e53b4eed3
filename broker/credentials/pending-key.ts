/**
 * The key that a machine has asked to have signed: on its disk before the request leaves, so that whoever comes back after the power failed asks with the same
 * key, which its token is bound to by then. Gone once the certificate is there.
 */
import { createPrivateKey } from 'node:crypto';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { writeWhole } from '../sealed-file.js';

const FILE = 'pending-key.pem';

/** The key of an earlier request that was not answered, or a new one. PKCS#8 PEM. Throws CREDENTIALS_DAMAGED (disk full). */
export async function pendingKey(directory: string): Promise<string> {
  const file = join(directory, FILE);
  const found = await readFile(file, 'utf8').catch(() => '');
  if (isKey(found)) return found;
  const { makeKey } = await import('./certificates.js');
  const key = await makeKey();
  await mkdir(directory, { recursive: true, mode: 0o700 });
  await writeWhole(file, key, { full: 'CREDENTIALS_DAMAGED', mode: 0o600 });
  return key;
}

export async function dropPendingKey(directory: string): Promise<void> {
  await rm(join(directory, FILE), { force: true });
}

function isKey(text: string): boolean {
  try {
    return createPrivateKey(text).asymmetricKeyDetails?.namedCurve === 'prime256v1';
  } catch {
    return false;
  }
}

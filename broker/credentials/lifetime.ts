/** How long certificates are good for, and when they are renewed. Pure. */

const DAY_MS = 86_400_000;
/** A certificate is good for so long from when it is signed. */
export const LIFETIME_MS = 30 * DAY_MS;
/** And valid from before it was signed: clocks differ, by time zones even. */
export const BACKDATE_MS = DAY_MS;
/** Renewed when so much of its life is left: ten days, in which a gateway may be down. */
const RENEW_LEFT = 1 / 3;
/** Many machines that joined in one hour do not all come back in one hour: they spread over this part of their life. */
const SPREAD = 1 / 30;

/** When to renew, ms since 1970. `jitter`: 0 to 1, the same for the life of one certificate. */
export function renewalDueMs(notAfterMs: number, jitter: number, lifetimeMs = LIFETIME_MS): number {
  return notAfterMs - lifetimeMs * (RENEW_LEFT + SPREAD * jitter);
}

/** True when a certificate should be renewed, also when the time is before it: then the clock that signed it was wrong. */
export function isDue(
  { notBeforeMs, notAfterMs }: { readonly notBeforeMs: number; readonly notAfterMs: number },
  nowMs: number,
  jitter: number,
  lifetimeMs = LIFETIME_MS,
): boolean {
  return nowMs < notBeforeMs || nowMs >= renewalDueMs(notAfterMs, jitter, lifetimeMs);
}

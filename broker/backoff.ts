/**
 * How long to wait before attempt `attempt` (0 = the first repeat), in ms: full jitter over an exponentially growing window, so that agents that lost one
 * broker do not come back in step (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
 */
export function backoffMs(attempt: number, random: () => number, baseMs = 200, capMs = 5_000): number {
  return random() * Math.min(capMs, baseMs * 2 ** Math.min(attempt, 30));
}

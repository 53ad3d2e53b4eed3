/** What a gateway can tell of its own clock: that it was never set, or that it is behind what it signed. Pure. */

/** This was written later: a clock before it is one that was never set. */
const EARLIEST_MS = Date.UTC(2025, 0, 1);
/** A clock that is behind its own signatures by less was only set right. */
const BEHIND_MS = 3_600_000;

export type ClockState = 'right' | 'never set' | 'behind';

/** `stamp`: the latest time at which anything was signed here, ms since 1970. */
export function clockState(nowMs: number, stamp: number): ClockState {
  if (nowMs < EARLIEST_MS) return 'never set';
  return nowMs < stamp - BEHIND_MS ? 'behind' : 'right';
}

/** For the log; '' when it is right. Nothing breaks, and nobody comes back who was thrown out; but tokens made now are over when the clock is set. */
export function clockWords(state: ClockState, nowMs: number, stamp: number): string {
  if (state === 'right') return '';
  if (state === 'never set') {
    return `the clock says ${isoTime(nowMs)}: that cannot be. Set it before machines are invited; certificates are renewed by themselves then`;
  }
  return (
    `the clock says ${isoTime(nowMs)}, but this gateway signed a certificate when it said ${isoTime(stamp)}: it is behind now, or was ahead then. ` +
    'Set it before machines are invited: else tokens are good for the wrong time. Revocations hold whatever it says'
  );
}

export function isoTime(ms: number): string {
  return new Date(ms).toISOString();
}

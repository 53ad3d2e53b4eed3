/** What another machine's clock says against ours, from questions and answers. Pure. */

/** One question: when it was sent and answered on our clock, and what the other's clock said in between. Microseconds. */
export interface ClockSample {
  readonly sentUs: number;
  readonly theirsUs: number;
  readonly cameUs: number;
}

export interface ClockOffset {
  /** Add it to the other's times to have them on our clock. */
  readonly offsetUs: number;
  /** It is wrong by at most so much. */
  readonly errorUs: number;
}

/**
 * The other's clock was read somewhere between question and answer: the shortest round trip says most. The bound holds whatever the two ways took (Cristian, "Probabilistic
 * clock synchronization", 1989).
 */
export function offsetOf(samples: readonly ClockSample[]): ClockOffset | undefined {
  const sane = samples.filter(({ sentUs, cameUs, theirsUs }) => cameUs >= sentUs && Number.isFinite(theirsUs));
  const [best] = sane.sort((a, b) => a.cameUs - a.sentUs - (b.cameUs - b.sentUs));
  if (best === undefined) return undefined;
  return { offsetUs: (best.sentUs + best.cameUs) / 2 - best.theirsUs, errorUs: (best.cameUs - best.sentUs) / 2 };
}

/** Of one measured before and one after what is to be aligned: clocks drift apart, so what lies between has an offset between the two. */
export function between(before: ClockOffset | undefined, after: ClockOffset | undefined): ClockOffset | undefined {
  if (before === undefined || after === undefined) return before ?? after;
  const drift = Math.abs(after.offsetUs - before.offsetUs) / 2;
  return { offsetUs: (before.offsetUs + after.offsetUs) / 2, errorUs: Math.max(before.errorUs, after.errorUs) + drift };
}

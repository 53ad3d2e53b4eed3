/**
 * Watches whether the answer to a request can still come. The gateway that took it may have been killed: then nobody knows of it any more, and whoever asked must learn
 * that now, not when his patience is over. Only durations are compared: a scheduler that runs for less time than since it was asked is another one.
 */
import { ChairError } from '../broker/errors.js';

export interface AnswerWatch {
  /** What was asked for, for errors: `adjust net`. */
  readonly what: string;
  /** How long the scheduler has run, ms; rejects when no answer comes. */
  readonly uptimeMs: () => Promise<number>;
  /** The same scheduler is there, and the connection was away meanwhile: its answer may have been lost. */
  readonly again: () => void;
  readonly connected: () => boolean;
  /** The connection is back. Returns the unsubscriber. */
  readonly onConnect: (listener: () => void) => () => void;
  readonly everyMs: number;
  /** Without connection for so long, or three times as long without a word: given up. */
  readonly silentMs: number;
  readonly nowMs?: () => number;
}

/** From when the broker has the request until `over`. Rejects with STOPPED (another scheduler is there), REQUEST_TIMEOUT (none is); resolves when it is over. */
export async function watchAnswer(watch: AnswerWatch, over: AbortSignal): Promise<void> {
  const { what, everyMs, silentMs, nowMs = () => performance.now() } = watch;
  const askedMs = nowMs();
  let heardMs = askedMs;
  let wasAway = false;
  let wake = (): void => undefined;
  const off = watch.onConnect(() => {
    wasAway = true;
    wake();
  });
  const ended = (): void => wake();
  over.addEventListener('abort', ended, { once: true });
  try {
    for (;;) {
      await pause(everyMs, (now) => {
        wake = now;
        if (over.aborted || wasAway) now();
      });
      if (over.aborted) return;
      const fromMs = nowMs();
      const uptimeMs = watch.connected() ? await watch.uptimeMs().catch(() => undefined) : undefined;
      if (over.aborted) return;
      if (uptimeMs !== undefined) {
        if (uptimeMs < fromMs - askedMs) throw restarted(what);
        heardMs = nowMs();
        if (wasAway) watch.again();
        wasAway = false;
        continue;
      }
      const silence = nowMs() - heardMs;
      if (silence > (watch.connected() ? 3 : 1) * silentMs) throw fellSilent(what, silence);
      if (wasAway) await pause(Math.min(everyMs, 200), () => undefined);
    }
  } finally {
    off();
    over.removeEventListener('abort', ended);
  }
}

function restarted(what: string): ChairError {
  return new ChairError('STOPPED', `the gateway was started again before it answered '${what}'`, {
    todo: 'It may have been done or not: see `status`, and ask again.',
  });
}

function fellSilent(what: string, silentMs: number): ChairError {
  return new ChairError('REQUEST_TIMEOUT', `the gateway fell silent before it answered '${what}'`, {
    came: `nothing for ${Math.round(silentMs / 1000)} s`,
    todo: 'Does it run? What was asked may have been done or not: see `status`, and ask again.',
  });
}

/** `given`: called with what ends it early. */
function pause(ms: number, given: (end: () => void) => void): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    given(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}

/** The client's side of a profile job: asks until it is done. The job has a name, so a lost answer or a restarted gateway only means to ask again. */
import { ChairError, type ErrorCode, isErrorCode, toChairError } from '../../broker/errors.js';
import type { ProfileReport, ProfileRequest } from '../../broker/messages.js';

export interface AskOptions {
  /** One request and its answer; rejects when none comes in time. */
  readonly ask: (request: ProfileRequest) => Promise<ProfileReport>;
  readonly onProgress?: (report: ProfileReport) => void;
  readonly everyMs: number;
  /** The gateway may be silent for so long: it restarts, or the connection is being repaired. */
  readonly silentMs: number;
  readonly signal: AbortSignal;
}

const PASSING: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['REQUEST_TIMEOUT', 'BROKER_LOST', 'BROKER_UNREACHABLE', 'STOPPED']);

/** Throws what the job failed with, REQUEST_TIMEOUT when the gateway fell silent, STOPPED by the signal (the job is then given up). */
export async function answeredProfile(request: ProfileRequest, options: AskOptions): Promise<ProfileReport> {
  const { ask, onProgress, everyMs, silentMs, signal } = options;
  let heardMs = performance.now();
  for (;;) {
    if (signal.aborted) throw toChairError(signal.reason, 'STOPPED');
    let report: ProfileReport | undefined;
    try {
      report = await ask(request);
      heardMs = performance.now();
    } catch (thrown) {
      const error = toChairError(thrown);
      if (signal.aborted || !PASSING.has(error.code) || performance.now() - heardMs > silentMs) throw error;
    }
    // A gateway that stops says so of its jobs; the next one begins them again, with all that was measured.
    if (report?.state === 'failed' && report.code !== 'STOPPED') throw new ChairError(codeOf(report.code), report.message);
    if (report?.state === 'done') return report;
    if (report !== undefined) onProgress?.(report);
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}

function codeOf(code: string): ErrorCode {
  return isErrorCode(code) ? code : 'INTERNAL';
}

/** The client's side of a profile job: asks until it is done. The job has a name, so a lost answer or a restarted gateway only means to ask again. */
import { setTimeout as delay } from 'node:timers/promises';
import { ChairError, type ErrorCode, isErrorCode, toChairError } from '../../broker/errors.js';
import type { ProfileReport, ProfileRequest } from '../../broker/messages.js';
import { unlessAborted } from './unless-aborted.js';

export interface AskOptions {
  /** One request and its answer; rejects when none comes in time. */
  readonly ask: (request: ProfileRequest) => Promise<ProfileReport>;
  readonly onProgress?: (report: ProfileReport) => void;
  readonly everyMs: number;
  /** The gateway may be silent for so long: it restarts, or the connection is being repaired. */
  readonly silentMs: number;
  readonly signal: AbortSignal;
  /** Gives the job up in order: the gateway ends it, and says how far it came. */
  readonly giveUp?: AbortSignal | undefined;
  /** So long the gateway has to end it; default ENDS_WITHIN_MS. */
  readonly endsWithinMs?: number;
}

/** The gateway ends a job within a moment: agents are told, and not waited for. */
const ENDS_WITHIN_MS = 5000;

const PASSING: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['REQUEST_TIMEOUT', 'BROKER_LOST', 'BROKER_UNREACHABLE', 'STOPPED']);

/**
 * Throws what the job failed with, REQUEST_TIMEOUT when the gateway fell silent, STOPPED by the signal (the gateway then ends the job by itself, later),
 * PROFILE_CANCELLED by `giveUp`.
 */
export async function answeredProfile(request: ProfileRequest, options: AskOptions): Promise<ProfileReport> {
  const { ask, onProgress, everyMs, silentMs, signal, giveUp } = options;
  const isGivenUp = (): boolean => giveUp?.aborted === true;
  let [done, total] = [0, 0];
  let heardMs = performance.now();
  for (;;) {
    if (signal.aborted) throw toChairError(signal.reason, 'STOPPED');
    if (isGivenUp()) throw await givenUp(request, options, { done, total });
    let report: ProfileReport | undefined;
    try {
      report = await unlessAborted(ask(request), giveUp);
      heardMs = performance.now();
    } catch (thrown) {
      if (isGivenUp()) continue;
      const error = toChairError(thrown);
      if (signal.aborted || !PASSING.has(error.code) || performance.now() - heardMs > silentMs) throw error;
    }
    // A gateway that stops says so of its jobs; the next one begins them again, with all that was measured.
    if (report?.state === 'failed' && report.code !== 'STOPPED') throw new ChairError(codeOf(report.code), report.message);
    if (report?.state === 'done') return report;
    if (report !== undefined) {
      ({ done, total } = report);
      onProgress?.(report);
    }
    await delay(everyMs, undefined, giveUp === undefined ? {} : { signal: giveUp }).catch(() => undefined);
  }
}

/** Tells the gateway, and how far the job came: what its user has now, and whether anything still runs. */
async function givenUp(
  request: ProfileRequest,
  { ask, everyMs, endsWithinMs = ENDS_WITHIN_MS }: AskOptions,
  far: { readonly done: number; readonly total: number },
): Promise<ChairError> {
  let { done, total } = far;
  let said: string | undefined;
  for (const end = performance.now() + endsWithinMs; said === undefined && performance.now() < end; ) {
    const late = new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), end - performance.now()).unref());
    const report = await Promise.race([ask({ ...request, cancel: true }).catch(() => undefined), late]);
    // Of a job that the gateway never heard of, or forgot when it was started again, it knows no numbers.
    if (report !== undefined && report.total > 0) ({ done, total } = report);
    if (report?.state === 'done') said = 'the last measurement had just ended';
    else if (report?.state === 'failed') said = 'agents measure no more';
    else await new Promise((resolve) => setTimeout(resolve, everyMs / 5));
  }
  const kept = total === 0 ? 'nothing was measured yet' : `${done} of ${total} measurements are kept on the gateway`;
  const ended = said ?? 'the gateway did not confirm it: by itself it ends the job within a minute';
  return new ChairError('PROFILE_CANCELLED', `stopped: ${kept}; ${ended}`, {
    todo: `The same command ${request.fresh ? 'without --fresh ' : ''}goes on there. Plans use them once every block was measured whole.`,
  });
}

function codeOf(code: string): ErrorCode {
  return isErrorCode(code) ? code : 'INTERNAL';
}

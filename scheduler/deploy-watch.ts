/**
 * Watches a deployment that a client has asked for. The answer may take many minutes, and it can get lost: with the connection, or with the
 * gateway. Then the client must learn it from the status, and not wait for its deadline.
 */
import { ChairError } from '../broker/errors.js';
import type { PlanReport, StatusReport } from '../broker/messages.js';

export interface WatchOptions {
  readonly name: string;
  /** Nothing is deployed: only the gateway itself can be watched. */
  readonly dryRun: boolean;
  /** Asks the scheduler; rejects when no answer comes. */
  readonly status: () => Promise<StatusReport>;
  readonly everyMs: number;
  /** The gateway may be silent for so long: it is busy, or the connection is being repaired. */
  readonly silentMs: number;
}

/** States in which a deployment that served is after a restart; one that is only being planned is none. */
const COMING_BACK: ReadonlySet<string> = new Set(['restoring', 'preparing', 'serving']);
/** Seen so often without the answer, what the status says is the answer: it may have overtaken the real one. */
const SEEN_TWICE = 2;

/**
 * The answer, or what the status says in its place. Throws what the answer throws, STOPPED when the gateway was restarted or has dropped the
 * deployment, REQUEST_TIMEOUT when it fell silent.
 */
export async function answeredDeploy(answer: Promise<PlanReport | null>, options: WatchOptions): Promise<PlanReport> {
  const over = new AbortController();
  const watched = watch(options, over.signal);
  // Whichever loses the race, nobody waits for it.
  answer.catch(() => undefined);
  watched.catch(() => undefined);
  try {
    const plan = (await Promise.race([answer, watched])) ?? null;
    if (plan === null) throw new ChairError('INTERNAL', 'the scheduler answered a deploy request without a plan');
    return plan;
  } finally {
    over.abort();
  }
}

/** The plan, when the deployment serves though no answer came; undefined when it was ended. */
async function watch(options: WatchOptions, signal: AbortSignal): Promise<PlanReport | undefined> {
  const { name, dryRun, silentMs } = options;
  let heardMs = performance.now();
  let uptimeMs = 0;
  let missing = 0;
  let serving = 0;
  for (;;) {
    await pause(options.everyMs, signal);
    if (signal.aborted) return undefined;
    let report: StatusReport;
    try {
      report = await options.status();
    } catch (cause) {
      if (signal.aborted) return undefined;
      if (performance.now() - heardMs < silentMs) continue;
      throw new ChairError('REQUEST_TIMEOUT', `the gateway fell silent while it deployed '${name}'`, {
        came: `nothing for ${Math.round((performance.now() - heardMs) / 1000)} s`,
        todo: 'Look whether it runs, and at `musical-chair status`; then deploy again.',
        cause,
      });
    }
    heardMs = performance.now();
    const deployment = report.deployments.find((one) => one.name === name);
    // What served before the restart comes back by itself.
    if (report.uptimeMs < uptimeMs && (dryRun || !COMING_BACK.has(deployment?.state ?? ''))) throw lost(name, 'the gateway was restarted');
    uptimeMs = report.uptimeMs;
    if (dryRun) continue;
    missing = deployment === undefined ? missing + 1 : 0;
    if (missing >= SEEN_TWICE) throw lost(name, 'the gateway does not know it any more, and its answer was lost with the connection');
    serving = deployment?.state === 'serving' ? serving + 1 : 0;
    if (serving >= SEEN_TWICE && deployment?.plan) return deployment.plan;
  }
}

function lost(name: string, why: string): ChairError {
  return new ChairError('STOPPED', `'${name}' was not deployed: ${why}`, { todo: 'Deploy it again.' });
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const wake = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', wake);
      resolve();
    };
    const timer = setTimeout(wake, ms);
    signal.addEventListener('abort', wake);
  });
}

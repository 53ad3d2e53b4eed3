/** When a process of ours ends: on Ctrl-C and SIGTERM in order, and always when the process that started it is gone. */
import { toChairError } from '../broker/errors.js';

/** Time for an orderly stop after the parent went or a signal came, before the process ends itself. */
const STOP_WITHIN_MS = 8_000;
/** What comes within this time of the first signal is the same request: npm and `timeout` pass on what the whole group of processes has already. */
const SAME_REQUEST_MS = 1_000;
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
/** Exit status of who was interrupted, as shells have it. */
export const INTERRUPTED = 130;

/**
 * A process started with an IPC channel ends when that channel breaks, which also happens when its parent is killed with SIGKILL: no orphan
 * keeps a port. Without a channel (a user's shell, systemd) this does nothing.
 */
export function followParent(): void {
  if (!isChannelOpen()) return;
  process.once('disconnect', () => {
    setTimeout(() => process.exit(1), STOP_WITHIN_MS).unref();
    process.kill(process.pid, 'SIGTERM');
  });
  // The listener alone would keep a command alive that is done.
  process.channel?.unref();
}

const isChannelOpen = (): boolean => process.channel !== undefined && process.channel !== null;

/**
 * Calls `first` once, when somebody asks the process to end. Within a second the same request may come again; whoever asks later is in a hurry: it ends at once, and
 * says so. Returns what gives the signals back what they did before.
 */
export function onAskedToEnd(first: (signal: NodeJS.Signals) => void): () => void {
  let firstMs: number | undefined;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (firstMs === undefined) {
      firstMs = performance.now();
      first(signal);
      return;
    }
    // Who started us asks in its own order, also when a key went to all; and it has SIGKILL.
    const fromParent = signal === 'SIGTERM' && isChannelOpen();
    if (fromParent || performance.now() - firstMs <= SAME_REQUEST_MS) return;
    console.error(`ended at once, as ${signal} came while it was stopping`);
    process.exit(INTERRUPTED);
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  return () => {
    for (const signal of SIGNALS) process.off(signal, onSignal);
  };
}

/**
 * Resolves with the signal's name on the first SIGINT, SIGTERM or SIGHUP; one that comes more than a second later ends the process at once. It ends itself when the
 * stop takes longer than 8 s, after SIGTERM than `terminateWithinMs`: an agent hands its seats over first.
 */
export function untilStopped(terminateWithinMs = STOP_WITHIN_MS): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    onAskedToEnd((signal) => {
      // A stop that hangs is a defect, but not one that may keep a terminal.
      setTimeout(() => process.exit(1), signal === 'SIGTERM' ? terminateWithinMs : STOP_WITHIN_MS).unref();
      resolve(signal);
    });
  });
}

/**
 * Does work that Ctrl-C ends in order: the first SIGINT, SIGTERM or SIGHUP aborts the signal, one that comes more than a second later ends the process at once. When
 * the work is over, signals do what they did before.
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const abort = new AbortController();
  const over = onAskedToEnd(() => abort.abort());
  try {
    return await work(abort.signal);
  } finally {
    over();
  }
}

/**
 * Tells the process that started this one that it is ready, with what it wants to know (a URL, a port), and from then on answers its questions: `resources`
 * always, others by `onAsked`.
 */
export function announceReady(facts: Readonly<Record<string, string | number>>): void {
  onAsked('resources', resources);
  process.send?.({ ready: true, ...facts });
}

/** What keeps this process alive, by kind (Timeout, TCPSocketWrap, ...): what must not grow. */
function resources(): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const kind of process.getActiveResourcesInfo()) counts[kind] = (counts[kind] ?? 0) + 1;
  return counts;
}

/**
 * Answers one question of the process that started this one; see `Child.ask`. What `answer` throws is told with its code. Does nothing in a process without a
 * parent of ours.
 */
export function onAsked(question: string, answer: (argument: unknown) => unknown): void {
  if (!isChannelOpen()) return;
  process.on('message', async (message) => {
    if (typeof message !== 'object' || message === null || !('ask' in message) || message.ask !== question) return;
    const id = 'id' in message ? message.id : 0;
    try {
      const value = await answer('argument' in message ? message.argument : undefined);
      process.send?.({ answered: id, value });
    } catch (error) {
      const { code, message: text } = toChairError(error);
      process.send?.({ answered: id, error: { code, message: text } });
    }
  });
  process.channel?.unref();
}

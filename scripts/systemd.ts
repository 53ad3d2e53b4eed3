/**
 * What systemd is told by a service: that it is ready, what it is doing, and, for as long as it is well, that it lives (`WatchdogSec=`). The messages go to a unix
 * datagram socket (sd_notify(3)), which Node cannot open: `systemd-notify`, a part of systemd, sends them, as a process of a few milliseconds. So the unit needs
 * `NotifyAccess=all`. Without NOTIFY_SOCKET nothing is done.
 *
 * What the watchdog proves: this timer fires, so the event loop turns; and `isWell` agrees, so nothing is stuck behind it.
 */
import { execFile } from 'node:child_process';
import { printable } from './printable.js';

export interface Service {
  /** systemd listens. */
  readonly isSupervised: boolean;
  /** The service is up: `systemctl start` returns. */
  ready(): void;
  /** One line for `systemctl status`. */
  status(text: string): void;
  /** Stops telling that it lives; systemd is told that it ends. */
  stopping(): void;
}

export interface ServiceOptions {
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly pid?: number;
  /** '' when everything is well; else why the watchdog is to bite. Asked a few times in each WatchdogSec. */
  readonly isWell?: () => string;
  readonly log?: (line: string) => void;
  /** Sends one message of several assignments; for tests. */
  readonly send?: (assignments: readonly string[]) => Promise<void>;
}

/** A message is lost now and then: so many within one WatchdogSec. */
const BEATS = 3;

/** Of this process; when systemd does not listen, one that says nothing. */
export function service(options: ServiceOptions = {}): Service {
  const { env = process.env, pid = process.pid, isWell = () => '', log = () => undefined, send = notify } = options;
  if (!env.NOTIFY_SOCKET) return { isSupervised: false, ready: () => undefined, status: () => undefined, stopping: () => undefined };
  let failed = false;
  // One at a time: what was said later must not be overtaken.
  let turn: Promise<void> = Promise.resolve();
  const tell = (assignments: readonly string[]): void => {
    turn = turn
      .then(() => send(assignments))
      .catch((error: unknown) => {
        if (!failed) log(`systemd cannot be told: ${error instanceof Error ? error.message : String(error)}`);
        failed = true;
      });
  };
  const everyMs = watchdogMs(env, pid) / BEATS;
  const beat = (): void => {
    const why = isWell();
    if (why === '') tell(['WATCHDOG=1']);
    else log(`the watchdog is not told that this process lives: ${why}`);
  };
  const timer = everyMs > 0 ? setInterval(beat, everyMs) : undefined;
  timer?.unref();
  return {
    isSupervised: true,
    ready: () => tell(['READY=1']),
    // An assignment ends where the line does: what others said must not be the next one.
    status: (text) => tell([`STATUS=${printable(text.replaceAll(/\s*\n\s*/g, ' ')).slice(0, 400)}`]),
    stopping: () => {
      clearInterval(timer);
      tell(['STOPPING=1']);
    },
  };
}

/** What systemd expects of this process, ms; 0 = no watchdog. WATCHDOG_PID names who is meant (sd_watchdog_enabled(3)). */
function watchdogMs(env: Readonly<Record<string, string | undefined>>, pid: number): number {
  const usec = Number(env.WATCHDOG_USEC ?? '');
  const meant = env.WATCHDOG_PID === undefined || Number(env.WATCHDOG_PID) === pid;
  return meant && Number.isSafeInteger(usec) && usec > 0 ? usec / 1000 : 0;
}

function notify(assignments: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    execFile('systemd-notify', ['--', ...assignments], { timeout: 10_000 }, (error) => (error === null ? resolve() : reject(error)));
  });
}

/**
 * What a service tells systemd (sd_notify(3)): that it is ready, and that it lives. Node has no unix datagram sockets, so `systemd-notify` says it. Outside of a
 * service nothing happens.
 */
import { execFile } from 'node:child_process';

export interface NotifyOptions {
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly pid?: number;
  /** Runs `systemd-notify`; default: the program of that name. */
  readonly send?: (words: readonly string[]) => Promise<void>;
  readonly log?: (line: string) => void;
}

function systemdNotify(words: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    execFile('systemd-notify', [...words], { timeout: 10_000 }, (error) => (error === null ? resolve() : reject(error)));
  });
}

/** How often it is said: three times within what systemd waits. 0 = systemd does not wait, or waits for another process. */
export function watchdogIntervalMs(env: Readonly<Record<string, string | undefined>>, pid: number): number {
  const micros = Number(env.WATCHDOG_USEC);
  const meant = env.WATCHDOG_PID === undefined || Number(env.WATCHDOG_PID) === pid;
  return env.NOTIFY_SOCKET !== undefined && meant && micros > 0 ? micros / 3000 : 0;
}

/**
 * Says READY now, and from then on WATCHDOG as often as systemd wants it, for as long as `alive` holds: a process whose event loop stands still, or that does not
 * do its work any more, says nothing, and systemd starts it again. Resolves when READY was said, with what ends it. Never throws.
 */
export async function notifySystemd(alive: () => boolean, options: NotifyOptions = {}): Promise<() => void> {
  const { env = process.env, pid = process.pid, send = systemdNotify, log = () => undefined } = options;
  if (env.NOTIFY_SOCKET === undefined) return () => undefined;
  let failed = false;
  const say = async (words: readonly string[]): Promise<void> => {
    try {
      await send(words);
      failed = false;
    } catch (error) {
      if (!failed) log(`systemd was not told ${words.join(' ')}: ${error instanceof Error ? error.message : String(error)}`);
      failed = true;
    }
  };
  await say(['--ready']);
  const everyMs = watchdogIntervalMs(env, pid);
  if (everyMs === 0) return () => undefined;
  let quiet = false;
  const timer = setInterval(() => {
    if (alive()) void say(['WATCHDOG=1']);
    else if (!quiet) log('not serving any more: systemd is not told that all is well');
    quiet = !alive();
  }, everyMs);
  return () => clearInterval(timer);
}

import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { service } from './systemd.js';

const ENV = { NOTIFY_SOCKET: '/run/x', WATCHDOG_USEC: '30000000', WATCHDOG_PID: '77' };

function recorder() {
  const said: string[][] = [];
  return { said, send: async (assignments: readonly string[]) => void said.push([...assignments]) };
}

describe('what systemd is told', () => {
  afterEach(() => vi.useRealTimers());

  it('says nothing where systemd does not listen', async () => {
    const { said, send } = recorder();
    const told = service({ env: {}, send });
    told.ready();
    told.status('x');
    told.stopping();
    await Promise.resolve();
    expect(said).toEqual([]);
  });

  it('says three times in each WatchdogSec that the process lives, and no more after stopping', async () => {
    vi.useFakeTimers();
    const { said, send } = recorder();
    const told = service({ env: ENV, pid: 77, send });
    told.ready();
    await vi.advanceTimersByTimeAsync(30_000);
    expect(said).toEqual([['READY=1'], ['WATCHDOG=1'], ['WATCHDOG=1'], ['WATCHDOG=1']]);
    told.stopping();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(said.slice(4)).toEqual([['STOPPING=1']]);
  });

  it('keeps silent towards the watchdog when something is stuck, and says why in the log', async () => {
    vi.useFakeTimers();
    const { said, send } = recorder();
    const lines: string[] = [];
    let why = '';
    service({ env: ENV, pid: 77, send, isWell: () => why, log: (line) => lines.push(line) });
    await vi.advanceTimersByTimeAsync(10_000);
    why = 'a slice has run for 90 s';
    await vi.advanceTimersByTimeAsync(20_000);
    expect(said).toEqual([['WATCHDOG=1']]);
    expect(lines.join()).toContain('a slice has run for 90 s');
  });

  it('leaves a watchdog alone that is meant for another process', async () => {
    vi.useFakeTimers();
    const { said, send } = recorder();
    service({ env: ENV, pid: 78, send });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(said).toEqual([]);
  });

  it('goes on when a message cannot be sent, and says so once', async () => {
    vi.useFakeTimers();
    const lines: string[] = [];
    service({ env: ENV, pid: 77, log: (line) => lines.push(line), send: () => Promise.reject(new Error('no systemd-notify')) });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(lines).toEqual(['systemd cannot be told: no systemd-notify']);
  });

  it('a status stays on one line', async () => {
    const { said, send } = recorder();
    service({ env: ENV, pid: 77, send }).status('one\n two');
    await vi.waitFor(() => expect(said).toEqual([['STATUS=one two']]));
  });

  it.skipIf(!hasNotify() && process.env.CI !== 'true')(
    'reaches a real notify socket (skipped: no systemd-notify or perl here)',
    async () => {
      const folder = mkdtempSync(path.join(tmpdir(), 'mc-notify-'));
      onTestFinished(() => rmSync(folder, { recursive: true }));
      const socket = path.join(folder, 'notify');
      // Perl stands in for systemd: it is on every Debian, and can open such a socket.
      const listen = `use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Type => SOCK_DGRAM(), Local => "${socket}") or die; $| = 1; print "up\\n"; while (1) { $s->recv(my $b, 4096); print "$b\\n"; }`;
      const systemd = spawn('perl', ['-e', listen], { stdio: ['ignore', 'pipe', 'inherit'] });
      onTestFinished(() => void systemd.kill('SIGKILL'));
      let heard = '';
      systemd.stdout.on('data', (chunk: Buffer) => {
        heard += chunk.toString();
      });
      await vi.waitFor(() => expect(heard).toContain('up'), { timeout: 10_000 });
      const before = process.env.NOTIFY_SOCKET;
      process.env.NOTIFY_SOCKET = socket;
      onTestFinished(() => {
        if (before === undefined) delete process.env.NOTIFY_SOCKET;
        else process.env.NOTIFY_SOCKET = before;
      });
      const told = service();
      told.ready();
      told.status('joined as pi-1');
      await vi.waitFor(() => expect(heard).toMatch(/READY=1[\s\S]*STATUS=joined as pi-1/), { timeout: 20_000 });
    },
  );
});

function hasNotify(): boolean {
  try {
    execFileSync('sh', ['-c', 'command -v systemd-notify && command -v perl'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** Commands as somebody types them on a machine of the walk. */
import { type ChildProcess, spawn } from 'node:child_process';
import path from 'node:path';

export interface Ran {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly ms: number;
}

export interface RunOptions {
  readonly env: NodeJS.ProcessEnv;
  readonly cwd?: string;
  readonly input?: string;
  readonly timeoutMs?: number;
  readonly own?: (child: ChildProcess) => void;
}

/** The whole walk has a limit; this only ends what hangs. */
const TIMEOUT_MS = 20 * 60_000;

/** Resolves with what it printed; a command that hangs is killed and has status null. */
export function run([program = '', ...args]: readonly string[], options: RunOptions): Promise<Ran> {
  const from = performance.now();
  const child = spawn(program, args, { cwd: options.cwd ?? '/', env: options.env, stdio: ['pipe', 'pipe', 'pipe'] });
  options.own?.(child);
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  // It may end without reading.
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.input ?? '');
  const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs ?? TIMEOUT_MS);
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (status) => {
      clearTimeout(timer);
      resolve({ status, stdout, stderr, ms: performance.now() - from });
    });
  });
}

/** Of a fresh user: nothing of ours, nothing of npm's, nothing of this process's Node. */
export function cleanEnv(home: string, programs: readonly string[] = []): NodeJS.ProcessEnv {
  const folders = [
    ...programs,
    path.dirname(process.execPath),
    '/usr/local/sbin',
    '/usr/local/bin',
    '/usr/sbin',
    '/usr/bin',
    '/sbin',
    '/bin',
  ];
  return { PATH: [...new Set(folders)].join(':'), HOME: home, LANG: 'C.UTF-8', LC_ALL: 'C.UTF-8', TERM: 'xterm-256color' };
}

/** npm as it is set up here, but not as a part of the npm that runs this. */
export function npmEnv(): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(process.env).filter(
      ([name]) => !/^(npm_(lifecycle|package|command|execpath)|INIT_CWD$|NODE_OPTIONS$|MUSICAL_CHAIR_)/.test(name),
    ),
  );
}

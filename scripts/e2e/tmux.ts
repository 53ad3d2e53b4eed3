/** Programs in a real terminal that nobody looks at: what they draw can be read, keys can be pressed, the window can change. */
import { execFileSync, spawnSync } from 'node:child_process';

export function hasTmux(): boolean {
  return spawnSync('tmux', ['-V']).status === 0;
}

export interface TmuxOptions {
  /** Of the program. */
  readonly env?: Readonly<Record<string, string>>;
  /** The command line that runs another where the program is to be; default: here. */
  readonly place?: (command: readonly string[]) => readonly string[];
  /** Of tmux's own socket; default: where tmux has it. */
  readonly directory?: string;
}

let made = 0;

/** A terminal of its own. */
export class Tmux {
  readonly #socket = `mc-${process.pid}-${++made}`;
  readonly #env: NodeJS.ProcessEnv;

  constructor(columns: number, rows: number, command: readonly string[], { env = {}, place, directory }: TmuxOptions = {}) {
    this.#env = { ...process.env, LC_ALL: 'C.UTF-8', ...(directory === undefined ? {} : { TMUX_TMPDIR: directory }) };
    const set = Object.entries({ LANG: 'C.UTF-8', LC_ALL: 'C.UTF-8', ...env }).map(([key, value]) => `${key}=${value}`);
    const shell = ['env', ...set, ...command].map((word) => `'${word}'`).join(' ');
    const start = ['-f', '/dev/null', '-u', 'new-session', '-d', '-s', 's', '-x', String(columns), '-y', String(rows)];
    // The shell stays, so that what the program leaves behind can be seen. The program runs where tmux is started: its server is the parent of all.
    this.#tmux([...start, `${shell}; echo "ended with $?"; sleep 60`], place);
  }

  #tmux(args: readonly string[], place: TmuxOptions['place'] = (same) => same): string {
    const [program = '', ...rest] = place(['tmux', '-L', this.#socket, ...args]);
    return execFileSync(program, rest, { encoding: 'utf8', env: this.#env });
  }

  screen(...flags: string[]): string {
    return this.#tmux(['capture-pane', '-p', ...flags, '-t', 's']);
  }

  keys(...keys: string[]): void {
    this.#tmux(['send-keys', '-t', 's', ...keys]);
  }

  resize(columns: number, rows: number): void {
    this.#tmux(['resize-window', '-t', 's', '-x', String(columns), '-y', String(rows)]);
  }

  /** The screen as soon as it `holds`. */
  async until(what: string, holds: (screen: string) => boolean, withinMs = 30_000): Promise<string> {
    let seen = '';
    for (const end = performance.now() + withinMs; performance.now() < end; ) {
      seen = this.screen();
      if (holds(seen)) return seen;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error(`not within ${withinMs} ms: ${what}. The screen:\n${seen}`);
  }

  close(): void {
    spawnSync('tmux', ['-L', this.#socket, 'kill-server'], { env: this.#env });
  }
}

/** `dashboard`: the cluster as a screen that goes on; with --once or --json, once, for scripts. */
import { setTimeout as delay } from 'node:timers/promises';
import { ChairError } from '../../broker/errors.js';
import type { CommandDefinition, Invocation } from '../command.js';
import { brokerUrl, CLIENT_SETTINGS, isSecure } from '../config.js';
import { connectClient } from '../connection.js';
import { optionText } from '../deploy-options.js';
import { onAskedToEnd } from '../lifetime.js';
import { wholeNumber } from '../output.js';

/** The exit status of --once and --json when something is to be looked at: neither an error of the command (1) nor of its writer (2). */
const DEGRADED_STATUS = 3;
/** Two looks so far apart: rates lie between two health messages. */
const RATE_MS = 1200;
/** A gateway that is gone is noticed after so long. */
const ASK_MS = 3000;

export const dashboard: CommandDefinition = {
  name: 'dashboard',
  summary: 'Watch the cluster live: who holds which seat, lanes, agents, deployments, events',
  description:
    'A client like any other, from any machine that reaches the broker. ? shows the keys. With --once or --json it looks once, prints, and ends with exit status 0 when all is well, 3 when something is to be looked at, 1 when the gateway does not answer. NO_COLOR turns colours off.',
  options: [
    { flags: '--once', description: 'print the screen once, as long as it is, instead of taking the terminal' },
    { flags: '--every <seconds>', description: 'look this often, 1 to 60', default: '1' },
    { flags: '--ascii', description: 'no signs beyond ASCII; default: by the locale' },
  ],
  settings: CLIENT_SETTINGS,
  json: true,
  examples: [
    { line: 'dashboard', text: 'until q' },
    { line: 'dashboard --once || mail -s "cluster degraded" me', text: 'from cron' },
    { line: 'dashboard --json', text: 'agents, deployments, topology, lanes and the verdict as one JSON document' },
  ],
  run: async (invocation) => {
    const { options, output } = invocation;
    const everyMs = 1000 * wholeNumber(optionText(options, 'every', '1'), '--every', 1, 60);
    if (options.once === true || output.json) return once(invocation);
    if (!output.isTerminal || !process.stdin.isTTY) {
      throw new ChairError('USAGE', 'the dashboard needs a terminal', {
        expected: 'one on standard input and output',
        todo: 'For scripts: --once or --json.',
      });
    }
    if ((process.env.TERM ?? 'dumb') === 'dumb') {
      throw new ChairError('USAGE', 'this terminal cannot move its cursor (TERM is not set, or dumb)', {
        todo: 'Set TERM, or use --once.',
      });
    }
    return live(invocation, everyMs);
  },
};

async function once({ options, settings, output }: Invocation): Promise<void> {
  const { NO_HISTORY, observe } = await import('../../scheduler/dashboard/history.js');
  const { viewOf } = await import('../../scheduler/dashboard/view.js');
  const { glyphsFor, showsUnicode } = await import('../dashboard/glyphs.js');
  const { reportLines } = await import('../dashboard/screen.js');
  const { ansi, plainText } = await import('../dashboard/text.js');
  const client = await connectClient(settings);
  try {
    const before = observe(NO_HISTORY, await client.status(), performance.now());
    await delay(RATE_MS);
    const report = await client.status();
    const glyphs = glyphsFor(options.ascii !== true && showsUnicode(process.env));
    const seen = viewOf(report, observe(before, report, performance.now()));
    const lines = (): string => {
      const made = reportLines(seen, output.columns, glyphs, !isSecure(settings));
      return coloured() ? made.map((one) => ansi(one, true, glyphs.unicode)).join('\n') : plainText(made, glyphs.unicode);
    };
    output.report(seen, lines, true);
    if (seen.verdict.state !== 'well') process.exitCode = DEGRADED_STATUS;
  } finally {
    await client.close();
  }
}

/** https://no-color.org: set and not empty. */
function coloured(): boolean {
  return process.stdout.isTTY === true && !process.env.NO_COLOR;
}

async function live({ options, settings }: Invocation, everyMs: number): Promise<void> {
  const { publicUrl } = await import('../../broker/public-url.js');
  const { glyphsFor, showsUnicode } = await import('../dashboard/glyphs.js');
  const { Session } = await import('../dashboard/session.js');
  const { Terminal } = await import('../dashboard/terminal.js');
  const url = brokerUrl(settings);
  const glyphs = glyphsFor(options.ascii !== true && showsUnicode(process.env));
  const canvas = new Terminal({
    input: process.stdin,
    output: process.stdout,
    colours: coloured(),
    unicode: glyphs.unicode,
    onKey: (key) => session.key(key),
    onResize: () => session.draw(),
  });
  const session = new Session({
    connect: () => connectClient(settings, { requestTimeoutMs: ASK_MS }),
    canvas,
    glyphs,
    where: url === undefined ? `the gateway of cluster ${settings.cluster} (looked for on the local network)` : publicUrl(url),
    insecure: !isSecure(settings),
    everyMs,
    nowMs: () => performance.now(),
    clock: () => new Date().toTimeString().slice(0, 8),
    // All of the group, as the terminal's own Ctrl-Z would: also who started this process.
    suspend: () => process.kill(0, 'SIGTSTP'),
  });
  const stop = (): void => session.stop();
  // However it ends, the terminal is put back.
  const putBack = (): void => canvas.leave();
  process.on('exit', putBack);
  process.on('SIGCONT', () => {
    canvas.redraw();
    session.draw();
  });
  const over = onAskedToEnd(stop);
  // A terminal that was closed takes no more.
  process.stdout.on('error', stop);
  process.stdin.on('end', stop);
  await session.run();
  process.off('exit', putBack);
  over();
}

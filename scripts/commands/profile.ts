/** `profile`: measures a model on the agents of a cluster. */
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ChairError } from '../../broker/errors.js';
import type { ProfileReport } from '../../broker/messages.js';
import type { CommandDefinition, OptionValues } from '../command.js';
import { CLIENT_SETTINGS } from '../config.js';
import { modelOnGateway, withClient } from '../connection.js';
import { IMAGE_OPTION, optionList, optionText, parseImageInput, parseShapes, SHAPE_OPTION } from '../deploy-options.js';
import { interruptible } from '../lifetime.js';
import { type Output, wholeNumber } from '../output.js';
import { PROGRAM } from '../package-root.js';
import { profilePlot } from '../profile-plot.js';
import { profileText } from '../profile-text.js';
import { wrapText } from '../table.js';

/** `1..4` or `1,2,4`; '' = none. Throws USAGE. */
export function parseCounts(text: string, what: string, most: number): number[] {
  if (text === '') return [];
  return text.split(',').flatMap((item) => {
    const [, from, to] = /^(\d+)\.\.(\d+)$/.exec(item.trim()) ?? [];
    if (from === undefined || to === undefined) return [wholeNumber(item.trim(), what, 1, most)];
    const first = wholeNumber(from, what, 1, most);
    const last = wholeNumber(to, what, first, most);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

function namesOf(options: OptionValues, name: string): string[] {
  const text = optionText(options, name);
  return text === '' ? [] : text.split(',').map((item) => item.trim());
}

/** Throws FILE_NOT_FOUND, PLOT_UNAVAILABLE. */
async function writePlot(file: string, report: ProfileReport, model: string): Promise<void> {
  const { plotSvg } = await import('../plot.js');
  const svg = await plotSvg(profilePlot(report, path.basename(model)));
  await writeFile(file, svg).catch((cause: unknown) => {
    throw new ChairError('FILE_NOT_FOUND', `${file} cannot be written`, {
      came: cause instanceof Error ? cause.message : String(cause),
      cause,
    });
  });
}

/** Rows that the time left is reckoned from: blocks at the end of a network often take less than those at its beginning. */
const RECENT_ROWS = 20;
/** With fewer of them it would be a guess. */
const FEWEST_ROWS = 4;

/**
 * How far a job is, in one line, and how long the rest takes at the pace of its last rows; `now` in ms. What was known already counts for nothing: it is done when the
 * job begins.
 */
export function profileProgress(now: () => number): (report: Pick<ProfileReport, 'done' | 'total' | 'current'>) => string {
  const seen: { readonly done: number; readonly atMs: number }[] = [];
  let left = '';
  return ({ done, total, current }) => {
    if (total === 0) return 'reading the model';
    // A gateway that was started again begins the job anew.
    if ((seen.at(-1)?.done ?? 0) > done) {
      seen.length = 0;
      left = '';
    }
    const last = seen.at(-1);
    if (last === undefined || done > last.done) {
      seen.push({ done, atMs: now() });
      while ((seen[1]?.done ?? done) <= done - RECENT_ROWS) seen.shift();
      const [first = { done, atMs: now() }] = seen;
      const rows = done - first.done;
      left = rows < FEWEST_ROWS ? '' : `, about ${timeText(((now() - first.atMs) * (total - done)) / rows)} left`;
    }
    return `measuring ${done} of ${total}${left}${current === '' ? '' : `: ${current}`}`;
  };
}

function timeText(ms: number): string {
  return ms < 90_000 ? `${Math.max(1, Math.round(ms / 1000))} s` : `${Math.round(ms / 60_000)} min`;
}

/** Measures, and shows how far it is. Ctrl-C ends it in order: throws PROFILE_CANCELLED, which says what is kept. */
export async function profileWithProgress(
  client: import('../../scheduler/client.js').ChairClient,
  options: Parameters<import('../../scheduler/client.js').ChairClient['profile']>[0],
  output: Output,
): Promise<ProfileReport> {
  const text = profileProgress(() => performance.now());
  return interruptible((signal) => client.profile(options, (report) => output.progress(text(report)), signal));
}

/** The agents of which every block is known whole, which plans ask for, and the others of the classes that were asked. */
export function profiledAgents({ classes, rows }: ProfileReport): { readonly known: string[]; readonly guessed: string[] } {
  const isKnown = ({ fingerprint, threads }: ProfileReport['classes'][number]): boolean => {
    const whole = rows.filter(
      (row) => row.fingerprint === fingerprint && row.threads === threads && row.what === 'block' && row.parts === 1,
    );
    return whole.length > 0 && whole.every(({ code }) => code === '');
  };
  const agentsOf = (known: boolean): string[] => [
    ...new Set(classes.filter((one) => isKnown(one) === known).flatMap(({ agents }) => agents)),
  ];
  return { known: agentsOf(true), guessed: agentsOf(false) };
}

function nothingMeasured({ rows, notes }: ProfileReport): ChairError {
  const reasons = [
    ...new Set(
      rows.filter(({ code }) => code !== '').map(({ code, message }) => (message.startsWith(code) ? message : `${code}: ${message}`)),
    ),
  ];
  return new ChairError('PROFILE_FAILED', 'of no class of device every block could be measured, so plans go on guessing', {
    expected: 'a time of each block',
    came: [...reasons.slice(0, 3), ...notes.slice(0, 3)].join('; ').slice(0, 1500),
  });
}

export const profile: CommandDefinition = {
  name: 'profile',
  summary: "Measure a model's blocks, whole and cut, on one agent of each class of device: times, load times, peaks of memory",
  description:
    'The cluster serves on. Measurements are kept by the gateway and used by every plan of this model; what is known is not measured again. With --svg also a plot of time against the number of parts, for each block.',
  arguments: [{ syntax: '<model>', description: 'ONNX file, sent to the gateway unless it has it; gateway:PATH names a file there' }],
  options: [
    SHAPE_OPTION,
    IMAGE_OPTION,
    { flags: '--agents <names>', description: 'only the classes of these agents, measured on them, as in pi-1,pi-2; default: all' },
    { flags: '--cuts <kinds>', description: 'kinds of cut, of rows, columns, channels, inputs, pair; default: rows,channels' },
    { flags: '--parts <counts>', description: 'numbers of parts, as in 1..4 or 2,4,8; default: up to the number of agents' },
    { flags: '--threads <counts>', description: 'engine threads, as in 1..4; default: as the agents serve' },
    { flags: '--runs <count>', description: 'most runs of each', default: '20' },
    { flags: '--budget-ms <ms>', description: 'no more runs of one slice after this time', default: '500' },
    { flags: '--fresh', description: 'measure again what is known' },
    { flags: '--svg <file>', description: 'write a plot' },
  ],
  settings: CLIENT_SETTINGS,
  json: true,
  examples: [
    { line: 'profile alexnet.onnx --svg alexnet.svg', text: 'a table and a plot; plans of this model now stand on it' },
    { line: 'profile det.onnx --shape x=1,3,640,640 --parts 1..6 --cuts rows', text: 'bands of a detector, in up to six parts' },
  ],
  run: async ({ arguments: [model = ''], options, settings, output }) => {
    const shapes = [...optionList(options, 'shape')];
    parseShapes(shapes);
    const request = {
      shapes,
      images: optionList(options, 'image').map(parseImageInput),
      agents: namesOf(options, 'agents'),
      cuts: namesOf(options, 'cuts'),
      parts: parseCounts(optionText(options, 'parts'), '--parts', 64),
      threads: parseCounts(optionText(options, 'threads'), '--threads', 256),
      runs: wholeNumber(optionText(options, 'runs', '20'), '--runs', 1, 1000),
      budgetMs: wholeNumber(optionText(options, 'budgetMs', '500'), '--budget-ms', 1, 60_000),
      fresh: options.fresh === true,
    };
    const svg = optionText(options, 'svg');
    // Not after minutes of measuring.
    if (svg !== '') await (await import('../plot.js')).plotSvg({ title: '', x: { label: '' }, y: { label: '' }, panels: [] });
    const report = await withClient(settings, async (client) =>
      profileWithProgress(client, { ...request, model: await modelOnGateway(client, model, output) }, output),
    );
    const { known, guessed } = profiledAgents(report);
    if (known.length === 0) throw nothingMeasured(report);
    if (svg !== '') await writePlot(svg, report, model);
    output.report(report, () =>
      [
        profileText(report, output.columns),
        '',
        ...(svg === '' ? [] : [`The plot is in ${svg}: any browser shows it.`]),
        ...(guessed.length === 0
          ? ['Plans of this model stand on these times from now on:']
          : [
              ...wrapText(`Plans of this model stand on these times from now on, for ${known.join(', ')}.`, output.columns, ''),
              ...wrapText(
                `Not every block could be measured for ${guessed.join(', ')}: plans guess there, from their probes.`,
                output.columns,
                '',
              ),
            ]),
        `  ${PROGRAM} plan ${model} --explain`,
      ].join('\n'),
    );
  },
};

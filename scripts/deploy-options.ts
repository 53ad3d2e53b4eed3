/** The options that say what is deployed: written once for `deploy`, `plan`, `verify` and `inspect`, read with coded errors. */
import { ChairError } from '../broker/errors.js';
import type { DeployRequest, ImageInput } from '../broker/messages.js';
import { NAME_PATTERN } from '../broker/topics.js';
import type { CommandOption, OptionValues } from './command.js';
import { wholeNumber } from './output.js';
import { editDistance, nearest } from './settings.js';

export const SHAPE_OPTION: CommandOption = {
  flags: '--shape <input=dims>',
  description: 'fix the dimensions of an input, as in x=1,3,640,640; may be repeated',
  repeatable: true,
};

export const CUT_OPTIONS: readonly CommandOption[] = [
  {
    flags: '--cut <kind:parts>',
    description: 'cut by hand: stages, rows, columns, channels, inputs, pair or auto, and the number of parts, as in rows:4',
  },
  { flags: '--shares <list>', description: 'relative sizes of the parts, as in 3,2,1; default: equal' },
];

/** As planners/planners.ts has them; written here so that help loads no planner (a test keeps them equal). */
export const PLANNER_NAMES = ['auto', 'single', 'replicas', 'pipeline', 'musical-chair-2018'] as const;

export const IMAGE_OPTION: CommandOption = {
  flags: '--image <declaration>',
  description:
    'an input that takes images: input=x,size=480x640,order=bgr,mean=0.485/0.456/0.406,std=0.229/0.224/0.225; frames are uint8 RGB of that height x width, resizing and normalisation run in the first slice',
  repeatable: true,
};

export const DEPLOY_OPTIONS: readonly CommandOption[] = [
  {
    flags: '--objective <goal>',
    description: "what the planner optimises: latency, throughput, or 'throughput<200' with no frame later than 200 ms; default: latency",
  },
  { flags: '--planner <name>', description: `who makes the plan: ${PLANNER_NAMES.join(', ')}; default: auto` },
  ...CUT_OPTIONS,
  SHAPE_OPTION,
  IMAGE_OPTION,
  {
    flags: '--max-error <error>',
    description:
      'send activations as float16 or uint8 where links limit the plan, as long as no output changes by more than this times its largest magnitude, measured on calibration inputs; 0 = all exact',
    default: '0',
  },
  {
    flags: '--calibrate <frame>',
    description:
      'an input to measure --max-error on: an image, a .npy, input=FILE,input=FILE, or a folder of them; may be repeated; default: random inputs, which are no proof for yours',
    repeatable: true,
  },
  {
    flags: '--redundancy <count>',
    description:
      '1: stages cut by outputs (fully connected layers, channels of convolutions) get a parity part on one more agent, so that any one agent of such a stage may fall or lag without a frame noticing; shown with its costs by plan',
    default: '0',
  },
  { flags: '--agents <names>', description: 'only these agents, as in pi-1,pi-2; default: all' },
  {
    flags: '--weight <number>',
    description: 'what its demand counts against that of other deployments on the same agents, when there is not enough for all',
    default: '1',
  },
  { flags: '--in-flight <count>', description: "frames in flight at once, 0 = the planner's choice", default: '0' },
  { flags: '--deadline <ms>', description: 'time a frame may take, milliseconds; 0 = the default of the dispatcher', default: '0' },
];

/** The value of an option that takes one word. */
export function optionText(options: OptionValues, name: string, fallback = ''): string {
  const value = options[name];
  return typeof value === 'string' ? value : fallback;
}

/** The values of a repeatable option. */
export function optionList(options: OptionValues, name: string): readonly string[] {
  const value = options[name];
  return Array.isArray(value) ? value.map(String) : typeof value === 'string' ? [value] : [];
}

/** `x=1,3,640,640` (several) to dims by input. Throws USAGE. */
export function parseShapes(texts: readonly string[]): Record<string, number[]> {
  const shapes: Record<string, number[]> = {};
  for (const text of texts) {
    const match = /^(.+)=(\d+(?:,\d+)*)$/.exec(text);
    if (match?.[1] === undefined || match[2] === undefined) {
      throw new ChairError('USAGE', '--shape is wrong', { expected: 'input=dims as in x=1,3,640,640', came: `"${text}"` });
    }
    shapes[match[1]] = match[2].split(',').map(Number);
  }
  return shapes;
}

/** `3,2,1` to numbers. Throws USAGE. */
export function parseShares(text: string): number[] {
  if (text === '') return [];
  const shares = text.split(',').map(Number);
  if (shares.every((s) => Number.isFinite(s) && s >= 0)) return shares;
  throw new ChairError('USAGE', '--shares is wrong', { expected: 'numbers as in 3,2,1', came: `"${text}"` });
}

function numbersOf(whole: string, text: string, key: string, fallback: readonly number[]): number[] {
  if (text === '') return [...fallback];
  const values = text.split('/').map(Number);
  if (values.length === 3 && values.every(Number.isFinite)) return values;
  throw new ChairError('USAGE', `--image: ${key} is wrong`, {
    expected: 'three numbers as in 0.485/0.456/0.406',
    came: `"${text}" in "${whole}"`,
  });
}

/** One `--image` declaration. Throws USAGE. */
export function parseImageInput(text: string): ImageInput {
  const fields = new Map(text.split(',').map((part) => [part.slice(0, part.indexOf('=')), part.slice(part.indexOf('=') + 1)] as const));
  for (const key of fields.keys()) {
    if (['input', 'size', 'order', 'mean', 'std'].includes(key)) continue;
    throw new ChairError('USAGE', '--image is wrong', {
      expected: 'input=NAME,size=HEIGHTxWIDTH, and if need be order=, mean= and std=',
      came: `"${text}"`,
    });
  }
  const input = fields.get('input') ?? '';
  const size = /^(\d+)x(\d+)$/.exec(fields.get('size') ?? '');
  const order = fields.get('order') ?? 'rgb';
  if (input === '' || size === null || (order !== 'rgb' && order !== 'bgr')) {
    throw new ChairError('USAGE', '--image is wrong', {
      expected: 'input=NAME,size=HEIGHTxWIDTH (both in pixels) and order=rgb or bgr',
      came: `"${text}"`,
    });
  }
  return {
    input,
    height: wholeNumber(size[1] ?? '', '--image: height', 1, 16_384),
    width: wholeNumber(size[2] ?? '', '--image: width', 1, 16_384),
    order,
    mean: numbersOf(text, fields.get('mean') ?? '', 'mean', [0, 0, 0]),
    std: numbersOf(text, fields.get('std') ?? '', 'std', [1, 1, 1]),
  };
}

/** Throws USAGE. */
function parseMaxError(options: OptionValues): number {
  const text = optionText(options, 'maxError', '0');
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (!(value >= 0 && value <= 1)) {
    throw new ChairError('USAGE', '--max-error is wrong', { expected: 'a number from 0 to 1, as in 0.01', came: `"${text}"` });
  }
  if (value === 0 && optionList(options, 'calibrate').length > 0) {
    throw new ChairError('USAGE', '--calibrate needs --max-error', { expected: 'an error above 0, as in --max-error 0.01', came: 'none' });
  }
  return value;
}

/** Throws AGENT_NAME_INVALID. */
export function checkName(name: string, what: string): string {
  if (NAME_PATTERN.test(name)) return name;
  throw new ChairError('AGENT_NAME_INVALID', `${what} is not a name`, {
    expected: 'letters, digits, dot, dash or underscore, at most 64',
    came: `"${name}"`,
  });
}

/** Throws USAGE. */
export function objectiveOf(text: string): string {
  if (/^(latency|throughput|throughput<[1-9]\d{0,8})$/.test(text)) return text;
  const todo = /^(latency|throughput)\s*<?\s*$/.test(text) ? "In most shells < must be quoted: --objective 'throughput<200'." : undefined;
  throw new ChairError('USAGE', '--objective is wrong', {
    expected: "latency, throughput, or 'throughput<200' with no frame later than 200 ms",
    came: `"${text}"`,
    ...(todo === undefined ? {} : { todo }),
  });
}

/** Throws USAGE. */
export function weightOf(text: string): number {
  const weight = text === '' ? 1 : Number(text);
  if (weight > 0 && weight <= 1000) return weight;
  throw new ChairError('USAGE', '--weight is wrong', { expected: 'a number above 0, at most 1000, as in 2', came: `"${text}"` });
}

/** Throws USAGE. */
function plannerOf(text: string): string {
  if (PLANNER_NAMES.some((name) => name === text)) return text;
  const meant = nearest(text, PLANNER_NAMES);
  throw new ChairError('USAGE', '--planner is wrong', {
    expected: PLANNER_NAMES.join(', '),
    came: `"${text}"`,
    ...(editDistance(text, meant) <= 5 ? { todo: `Did you mean ${meant}?` } : {}),
  });
}

/** The request made of the options above. Throws USAGE, AGENT_NAME_INVALID. */
export function deployRequest(name: string, model: string, options: OptionValues, dryRun: boolean): DeployRequest {
  const agents = optionText(options, 'agents');
  const shapes = optionList(options, 'shape');
  parseShapes(shapes);
  return {
    name: checkName(name, 'the deployment'),
    model,
    shapes,
    images: optionList(options, 'image').map(parseImageInput),
    objective: objectiveOf(optionText(options, 'objective', 'latency')),
    planner: plannerOf(optionText(options, 'planner', 'auto')),
    cut: optionText(options, 'cut'),
    shares: parseShares(optionText(options, 'shares')),
    agents: agents === '' ? [] : agents.split(',').map((a) => checkName(a, 'the agent')),
    inFlight: wholeNumber(optionText(options, 'inFlight', '0'), '--in-flight', 0, 10_000),
    deadlineMs: wholeNumber(optionText(options, 'deadline', '0'), '--deadline', 0, 3_600_000),
    maxError: parseMaxError(options),
    calibration: [],
    redundancy: wholeNumber(optionText(options, 'redundancy', '0'), '--redundancy', 0, 1),
    weight: weightOf(optionText(options, 'weight')),
    plan: '',
    verify: options.verify === true,
    dryRun,
    explain: options.explain === true,
  };
}

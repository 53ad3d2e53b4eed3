/** What a walk through the documents looked like: steps with their times, what was typed where, what came, and screens. Written as it happens, and as a page. */

export interface Screen {
  readonly title: string;
  readonly text: string;
}

export interface Step {
  readonly title: string;
  readonly fromMs: number;
  /** Of the whole step; undefined while it goes on, or when it failed. */
  ms: number | undefined;
  readonly lines: string[];
  readonly screens: Screen[];
}

/** Longer outputs are cut: what matters stands at their beginning. */
const MOST_LINES = 24;

/** `1:05` */
export function clockText(ms: number): string {
  const s = Math.round(ms / 1000);
  return `${Math.floor(s / 60)}:${String(s % 60).padStart(2, '0')}`;
}

export class Transcript {
  readonly steps: Step[] = [];
  readonly #write: (line: string) => void;
  readonly #nowMs: () => number;

  /** `nowMs`: since the walk began. */
  constructor(write: (line: string) => void, nowMs: () => number) {
    this.#write = write;
    this.#nowMs = nowMs;
  }

  /** Throws what `work` throws, after saying so. */
  async step(title: string, work: () => Promise<void>): Promise<void> {
    const step: Step = { title, fromMs: this.#nowMs(), ms: undefined, lines: [], screens: [] };
    this.steps.push(step);
    this.#write(`\n== ${clockText(step.fromMs)}  ${this.steps.length}. ${title}`);
    try {
      await work();
      step.ms = this.#nowMs() - step.fromMs;
      this.#write(`-- ok, ${(step.ms / 1000).toFixed(1)} s`);
    } catch (error) {
      this.#write(`-- FAILED: ${error instanceof Error ? error.message : String(error)}`);
      throw error;
    }
  }

  /** What somebody types: `pi-1$ sudo ./musical-chair/install.sh ...` */
  typed(where: string, line: string): void {
    this.#add(`${where}$ ${withoutSecrets(line)}`);
  }

  came(text: string, most = MOST_LINES): void {
    const lines = withoutSecrets(text.trimEnd()).split('\n');
    const shown = lines.length <= most ? lines : [...lines.slice(0, most - 1), `(${lines.length - most + 1} more lines)`];
    for (const line of shown) this.#add(line === '' ? '' : `  ${line}`);
  }

  /** A remark on what is seen. */
  note(text: string): void {
    this.#add(`# ${text}`);
  }

  screen(title: string, text: string): void {
    const clean = text
      .split('\n')
      .map((line) => line.trimEnd())
      .join('\n')
      .trimEnd();
    this.steps.at(-1)?.screens.push({ title, text: clean });
    this.#write(`   [${title}]`);
    for (const line of clean.split('\n')) this.#write(`   | ${line}`);
  }

  #add(line: string): void {
    this.steps.at(-1)?.lines.push(line);
    this.#write(`   ${line}`.trimEnd());
  }
}

/** Tokens are used up by then; all the same nobody learns from a page that they may be shown. */
export function withoutSecrets(text: string): string {
  return text.replaceAll(/\bmc1\.[A-Za-z0-9_-]{8,}/g, (token) => `${token.slice(0, 9)}...`);
}

export interface Page {
  readonly intro: readonly string[];
  readonly conditions: readonly string[];
  readonly result: readonly string[];
  readonly steps: readonly Step[];
}

export function pageText({ intro, conditions, result, steps }: Page): string {
  const table = [
    '| | step | began at | took |',
    '|---|---|---|---|',
    ...steps.map(({ title, fromMs, ms }, i) => `| ${i + 1} | ${title} | ${clockText(fromMs)} | ${((ms ?? 0) / 1000).toFixed(1)} s |`),
  ];
  const sections = steps.flatMap(({ title, lines, screens }, i) => [
    `## ${i + 1}. ${title}`,
    '',
    ...(lines.length === 0 ? [] : ['```', ...lines, '```', '']),
    ...screens.flatMap((one) => [`${one.title}:`, '', '```', one.text, '```', '']),
  ]);
  return `${[...intro, '', ...result, '', ...table, '', ...conditions, '', ...sections].join('\n').trimEnd()}\n`;
}

/**
 * Whom this agent obeys: the highest scheduler term it has seen and which scheduler reigned in it, kept on disk. A restarted agent must not obey a scheduler
 * that was replaced; and of two that came to the same term, each counting in a folder of its own, only the one that was there first.
 */
import path from 'node:path';
import { ChairError, toChairError } from '../broker/errors.js';
import { MAX_TERM } from '../broker/plan.js';
import { putAside, readSealed, writeSealed } from '../broker/sealed-file.js';

interface Reigning {
  readonly term: number;
  /** '' = not known: whoever comes first in that term. */
  readonly scheduler: string;
}

export class TermFile {
  #written: Promise<void> = Promise.resolve();

  private constructor(
    private readonly file: string,
    private current: Reigning,
    /** What is on the disk. */
    private durable: Reigning,
    /** Why the file was not used; undefined when it was, or there was none. */
    readonly damage: ChairError | undefined,
  ) {}

  /** A damaged file is put aside; the agent then obeys whoever comes first, as after a new start, and says so (see `damage`). */
  static async open(directory: string): Promise<TermFile> {
    const file = path.join(directory, 'term');
    try {
      const text = await readSealed(file);
      const last = text === undefined ? NONE : parse(text);
      return new TermFile(file, last, last, undefined);
    } catch (thrown) {
      await putAside(file);
      return new TermFile(file, NONE, NONE, toChairError(thrown));
    }
  }

  get value(): number {
    return this.current.term;
  }

  get scheduler(): string {
    return this.current.scheduler;
  }

  /**
   * Resolves when it is on the disk that this scheduler is the one to obey. Fenced from this call on. Throws TERM_STALE for a lower term, or the same one of another
   * scheduler; CODEC_LIMIT for one that cannot be; AGENT_STORE_FULL: then the command must not be obeyed, and the next one tries to write again.
   */
  async obey(term: number, scheduler: string): Promise<void> {
    const { current } = this;
    if (!(term >= 0 && term <= MAX_TERM)) {
      throw new ChairError('CODEC_LIMIT', 'a command of a term that no scheduler had', {
        expected: `at most ${MAX_TERM}`,
        came: `${term}`,
      });
    }
    if (term < current.term || (term === current.term && current.scheduler !== '' && current.scheduler !== scheduler)) {
      throw new ChairError('TERM_STALE', 'a command of a scheduler that was replaced', {
        expected: term < current.term ? `term ${current.term} or later` : `term ${term} of scheduler ${current.scheduler}`,
        came: `term ${term} of scheduler ${scheduler}`,
        todo: 'Another scheduler has reigned since; take a higher term',
      });
    }
    if (term > current.term || current.scheduler === '') this.current = { term, scheduler };
    // In turn, so that commands of one term go on in the order they came.
    const turn = this.#written.catch(() => undefined).then(() => this.#write());
    this.#written = turn;
    return turn;
  }

  async #write(): Promise<void> {
    const { current } = this;
    if (current === this.durable) return;
    await writeSealed(this.file, `${current.term} ${current.scheduler}`, 'AGENT_STORE_FULL');
    this.durable = current;
  }
}

const NONE: Reigning = { term: 0, scheduler: '' };

function parse(text: string): Reigning {
  const [, term = '', scheduler = ''] = /^(\d{1,15}) (\S*)\n$/.exec(text) ?? [];
  if (term !== '') return { term: Number(term), scheduler };
  throw new ChairError('STATE_DAMAGED', 'the file of the term is not one', { expected: 'a term and a scheduler', came: text.slice(0, 40) });
}

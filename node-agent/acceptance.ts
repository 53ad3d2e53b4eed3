/** Says to people whether a scheduler knows this agent: nothing else tells a wrong cluster name from a gateway that is not up yet. */

export interface AcceptanceOptions {
  readonly cluster: string;
  readonly broker: string;
  readonly log: (line: string) => void;
  /** Silence after a hello until it is said that nobody answers. */
  readonly quietMs?: number;
}

const QUIET_MS = 5000;

export class Acceptance {
  #term: number | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(private readonly options: AcceptanceOptions) {}

  /** The agent has said hello; a scheduler answers with a command within milliseconds. */
  asked(): void {
    if (this.#timer !== undefined || this.#term !== undefined) return;
    const { cluster, broker, log, quietMs = QUIET_MS } = this.options;
    this.#timer = setTimeout(
      () => log(`no scheduler of cluster '${cluster}' answers at ${broker}: is its gateway up, and is --cluster right? Waiting`),
      quietMs,
    );
  }

  /** A command of this term came, and was obeyed. */
  accepted(term: number): void {
    clearTimeout(this.#timer);
    // What a scheduler asked that was replaced meanwhile may be done only now.
    if (this.#term !== undefined && term <= this.#term) return;
    this.#term = term;
    this.options.log(`accepted by the scheduler of cluster '${this.options.cluster}', term ${term}`);
  }

  /** The broker is gone: whoever answers after that is asked anew. */
  lost(): void {
    this.stop();
    this.#term = undefined;
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}

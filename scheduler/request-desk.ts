/** Requests of clients: each is answered once, with what `answer` gives or with the code of what it throws. */
import type { Bus } from '../broker/bus.js';
import { ChairError, toChairError } from '../broker/errors.js';
import type { Request, RequestBody, Response } from '../broker/messages.js';
import { NAME_PATTERN, type Topics } from '../broker/topics.js';
import { isHarmless } from './client-requests.js';

/** QoS 1 may deliver a request twice: ids of so many are remembered. */
const REMEMBERED_REQUESTS = 500;
/** Answers that may have been lost with a connection: the last ones are said again when they are asked for again. */
const REMEMBERED_ANSWERS = 32;
/** An answer that is too long to send would be none. */
const MESSAGE_CHARACTERS = 4000;
const EMPTY = { status: null, plan: null, model: null, profile: null, peers: null, trust: null, trace: null };

export interface RequestDeskOptions {
  readonly bus: Bus;
  readonly topics: Topics;
  /** Requests that are not to be answered. */
  readonly ignore: (client: string) => boolean;
  /** `client`: who asks. */
  readonly answer: (body: RequestBody, client: string) => Promise<Partial<Response>>;
  readonly log: (kind: string, text: string) => void;
}

export class RequestDesk {
  readonly #o: RequestDeskOptions;
  readonly #requests = new Set<string>();
  /** Not answered yet: they may take minutes, in which many others come. */
  readonly #running = new Set<string>();
  readonly #answers = new Map<string, Response>();
  #stopped = false;

  constructor(options: RequestDeskOptions) {
    this.#o = options;
  }

  /** Nothing is answered any more. */
  stop(): void {
    this.#stopped = true;
  }

  /** Of those who may only ask. */
  async asked(request: Request): Promise<void> {
    return this.#take(request, isHarmless(request.body) ? this.#o.answer : refuse);
  }

  async request(request: Request): Promise<void> {
    return this.#take(request, this.#o.answer);
  }

  async #take(request: Request, answer: RequestDeskOptions['answer']): Promise<void> {
    if (!NAME_PATTERN.test(request.client) || this.#o.ignore(request.client)) return;
    if (this.#requests.has(request.id) || this.#running.has(request.id)) return this.#sayAgain(request);
    this.#running.add(request.id);
    this.#requests.add(request.id);
    if (this.#requests.size > REMEMBERED_REQUESTS) this.#requests.delete(this.#requests.values().next().value ?? '');
    let response: Response;
    try {
      response = { id: request.id, code: '', message: '', ...EMPTY, ...(await answer(request.body, request.client)) };
    } catch (thrown) {
      const error = toChairError(thrown);
      response = { id: request.id, code: error.code, message: error.message.slice(0, MESSAGE_CHARACTERS), ...EMPTY };
    }
    this.#running.delete(request.id);
    if (this.#stopped) return;
    if (!isHarmless(request.body)) this.#remember(request, response);
    await this.#say(request, response);
  }

  /** To who asked, and to nobody who only knows the id. */
  async #sayAgain(request: Request): Promise<void> {
    const response = this.#answers.get(keyOf(request));
    if (response !== undefined && !this.#stopped) await this.#say(request, response);
  }

  #remember(request: Request, response: Response): void {
    this.#answers.set(keyOf(request), response);
    if (this.#answers.size > REMEMBERED_ANSWERS) this.#answers.delete(this.#answers.keys().next().value ?? '');
  }

  async #say(request: Request, response: Response): Promise<void> {
    try {
      await this.#o.bus.publish(this.#o.topics.response(request.client), response);
    } catch (error) {
      // The client's own deadline tells it; here it is only noted.
      this.#o.log('unanswered', `${request.client}: ${toChairError(error).message}`);
    }
  }
}

function keyOf({ id, client }: Request): string {
  return `${client} ${id}`;
}

async function refuse({ kind }: RequestBody): Promise<never> {
  throw new ChairError('BROKER_REFUSED', `'${kind}' is not for those who may only ask`, { expected: 'the role operator' });
}

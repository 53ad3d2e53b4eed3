/** A client's requests to the scheduler: over the broker, each with a deadline and an answer that is for it alone. */
import { randomUUID } from 'node:crypto';
import type { Bus } from '../broker/bus.js';
import { ChairError, type ErrorCode, isErrorCode, toChairError } from '../broker/errors.js';
import type { RequestBody, Response } from '../broker/messages.js';
import type { Topics } from '../broker/topics.js';
import { Waitress } from '../broker/waitress.js';

export interface ClientRequestsOptions {
  readonly bus: Bus;
  readonly topics: Topics;
  /** Where answers go. */
  readonly client: string;
  readonly cluster: string;
}

export class ClientRequests {
  readonly #o: ClientRequestsOptions;
  readonly #responses = new Waitress<Response>();
  #stopped: Error | undefined;

  constructor(options: ClientRequestsOptions) {
    this.#o = options;
  }

  async start(): Promise<void> {
    const { bus, topics, client } = this.#o;
    await bus.subscribe(topics.response(client), (response) => void this.#responses.settle(response.id, response));
  }

  /**
   * `what` names the request in errors. `againMs`: a request that may be asked of a gateway that is just starting is published again and again, as nobody may have heard
   * it; who heard it answers once. Throws the answer's code, REQUEST_TIMEOUT after `deadlineMs`, BROKER_..., and what `stop` was given.
   */
  async request(body: RequestBody, deadlineMs: number, what: string, againMs = 0): Promise<Response> {
    if (this.#stopped !== undefined) throw this.#stopped;
    const { bus, topics, client, cluster } = this.#o;
    const id = randomUUID();
    const wait = this.#responses.wait(id, deadlineMs, `'${what}' from the scheduler of cluster '${cluster}' (does its gateway run?)`);
    const topic = isHarmless(body) ? topics.ask : topics.request;
    const ask = () => bus.publish(topic, { id, client, deadlineMs, body });
    // While this end is cut off it waits in the bus, but no longer than the deadline; and once is enough.
    ask().catch((error: unknown) => wait.cancel(toChairError(error)));
    const again = (): void => {
      if (bus.connected) ask().catch(() => undefined);
    };
    const timer = againMs === 0 ? undefined : setInterval(again, againMs);
    const response = await wait.reply.finally(() => clearInterval(timer));
    if (response.code !== '') throw new ChairError(codeOf(response.code), response.message);
    return response;
  }

  /** Requests that wait, and those to come, fail with `error`. */
  stop(error: Error): void {
    this.#stopped = error;
    this.#responses.cancelAll(error);
  }
}

/** Changes nothing and costs little: viewers may ask for it, and it is published where they may. */
export function isHarmless(body: RequestBody): boolean {
  return body.kind === 'status' || body.kind === 'where' || body.kind === 'peers' || (body.kind === 'links' && !body.links.measure);
}

/** Of a later version's code, which this one does not know: INTERNAL. */
export function codeOf(code: string): ErrorCode {
  return isErrorCode(code) ? code : 'INTERNAL';
}

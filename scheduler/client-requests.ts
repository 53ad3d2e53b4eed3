/** A client's requests to the scheduler: over the broker, each with a deadline and an answer that is for it alone. */
import { randomUUID } from 'node:crypto';
import type { Bus } from '../broker/bus.js';
import { ChairError, type ErrorCode, isChairError, isErrorCode, toChairError } from '../broker/errors.js';
import type { RequestBody, Response } from '../broker/messages.js';
import { printable } from '../broker/printable.js';
import type { Topics } from '../broker/topics.js';
import { Waitress } from '../broker/waitress.js';
import { watchAnswer } from './answer-watch.js';

export interface ClientRequestsOptions {
  readonly bus: Bus;
  readonly topics: Topics;
  /** Where answers go. */
  readonly client: string;
  readonly cluster: string;
  /** Who asks may only look: the broker would end the connection of one who asks for more. */
  readonly mayOnlyLook?: boolean;
  /** A gateway that says nothing for so long while the connection is down, or for three times as long, is not waited for. Default 10,000 ms. */
  readonly silentMs?: number;
}

const SILENT_MS = 10_000;
/** Asked how far they are, or for the status, by whoever asks for them. */
const WATCHED_ELSEWHERE: ReadonlySet<RequestBody['kind']> = new Set<RequestBody['kind']>(['deploy', 'profile', 'update']);

export class ClientRequests {
  readonly #o: ClientRequestsOptions;
  readonly #responses = new Waitress<Response>();
  #stopped: Error | undefined;
  /** The last answer that could not be read: the gateway is of another version, and which request it was for cannot be told. */
  #unreadable: Error | undefined;
  readonly #warned = new Set<string>();

  constructor(options: ClientRequestsOptions) {
    this.#o = options;
  }

  async start(): Promise<void> {
    const { bus, topics, client } = this.#o;
    bus.onRefused((name, error) => {
      if (name === topics.response(client).name) this.#unreadable = error;
      else this.#warn(name, error);
    });
    await bus.subscribe(topics.response(client), (response) => void this.#responses.settle(response.id, response));
  }

  /**
   * `what` names the request in errors. `againMs`: a request that may be asked of a gateway that is just starting is published again and again, as nobody may have heard
   * it; who heard it answers once. Throws the answer's code, REQUEST_TIMEOUT after `deadlineMs` or when the gateway fell silent, STOPPED when it was started again
   * meanwhile, BROKER_..., and what `stop` was given.
   */
  async request(body: RequestBody, deadlineMs: number, what: string, againMs = 0): Promise<Response> {
    if (this.#stopped !== undefined) throw this.#stopped;
    if (this.#o.mayOnlyLook === true && !isHarmless(body)) {
      throw new ChairError('BROKER_REFUSED', `'${what}' is not for viewers: they may look at status, peers and links`, {
        expected: 'the role operator',
        todo: 'An operator can make one: `token create --name NAME --role operator`.',
      });
    }
    const { bus, topics, client, cluster } = this.#o;
    const id = randomUUID();
    const wait = this.#responses.wait(id, deadlineMs, `'${what}' from the scheduler of cluster '${cluster}' (does its gateway run?)`);
    const topic = isHarmless(body) ? topics.ask : topics.request;
    const ask = () => bus.publish(topic, { id, client, deadlineMs, body });
    const again = (): void => {
      if (bus.connected) ask().catch(() => undefined);
    };
    const over = new AbortController();
    // While this end is cut off it waits in the bus, but no longer than the deadline; and once is enough.
    ask()
      .then(() => (isHarmless(body) || WATCHED_ELSEWHERE.has(body.kind) ? undefined : this.#watch(what, again, over.signal)))
      .catch((error: unknown) => wait.cancel(toChairError(error)));
    const timer = againMs === 0 ? undefined : setInterval(again, againMs);
    const unreadable = this.#unreadable;
    const response = await wait.reply
      .catch((error: unknown) => {
        const isOther = isChairError(error, 'REQUEST_TIMEOUT') && this.#unreadable !== unreadable;
        throw isOther ? otherVersion(what, cluster, this.#unreadable) : error;
      })
      .finally(() => {
        clearInterval(timer);
        over.abort();
      });
    if (response.code !== '') throw new ChairError(codeOf(response.code), response.message);
    return response;
  }

  /** Rejects when no answer can come any more. */
  #watch(what: string, again: () => void, over: AbortSignal): Promise<void> {
    const { bus, silentMs = SILENT_MS } = this.#o;
    const everyMs = silentMs / 5;
    const uptimeMs = async (): Promise<number> => {
      const { status } = await this.request({ kind: 'where', where: { name: '-' } }, everyMs, 'where', everyMs / 4);
      return status?.uptimeMs ?? Number.POSITIVE_INFINITY;
    };
    let isFirst = bus.connected;
    const onConnect = (listener: () => void): (() => void) =>
      bus.onConnect(() => {
        // Said of the connection that is there, too.
        if (!isFirst) listener();
        isFirst = false;
      });
    return watchAnswer({ what, uptimeMs, again, connected: () => bus.connected, onConnect, everyMs, silentMs }, over);
  }

  /** Once for each kind of message, as the bus does while nobody listens. */
  #warn(name: string, error: Error): void {
    const { code, message } = toChairError(error);
    const key = `${code} ${name}`;
    if (this.#warned.has(key)) return;
    this.#warned.add(key);
    process.emitWarning(printable(`message on ${name} refused: ${message}`), { code });
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

/** An answer came, and this program cannot read it. */
function otherVersion(what: string, cluster: string, cause: Error | undefined): ChairError {
  return new ChairError(
    'SCHEMA_MISMATCH',
    `the answer to '${what}' cannot be read: the gateway of cluster '${cluster}' runs another version of this program`,
    {
      expected: 'the same version on both sides',
      came: cause?.message ?? 'an answer of another form',
      todo: 'Restart the gateway with the version that is installed now (agents, too), or use the commands of its version.',
      cause,
    },
  );
}

/** Of a later version's code, which this one does not know: INTERNAL. */
export function codeOf(code: string): ErrorCode {
  return isErrorCode(code) ? code : 'INTERNAL';
}

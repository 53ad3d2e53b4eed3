/** Who listens on which exact topic, on the client side: what the real and the fake bus share. */
import { decode } from './codec.js';
import { ChairError, toChairError } from './errors.js';
import { Listeners } from './listeners.js';
import { NAME_PATTERN, type Topic } from './topics.js';

type ByteHandler = (payload: Uint8Array) => void;

export class Subscriptions {
  readonly refused = new Listeners<[topicName: string, error: Error]>();
  readonly #handlers = new Map<string, Set<ByteHandler>>();
  /** Topic and code of what was warned of: once each, whatever a peer sends. */
  readonly #warned = new Set<string>();

  get names(): string[] {
    return [...this.#handlers.keys()];
  }

  has(name: string): boolean {
    return this.#handlers.has(name);
  }

  /** Returns true when the topic is new, so the caller must subscribe at the broker. */
  add(name: string, handler: ByteHandler): boolean {
    const handlers = this.#handlers.get(name);
    handlers?.add(handler);
    if (handlers === undefined) this.#handlers.set(name, new Set([handler]));
    return handlers === undefined;
  }

  /** Returns true when nobody listens any more, so the caller must unsubscribe at the broker. */
  remove(name: string, handler: ByteHandler): boolean {
    const handlers = this.#handlers.get(name);
    if (handlers === undefined || !handlers.delete(handler) || handlers.size > 0) return false;
    return this.#handlers.delete(name);
  }

  clear(): void {
    this.#handlers.clear();
  }

  /** Hands a message to its handlers; what they throw goes to `refused`, or becomes a warning when nobody listens there. */
  dispatch(name: string, payload: Uint8Array): void {
    for (const handler of [...(this.#handlers.get(name) ?? [])]) {
      try {
        handler(payload);
      } catch (error) {
        this.refuse(name, error);
      }
    }
  }

  refuse(name: string, error: unknown): void {
    const coded = toChairError(error);
    if (this.refused.size > 0) {
      this.refused.emit(name, coded);
      return;
    }
    const key = `${coded.code} ${name}`;
    if (this.#warned.has(key)) return;
    this.#warned.add(key);
    process.emitWarning(`message on ${name} refused: ${coded.message}`, { code: coded.code });
  }

  /** A handler of bytes that decodes for `handler`. A message that does not decode is refused; an exception of the handler too. */
  typed<T>(topic: Topic<T>, handler: (value: T) => void): ByteHandler {
    return (payload) => handler(decode(topic.schema, payload) as T);
  }
}

/** Throws AGENT_NAME_INVALID unless `id` can be a level of a topic. */
export function checkName(id: string, what: string): void {
  if (NAME_PATTERN.test(id)) return;
  throw new ChairError('AGENT_NAME_INVALID', `${what} cannot be used as a name`, {
    expected: 'letters, digits, dot, dash or underscore, 1 to 64, starting with a letter or digit',
    came: JSON.stringify(id),
  });
}

/** Who listens on which topic, on the client side, and whether a message is from who it says: what the real and the fake bus share. */
import { decode } from './codec.js';
import { ChairError, toChairError } from './errors.js';
import { Listeners } from './listeners.js';
import { printable } from './printable.js';
import { byAnyone, NAME_PATTERN, ownerOf, SCHEDULER, speakerOf, type Topic } from './topics.js';

/** `speaker`: who may have published it, as the broker's access list has it; '' on a topic without speakers. */
export type ByteHandler = (payload: Uint8Array, speaker: string) => void;

/** What to subscribe to for a topic. */
export function filterOf({ name, speaker }: Pick<Topic<unknown>, 'name' | 'speaker'>): string {
  return speaker === undefined ? name : byAnyone(name);
}

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
    const spoken = speakerOf(name);
    const handlers = [
      ...(this.#handlers.get(name) ?? []),
      ...(spoken === undefined ? [] : (this.#handlers.get(byAnyone(spoken.name)) ?? [])),
    ];
    for (const handler of handlers) {
      try {
        handler(payload, spoken?.speaker ?? '');
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
    process.emitWarning(printable(`message on ${name} refused: ${coded.message}`), { code: coded.code });
  }

  /** A handler of bytes that decodes for `handler`. A message that does not decode, or is not from who it says, is refused; an exception of the handler too. */
  typed<T>(topic: Topic<T>, handler: (value: T) => void): ByteHandler {
    return (payload, speaker) => {
      const value = decode(topic.schema, payload) as T;
      checkSpeaker(topic, value, speaker);
      handler(value);
    };
  }
}

/** Throws SENDER_WRONG: the broker lets everybody speak on his own topic only, so what stands in the message must agree with it. */
function checkSpeaker<T>({ name, speaker: field }: Topic<T>, value: T, speaker: string): void {
  if (field === undefined || speaker === SCHEDULER) return;
  const said = typeof value === 'object' && value !== null ? String(Object.entries(value).find(([key]) => key === field)?.[1]) : '';
  if ((field === 'client' ? ownerOf(said) : said) === speaker) return;
  throw new ChairError('SENDER_WRONG', `a message on ${name} speaks in another's name`, { expected: speaker, came: said.slice(0, 100) });
}

/** Throws AGENT_NAME_INVALID unless `id` can be a level of a topic. */
export function checkName(id: string, what: string): void {
  if (NAME_PATTERN.test(id)) return;
  throw new ChairError('AGENT_NAME_INVALID', `${what} cannot be used as a name`, {
    expected: 'letters, digits, dot, dash or underscore, 1 to 64, starting with a letter or digit',
    came: JSON.stringify(id),
  });
}

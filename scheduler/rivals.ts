/**
 * Finds out whether another scheduler is at work in the cluster: two would seat the same agents against each other. It is asked for as a client
 * asks for the dispatcher; a scheduler that is there answers.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import type { Bus } from '../broker/bus.js';
import { isChairError } from '../broker/errors.js';
import type { Response, StatusReport } from '../broker/messages.js';
import type { Topics } from '../broker/topics.js';
import { Waitress } from '../broker/waitress.js';

export class Rivals {
  readonly #bus: Bus;
  readonly #topics: Topics;
  /** Our own scheduler does not answer a request of this client. */
  readonly client = `rival-${randomBytes(6).toString('hex')}`;

  constructor(bus: Bus, topics: Topics) {
    this.#bus = bus;
    this.#topics = topics;
  }

  /** What another scheduler of this cluster says of itself; undefined when none answers within `waitMs`. */
  async find(waitMs: number): Promise<StatusReport | undefined> {
    const answers = new Waitress<Response>();
    const off = await this.#bus.subscribe(this.#topics.response(this.client), (response) => void answers.settle(response.id, response));
    try {
      const id = randomUUID();
      const wait = answers.wait(id, waitMs, 'a request to another scheduler');
      const body = { kind: 'where', where: { name: '-' } } as const;
      await this.#bus.publish(this.#topics.request, { id, client: this.client, deadlineMs: waitMs, body });
      return (await wait.reply).status ?? undefined;
    } catch (error) {
      if (isChairError(error, 'REQUEST_TIMEOUT')) return undefined;
      throw error;
    } finally {
      answers.cancelAll(new Error('the search is over'));
      await off();
    }
  }
}

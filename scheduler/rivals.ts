/**
 * Finds out whether another scheduler is at work in the cluster: two would seat the same agents against each other. It is asked for as a client
 * asks for the dispatcher; a scheduler that is there answers.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import type { Bus } from '../broker/bus.js';
import type { StatusReport } from '../broker/messages.js';
import type { Topics } from '../broker/topics.js';

export class Rivals {
  readonly #bus: Bus;
  readonly #topics: Topics;
  /** Our own scheduler does not answer a request of this client. */
  readonly client = `rival-${randomBytes(6).toString('hex')}`;

  constructor(bus: Bus, topics: Topics) {
    this.#bus = bus;
    this.#topics = topics;
  }

  /** What another scheduler of this cluster says of itself; undefined when none answers within `waitMs` of being asked. Throws BROKER_LOST, QUEUE_FULL. */
  async find(waitMs: number): Promise<StatusReport | undefined> {
    const id = randomUUID();
    let answered: (status: StatusReport | undefined) => void = () => undefined;
    const answer = new Promise<StatusReport | undefined>((resolve) => {
      answered = resolve;
    });
    const off = await this.#bus.subscribe(this.#topics.response(this.client), (response) => {
      if (response.id === id) answered(response.status ?? undefined);
    });
    let timer: NodeJS.Timeout | undefined;
    try {
      const body = { kind: 'where', where: { name: '-' } } as const;
      // While this end is cut off it waits here: silence counts only from when the question has left.
      await this.#bus.publish(this.#topics.request, { id, client: this.client, deadlineMs: waitMs, body });
      timer = setTimeout(() => answered(undefined), waitMs);
      return await answer;
    } finally {
      clearTimeout(timer);
      await off();
    }
  }
}

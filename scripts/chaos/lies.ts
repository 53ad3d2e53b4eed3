/**
 * Messages that nobody may act upon: of a lower term, for another process, under another's name, of an epoch that is over, and plain rubbish. They are made from what
 * was last heard, so that each is wrong in one thing only. (Who can forge the right term and process is inside already: credentials are another matter.)
 */
import { randomBytes } from 'node:crypto';
import { encodeBox } from '../../broker/activation.js';
import type { Bus } from '../../broker/bus.js';
import { encode } from '../../broker/codec.js';
import { ChairError, type ErrorCode } from '../../broker/errors.js';
import type { CommandBody, Health, Hello, Prepare } from '../../broker/messages.js';
import { SOURCE } from '../../broker/plan.js';
import { NO_SEAL } from '../../broker/seal.js';
import { DISPATCHER, spokenBy, type Topic, type Topics } from '../../broker/topics.js';
import type { Lie } from './schedule.js';

/** Who must have counted a lie, under one of these codes, where `status` shows it. */
export interface Offence {
  readonly at: 'agent' | 'gateway';
  readonly codes: readonly ErrorCode[];
}

/** Bytes that are no message may look like one up to some field. */
const RUBBISH: readonly ErrorCode[] = ['CODEC_INVALID', 'CODEC_LIMIT', 'SCHEMA_MISMATCH', 'TENSOR_INVALID'];

export const OFFENCES: Readonly<Record<Lie, readonly Offence[]>> = {
  'old-term': [{ at: 'agent', codes: ['TERM_STALE'] }],
  'wrong-process': [{ at: 'agent', codes: ['EPOCH_STALE'] }],
  'other-scheduler': [{ at: 'agent', codes: ['TERM_STALE'] }],
  'other-name': [{ at: 'gateway', codes: ['AGENT_NAME_TAKEN'] }],
  'other-health': [{ at: 'gateway', codes: ['SENDER_WRONG'] }],
  'other-schema': [{ at: 'gateway', codes: ['SCHEMA_MISMATCH'] }],
  // May be true of the process before, and late.
  'false-will': [],
  garbage: [
    { at: 'agent', codes: RUBBISH },
    { at: 'gateway', codes: RUBBISH },
  ],
  // An agent that never had that epoch keeps it for a while, as it may come to have it.
  'old-epoch': [{ at: 'agent', codes: ['EPOCH_STALE', 'SEAT_UNKNOWN'] }],
  'wrong-shape': [{ at: 'agent', codes: ['TENSOR_INVALID', 'SEAT_UNKNOWN'] }],
};

const FORGED = 'f0f0f0f0f0f0f0f0';
const LIE = 'lie-';
const REMEMBERED = 1000;
const MOST_WIRES = 64;
const LIAR = 'liar';

export class Liar {
  readonly #bus: Bus;
  readonly #topics: Topics;
  readonly #hellos = new Map<string, Hello>();
  readonly #healths = new Map<string, Health>();
  /** By agent, deployment and epoch. */
  readonly #prepared = new Map<string, Prepare>();
  #term = 1;
  #scheduler = '';
  #told = 0;

  constructor(bus: Bus, topics: Topics) {
    this.#bus = bus;
    this.#topics = topics;
  }

  async listen(agents: readonly string[]): Promise<void> {
    const { hello, health, reign, command } = this.#topics;
    await this.#bus.subscribe(hello, (said) => {
      if (said.nonce !== FORGED) this.#hellos.set(said.agent, said);
    });
    await this.#bus.subscribe(health, (said) => void this.#healths.set(said.agent, said));
    await this.#bus.subscribe(reign, (said) => this.#reigns(said));
    for (const agent of agents) {
      await this.#bus.subscribe(command(agent), (said) => {
        if (said.id.startsWith(LIE)) return;
        this.#reigns(said);
        if (said.body.kind !== 'prepare') return;
        const { prepare } = said.body;
        this.#prepared.set(`${agent} ${prepare.deployment} ${prepare.epoch}`, prepare);
        if (this.#prepared.size > REMEMBERED) this.#prepared.delete(this.#prepared.keys().next().value ?? '');
      });
    }
  }

  #reigns({ term, scheduler }: { readonly term: number; readonly scheduler: string }): void {
    if (term < this.#term) return;
    this.#term = term;
    this.#scheduler = scheduler;
  }

  /** Throws AGENT_UNKNOWN when the agent was never heard, BROKER_LOST. */
  async tell(lie: Lie, agent: string): Promise<void> {
    const health = this.#healths.get(agent);
    if (health === undefined) throw new ChairError('AGENT_UNKNOWN', `${agent} was not heard yet: nothing to lie about`);
    const held = health.seats[0] ?? { deployment: 'none', epoch: 1 };
    const release: CommandBody = { kind: 'release', release: { deployment: held.deployment, epoch: held.epoch } };
    switch (lie) {
      case 'old-term':
        return this.#command(agent, health.nonce, this.#term - 1, release);
      case 'wrong-process':
        return this.#command(agent, FORGED, this.#term, release);
      case 'other-scheduler':
        return this.#command(agent, health.nonce, this.#term, release, FORGED);
      case 'other-name':
        return this.#otherName(agent);
      case 'other-health':
        return this.#as(agent, this.#topics.health, { ...health, nonce: FORGED });
      case 'other-schema':
        return this.#otherSchema(agent);
      case 'wrong-shape':
        return this.#wrongShape(agent, held);
      case 'false-will':
        return this.#as(agent, this.#topics.gone, { agent, nonce: FORGED, why: 'will', connection: 0 });
      case 'garbage':
        return this.#garbage(agent);
      case 'old-epoch':
        return this.#oldEpoch(agent, held);
    }
  }

  #command(agent: string, nonce: string, term: number, body: CommandBody, scheduler = this.#scheduler): Promise<void> {
    const id = `${LIE}${++this.#told}`;
    return this.#bus.publish(this.#topics.command(agent), { id, term, scheduler, nonce, deadlineMs: 1000, body, seal: NO_SEAL });
  }

  /** In the name of `agent`: on a broker without credentials anybody can. */
  #as<T>(agent: string, topic: Topic<T>, value: T): Promise<void> {
    return this.#bus.publishBytes(spokenBy(topic.name, agent), encode(topic.schema, value), topic.qos);
  }

  /** Somebody else says that it is this agent, at an address where nobody listens. */
  async #otherName(agent: string): Promise<void> {
    const hello = this.#hellos.get(agent);
    if (hello === undefined) throw new ChairError('AGENT_UNKNOWN', `${agent} has not introduced itself while we listened`);
    await this.#as(agent, this.#topics.hello, { ...hello, nonce: FORGED, addresses: ['192.0.2.1'], lanePort: 9 });
  }

  /** A machine that nobody knows yet, of a version that cannot be read. */
  async #otherSchema(agent: string): Promise<void> {
    const hello = this.#hellos.get(agent);
    if (hello === undefined) throw new ChairError('AGENT_UNKNOWN', `${agent} has not introduced itself while we listened`);
    const stranger = { ...hello, agent: 'stranger', nonce: FORGED, schemaFingerprint: FORGED, schemaVersion: hello.schemaVersion + 1000 };
    await this.#as(stranger.agent, this.#topics.hello, stranger);
  }

  /** For each wire of the plan in force a tensor that is none of its. */
  async #wrongShape(agent: string, { deployment, epoch }: { readonly deployment: string; readonly epoch: number }): Promise<void> {
    const { wires, stages } = this.#prepared.get(`${agent} ${deployment} ${epoch}`) ?? { wires: [undefined], stages: [undefined] };
    const box = { start: [0, 0, 0, 0, 0, 0], end: [1, 1, 1, 1, 1, 3] };
    const route = stages.map(() => 0);
    for (const [wire, along] of wires.slice(0, MOST_WIRES).entries()) {
      const ids = { deployment, frame: 2 ** 40, attempt: 1, route, wire, lowWater: 0, remainingMs: 1000, term: this.#term, epoch };
      const { message } = encodeBox({ ...ids, dtype: 'float64' as const, dims: box.end }, 'raw', new Uint8Array(24), box, box);
      const sender =
        along === undefined ? LIAR : along.fromStage === SOURCE ? DISPATCHER : stages[along.fromStage]?.agents[0]?.[along.fromPart];
      await this.#bus.publishBytes(spokenBy(this.#topics.activation(agent), sender ?? LIAR), Buffer.concat([...message]), 0);
    }
  }

  async #garbage(agent: string): Promise<void> {
    const { hello, health, reply, gone, progress, trouble, request } = this.#topics;
    const said = [hello, health, reply, gone, progress, trouble, request].map(({ name }) => name);
    const names = [...said, this.#topics.activation(agent), this.#topics.submit].map((name) => spokenBy(name, agent));
    for (const name of [...names, this.#topics.command(agent).name]) {
      await this.#bus.publishBytes(name, randomBytes(3 + Math.floor(Math.random() * 400)), 0);
    }
  }

  /** An activation of the epoch before, and of this one in the term before, by the broker. */
  async #oldEpoch(agent: string, { deployment, epoch }: { readonly deployment: string; readonly epoch: number }): Promise<void> {
    const box = { start: [0], end: [4] };
    const ids = { deployment, frame: 2 ** 40, attempt: 1, route: [0], wire: 0, lowWater: 0, remainingMs: 1000 };
    for (const [term, of] of [
      [this.#term, epoch - 1],
      [this.#term - 1, epoch],
    ] as const) {
      const header = { ...ids, term, epoch: Math.max(0, of), dtype: 'float32' as const, dims: [4] };
      const { message } = encodeBox(header, 'raw', new Uint8Array(16), box, box);
      await this.#bus.publishBytes(spokenBy(this.#topics.activation(agent), LIAR), Buffer.concat([...message]), 0);
    }
  }
}

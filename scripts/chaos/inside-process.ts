/**
 * Inside the testbed's network: clients that send frames and hold every result against the single machine's, one that looks at everything said through the broker,
 * and one that lies. `inside-process.ts BROKER-URL CLUSTER AGENT,AGENT,...`
 */
import type { Bus } from '../../broker/bus.js';
import { ChairError, isChairError, toChairError } from '../../broker/errors.js';
import { connectBus } from '../../broker/mqtt-bus.js';
import { topicsOf } from '../../broker/topics.js';
import { compare, TOLERANCE } from '../../models/slicing/compare.js';
import { ChairClient, type DeployOptions } from '../../scheduler/client.js';
import { announceReady, followParent, onAsked, untilStopped } from '../lifetime.js';
import { errorLine } from '../output.js';
import { Fencing, type Violation } from './fencing.js';
import { type Account, type LoadRequest, type Outcome, wallMs } from './inside.js';
import { Liar } from './lies.js';
import type { Lie } from './schedule.js';

/** Beyond its deadline a frame's answer may be this much under way. */
const GRACE_MS = 5000;
const ADJUST_MS = 60_000;
/** A sender that was refused does not try again at once. */
const REFUSED_PAUSE_MS = 300;

/** Sends frames until it is told to stop, and keeps each one's outcome. */
class Load {
  readonly outcomes: Outcome[] = [];
  twice = 0;
  readonly #outstanding = new Map<number, number>();
  readonly #senders: Promise<void>[] = [];
  #sent = 0;
  #stopped = false;

  constructor(private readonly connect: () => Promise<ChairClient>) {}

  async start(request: LoadRequest): Promise<void> {
    const client = await this.connect();
    for (let i = 0; i < request.inFlight; i++) this.#senders.push(this.#send(client, request));
  }

  get outstanding(): number {
    return this.#outstanding.size;
  }

  overdueMs(nowMs: number): number {
    return Math.max(0, ...[...this.#outstanding.values()].map((dueMs) => nowMs - dueMs));
  }

  async settle(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#senders);
  }

  async #send(client: ChairClient, { deployment, frames, inFlight, pauseMs, deadlineMs }: LoadRequest): Promise<void> {
    // Senders begin apart, not all at once.
    await pause((pauseMs * this.#senders.length) / inFlight);
    while (!this.#stopped) {
      const number = ++this.#sent;
      const frame = frames[number % frames.length];
      if (frame === undefined) throw new ChairError('INTERNAL', 'a load without frames');
      const sentMs = wallMs();
      this.#outstanding.set(number, sentMs + deadlineMs + GRACE_MS);
      let outcome: Pick<Outcome, 'code' | 'message' | 'attempts' | 'maxRelDiff' | 'wrong'>;
      try {
        const { outputs, attempts } = await client.infer(deployment, frame.inputs, { deadlineMs });
        const { comparable, maxRelDiff, problem = '' } = compare(frame.expected, outputs);
        const wrong = comparable && maxRelDiff <= TOLERANCE ? '' : problem || `off by ${maxRelDiff}`;
        outcome = { code: '', message: '', attempts, maxRelDiff, wrong };
      } catch (error) {
        const code = isChairError(error) ? error.code : 'INTERNAL';
        outcome = { code, message: toChairError(error).message.slice(0, 300), attempts: 0, maxRelDiff: Number.NaN, wrong: '' };
      }
      if (!this.#outstanding.delete(number)) this.twice++;
      this.outcomes.push({ deployment, sentMs, endedMs: wallMs(), ...outcome });
      await pause(outcome.code === '' ? pauseMs : Math.max(pauseMs, REFUSED_PAUSE_MS));
    }
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Subscribes to what is said to agents and by them. */
async function listen(
  bus: Bus,
  cluster: string,
  agents: readonly string[],
  fencing: Fencing,
  found: (v: Violation[]) => void,
): Promise<void> {
  const topics = topicsOf(cluster);
  for (const agent of agents) await bus.subscribe(topics.command(agent), (command) => found(fencing.command(agent, command, wallMs())));
  await bus.subscribe(topics.reply, (reply) => found(fencing.reply(reply, wallMs())));
  await bus.subscribe(topics.health, (health) => found(fencing.health(health, wallMs())));
}

async function main([brokerUrl = '', cluster = '', names = '']: readonly string[]): Promise<void> {
  followParent();
  const stopped = untilStopped();
  const agents = names.split(',');
  const clients: { close(): Promise<void> }[] = [];
  const connect = async (options: { readonly window?: number } = {}): Promise<ChairClient> => {
    const client = await ChairClient.connect({ brokerUrl, cluster, requestTimeoutMs: 4000, ...options });
    clients.push(client);
    return client;
  };
  const asking = await connect();
  const load = new Load(() => connect({ window: 64 }));
  const bus = await connectBus({ url: brokerUrl, id: 'chaos' });
  const fencing = new Fencing();
  const violations: Violation[] = [];
  await listen(bus, cluster, agents, fencing, (found) => void violations.push(...found));
  const liar = new Liar(bus, topicsOf(cluster));
  await liar.listen(agents);

  onAsked('load', (request) => load.start(request as LoadRequest));
  onAsked('settle', () => load.settle());
  onAsked('status', () => asking.status());
  onAsked('deploy', async (options) => void (await asking.deploy(options as DeployOptions)));
  onAsked('adjust', async (what) => {
    const { name, objective } = what as { readonly name: string; readonly objective: string };
    await asking.adjust({ name, objective, weight: 0, dryRun: false }, ADJUST_MS);
  });
  onAsked('undeploy', (name) => asking.undeploy(String(name)));
  onAsked('lie', (what) => {
    const { lie, agent } = what as { readonly lie: Lie; readonly agent: string };
    return liar.tell(lie, agent);
  });
  onAsked(
    'account',
    (): Account => ({
      outcomes: load.outcomes.splice(0),
      violations: violations.splice(0),
      outstanding: load.outstanding,
      overdueMs: load.overdueMs(wallMs()),
      twice: load.twice,
      transfers: fencing.transfers.splice(0),
      accepted: fencing.accepted,
      refused: fencing.refused,
    }),
  );
  announceReady({});
  await stopped;
  for (const client of clients) await client.close();
  await bus.stop();
}

main(process.argv.slice(2)).then(
  () => process.exit(0),
  (error: unknown) => {
    console.error(errorLine(error));
    process.exit(1);
  },
);

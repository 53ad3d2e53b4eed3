/** A UDP socket in the multicast DNS group on every interface, however these come and go. */
import { createSocket, type Socket } from 'node:dgram';
import { ChairError } from '../errors.js';
import { type DnsMessage, decodeDns, encodeDns } from './dns-message.js';
import { isOnLink, type NetworkInterface } from './interfaces.js';

export const MDNS_GROUP = '224.0.0.251';
export const MDNS_PORT = 5353;
/** RFC 6762, section 11. */
const TTL_HOPS = 255;

export interface Heard {
  readonly message: DnsMessage;
  readonly address: string;
  readonly port: number;
  /** Interfaces on whose link the sender is; never empty. More than one when two of ours are in one network. */
  readonly interfaces: readonly NetworkInterface[];
}

export interface MulticastOptions {
  readonly interfaces: () => readonly NetworkInterface[];
  readonly onHeard: (heard: Heard) => void;
  /** The group's port; tests have one of their own. */
  readonly groupPort: number;
  /** `group`: hears all that is said in the group. `own`: any free port; hears only what is sent to it (one-shot queries, RFC 6762, 5.1). */
  readonly bind: 'group' | 'own';
}

/** `open` throws DISCOVERY_UNAVAILABLE. `close` is idempotent. */
export class MulticastSocket {
  readonly #options: MulticastOptions;
  #socket: Socket | undefined;
  #interfaces: readonly NetworkInterface[] = [];
  /** Sends wait for each other: which interface a datagram leaves by is a property of the socket. */
  #sending: Promise<void> = Promise.resolve();

  constructor(options: MulticastOptions) {
    this.#options = options;
  }

  async open(): Promise<void> {
    const { groupPort, bind } = this.#options;
    // Shared: Avahi, systemd-resolved or another gateway may be there, and each gets every multicast message.
    const socket = createSocket({ type: 'udp4', reuseAddr: bind === 'group' });
    this.#socket = socket;
    // Bound to the group, not to all addresses, so that answers sent to this machine's own address still reach Avahi. Windows cannot.
    const address = bind === 'group' && process.platform !== 'win32' ? MDNS_GROUP : '0.0.0.0';
    try {
      await new Promise<void>((resolve, reject) => {
        socket.once('error', reject);
        socket.bind(bind === 'group' ? groupPort : 0, address, () => {
          socket.off('error', reject);
          resolve();
        });
      });
      socket.setMulticastTTL(TTL_HOPS);
      socket.setMulticastLoopback(true);
    } catch (cause) {
      this.close();
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new ChairError('DISCOVERY_UNAVAILABLE', `cannot take part in multicast DNS on port ${groupPort} (${why})`, { cause });
    }
    socket.on('error', () => undefined);
    socket.on('message', (bytes, { address: from, port }) => this.#take(bytes, from, port));
    this.refresh();
  }

  /** Looks at the interfaces again. Returns those that are new. */
  refresh(): readonly NetworkInterface[] {
    const before = this.#interfaces;
    this.#interfaces = this.#options.interfaces();
    if (this.#options.bind === 'group') for (const { address } of this.#interfaces) this.#join(address);
    return this.#interfaces.filter(({ address, name }) => !before.some((known) => known.address === address && known.name === name));
  }

  get interfaces(): readonly NetworkInterface[] {
    return this.#interfaces;
  }

  /** To the group, out of one interface. What cannot be sent is lost, as on any network: an interface may just have gone. */
  multicast(message: DnsMessage, from: NetworkInterface): Promise<void> {
    const bytes = encodeDns(message);
    this.#sending = this.#sending.then(async () => {
      try {
        this.#socket?.setMulticastInterface(from.address);
      } catch {
        return;
      }
      await this.#send(bytes, this.#options.groupPort, MDNS_GROUP);
    });
    return this.#sending;
  }

  async reply(message: DnsMessage, { address, port }: Pick<Heard, 'address' | 'port'>): Promise<void> {
    await this.#send(encodeDns(message), port, address);
  }

  close(): void {
    const socket = this.#socket;
    this.#socket = undefined;
    try {
      socket?.close();
    } catch {
      // Never bound: nothing to close.
    }
  }

  #take(bytes: Buffer, address: string, port: number): void {
    const interfaces = this.#interfaces.filter((candidate) => isOnLink(candidate, address));
    if (interfaces.length === 0) return;
    const message = decodeDns(bytes);
    if (message !== undefined) this.#options.onHeard({ message, address, port, interfaces });
  }

  #join(address: string): void {
    try {
      this.#socket?.addMembership(MDNS_GROUP, address);
    } catch {
      // A member already, or the interface is going: looked at again with the next refresh.
    }
  }

  async #send(bytes: Buffer, port: number, address: string): Promise<void> {
    const socket = this.#socket;
    if (socket === undefined) return;
    await new Promise<void>((resolve) => socket.send(bytes, port, address, () => resolve()));
  }
}

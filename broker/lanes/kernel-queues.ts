/**
 * What the kernel has taken of a connection's bytes and the other machine has not acknowledged. A socket that takes bytes says nothing of the link: they may all sit
 * in its buffer. Nor does a reply that does not come: the other process may be busy. Linux says it (`/proc/net/tcp`: proc(5), `tx_queue`); elsewhere it is not known.
 */
import { readFile } from 'node:fs/promises';
import { isIPv4, type Socket } from 'node:net';
import { plainAddress } from '../host.js';

/** Bytes of this connection that are not acknowledged; undefined = not known. */
export type KernelQueues = (socket: Socket) => number | undefined;

const TABLES = ['/proc/net/tcp', '/proc/net/tcp6'] as const;
/** Of an IPv4 address in the table of IPv6 sockets. */
const MAPPED = '0000000000000000FFFF0000';

/** Reads the table once, for as many connections as are asked of. Takes some 0.1 ms with a hundred connections. */
export async function readKernelQueues(): Promise<KernelQueues> {
  const [four = '', six = ''] = await Promise.all(TABLES.map((file) => readFile(file, 'latin1').catch(() => '')));
  return (socket) => {
    const [local, remote] = [endOf(socket.localAddress, socket.localPort), endOf(socket.remoteAddress, socket.remotePort)];
    if (local === undefined || remote === undefined) return undefined;
    return txQueue(four, `${local} ${remote} `) ?? txQueue(six, `${MAPPED}${local} ${MAPPED}${remote} `);
  };
}

/** `0100007F:1F90`: an address and a port as the table writes them. Of IPv4 only: lanes are made to addresses of that family. */
function endOf(address = '', port = 0): string | undefined {
  const plain = plainAddress(address);
  if (!isIPv4(plain)) return undefined;
  // As the machine keeps it: the first byte is the lowest. All machines that we run on do.
  const bytes = plain.split('.').reverse();
  return `${bytes.map((byte) => hex(Number(byte), 2)).join('')}:${hex(port, 4)}`;
}

function hex(value: number, digits: number): string {
  return value.toString(16).toUpperCase().padStart(digits, '0');
}

/** After the two ends: the state, then `tx_queue:rx_queue`, in hexadecimal. */
function txQueue(table: string, ends: string): number | undefined {
  const at = table.indexOf(` ${ends}`);
  if (at < 0) return undefined;
  const queues = table.slice(at + 1 + ends.length, at + 1 + ends.length + 32).split(' ')[1] ?? '';
  const bytes = Number.parseInt(queues.split(':')[0] ?? '', 16);
  return Number.isNaN(bytes) ? undefined : bytes;
}

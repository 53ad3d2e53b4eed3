/** Ports: whether a listener can be had, and if not, who has it. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import { bad, type Finding, ok } from './findings.js';

export interface PortCheck {
  /** What is to listen there: `broker`. */
  readonly what: string;
  readonly host: string;
  readonly port: number;
  /** The setting to change. */
  readonly setting: string;
}

/** Listens for a moment. */
export async function lookAtPort(area: string, { what, host, port, setting }: PortCheck): Promise<Finding> {
  if (port === 0) return ok(area, what, 'any free port');
  const code = await tryToListen(host, port);
  if (code === '') return ok(area, what, `port ${port} is free`);
  if (code === 'EADDRINUSE') {
    const holder = holderOfPort(port);
    return bad(
      area,
      what,
      `port ${port} is in use${holder === '' ? '' : ` by ${holder}`}`,
      `Stop that program, or choose another port: ${setting}.`,
    );
  }
  if (code === 'EACCES') {
    return bad(
      area,
      what,
      `port ${port} may be listened on by root only`,
      `Choose one above 1023 (${setting}), or let the service have it: gateway install does.`,
    );
  }
  if (code === 'EADDRNOTAVAIL') {
    return bad(area, what, `${host} is no address of this machine`, 'Say one that is, or 0.0.0.0 for all: gateway.host or agent.host.');
  }
  return bad(area, what, `port ${port} cannot be listened on: ${code}`, `Choose another port: ${setting}.`);
}

/** '' when it worked, else the system's code. */
function tryToListen(host: string, port: number): Promise<string> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve('')));
  });
}

/** `mosquitto (process 812)`; '' where that cannot be told: other systems, or processes of other users. */
export function holderOfPort(port: number, proc = '/proc'): string {
  const inodes = new Set(['tcp', 'tcp6'].flatMap((table) => listeningInodes(read(path.join(proc, 'net', table)), port)));
  if (inodes.size === 0) return '';
  for (const pid of list(proc)) {
    if (!/^\d+$/.test(pid)) continue;
    for (const fd of list(path.join(proc, pid, 'fd'))) {
      const inode = /^socket:\[(\d+)\]$/.exec(target(path.join(proc, pid, 'fd', fd)))?.[1];
      if (inode !== undefined && inodes.has(inode)) return `${read(path.join(proc, pid, 'comm')).trim()} (process ${pid})`;
    }
  }
  return '';
}

/** proc(5), /proc/net/tcp: local address, state (0A = listening), inode. */
export function listeningInodes(table: string, port: number): string[] {
  return table.split('\n').flatMap((line) => {
    const fields = line.trim().split(/\s+/);
    const [, local = '', , state] = fields;
    const here = Number.parseInt(local.split(':')[1] ?? '', 16);
    return here === port && state === '0A' && fields[9] !== undefined ? [fields[9]] : [];
  });
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function target(link: string): string {
  try {
    return readlinkSync(link);
  } catch {
    return '';
  }
}

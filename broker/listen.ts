/** Listening on a TCP port, with coded errors. */
import type { Server } from 'node:net';
import { ChairError, toChairError } from './errors.js';

/** Resolves with the port. Throws PORT_IN_USE, or BROKER_UNREACHABLE for any other reason. */
export async function listen(server: Server, host: string, port: number): Promise<number> {
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, host, () => {
        server.off('error', reject);
        resolve();
      });
    });
  } catch (error) {
    throw listenError(error, host, port);
  }
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : port;
}

function listenError(error: unknown, host: string, port: number): ChairError {
  if (error instanceof Error && 'code' in error && error.code === 'EADDRINUSE') {
    return new ChairError('PORT_IN_USE', `cannot listen on ${host}:${port}`, {
      expected: 'a free port',
      came: 'one in use',
      todo: 'Stop the other program or choose another port.',
      cause: error,
    });
  }
  const why = toChairError(error).message;
  return new ChairError('BROKER_UNREACHABLE', `cannot listen on ${host}:${port}: ${why}`, { cause: error });
}

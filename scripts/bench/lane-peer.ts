/** The far end of the lane benchmark: a process of its own with a lane and a bare TCP socket, which answer alike. */
import { createLanes } from '../../broker/lanes/lanes.js';
import { announceReady, followParent, untilStopped } from '../lifetime.js';
import { BACK, BULK, DONE, ECHO, listenFramed } from './lanes.js';

followParent();
const stopped = untilStopped();
const lanes = createLanes({ id: 'far', host: '127.0.0.1' });
let left = 0;
lanes.on(BULK, ({ payload }) => {
  // The first message of a series is its length.
  if (left === 0) left = (payload[0] as Uint8Array)[0] ?? 0;
  else if (--left === 0) void lanes.send('near', DONE, [Uint8Array.of(1)]);
});
lanes.on(ECHO, ({ payload }) => void lanes.send('near', BACK, payload));
await lanes.start();
let series = 0;
const tcp = await listenFramed((segments, write) => {
  const bytes = segments.reduce((sum, s) => sum + s.length, 0);
  if (series > 0) {
    if (--series === 0) write([Uint8Array.of(1)]);
  } else if (bytes === 1) series = segments[0]?.[0] ?? 0;
  else write(segments);
});
announceReady({ lanePort: lanes.port, tcpPort: tcp.port });
await stopped;
await lanes.stop();
process.exit(0);

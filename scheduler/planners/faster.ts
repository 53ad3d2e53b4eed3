/** A device that takes less time for everything that it computes: what a file says of a heated or overclocked board, or what would be if it were faster. */
import type { Device, ProfileTable } from './problem.js';

type Speeds = Pick<Device, 'macsPerSecond' | 'memoryBytesPerSecond' | 'runMs' | 'nodeMs' | 'profile'>;

export function faster<T extends Speeds>(device: T, factor: number): T {
  const { memoryBytesPerSecond, runMs, nodeMs, profile } = device;
  return {
    ...device,
    macsPerSecond: device.macsPerSecond * factor,
    ...(memoryBytesPerSecond === undefined ? {} : { memoryBytesPerSecond: memoryBytesPerSecond * factor }),
    ...(runMs === undefined ? {} : { runMs: runMs / factor }),
    ...(nodeMs === undefined ? {} : { nodeMs: nodeMs / factor }),
    ...(profile === undefined ? {} : { profile: fasterTable(profile, factor) }),
  };
}

function fasterTable(table: ProfileTable, factor: number): ProfileTable {
  const { name, rows, runMs, boundaryMsPerByte } = table;
  return {
    name: `${name} x ${factor}`,
    rows: rows.map((row) => ({ ...row, ms: row.ms / factor })),
    ...(runMs === undefined ? {} : { runMs: runMs / factor }),
    ...(boundaryMsPerByte === undefined ? {} : { boundaryMsPerByte: boundaryMsPerByte / factor }),
  };
}

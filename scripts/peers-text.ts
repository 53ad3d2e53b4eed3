/** Peer tables as text for people. Pure. */
import type { PeerRow, PeersReport, PeerTableReport } from '../broker/messages.js';
import { mbps } from '../scheduler/links/table.js';
import { counted } from './report.js';
import { bytesText, formatTable, msText, wrapText } from './table.js';

/** Enough of a sha256 to tell slices apart. */
const SLICE_DIGITS = 6;
/** Any large message keeps a link busy for a moment. */
const SHOWN_BUSY_MS = 1000;

function relationText({ before, after }: PeerRow): string {
  if (before && after) return 'both';
  return before ? 'before' : after ? 'after' : '-';
}

function slicesText({ slices }: PeerRow): string {
  const [first] = slices;
  if (first === undefined) return '-';
  return slices.length === 1 ? first.slice(0, SLICE_DIGITS) : `${first.slice(0, SLICE_DIGITS)} +${slices.length - 1}`;
}

const mbitText = (bytesPerSecond: number): string => (bytesPerSecond === 0 ? '-' : ((bytesPerSecond * 8) / 1e6).toFixed(1));

function waitingText({ waitingBytes, busyMs, busyBytesPerSecond }: PeerRow): string {
  return `${bytesText(waitingBytes)} wait to arrive there: ${mbps(busyBytesPerSecond)}, while something waited in ${(busyMs / 1000).toFixed(1)} of the last 3 s`;
}

function tableText({ agent, version, heldVersion, rows }: PeerTableReport, width: number): string {
  const head = `Peers of ${agent}, version ${version}${heldVersion === version ? '' : heldVersion === 0 ? ' (not told yet)' : ` (it holds ${heldVersion})`}`;
  const table = formatTable(
    [
      { title: 'peer', whole: true },
      { title: 'side', whole: true },
      { title: 'listens at', whole: true, drop: 2 },
      { title: 'lane', whole: true },
      { title: 'rtt', align: 'right' },
      { title: 'Mbit/s in', align: 'right' },
      { title: 'out', align: 'right' },
      { title: 'slices', whole: true, drop: 3 },
    ],
    rows.map((row) => [
      row.agent,
      relationText(row),
      row.lanePort === 0 ? 'no listener' : `${row.addresses[0] ?? '-'}:${row.lanePort}`,
      row.lane || '-',
      row.roundTripMs === 0 ? '-' : msText(row.roundTripMs),
      mbitText(row.inBytesPerSecond),
      mbitText(row.outBytesPerSecond),
      slicesText(row),
    ]),
    width,
  );
  const troubles = rows.flatMap((row) => {
    const state = row.state === '' || row.state === 'ready' ? [] : wrapText(`${row.agent} is ${row.state}`, width, '  ');
    const waiting = row.busyMs < SHOWN_BUSY_MS ? [] : wrapText(`${row.agent}: ${waitingText(row)}`, width, '  ');
    const notDirect = row.why === '' || row.lane === '' ? [] : wrapText(`${row.agent}: ${row.why}`, width, '  ');
    return [...state, ...waiting, ...notDirect];
  });
  return [head, table, ...troubles].join('\n');
}

export function peersText({ term, tables }: PeersReport, width = 80): string {
  if (tables.length === 0) return 'No agents, so no peer tables.';
  const sorted = [...tables].sort((a, b) => a.agent.localeCompare(b.agent, 'en', { numeric: true }));
  return [`${counted(sorted.length, 'peer table')} of term ${term}.`, ...sorted.map((table) => tableText(table, width))].join('\n\n');
}

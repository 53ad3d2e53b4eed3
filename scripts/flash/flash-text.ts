/** Flashing in words: progress bars, questions, what to do next. Pure. */
import { bytesText, formatTable } from '../table.js';
import { type DeviceFacts, deviceText } from './device.js';
import type { FlashedCard } from './flash.js';

const LONGEST_BAR = 24;
const SHORTEST_BAR = 8;
/** A bar with its brackets and the blanks before it. */
const AROUND_BAR = 4;

/**
 * `writing pi-1  [#######-----------------]   31 %  900 MB of 2.8 GB   24 MB/s  82 s left`, at most `columns` wide where that is possible: first the bar becomes
 * shorter, then the speed, the sizes and the bar itself are left out. What is left to wait stays.
 */
export function progressText(label: string, done: number, total: number, elapsedMs: number, columns = 100): string {
  const part = total === 0 ? 1 : Math.min(1, done / total);
  const rate = elapsedMs < 500 ? 0 : (done / elapsedMs) * 1_000;
  const percent = `  ${String(Math.floor(part * 100)).padStart(3)} %`;
  // Figures of a fixed width: the bar must not jump.
  const sizes = `  ${bytesText(done).padStart(7)} of ${bytesText(total)}`;
  const speed = (rate === 0 ? '' : `  ${bytesText(rate).padStart(7)}/s`).padEnd(11);
  const left = (rate === 0 ? '' : `  ${timeText(Math.max(0, total - done) / rate)} left`).padEnd(14);
  const forms = [`${percent}${sizes}${speed}${left}`, `${percent}${sizes}${left}`, `${percent}${left}`];
  const room = (form: string): number => columns - label.length - AROUND_BAR - form.length;
  const form = forms.find((one) => room(one) >= SHORTEST_BAR);
  if (form === undefined) return `${label}${percent}${left}`.trimEnd();
  const wide = Math.min(LONGEST_BAR, room(form));
  const filled = Math.round(part * wide);
  return `${label}  [${'#'.repeat(filled)}${'-'.repeat(wide - filled)}]${form}`.trimEnd();
}

function timeText(seconds: number): string {
  return seconds < 100 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`;
}

/** `next`: another card was written before, which may still be in the reader. */
export function eraseQuestion(device: DeviceFacts, name: string, next = false): string {
  return `${next ? `Now put in the card for ${name}. ` : ''}Everything on ${deviceText(device)} will be erased for ${name}. Type ${device.name} to go on: `;
}

/** `sdb` and `/dev/sdb` both name the device; nothing else does. */
export function namesDevice(answer: string, device: DeviceFacts): boolean {
  const typed = answer.trim();
  return typed === device.name || typed === device.path;
}

export function flashedText(cards: readonly FlashedCard[], width: number): string {
  const table = formatTable(
    [
      { title: 'agent', whole: true },
      { title: 'written', whole: true },
      { title: 'Raspberry Pi OS' },
      { title: 'first boot' },
      { title: 'token until', whole: true },
    ],
    cards.map((card) => [
      card.name,
      card.written,
      card.release,
      card.writer,
      card.tokenExpiresMs === undefined ? '-' : `${new Date(card.tokenExpiresMs).toISOString().slice(0, 16).replace('T', ' ')} UTC`,
    ]),
    width,
  );
  return `${table}\n\n${nextText(cards)}`;
}

function nextText(cards: readonly FlashedCard[]): string {
  const image = cards.find(({ written }) => !written.startsWith('/dev/'))?.written;
  const boot = 'Put the card into the Pi and switch it on: it joins within a few minutes (`musical-chair status` on the gateway).';
  if (image === undefined) return boot;
  return [
    'Write each image to a card: with Raspberry Pi Imager ("Use custom", and no other customisation), or',
    `  sudo rpi-imager --cli ${image} /dev/sdX`,
    boot,
    'An image holds its join token until the first boot: keep it to yourself, and delete it when the card is written.',
  ].join('\n');
}

/** Figures in few columns. */
import { bytesText } from '../table.js';

/** `75 s`, `12 min`, `3 h`, `6 d`. */
export function ago(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86_400)} d`;
}

/** Milliseconds, three digits or so; `-` = unknown. */
export function millis(ms: number): string {
  if (!(ms > 0)) return '-';
  if (ms < 0.095) return '<0.1';
  return ms < 99.5 ? ms.toFixed(ms < 9.95 ? 1 : 0) : ms < 9999.5 ? String(Math.round(ms)) : `${Math.round(ms / 1000)} s`;
}

/** Per second. */
export function rate(value: number): string {
  if (!(value > 0)) return '0';
  return value >= 99.5 ? String(Math.round(value)) : value >= 9.95 ? value.toFixed(1) : value.toFixed(value < 0.095 ? 2 : 1);
}

/** `12 %`, for parts of 1. */
export function percent(part: number): string {
  return `${Math.round(100 * part)}%`;
}

/** `4.1 MB/s`. */
export function speed(bytesPerSecond: number): string {
  return `${bytesText(bytesPerSecond)}/s`;
}

/** `1 lane`, `2 lanes`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

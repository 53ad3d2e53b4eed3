import { EventEmitter } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { Terminal } from './terminal.js';
import { line } from './text.js';

class FakeInput extends EventEmitter {
  raw: boolean[] = [];
  setRawMode(mode: boolean): void {
    this.raw.push(mode);
  }
  setEncoding(): void {}
  resume(): void {}
  pause(): void {}
}

class FakeOutput extends EventEmitter {
  columns = 20;
  rows = 3;
  writableLength = 0;
  written: string[] = [];
  write(text: string): void {
    this.written.push(text);
  }
}

function terminal() {
  const [input, output] = [new FakeInput(), new FakeOutput()];
  const seen: string[] = [];
  const made = new Terminal({
    input,
    output,
    colours: false,
    unicode: true,
    onKey: (key) => seen.push(key),
    onResize: () => seen.push('resize'),
  });
  return { input, output, seen, made };
}

const rows = (...texts: string[]) => texts.map((text) => line(text));

describe('a terminal', () => {
  it('gets its own screen and everything back, once', () => {
    const { made, input, output } = terminal();
    made.enter();
    made.enter();
    expect(output.written.join('')).toContain('\u001b[?1049h');
    made.leave();
    made.leave();
    expect(output.written.at(-1)).toContain('\u001b[?1049l');
    expect(output.written.at(-1)).toContain('\u001b[?25h');
    expect(output.written.filter((text) => text.includes('1049l'))).toHaveLength(1);
    expect(input.raw).toEqual([true, false]);
    expect(input.listenerCount('data')).toBe(0);
    expect(output.listenerCount('resize')).toBe(0);
  });

  it('is written only the rows that changed, and nothing when none did', () => {
    const { made, output } = terminal();
    made.enter();
    output.written = [];
    made.draw(rows('one', 'two', 'three'));
    expect(output.written).toEqual(['\u001b[2J\u001b[1;1Hone\u001b[2;1Htwo\u001b[3;1Hthree']);
    made.draw(rows('one', 'TWO', 'three'));
    expect(output.written[1]).toBe('\u001b[2;1HTWO');
    made.draw(rows('one', 'TWO', 'three'));
    expect(output.written).toHaveLength(2);
    made.redraw();
    made.draw(rows('one', 'TWO', 'three'));
    expect(output.written[2]).toContain('\u001b[1;1Hone');
    made.leave();
  });

  it('is drawn whole after a resize, and never beyond its last row', () => {
    const { made, output, seen } = terminal();
    made.enter();
    made.draw(rows('a', 'b', 'c'));
    output.rows = 2;
    output.emit('resize');
    expect(seen).toEqual(['resize']);
    output.written = [];
    made.draw(rows('a', 'b', 'c'));
    expect(output.written).toEqual(['\u001b[2J\u001b[1;1Ha\u001b[2;1Hb']);
    made.leave();
  });

  it('that takes its bytes slowly misses frames instead of falling behind', () => {
    const { made, output } = terminal();
    made.enter();
    made.draw(rows('a'));
    output.written = [];
    output.writableLength = 1e6;
    expect(made.draw(rows('b'))).toBe(false);
    expect(output.written).toEqual([]);
    output.writableLength = 0;
    expect(made.draw(rows('b'))).toBe(true);
    expect(output.written).toEqual(['\u001b[1;1Hb']);
    made.leave();
  });

  it('tells an escape key from the beginning of a sequence', async () => {
    const { made, input, seen } = terminal();
    made.enter();
    input.emit('data', '\u001b');
    input.emit('data', '[A');
    input.emit('data', '\u001b');
    expect(seen).toEqual(['up']);
    for (const end = performance.now() + 5000; seen.length < 2 && performance.now() < end; ) await delay(10);
    expect(seen).toEqual(['up', 'escape']);
    made.leave();
  });
});

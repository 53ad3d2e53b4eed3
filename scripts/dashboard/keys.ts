/**
 * Keys from the bytes of a terminal: `a`, `enter`, `up`, `ctrl-c`. Sequences may come in pieces, several keys at once. What is not known is nothing: pasted text
 * and answers of the terminal must not drain an agent.
 */

/** Escape sequences of xterm and its kin (CSI and SS3), without the escape character. */
const SEQUENCES: Readonly<Record<string, string>> = {
  '[A': 'up',
  '[B': 'down',
  '[C': 'right',
  '[D': 'left',
  OA: 'up',
  OB: 'down',
  OC: 'right',
  OD: 'left',
  '[H': 'home',
  '[F': 'end',
  OH: 'home',
  OF: 'end',
  '[1~': 'home',
  '[4~': 'end',
  '[7~': 'home',
  '[8~': 'end',
  '[5~': 'pageup',
  '[6~': 'pagedown',
};

const SINGLE: Readonly<Record<string, string>> = {
  '\r': 'enter',
  '\n': 'enter',
  '\t': 'tab',
  ' ': 'space',
  '\u007f': 'backspace',
  '\b': 'backspace',
  '\u0003': 'ctrl-c',
  '\u0004': 'ctrl-c',
  '\u000c': 'ctrl-l',
  '\u001a': 'ctrl-z',
};

const ESCAPE = '\u001b';
const PASTE_BEGINS = '[200~';
const PASTE_ENDS = `${ESCAPE}[201~`;
/** ECMA-48, 5.4: parameters and intermediates, then one final byte; and single shifts. */
const COMPLETE = /^(\[[0-?]*[ -/]*[@-~]|O[@-~])/;
const BEGUN = /^(\[[0-?]*[ -/]*|O)?$/;

export class Keys {
  #rest = '';
  #pasting = false;

  /** The keys in what came so far. What may go on is kept: `flush` ends it. */
  feed(text: string): string[] {
    this.#rest += text;
    const keys: string[] = [];
    while (this.#rest !== '') {
      if (this.#pasting && !this.#skipPaste()) break;
      if (this.#rest === '') break;
      if (!this.#rest.startsWith(ESCAPE)) {
        const [character = ''] = this.#rest;
        this.#rest = this.#rest.slice(character.length);
        const key = SINGLE[character] ?? (/^[\p{L}\p{N}\p{P}\p{S}]$/u.test(character) ? character : '');
        if (key !== '') keys.push(key);
        continue;
      }
      const after = this.#rest.slice(1);
      const [sequence = ''] = COMPLETE.exec(after) ?? [];
      if (sequence !== '') {
        this.#rest = after.slice(sequence.length);
        if (sequence === PASTE_BEGINS) this.#pasting = true;
        else if (SEQUENCES[sequence] !== undefined) keys.push(SEQUENCES[sequence]);
      } else if (BEGUN.test(after)) break;
      else {
        // The key, and one after it that came in the same piece: Alt and a key is nothing else.
        keys.push('escape');
        this.#rest = after;
      }
    }
    return keys;
  }

  /** Nothing more came for a moment: an escape that stands alone is the key. */
  flush(): string[] {
    const alone = this.#rest === ESCAPE;
    if (!this.#pasting) this.#rest = '';
    return alone ? ['escape'] : [];
  }

  /** Something is kept that may go on. */
  get waits(): boolean {
    return this.#rest !== '' && !this.#pasting;
  }

  /** True when the paste is over. */
  #skipPaste(): boolean {
    const end = this.#rest.indexOf(PASTE_ENDS);
    if (end < 0) {
      this.#rest = this.#rest.slice(-PASTE_ENDS.length);
      return false;
    }
    this.#rest = this.#rest.slice(end + PASTE_ENDS.length);
    this.#pasting = false;
    return true;
  }
}

/* The table of words: their embeddings, made by book/_ext/try_assets.py, and the search in it. */

export class Words {
  /** `list` the words in alphabetical order. */
  constructor(list) {
    this.list = list;
    this.place = new Map(list.map((word, n) => [word, n]));
  }

  /** A word as the table has it: prompts.without_article, lower case, single spaces. */
  static tidy(text) {
    return text.trim().toLowerCase().replace(/\s+/g, " ").replace(/^(a|an|the) /, "");
  }

  has(word) {
    return this.place.has(word);
  }

  /** Words that begin with the text, then words of which a later part does. */
  suggestions(text, most = 8) {
    const start = Words.tidy(text);
    if (!start) return [];
    const first = this.list.filter((word) => word.startsWith(start)).sort((a, b) => a.length - b.length);
    const later = first.length < most ? this.list.filter((word) => word.includes(` ${start}`)) : [];
    return [...new Set([...first, ...later])].slice(0, most);
  }

  /** Words of the table nearest in spelling: parts of a phrase, then the fewest letters changed. */
  nearest(text, most = 4) {
    const parts = text.split(/[ -]/).filter((part) => part !== text && this.has(part)).reverse();
    const allowed = Math.max(2, Math.ceil(text.length / 3));
    const near = this.list
      .filter((word) => Math.abs(word.length - text.length) <= allowed)
      .map((word) => [edits(word, text), word])
      .filter(([changed]) => changed <= allowed)
      .sort(([a], [b]) => a - b)
      .map(([, word]) => word);
    return [...new Set([...parts, ...near])].slice(0, most);
  }
}

/** Number of letters to insert, delete, replace or swap. */
function edits(a, b) {
  let before = [], last = Array.from({ length: b.length + 1 }, (_, n) => n);
  for (let i = 1; i <= a.length; i++) {
    const line = [i];
    for (let j = 1; j <= b.length; j++) {
      line[j] = Math.min(last[j] + 1, line[j - 1] + 1, last[j - 1] + (a[i - 1] !== b[j - 1]));
      if (a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) line[j] = Math.min(line[j], before[j - 2] + 1);
    }
    [before, last] = [last, line];
  }
  return last[b.length];
}

/** The words' embeddings: low bytes (n, C), high bytes (n, C), then a step for each part of each row. */
export class Embeddings {
  constructor(bytes, { words, parts }) {
    this.parts = parts;
    this.dim = parts.reduce((a, b) => a + b, 0);
    const count = words * this.dim;
    this.low = new Uint8Array(bytes, 0, count);
    this.high = new Int8Array(bytes, count, count);
    this.steps = new Float32Array(bytes.slice(2 * count));
  }

  /** The unit vector (C,) of a word. */
  of(number) {
    const first = number * this.dim;
    const out = Float32Array.from({ length: this.dim }, (_, c) => 256 * this.high[first + c] + this.low[first + c]);
    this.parts.reduce((start, part, n) => {
      const step = this.steps[number * this.parts.length + n];
      for (let c = start; c < start + part; c++) out[c] *= step;
      return start + part;
    }, 0);
    const length = Math.hypot(...out);
    return out.map((value) => value / length);
  }
}

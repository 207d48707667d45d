// Which words of one answer are not in another: words.py in JavaScript. SequenceMatcher's way of
// matching (Ratcliff and Obershelp: the longest common run, then what lies left and right of it).
const Words = (() => {
  const MOST_WORDS = 2000;
  const PUNCTUATION = "!-&(-/:-@\\[-`{-~";
  const SINGLE = "\\u2e80-\\u9fff\\uf900-\\ufaff\\uff00-\\uffef\\u{20000}-\\u{3ffff}";
  const WORD = new RegExp(
    `([${PUNCTUATION}${SINGLE}]|[^ \\t\\n${PUNCTUATION}${SINGLE}]+)([ \\t\\n]*)`, "gu");

  const joined = words => words.map(([word, space]) => word + space).join("");

  function longestMatch(a, places, aLow, aHigh, bLow, bHigh) {
    let best = [aLow, bLow, 0];
    let lengths = new Map();
    for (let i = aLow; i < aHigh; i++) {
      const next = new Map();
      for (const j of places.get(a[i]) || []) {
        if (j < bLow) continue;
        if (j >= bHigh) break;
        const length = (lengths.get(j - 1) || 0) + 1;
        next.set(j, length);
        if (length > best[2]) best = [i - length + 1, j - length + 1, length];
      }
      lengths = next;
    }
    return best;
  }

  function matchingBlocks(a, b) {
    const places = new Map();
    b.forEach((word, j) => {
      if (!places.has(word)) places.set(word, []);
      places.get(word).push(j);
    });
    const queue = [[0, a.length, 0, b.length]];
    const blocks = [];
    while (queue.length) {
      const [aLow, aHigh, bLow, bHigh] = queue.pop();
      const [i, j, length] = longestMatch(a, places, aLow, aHigh, bLow, bHigh);
      if (!length) continue;
      blocks.push([i, j, length]);
      if (aLow < i && bLow < j) queue.push([aLow, i, bLow, j]);
      if (i + length < aHigh && j + length < bHigh) {
        queue.push([i + length, aHigh, j + length, bHigh]);
      }
    }
    blocks.sort((x, y) => x[0] - y[0] || x[1] - y[1]);
    return [...blocks, [a.length, b.length, 0]];
  }

  // [[kind, before, after], …] with kind "same", "gone" or "new"; null where a text is too long.
  function differing(before, after) {
    const lead = [before, after].map(text => text.match(/^[ \t\n]*/)[0]);
    const [a, b] = [before, after].map(text => [...text.matchAll(WORD)].map(m => [m[1], m[2]]));
    if (Math.max(a.length, b.length) > MOST_WORDS) return null;
    const parts = [];
    const add = (kind, x, y) => {
      const last = parts[parts.length - 1];
      if (kind === "same" && last && last[0] === "same") {
        last[1] += x;
        last[2] += y;
      } else if (x || y) parts.push([kind, x, y]);
    };
    const side = (kind, words) => {
      if (!words.length) return;
      const space = words[words.length - 1][1];
      const text = joined(words);
      const word = text.slice(0, text.length - space.length);
      const on = part => (kind === "gone" ? [part, ""] : ["", part]);
      add(kind, ...on(word));
      add("same", ...on(space));
    };
    add("same", ...lead);
    let [i, j] = [0, 0];
    for (const [x, y, length] of matchingBlocks(a.map(w => w[0]), b.map(w => w[0]))) {
      side("gone", a.slice(i, x));
      side("new", b.slice(j, y));
      add("same", joined(a.slice(x, x + length)), joined(b.slice(y, y + length)));
      [i, j] = [x + length, y + length];
    }
    return parts;
  }

  return {differing};
})();

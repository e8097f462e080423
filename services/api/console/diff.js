// The difference between two texts, word by word.

const MAX_WORDS = 600;

/** Runs of [kind, text] with kind "same", "added" or "removed", in reading order. */
export function wordDiff(before, after) {
  const a = words(before);
  const b = words(after);
  if (a.length > MAX_WORDS || b.length > MAX_WORDS) {
    return before === after ? [["same", after]] : [["removed", before], ["added", after]];
  }
  // lengths[i][j]: length of the longest common subsequence of a[i:] and b[j:].
  const lengths = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      lengths[i][j] =
        a[i] === b[j]
          ? lengths[i + 1][j + 1] + 1
          : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
    }
  }
  const runs = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      push(runs, "same", b[j]);
      i += 1;
      j += 1;
    } else if (i < a.length && (j === b.length || lengths[i + 1][j] >= lengths[i][j + 1])) {
      push(runs, "removed", a[i]);
      i += 1;
    } else {
      push(runs, "added", b[j]);
      j += 1;
    }
  }
  return runs;
}

function words(text) {
  return text.match(/\S+/g) ?? [];
}

function push(runs, kind, word) {
  const last = runs.at(-1);
  if (last && last[0] === kind) last[1] += ` ${word}`;
  else runs.push([kind, word]);
}

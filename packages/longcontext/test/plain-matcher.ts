/** The rules of the spec of the matcher word for word, without regard to speed: every pair of every range is looked at. */

export type Block = [a: number, b: number, size: number];

export function plainBlocks(textA: string, textB: string, autojunk: boolean): Block[] {
  const a = Array.from(textA);
  const b = Array.from(textB);
  const popular = new Set(
    autojunk && b.length >= 200
      ? b.filter((char) => b.filter((other) => other === char).length > Math.floor(b.length / 100) + 1)
      : [],
  );
  const blocks: Block[] = [];
  const visit = (lowA: number, highA: number, lowB: number, highB: number): void => {
    let [i, j, size] = longestIndexed(a, b, popular, lowA, highA, lowB, highB);
    while (i > lowA && j > lowB && a[i - 1] === b[j - 1]) [i, j, size] = [i - 1, j - 1, size + 1];
    while (i + size < highA && j + size < highB && a[i + size] === b[j + size]) size++;
    if (size === 0) return;
    visit(lowA, i, lowB, j);
    const last = blocks.at(-1);
    if (last && last[0] + last[2] === i && last[1] + last[2] === j) last[2] += size;
    else blocks.push([i, j, size]);
    visit(i + size, highA, j + size, highB);
  };
  visit(0, a.length, 0, b.length);
  return [...blocks, [a.length, b.length, 0]];
}

/** Starts are tried in order and only a longer run replaces the best, so of equal runs the first in a, then in b, stays. */
function longestIndexed(
  a: string[],
  b: string[],
  popular: Set<string>,
  lowA: number,
  highA: number,
  lowB: number,
  highB: number,
): Block {
  let best: Block = [lowA, lowB, 0];
  for (let i = lowA; i < highA; i++) {
    for (let j = lowB; j < highB; j++) {
      let size = 0;
      while (i + size < highA && j + size < highB && a[i + size] === b[j + size] && !popular.has(a[i + size]!)) size++;
      if (size > best[2]) best = [i, j, size];
    }
  }
  return best;
}

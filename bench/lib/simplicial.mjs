/** What 2-simplicial attention is measured at on a GPU. */

/** Pairs that causal 2-simplicial attention over windows w1 and w2 looks at in N positions. */
export function simplicialPairs(N, w1, w2) {
  let pairs = 0;
  for (let i = 1; i <= N; i++) pairs += Math.min(i, w1) * Math.min(i, w2);
  return pairs;
}

/** What 2-simplicial attention is measured at, heads of 128: `both` says that the gradient is, too. */
export const simplicialShapes = (smoke) =>
  smoke
    ? [{ N: 256, Hq: 64, Hkv: 1, w1: 32, w2: 8, both: true }]
    : [
        { N: 32768, Hq: 64, Hkv: 1, w1: 512, w2: 32, both: true },
        { N: 32768, Hq: 64, Hkv: 1, w1: 1024, w2: 32, both: false },
        { N: 32768, Hq: 64, Hkv: 1, w1: 256, w2: 64, both: false },
        { N: 32768, Hq: 64, Hkv: 1, w1: 128, w2: 128, both: false },
        { N: 32768, Hq: 128, Hkv: 1, w1: 512, w2: 32, both: false },
        { N: 8192, Hq: 64, Hkv: 8, w1: 512, w2: 32, both: false },
      ];

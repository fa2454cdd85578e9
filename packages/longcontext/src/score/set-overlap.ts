/** Overlap of a set of answers with the wanted set. */

export interface SetOverlap {
  precision: number;
  recall: number;
  /** `2PR / (P + R)`. */
  f1: number;
}

/**
 * Precision, recall and F1 of two sets; repeated items count once. Two empty sets agree (all 1); if one is empty, all are 0.
 *
 * @example
 * setOverlap(["a", "c"], ["a", "b"]).f1; // 0.5
 */
export function setOverlap(predicted: Iterable<string>, wanted: Iterable<string>): SetOverlap {
  const predictedSet = new Set(predicted);
  const wantedSet = new Set(wanted);
  if (predictedSet.size === 0 && wantedSet.size === 0) return { precision: 1, recall: 1, f1: 1 };
  let common = 0;
  for (const item of predictedSet) if (wantedSet.has(item)) common++;
  return {
    precision: common / Math.max(1, predictedSet.size),
    recall: common / Math.max(1, wantedSet.size),
    f1: (2 * common) / (predictedSet.size + wantedSet.size),
  };
}

/** F1 of two sets; 1 if both are empty. */
export function setF1(predicted: Iterable<string>, wanted: Iterable<string>): number {
  return setOverlap(predicted, wanted).f1;
}

/** Names of variables in a response of variable tracking: words of five capitals. */
export function variableNames(response: string): string[] {
  return [...new Set(response.match(/(?<!\w)[A-Z]{5}(?!\w)/g))];
}

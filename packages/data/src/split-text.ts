/** What becomes of the matches of a pattern when a text is split by it, by the names that tokenizer.json has for it. */
export const splitBehaviors = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"] as const;
export type SplitBehavior = (typeof splitBehaviors)[number];

interface Piece {
  text: string;
  isMatch: boolean;
}

/** The matches of a pattern and what lies between them, none of it empty. */
function piecesOf(text: string, pattern: RegExp): Piece[] {
  const pieces: Piece[] = [];
  let at = 0;
  const add = (end: number, isMatch: boolean) => {
    if (end > at) pieces.push({ text: text.slice(at, end), isMatch });
    at = end;
  };
  for (const match of text.matchAll(pattern)) {
    add(match.index, false);
    add(match.index + match[0].length, true);
  }
  add(text.length, false);
  return pieces;
}

/** Joins each piece to the one before where `joins` says so. */
function joined(pieces: readonly Piece[], joins: (piece: Piece, before: Piece) => boolean): string[] {
  const texts: string[] = [];
  for (const [i, piece] of pieces.entries()) {
    const before = pieces[i - 1];
    if (before !== undefined && joins(piece, before)) texts.push(texts.pop()! + piece.text);
    else texts.push(piece.text);
  }
  return texts;
}

/**
 * Splits a text by a pattern with the flag `g`: its matches removed, pieces of their own, joined to what comes before or after (of several in a row only
 * the nearest), or one piece in a row.
 *
 * @param options.invert - what lies between the matches counts as matching instead
 */
export function splitText(
  text: string,
  pattern: RegExp,
  behavior: SplitBehavior,
  { invert = false }: { invert?: boolean } = {},
): string[] {
  const pieces = piecesOf(text, pattern).map((piece) => ({ ...piece, isMatch: piece.isMatch !== invert }));
  switch (behavior) {
    case "Removed":
      return pieces.filter(({ isMatch }) => !isMatch).map((piece) => piece.text);
    case "Isolated":
      return pieces.map((piece) => piece.text);
    case "MergedWithPrevious":
      return joined(pieces, (piece, before) => piece.isMatch && !before.isMatch);
    case "MergedWithNext":
      return joined(pieces, (piece, before) => before.isMatch && !piece.isMatch);
    case "Contiguous":
      return joined(pieces, (piece, before) => piece.isMatch === before.isMatch);
  }
}

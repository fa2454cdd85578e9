/** Text in terminal cells: what may be printed, how wide it is, how to cut and pad it. */

const graphemes = (text: string) => new Intl.Segmenter("en", { granularity: "grapheme" }).segment(text);

/** East Asian wide and full-width characters, and emoji: two cells each. */
const WIDE =
  /^(?:[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff01-\uff60\uffe0-\uffe6]|[\u{1f1e6}-\u{1f1ff}\u{20000}-\u{3fffd}]|\p{Emoji_Presentation}|\p{Extended_Pictographic}\ufe0f)/u;
const ZERO = /^[\p{Mn}\p{Me}\p{Cf}]+$/u;
const PRINTABLE_ASCII = /^[\x20-\x7e]*$/;

/**
 * Text that cannot drive a terminal: line breaks and tabs become spaces, other control characters and bidirectional
 * overrides become `�`. Names and samples come from files; an escape sequence in them must not run.
 */
export function printable(text: string): string {
  return text
    .replace(/\r\n|[\n\r\t\v\f\u2028\u2029]/g, " ")
    .replace(/[\p{Cc}\p{Cs}\u202a-\u202e\u2066-\u2069]/gu, "\ufffd");
}

/** Cells that a text takes in a terminal. */
export function textWidth(text: string): number {
  if (PRINTABLE_ASCII.test(text)) return text.length;
  let width = 0;
  for (const { segment } of graphemes(text)) width += graphemeWidth(segment);
  return width;
}

/** Cuts a text to at most `width` cells, with `…` at the end if something is gone. */
export function truncateText(text: string, width: number): string {
  if (textWidth(text) <= width) return text;
  let out = "";
  let used = 0;
  for (const { segment } of graphemes(text)) {
    const next = used + graphemeWidth(segment);
    if (next > width - 1) break;
    out += segment;
    used = next;
  }
  return width > 0 ? `${out}…` : "";
}

/** Folds a text into lines of at most `width` cells, at spaces where there are any. */
export function wrapText(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  const put = (word: string) => {
    const longer = line === "" ? word : `${line} ${word}`;
    if (textWidth(longer) <= width) line = longer;
    else {
      if (line !== "") lines.push(line);
      line = word;
    }
  };
  for (const word of text.split(" ")) for (const piece of splitWord(word, width)) put(piece);
  return [...lines, line];
}

function splitWord(word: string, width: number): string[] {
  if (textWidth(word) <= width) return [word];
  const pieces = [""];
  for (const { segment } of graphemes(word)) {
    if (textWidth(pieces.at(-1)! + segment) > width) pieces.push("");
    pieces[pieces.length - 1] += segment;
  }
  return pieces;
}

export function padText(text: string, width: number, align: "left" | "right"): string {
  const space = " ".repeat(Math.max(0, width - textWidth(text)));
  return align === "left" ? text + space : space + text;
}

function graphemeWidth(grapheme: string): number {
  if (ZERO.test(grapheme)) return 0;
  return WIDE.test(grapheme) ? 2 : 1;
}

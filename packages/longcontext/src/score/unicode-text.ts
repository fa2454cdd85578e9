/** Text as Python's `str` sees it, since the metrics that we reproduce are defined there: code points, and its set of white space. */

/** What `str.isspace` and `str.split` take for white space; JavaScript's `\s` leaves out U+001C–001F and U+0085, and takes U+FEFF. */
const SPACE = "\\u0009-\\u000d\\u001c-\\u0020\\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const OUTER_SPACE = new RegExp(`^[${SPACE}]+`);
const SPACES = new RegExp(`[${SPACE}]+`, "g");
const isSpace = new RegExp(`[${SPACE}]`);

/** Python's `str.strip()`. */
export function trimSpace(text: string): string {
  // From the end by hand: a regular expression with `$` would look at every run of blanks in the text.
  let end = text.length;
  while (end > 0 && isSpace.test(text[end - 1]!)) end--;
  return text.slice(0, end).replace(OUTER_SPACE, "");
}

/** Python's `str.split()`: the words between white space. */
export function splitWords(text: string): string[] {
  return text.split(SPACES).filter((word) => word !== "");
}

/** The text without its white space. */
export function removeSpace(text: string): string {
  return text.replace(SPACES, "");
}

/** Code points of a text; an unpaired surrogate counts as one. */
export function codePoints(text: string): Int32Array {
  const points = new Int32Array(text.length);
  let count = 0;
  for (let i = 0; i < text.length; count++) {
    const point = text.codePointAt(i)!;
    points[count] = point;
    i += point > 0xffff ? 2 : 1;
  }
  return points.subarray(0, count);
}

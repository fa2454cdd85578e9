/** What is taken off a response before the answer is looked for. */

/** ASCII white space, for regular expressions: JavaScript's `\s` takes more. */
export const BLANK = "[ \\t\\n\\r\\f\\v]";

const REASONING_END = /<\/(?:think|thinking|reasoning)>/g;
const REASONING_START = /<(?:think|thinking|reasoning)>/;

/**
 * The text after the last `</think>`, `</thinking>` or `</reasoning>`. A block that is opened and not closed (the answer was cut off while the
 * model reasoned) is dropped to the end.
 */
export function stripReasoning(response: string): string {
  let start = 0;
  for (const match of response.matchAll(REASONING_END)) start = match.index + match[0].length;
  const rest = response.slice(start);
  const open = rest.search(REASONING_START);
  return open < 0 ? rest : rest.slice(0, open);
}

/** The text without fences of code (whole lines that begin with three backticks), other backticks and `**`. */
export function cleanMarkup(text: string): string {
  return text
    .split("\n")
    .filter((line) => !/^[ \t\r\f\v]*```/.test(line))
    .join("\n")
    .replace(/`|\*\*/g, "");
}

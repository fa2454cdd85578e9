/** The lines of a chat that are exact, so that a checker can read them. */
import { withArticle } from "../../scribe/frame.js";
import type { TextKey } from "../../scribe/text.js";

const ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth".split(" ");

/** `first` to `tenth`, then `11th`, `21st` … */
export function ordinalWord(n: number): string {
  if (n <= ORDINALS.length) return ORDINALS[n - 1]!;
  const teen = n % 100 >= 11 && n % 100 <= 13;
  return `${n}${teen ? "th" : (["th", "st", "nd", "rd"][n % 10] ?? "th")}`;
}

/** Last line of a user's message. */
export function request({ format, topic, style }: TextKey): string {
  return `Please write ${withArticle(format)} about ${topic} in the ${style} style.`;
}

/** Last line of the last message. */
export function finalRequest(hash: string, ordinal: number, { format, topic, style }: TextKey): string {
  return `Reply with ${hash} immediately followed by an exact copy of the ${ordinalWord(ordinal)} ${format} about ${topic} written in the ${style} style, and nothing else.`;
}

/** A turn of a chat told as one text; replies have no blank lines, so the blank line ends it. */
export function flatTurn({ key, reply }: { key: TextKey; reply: string }): string {
  return `User:\n${request(key)}\n\nAssistant:\n${reply}\n\n`;
}

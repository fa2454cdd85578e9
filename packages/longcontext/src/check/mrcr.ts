import type { Message, Sample } from "../sample.js";
import { occurrences, type Solution } from "./solution.js";

const REQUEST = /^Please write an? (.+?) about (.+) in the (\w+) style\.$/;
const FINAL =
  /^Reply with ([A-Za-z0-9]+) immediately followed by an exact copy of the (\w+) (.+?) about (.+) written in the (\w+) style, and nothing else\.$/;
const WORDS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"];

interface Exchange {
  request: string;
  reply: string;
}

const lastLine = (text: string): string => text.slice(text.lastIndexOf("\n") + 1);

/** Turns of a chat of messages, or of one told as a text. */
function exchanges(messages: readonly Message[]): Exchange[] {
  const turns = messages.filter(({ role }) => role !== "system");
  if (turns.length > 1) {
    return turns.flatMap(({ role, content }, i) =>
      role === "assistant" ? [{ request: lastLine(turns[i - 1]!.content), reply: content }] : [],
    );
  }
  const [, ...parts] = turns[0]!.content.split(/(?:^|\n\n)User:\n/);
  return parts.slice(0, -1).map((part) => {
    const [request = "", reply = ""] = part.split("\n\nAssistant:\n");
    return { request: lastLine(request), reply };
  });
}

/** Counts the replies to the key that the last line names, and copies the wanted one. */
export function solveMrcr({ messages }: Sample): Solution {
  const final = FINAL.exec(lastLine(messages.at(-1)!.content));
  if (final === null) return { answer: undefined, problems: ["the last line is no request for a copy"] };
  const [, hash, ordinal, ...key] = final as unknown as [string, string, string, string, string, string];
  const number = WORDS.includes(ordinal) ? WORDS.indexOf(ordinal) + 1 : Number.parseInt(ordinal, 10);
  const all = exchanges(messages);
  const problems: string[] = [];
  const unread = all.find(({ request }) => !REQUEST.test(request));
  if (unread !== undefined) problems.push(`a request cannot be read: ${unread.request}`);
  const wanted = all.filter(({ request }) => REQUEST.exec(request)?.slice(1).join("|") === key.join("|"));
  const reply = wanted[number - 1]?.reply;
  if (new Set(all.map((turn) => turn.reply)).size < all.length) problems.push("two replies are equal");
  if (new Set(wanted.map((turn) => turn.reply.slice(0, 48))).size < wanted.length) {
    problems.push("two replies to the key begin alike");
  }
  const hashes = messages.reduce((sum, { content }) => sum + occurrences(content, hash), 0);
  if (hashes !== 1) problems.push(`the random string occurs ${hashes} times`);
  return { answer: reply === undefined ? undefined : hash + reply, problems };
}

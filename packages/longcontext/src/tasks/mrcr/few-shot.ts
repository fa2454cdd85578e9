/** A small solved example for MRCR, told before the chat. */
import { streamFor } from "../../random.js";
import type { Message } from "../../sample.js";
import { type TextKey, writeText } from "../../scribe/text.js";
import { finalRequest, flatTurn } from "./requests.js";

const HASH = "exampleexampleexampleexampleexampleexampleexampleexampleexample1";
const MOST_BYTES = 700;
const KEYS: readonly TextKey[] = [
  { format: "poem", topic: "paper lanterns", style: "plain" },
  { format: "letter", topic: "paper lanterns", style: "plain" },
  { format: "poem", topic: "paper lanterns", style: "plain" },
];

/** A system message: three short turns about a topic that no chat has, the question and its answer; about 800 tokens. */
export function fewShotMessage(seed: number, transcript: number, hashLength: number): Message {
  const random = streamFor(seed, "mrcr", transcript, "few-shot");
  const turns = KEYS.map((key) => {
    let reply = writeText(random, key);
    while (reply.length > MOST_BYTES) reply = writeText(random, key);
    return { key, reply };
  });
  const hash = HASH.slice(0, hashLength);
  const chat = turns.map(flatTurn).join("");
  const question = `User:\n${finalRequest(hash, 2, KEYS[0]!)}\n\nAssistant:\n${hash}${turns[2]!.reply}`;
  return {
    role: "system",
    content: `At the end of a chat you will be asked for an exact copy of an earlier reply. An example:\n\n${chat}${question}\n\nThe chat begins now.`,
  };
}

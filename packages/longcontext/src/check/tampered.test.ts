import { describe, expect, it } from "vitest";
import type { Sample } from "../sample.js";
import { checkSample } from "./check-sample.js";
import { EVERY_TASK } from "./every-task.js";

const copy = (sample: Sample): Sample => structuredClone(sample);

function replaceInMessages(sample: Sample, from: string | RegExp, to: string): Sample {
  const changed = copy(sample);
  for (const message of changed.messages) message.content = message.content.replaceAll(from as string, to);
  return changed;
}

const first = (name: string): Sample => {
  const variant = EVERY_TASK.find((entry) => entry.name.startsWith(name))!;
  return variant.generate({ seed: 3, index: 2, maxTokens: Math.max(variant.leastBytes, 8192) });
};

describe("checkSample", () => {
  it.each(EVERY_TASK.map(({ name }) => [name]))("refuses a wrong target of %s", (name) => {
    const sample = copy(first(name));
    sample.target = typeof sample.target === "string" ? `${sample.target}0` : ["0", ...sample.target.slice(1)];
    expect(checkSample(sample).ok).toBe(false);
  });

  const tampered: [string, Sample][] = [
    ["a missing needle", replaceInMessages(first("niah"), / is \d{7}\./g, " is lost.")],
    ["a second needle of the key", duplicateNeedle(first('niah {"variant":"niah_s2"}'))],
    [
      "a lost operation",
      replaceInMessages(first('latent_list {"complexity":1'), /\n>>> a\.(?:append|pop|insert|remove)\(.*/g, ""),
    ],
    ["a program that raises", replaceInMessages(first("latent_list"), "\n>>> print(", "\n>>> a.pop(99)\n>>> print(")],
    [
      "an assignment of the value",
      replaceInMessages(first("variable"), "\n\nQuestion: Which", "\nVAR AAAAA = VAR BBBBB\n\nQuestion: Who"),
    ],
    ["another number of a word", replaceInMessages(first("common"), "\n1. ", "\n2. ")],
    ["another word", replaceInMessages(first("frequent"), "Text:\n", "Text:\nabc ")],
    ["a story that tells another value", otherValue(first("idk"))],
    ["a document without its heading", withoutHeadings(first("doc_qa"))],
    ["another sentence to translate", replaceInMessages(first("conlang"), "\nSentence: ", "\nSentence: not ")],
    ["a reply given twice", repeatedReply(first("mrcr"))],
    ["a hash in the chat", hashInChat(first("mrcr"))],
    ["a prompt above its room", { ...first("niah"), budget: { ...first("niah").budget, maxTokens: 500 } }],
    ["a prompt far below its room", { ...first("niah"), budget: { ...first("niah").budget, maxTokens: 50_000 } }],
    ["a wrong count", { ...first("niah"), budget: { ...first("niah").budget, promptTokens: 3000 } }],
    ["no messages", { ...first("niah"), messages: [] }],
    ["another schema", { ...first("niah"), schema: "other" as "longctx-sample-1" }],
    ["an unknown task", { ...first("niah"), task: "other" as "niah" }],
    ["no facts", { ...first("idk"), meta: { ...first("idk").meta, facts: undefined } }],
  ];

  it.each(tampered)("tells of %s", (_, sample) => {
    const { ok, problems } = checkSample(sample);
    expect(ok).toBe(false);
    expect(problems.join()).not.toBe("");
  });
});

function duplicateNeedle(sample: Sample): Sample {
  const [key] = (sample.meta.needles as [string, string][])[0]!;
  return replaceInMessages(sample, "\n\nQuestion: ", `\nThe registry code for ${key} is 1234567.\n\nQuestion: `);
}

function withoutHeadings(sample: Sample): Sample {
  const [entity] = (sample.meta.facts as [string, string, string][])[0]!;
  return replaceInMessages(sample, `\n\n${entity}\n`, "\n\nSomebody\n");
}

function otherValue(sample: Sample): Sample {
  const [, , value] = (sample.meta.facts as [string, string, string][])[0]!;
  return replaceInMessages(sample, value, "something else");
}

function repeatedReply(sample: Sample): Sample {
  const changed = copy(sample);
  const replies = changed.messages.filter(({ role }) => role === "assistant");
  replies[1]!.content = replies[0]!.content;
  return changed;
}

function hashInChat(sample: Sample): Sample {
  const changed = copy(sample);
  changed.messages[1]!.content += String(sample.meta.hash);
  return changed;
}

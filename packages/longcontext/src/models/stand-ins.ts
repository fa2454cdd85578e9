/** Models that no weights are needed for: to test a set of samples, the scorers and a run before money is spent. */
import type { Random } from "@llmeff/data";
import { streamFor } from "../random.js";
import type { Sample } from "../sample.js";
import { guessLatentList } from "../stats/noise-floors.js";
import { targetText } from "../suite/score-sample.js";
import type { View } from "../tasks/latent-list/program.js";
import { type EvalModel, type GenRequest, type GenResult, ModelError } from "./eval-model.js";

/** A model that answers by a function of the request. It counts no tokens, unless the function does. */
export function standIn(
  id: string,
  answer: (request: GenRequest) => string | Partial<GenResult> | Promise<string>,
): EvalModel {
  return {
    id,
    kind: "chat",
    fingerprint: { standIn: id },
    async generate(request) {
      request.signal?.throwIfAborted();
      const start = performance.now();
      const given = await answer(request);
      const { text = "", ...rest } = typeof given === "string" ? { text: given } : given;
      return { text, finish: "stop", totalMs: performance.now() - start, ...rest };
    },
  };
}

/** Answers with the end of the prompt. */
export function echoModel(id = "echo"): EvalModel {
  return standIn(id, ({ messages, prompt, maxTokens }) =>
    (messages?.at(-1)?.content ?? prompt ?? "").slice(-maxTokens),
  );
}

/** Answers the target: it scores 1 on every sample whose target and scorer agree. */
export function oracleModel(id = "oracle"): EvalModel {
  return standIn(id, (request) => targetText(sampleOf(id, request)));
}

/** Knows the form of the answer and nothing else: it lands on the floors; of MRCR on `floorAll`, since it copies any reply of the chat. */
export function randomModel(id = "random", seed = 0): EvalModel {
  return standIn(id, (request) => {
    const sample = sampleOf(id, request);
    return guess(sample, streamFor(seed, sample.task, sample.index, `guess/${sample.id}`));
  });
}

/** Gives the entries one after the other; an error is thrown. The last one stays. */
export function scriptedModel(id: string, script: readonly (string | Partial<GenResult> | Error)[]): EvalModel {
  let call = 0;
  return standIn(id, () => {
    const entry = script[Math.min(call++, script.length - 1)] ?? "";
    if (entry instanceof Error) throw entry;
    return entry;
  });
}

function sampleOf(id: string, { sample }: GenRequest): Sample {
  if (sample === undefined) throw new ModelError("error", `[${id}] this model answers samples of a run only.`);
  return sample;
}

function guess(sample: Sample, random: Random): string {
  const { meta, messages, target } = sample;
  switch (sample.task) {
    case "latent_list":
      return guessLatentList({ core: meta.core as string[], view: meta.view as View }, random);
    case "idk":
      return "ABCD"[random.integer(0, 4)]!;
    case "mrcr": {
      const replies = messages.filter(({ role }) => role === "assistant");
      return `${meta.hash}${replies[random.integer(0, replies.length)]!.content}`;
    }
    case "variable_tracking":
      return someOf(messages.at(-1)!.content.match(/(?<=VAR )[A-Z]{5}\b/g) ?? [], target.length, random);
    case "common_words":
    case "frequent_words":
    case "niah":
    case "doc_qa":
      return someOf(messages.at(-1)!.content.match(/[\p{L}\p{N}-]{4,}/gu) ?? [], target.length, random);
    case "conlang":
      return someOf(messages.at(-1)!.content.match(/\p{Ll}+/gu) ?? [], 5, random).replaceAll(",", "");
  }
}

function someOf(words: readonly string[], count: number, random: Random): string {
  const all = [...new Set(words)];
  return Array.from({ length: count }, () => all[random.integer(0, all.length)] ?? "").join(", ");
}

import {
  byteTokenizer,
  DocumentBatches,
  documentSet,
  type ObjectivePreset,
  shuffledDocuments,
  trainBpe,
} from "@llmeff/data";
import { describe, expect, it } from "vitest";
import { objectiveName, objectivesOf } from "./objectives.js";
import { endOfDocument, specialTokens } from "./special-tokens.js";

describe("specialTokens", () => {
  const denoisers = objectivesOf({ objectives: "ul2" }).training;

  it("puts modes and sentinels after the tokens in use, the highest sentinel first", () => {
    // 40 tokens at half corruption in spans of 3: 20 hidden, 7 spans, 8 sentinels.
    const { vocabSize, modes, sentinels } = specialTokens(byteTokenizer(), 257, denoisers, { seqLen: 40 });
    expect({ vocabSize, modes, sentinels }).toEqual({
      vocabSize: 257 + 3 + 8,
      modes: { R: 257, S: 258, X: 259 },
      sentinels: { first: 267, count: 8 },
    });
  });

  it.each(["ul2", "ul2r", "palm2-like"] as ObjectivePreset[])(
    "has enough of them for %s at any length",
    async (name) => {
      for (const seqLen of [20, 64, 200]) {
        const objectives = objectivesOf({ objectives: name }).training;
        const { vocabSize, ...special } = specialTokens(byteTokenizer(), 257, objectives, { seqLen });
        const documents = documentSet([Array.from({ length: 3000 }, (_, i) => i % 256)]);
        const data = new DocumentBatches(shuffledDocuments(documents), {
          seqLen,
          batchSize: 8,
          objectives,
          eos: 256,
          ...special,
        });
        for (let i = 0; i < 5; i++) expect(Math.max(...(await data.next()).tokens)).toBeLessThan(vocabSize);
      }
    },
  );

  it("adds nothing for objectives that hide no spans", () => {
    const { training } = objectivesOf({ objectives: [{ kind: "causal" }, { kind: "prefix" }] });
    expect(specialTokens(byteTokenizer(), 257, training, { seqLen: 40 })).toEqual({ vocabSize: 257, modes: {} });
  });

  it("takes tokens that the tokenizer has, or no modes", async () => {
    const tokenizer = await trainBpe(["some text"], { vocabSize: 259, specialTokens: ["[NLU]", "<end>"] });
    const [nlu, end] = ["[NLU]", "<end>"].map((name) => tokenizer.idOf(name));
    const { modes } = specialTokens(tokenizer, 259, denoisers, { seqLen: 40, modeTokens: { R: "[NLU]" } });
    expect(modes).toEqual({ R: nlu });
    expect(specialTokens(tokenizer, 259, denoisers, { seqLen: 40, modeTokens: false }).modes).toEqual({});
    expect([endOfDocument(tokenizer, "<end>", "data.eos"), endOfDocument(tokenizer, undefined, "")]).toEqual([
      end,
      tokenizer.vocabSize,
    ]);
    expect(() => specialTokens(tokenizer, 259, denoisers, { seqLen: 40, modeTokens: { X: "[NLG]" } })).toThrow(
      '[llmeff] data.modeTokens.X: the tokenizer has no token "[NLG]".',
    );
  });
});

describe("objectivesOf", () => {
  it("measures what is trained on unless told otherwise, each objective once, and causal always", () => {
    expect([...objectivesOf({}).measured.keys()]).toEqual([]);
    expect([...objectivesOf({ objectives: "palm2-like" }).measured.keys()]).toEqual(["prefix", "R-3-0.15"]);
    const { training, measured } = objectivesOf({
      objectives: [
        { kind: "causal", weight: 3 },
        { kind: "S", corruption: 0.25 },
      ],
      evaluateObjectives: [{ kind: "X", meanSpan: 8, corruption: 0.5, weight: 7 }, { kind: "causal" }],
    });
    expect(training).toEqual([
      { kind: "causal", weight: 3 },
      { kind: "S", corruption: 0.25, weight: 1 },
    ]);
    expect([...measured]).toEqual([["X-8-0.5", { kind: "X", meanSpan: 8, corruption: 0.5, weight: 1 }]]);
  });

  it("names objectives by what tells them apart", () => {
    const names = objectivesOf({ objectives: "ul2" }).training.map(objectiveName);
    expect(names).toEqual(["R-3-0.15", "R-8-0.15", "S-0.25", "X-3-0.5", "X-8-0.5", "X-64-0.15", "X-64-0.5"]);
  });
});

import { describe, expect, it } from "vitest";
import { documentsConfig, textConfig } from "../../test/harness.js";
import { lossUnit, metricOf, seqLenOf } from "./data-schema.js";
import { check, formatPath } from "./read-config.js";
import { trainingSchema } from "./training-schema.js";

function problemsOf(config: unknown): string[] {
  const result = check(trainingSchema, config);
  return result.ok ? [] : result.problems.map(({ path, message }) => `${formatPath(path)}: ${message}`);
}

const [en, de] = [
  { name: "en", path: "en.jsonl" },
  { name: "de", path: ["de.txt", "at.txt.gz"] },
];
/** All problems of documents with other settings, as they are printed. */
const problems = (data: object, overrides: object = {}) =>
  problemsOf(documentsConfig({ sources: [en, de], ...data }, overrides));

describe("dataSchema", () => {
  it.each<[string, object]>([
    ["sources with weights and splits", documentsConfig()],
    ["sources with a temperature", documentsConfig({ sources: [en, de], temperature: 3 })],
    ["shards among them", documentsConfig({ sources: [{ name: "web", shards: "corpus" }, en], tokenizer: undefined })],
    [
      "a mixture by its name",
      documentsConfig({ objectives: "palm2-like", evaluateObjectives: "ul2", modeTokens: false }),
    ],
    [
      "a mixture of its own",
      documentsConfig({
        objectives: [
          { kind: "causal", weight: 2 },
          { kind: "X", meanSpan: 8, corruption: 0.5 },
        ],
        modeTokens: { X: "[NLG]" },
      }),
    ],
    ["windows of shards", textConfig({ data: { kind: "shards", path: "corpus", seqLen: 32, batchSize: 8 } })],
  ])("takes %s as it is", (_, config) => {
    expect(check(trainingSchema, config)).toEqual({ ok: true, value: config });
  });

  it.each<[string, object, RegExp]>([
    ["no source", { sources: [] }, /^data\.sources: expected a list of sources; received \[\]\.$/],
    ["a misspelt key", { pakcing: "greedy" }, /^data: unknown key "pakcing"\. Did you mean "packing"\?$/],
    [
      "a misspelt key of a source",
      { sources: [{ ...en, feild: "x" }] },
      /^data\.sources\[0\]: unknown key "feild"\. Did you mean "field"\?$/,
    ],
    [
      "a misspelt mixture",
      { objectives: "ul3" },
      /^data\.objectives: expected one of "causal", "ul2", .*Did you mean "ul2"\?$/,
    ],
    [
      "no mixture",
      { objectives: 3 },
      /^data\.objectives: expected a list of objectives, or a mixture's name; received 3\.$/,
    ],
    [
      "a misspelt objective",
      { objectives: [{ kind: "causal" }, { kind: "prefx" }] },
      /^data\.objectives\[1\]\.kind: expected one of "causal", "prefix", "R", "S", "X"; received "prefx"\. Did you mean "prefix"\?$/,
    ],
    [
      "an objective's key of another",
      { objectives: [{ kind: "S", corruption: 0.2, meanSpan: 3 }] },
      /^data\.objectives\[0\]: unknown key "meanSpan"\. Known keys: kind, corruption, weight\.$/,
    ],
    [
      "spans of no token",
      { objectives: [{ kind: "R", meanSpan: 0.5, corruption: 0.2 }] },
      /\.meanSpan: expected a number of at least 1; received 0\.5\.$/,
    ],
    [
      "all hidden",
      { evaluateObjectives: [{ kind: "S", corruption: 1 }] },
      /^data\.evaluateObjectives\[0\]\.corruption: expected a number between 0 and 1/,
    ],
    ["a mode of no kind", { modeTokens: { Q: "x" } }, /^data\.modeTokens: unknown key "Q"\./],
    [
      "two sources of a name",
      { sources: [en, { ...de, name: "en" }] },
      /^data\.sources\[1\]\.name: the name "en" is taken\.$/,
    ],
    [
      "a name that would divide metrics",
      { sources: [{ ...en, name: "a/b" }] },
      /^data\.sources\[0\]\.name: expected a name without slashes\.$/,
    ],
    [
      "a weight of one source",
      { sources: [{ ...en, weight: 1 }, de] },
      /^data\.sources\[1\]\.weight: expected a weight for all sources, or for none\.$/,
    ],
    [
      "weights beside a temperature",
      { sources: [{ ...en, weight: 1 }], temperature: 2 },
      /^data\.temperature: the sources' weights are used/,
    ],
    [
      "a source of nothing",
      { sources: [{ name: "en" }] },
      /^data\.sources\[0\]\.path: expected either path or shards\.$/,
    ],
    [
      "no path in a list",
      { sources: [{ name: "en", path: [] }] },
      /^data\.sources\[0\]\.path: expected a list of paths; received \[\]\.$/,
    ],
    [
      "no tokenizer",
      { tokenizer: undefined },
      /^data\.tokenizer: expected "character", "byte" or the path of a tokenizer\.json; received nothing\.$/,
    ],
    [
      "a tokenizer beside that of shards",
      { sources: [{ name: "web", shards: "corpus" }], validFraction: undefined },
      /^data\.tokenizer: the shards' tokenizer is used; remove it\.$/,
    ],
    [
      "a field of a text",
      { sources: [{ ...de, field: "body" }] },
      /^data\.sources\[0\]\.field: text files have no fields/,
    ],
    [
      "a separator of records",
      { sources: [{ ...en, separator: "\n" }] },
      /^data\.sources\[0\]\.separator: it divides text files; here are none\.$/,
    ],
    [
      "half of a split",
      { sources: [{ ...en, splits: { train: "a" } }] },
      /^data\.sources\[0\]\.splits\.valid: expected a text; received nothing\.$/,
    ],
    ["a look-ahead in order", { lookAhead: 8 }, /^data\.lookAhead: it is for packing: "bestFit"\.$/],
  ])("says what is wrong with %s", (_, data, message) => {
    const found = problems(data);
    expect(found.join("\n")).toMatch(message);
    expect(found).toHaveLength(1);
  });

  it("refuses what shards have decided, each at its key", () => {
    const sources = [{ name: "web", shards: "corpus", field: "x", separator: "y" }];
    expect(problems({ sources, tokenizer: undefined, eos: "</s>", maxDocumentTokens: 9 })).toEqual([
      expect.stringMatching(/^data\.sources\[0\]\.field: shards are documents already/),
      expect.stringMatching(/^data\.sources\[0\]\.separator: shards are documents already/),
      "data.eos: the shards' end of documents is used; remove it.",
      expect.stringMatching(/^data\.validFraction: shards are documents already/),
      expect.stringMatching(/^data\.maxDocumentTokens: shards are documents already/),
    ]);
  });

  it("refuses layers that can't keep documents apart", () => {
    const model = {
      dModel: 16,
      numLayers: 2,
      numHeads: 2,
      attention: [{ kind: "dot", scaleFrom: 9 }, { kind: "simplicial" }],
    };
    expect(problems({}, { model })).toEqual([
      expect.stringMatching(/^model\.attention\[0\]\.scaleFrom: documents are kept apart by masks/),
      expect.stringMatching(/^model\.attention\[1\]\.kind: documents are kept apart by masks/),
    ]);
  });

  it("lists problems of all depths at once", () => {
    const found = problems({ objectives: [{ kind: "S" }], evaluateObjectives: "al", modeTokens: { R: 3 }, seqLen: 0 });
    expect(found).toHaveLength(4);
  });
});

describe("what follows from a kind of data", () => {
  it("is a metric, a length, and a unit", () => {
    const text = { kind: "text", path: "t", tokenizer: "character", seqLen: 16, batchSize: 1 } as const;
    const composition = { kind: "relationComposition", size: 4, batchSize: 1 } as const;
    expect([metricOf(text), seqLenOf(text), lossUnit(text)]).toEqual(["validationLoss", 16, "nats/char"]);
    expect([metricOf(composition), seqLenOf(composition), lossUnit(composition)]).toEqual([
      "accuracy",
      48,
      "nats/token",
    ]);
  });
});

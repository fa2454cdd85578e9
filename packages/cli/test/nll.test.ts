/** `llmeff eval nll` over files of each kind. */
import { existsSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { sampleText, textConfig, Workplace } from "./harness.js";

interface Printed {
  files: { html: string; json: string };
  results: { model: string; documents: number; tokens: number; points: { position: number; mean: number | null }[] }[];
}

let place: Workplace;
const books = [sampleText.slice(0, 300), sampleText.slice(100, 240), sampleText.slice(50, 110)];
beforeAll(async () => {
  place = await Workplace.create();
  await place.write("text.txt", sampleText);
  const attention = [
    { kind: "dot", window: 8 },
    { kind: "dot", rope: false, scaleFrom: 16 },
  ];
  const model = { dModel: 16, numLayers: 2, numHeads: 2, maxSeqLen: 256, attention };
  await place.write("config.json", textConfig({ model }));
  const records = books.map((text, i) => JSON.stringify({ text, split: i === 0 ? "valid" : "train" }));
  await place.write("books.jsonl", records.join("\n"));
  expect(await place.run(["train", "config.json"])).toMatchObject({ code: 0 });
});
afterAll(() => place[Symbol.asyncDispose]());

const nll = (...argv: string[]) => place.run(["eval", "nll", ...argv]);

describe("llmeff eval nll", () => {
  it("shows the mean up to each position, the law, and writes the report", async () => {
    const { code, stdout, stderr } = await nll(
      ...["books.jsonl", "--model", "local:runs/tiny", "--positions", "8,16,32,64"],
    );
    expect(code).toBe(0);
    expect(stderr).toMatch(/ 33 % +1\/3[\s\S]* 100 % +3\/3/);
    expect(stdout).toMatch(/runs\/tiny +8 +\d\.\d{4} +3 +\S+·x\^-\d/);
    expect(stdout).toMatch(/64 +\d\.\d{4} +2 /);
    const html = await place.read("runs", "nll", "nll.html");
    expect(html).toContain("Negative log-likelihood against position");
    expect(html).toContain("3 documents, 456 tokens"); // the first one is cut at the 256 that the model takes
    expect(JSON.parse(await place.read("runs", "nll", "nll.json"))).toMatchObject({ results: [{ documents: 3 }] });
  });

  it("takes whole text files, parts of documents and of files, and several models", async () => {
    const both = ["--model", "local:runs/tiny", "--model", "local:runs/tiny/checkpoints/step-00000012"];
    const all = await nll(
      "text.txt",
      "books.jsonl",
      ...both,
      "--tokens",
      "40",
      "--limit",
      "3",
      "--json",
      "--out",
      "other",
    );
    const { files, results } = JSON.parse(all.stdout) as Printed;
    expect(results.map(({ documents, tokens }) => [documents, tokens])).toEqual([
      [3, 120],
      [3, 120],
    ]);
    // The run's newest checkpoint is that one.
    expect(results[0]!.points).toEqual(results[1]!.points);
    expect([files.html, files.json].every((path) => existsSync(path))).toBe(true);
    const valid = await nll("books.jsonl", ...both.slice(0, 2), "--split", "valid", "--json");
    expect((JSON.parse(valid.stdout) as Printed).results[0]).toMatchObject({ documents: 1, tokens: 256 });
  });

  it.each([
    ["no model", ["books.jsonl"], 2, /name a model with --model/],
    ["an endpoint", ["books.jsonl", "--model", "http://127.0.0.1:1/v1"], 2, /give no log-probabilities of prompts/],
    ["a file that isn't there", ["none.txt", "--model", "local:runs/tiny"], 1, /none\.txt/],
    ["a split without documents", ["books.jsonl", "--model", "local:runs/tiny", "--split", "test"], 2, /no document/],
    [
      "positions that don't ascend",
      ["books.jsonl", "--model", "local:runs/tiny", "--positions", "8,8"],
      2,
      /ascending/,
    ],
  ])("refuses %s", async (_, argv, code, message) => {
    const outcome = await nll(...argv);
    expect(outcome.stderr).toMatch(message);
    expect(outcome.code).toBe(code);
  });
});

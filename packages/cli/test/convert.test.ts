import { cp, mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { byteTokenizer, tokenizerJson } from "@llmeff/data";
import { loadHuggingFace, saveHuggingFace, Transformer } from "@llmeff/models";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { documentsConfig, sampleDocuments, sampleText, textConfig, Workplace } from "./harness.js";

const root = join(import.meta.dirname, "../../..");
const stories = join(root, "datasets/stories260K");

/** A run of a model that Hugging Face knows too. */
function runConfig(name: string, tokenizer: string): Record<string, unknown> {
  const data = { ...(textConfig().data as object), tokenizer };
  return textConfig({ name, data, model: { dModel: 16, numLayers: 2, numHeads: 2, maxSeqLen: 64, qkNorm: true } });
}

let place: Workplace;
beforeAll(async () => {
  place = await Workplace.create();
  await place.write("text.txt", sampleText);
  await place.write("bytes.json", runConfig("bytes", "byte"));
  await place.write("config.json", runConfig("tiny", "character"));
  await place.write("simplicial.json", textConfig({ name: "simplicial" }));
  for (const config of ["bytes.json", "config.json", "simplicial.json"])
    expect((await place.run(["train", config])).code).toBe(0);
});
afterAll(() => place[Symbol.asyncDispose]());

const exists = (name: string) =>
  stat(place.path(name)).then(
    () => true,
    () => false,
  );

describe("llmeff convert", () => {
  it("makes a Hugging Face folder of a llama2.c model and its tokenizer, which writes the model's own text", async () => {
    const tokenizer = join(stories, "tok512.bin");
    const made = await place.run(["convert", join(stories, "stories260K.bin"), "hf/stories", "--tokenizer", tokenizer]);
    expect(made).toMatchObject({ code: 0, stderr: "" });
    expect(made.stdout).toContain("stories: 260,032 parameters");
    const golden = JSON.parse(await readFile(join(stories, "golden.json"), "utf8"));
    const start = "Once upon a time";
    expect(golden.greedy_text.startsWith(start)).toBe(true);
    const { stdout } = await place.run([
      "generate",
      "hf/stories",
      "--prompt",
      start,
      "--tokens",
      "100",
      "--temperature",
      "0",
    ]);
    expect(golden.greedy_text.startsWith(stdout.trimEnd())).toBe(true);
    expect(stdout.length).toBeGreaterThan(200);
    expect((await place.run(["convert", "hf/stories", "again.bin"])).code).toBe(0);
    const [original, again] = [
      await readFile(join(stories, "stories260K.bin")),
      await readFile(place.path("again.bin")),
    ];
    const weights = 28 + 4 * 260_032;
    expect(again.subarray(0, weights).equals(original.subarray(0, weights))).toBe(true);
  });

  it("makes one of a training run, with its tokenizer, that generates as the run does", async () => {
    expect((await place.run(["convert", "runs/bytes", "hf/bytes"])).code).toBe(0);
    const write = (model: string) =>
      place.run(["generate", model, "--prompt", "the ", "--tokens", "20", "--seed", "3"]);
    expect((await write("hf/bytes")).stdout).toBe((await write("runs/bytes")).stdout);
  });

  it.each([
    ["mixtral", { experts: { numExperts: 4, topK: 2, auxCoef: 0.01 } }],
    [
      "gpt2",
      {
        norm: "layer",
        positions: "learned",
        feedForward: "gelu",
        feedForwardBias: true,
        attentionBias: "all",
        tieEmbeddings: true,
      },
    ],
    [
      "gemma2",
      {
        block: "sandwich",
        normPlusOne: true,
        feedForward: "geglu",
        embeddingScale: 4,
        attentionSoftcap: 50,
        finalSoftcap: 30,
      },
    ],
    ["llama", { ropeScaling: { type: "yarn", factor: 2, originalLength: 32 }, rotaryDim: 4 }],
  ])("trains a model of the kind of %s and writes it as one", async (family, options) => {
    const model = { dModel: 16, numLayers: 2, numHeads: 2, maxSeqLen: 64, ...options };
    await place.write(`${family}.json`, { ...runConfig(family, "byte"), model });
    expect(await place.run(["train", `${family}.json`])).toMatchObject({ code: 0 });
    expect(await place.run(["convert", `runs/${family}`, `hf/${family}`])).toMatchObject({ code: 0 });
    expect(JSON.parse(await place.read(`hf/${family}/config.json`)).model_type).toBe(family);
    const write = (model: string) => place.run(["generate", model, "--prompt", "the ", "--tokens", "9", "--seed", "3"]);
    expect((await write(`hf/${family}`)).stdout).toBe((await write(`runs/${family}`)).stdout);
  });

  it("tells where the texts of a run on documents end", async () => {
    await place.write("en.jsonl", sampleDocuments("en", 60));
    const sources = [{ name: "en", path: "en.jsonl" }];
    const training = { training: { steps: 2 }, name: "documents" };
    await place.write("documents.json", documentsConfig({ sources, objectives: "ul2" }, training));
    expect(await place.run(["train", "documents.json"])).toMatchObject({ code: 0 });
    expect(await place.run(["convert", "runs/documents", "hf/documents"])).toMatchObject({ code: 0 });
    const { params, model, eosTokens } = await loadHuggingFace(place.path("hf/documents"), { device: "cpu" });
    expect(eosTokens).toEqual([256]);
    for (const param of Object.values(params)) param.dispose();
    model.dispose();
  });

  it("says that a character tokenizer stays behind", async () => {
    const { code, stderr } = await place.run(["convert", "runs/tiny", "hf/characters"]);
    expect(code).toBe(0);
    expect(stderr).toContain("has no form in tokenizer.json");
    const write = await place.run(["generate", "hf/characters", "--prompt", "the "]);
    expect(write.code).toBe(2);
    expect(write.stderr).toContain("has no tokenizer.json");
  });

  it("writes text with a model whose vocabulary is padded", async () => {
    const model = new Transformer({ vocabSize: 2048, dModel: 16, numLayers: 1, numHeads: 2, maxSeqLen: 64 });
    const files = { "tokenizer.json": JSON.stringify(tokenizerJson(byteTokenizer())) };
    await saveHuggingFace(place.path("hf/padded"), model, model.init(1), { files });
    const write = await place.run(["generate", "hf/padded", "--prompt", "the ", "--tokens", "20"]);
    expect(write).toMatchObject({ code: 0, stderr: "" });
    expect(write.stdout.length).toBeGreaterThan(8);
  });

  it("keeps what lies beside the weights of a folder, in another dtype, form and number of files", async () => {
    await cp(join(root, "golden/tiny-llama"), place.path("llama"), { recursive: true });
    await writeFile(place.path("llama/generation_config.json"), '{"eos_token_id": 2}');
    const options = ["--dtype", "bfloat16", "--config-form", "old", "--max-shard-bytes", "30000"];
    expect((await place.run(["convert", "llama", "hf/kept", ...options])).code).toBe(0);
    for (const name of ["tokenizer.json", "generation_config.json"]) {
      expect(await readFile(place.path("hf/kept", name))).toEqual(await readFile(place.path("llama", name)));
    }
    const config = JSON.parse(await place.read("hf/kept/config.json"));
    expect(config).toMatchObject({ torch_dtype: "bfloat16", rope_theta: 10000, bos_token_id: 1 });
    expect(await exists("hf/kept/model.safetensors.index.json")).toBe(true);
    const { params } = await loadHuggingFace(place.path("hf/kept"));
    expect(params["model.norm.weight"]!.dtype).toBe("bfloat16");
  });

  it("copies a tokenizer that it can't read, which only writing text needs", async () => {
    await cp(join(root, "golden/tiny-llama"), place.path("foreign"), { recursive: true });
    const tokenizer = JSON.parse(await place.read("foreign/tokenizer.json"));
    tokenizer.added_tokens[0].single_word = true;
    await place.write("foreign/tokenizer.json", tokenizer);
    expect(await place.run(["convert", "foreign", "hf/foreign"])).toMatchObject({ code: 0, stderr: "" });
    expect(await place.read("hf/foreign/tokenizer.json")).toBe(await place.read("foreign/tokenizer.json"));
    const written = await place.run(["generate", "hf/foreign", "--prompt", "a"]);
    expect(written).toMatchObject({ code: 1, stderr: expect.stringContaining("single_word: true") });
  });

  it("leaves the files of a tokenizer behind where another is given, and none unseen", async () => {
    await cp(join(root, "golden/tiny-llama"), place.path("other"), { recursive: true });
    for (const name of ["generation_config.json", "tokenizer_config.json", "vocab.json", "merges.txt"])
      await writeFile(place.path("other", name), "{}");
    await place.write("bytes-tokenizer.json", tokenizerJson(byteTokenizer()) as Record<string, unknown>);
    const argv = ["convert", "other", "hf/other", "--tokenizer", "bytes-tokenizer.json"];
    expect(await place.run(argv)).toMatchObject({ code: 0 });
    expect((await readdir(place.path("hf/other"))).sort()).toEqual([
      "config.json",
      "generation_config.json",
      "model.safetensors",
      "tokenizer.json",
    ]);
    expect(JSON.parse(await place.read("hf/other/tokenizer.json")).model.vocab).toHaveProperty("Ġ");
    await rm(place.path("other/merges.txt"));
    await mkdir(place.path("other/merges.txt"));
    const failed = await place.run(["convert", "other", "hf/x"]);
    expect(failed.stderr).toMatch(/merges.txt can't be read/);
    expect(failed.code).toBe(1);
    expect(await exists("hf/x")).toBe(false);
  });

  it.each([
    [["convert", "runs/simplicial", "hf/x"], 1, /of none of the families llama, .*can't state layers/],
    [["convert", "absent", "hf/x"], 1, /absent doesn't exist/],
    [["convert", "runs/bytes", "hf"], 1, /hf is there already/],
    [["convert", "runs/bytes", "x.bin", "--dtype", "bfloat16"], 2, /holds float32 weights alone; leave out dtype/],
    [["convert", "runs/bytes", "hf/x", "--dtype", "int8"], 2, /Allowed choices are float32, bfloat16, float16/],
    [
      ["convert", "runs/bytes", "hf/x", "--tokenizer", join(stories, "tok512.bin")],
      2,
      /has 512 tokens, the model a vocabulary of 256/,
    ],
    [["convert", join(stories, "tok512.bin"), "hf/x"], 1, /Is it a model of llama2.c\?|no model of llama2.c/],
  ])("refuses %j", async (argv, code, message) => {
    const outcome = await place.run(argv);
    expect(outcome.stderr).toMatch(message);
    expect(outcome.code).toBe(code);
    expect(await exists("hf/x")).toBe(false);
    expect(await exists("x.bin")).toBe(false);
  });
});

describe("llmeff tokenizer", () => {
  it("writes a tokenizer.json that a training run reads", async () => {
    const argv = [
      "tokenizer",
      "text.txt",
      "--vocab-size",
      "300",
      "--out",
      "made/tokenizer.json",
      "--special",
      "<|end|>",
    ];
    const made = await place.run(argv);
    expect(made).toMatchObject({ code: 0, stderr: "" });
    const size = Number(/(\d+) tokens/.exec(made.stdout)![1]);
    expect(size).toBeGreaterThan(257);
    await place.write("bpe.json", runConfig("bpe", "made/tokenizer.json"));
    expect(await place.run(["train", "bpe.json"])).toMatchObject({ code: 0 });
    expect((await place.run(["convert", "runs/bpe", "hf/bpe"])).code).toBe(0);
    expect(JSON.parse(await place.read("hf/bpe/config.json")).vocab_size).toBe(size);
    expect(JSON.parse(await place.read("hf/bpe/tokenizer.json"))).toEqual(
      JSON.parse(await place.read("made/tokenizer.json")),
    );
  });

  it("refuses texts that aren't there and sizes that can't be", async () => {
    const run = (...argv: string[]) => place.run(["tokenizer", ...argv, "--out", "no/tokenizer.json"]);
    expect(await run("absent.txt", "--vocab-size", "300")).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("absent.txt"),
    });
    expect(await run("text.txt", "--vocab-size", "12")).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("at least 256"),
    });
    expect(await exists("no")).toBe(false);
  });
});

import { writeFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { sampleText, textConfig, Workplace } from "./harness.js";

let place: Workplace;
beforeAll(async () => {
  place = await Workplace.create();
  await place.write("text.txt", `${sampleText} Ä→😀`);
  await place.write("config.json", textConfig());
  await place.write(
    "bytes.json",
    textConfig({ name: "bytes", data: { ...(textConfig().data as object), tokenizer: "byte" } }),
  );
  await place.write("prompts.txt", "the \na cat\n\nand\non\n");
  await place.write(
    "prompts.jsonl",
    ["the ", "a cat", "and", "on"].map((prompt) => JSON.stringify({ prompt })).join("\n"),
  );
  await place.write("broken.jsonl", '{"text": "a"}');
  await place.write("empty.txt", "\n");
  expect((await place.run(["train", "config.json"])).code).toBe(0);
  expect((await place.run(["train", "bytes.json"])).code).toBe(0);
});
afterAll(() => place[Symbol.asyncDispose]());

const write = (...argv: string[]) => place.run(["generate", ...argv]);

describe("llmeff generate", () => {
  it("continues a prompt, from a run's folder or a checkpoint, alike for the same seed", async () => {
    const first = await write("runs/tiny", "--prompt", "the ", "--tokens", "30", "--seed", "5");
    expect(first.code).toBe(0);
    expect(first.stdout).toMatch(/^the [\s\S]{30}\n$/u);
    const checkpoint = "runs/tiny/checkpoints/step-00000012";
    expect(await write(checkpoint, "--prompt", "the ", "--tokens", "30", "--seed", "5")).toEqual(first);
    const other = await write("runs/tiny", "--prompt", "the ", "--tokens", "30", "--seed", "6");
    expect(other.stdout).not.toBe(first.stdout);
  });

  it("writes whole characters, though a byte model makes them from several tokens", async () => {
    const { code, stdout } = await write(
      "runs/bytes",
      "--prompt",
      "Ä→😀",
      "--tokens",
      "40",
      "--top-k",
      "8",
      "--top-p",
      "0.9",
    );
    expect(code).toBe(0);
    expect(stdout.startsWith("Ä→😀")).toBe(true);
  });

  const lines = (stdout: string) =>
    stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));

  it("writes several prompts of a file at once, in their order, each as it would be by itself", async () => {
    const several = await write("runs/tiny", "--prompts", "prompts.txt", "--tokens", "20", "--batch", "2");
    expect(several).toMatchObject({ code: 0, stderr: "" });
    const prompts = ["the ", "a cat", "and", "on"];
    const texts = lines(several.stdout);
    expect(texts.map(({ prompt }) => prompt)).toEqual(prompts);
    for (const [i, prompt] of prompts.entries()) {
      const { stdout } = await write("runs/tiny", "--prompt", prompt, "--tokens", "20");
      expect(prompt + texts[i].text).toBe(stdout.slice(0, -1));
      expect(texts[i]).toEqual({ prompt, sample: 0, text: texts[i].text, ending: "length", tokens: 20 });
    }
    expect(await write("runs/tiny", "--prompts", "prompts.jsonl", "--tokens", "20")).toEqual(several);
  });

  it("writes samples of a prompt with seeds one after another", async () => {
    const { stdout } = await write("runs/tiny", "--prompt", "the", "--samples", "3", "--seed", "5", "--tokens", "9");
    for (const { sample, text } of lines(stdout)) {
      const alone = await write("runs/tiny", "--prompt", "the", "--seed", String(5 + sample), "--tokens", "9");
      expect(alone.stdout).toBe(`the${text}\n`);
    }
  });

  it("tells how likely tokens were", async () => {
    const { stdout } = await write(
      "runs/tiny",
      "--prompt",
      "the",
      "--tokens",
      "5",
      "--log-probs",
      "3",
      "--temperature",
      "0",
    );
    const [{ text, logProbs }] = lines(stdout);
    expect(logProbs).toHaveLength(5);
    expect(logProbs.map(({ token }: { token: string }) => token).join("")).toBe(text);
    for (const { top, ...chosen } of logProbs) {
      expect(top).toHaveLength(3);
      expect(top[0]).toEqual(chosen);
      expect(chosen.logProb).toBeLessThan(0);
      expect(top[0].logProb).toBeGreaterThanOrEqual(top[1].logProb);
    }
  });

  it("ends before a stop string, and says so", async () => {
    const free = lines((await write("runs/tiny", "--prompt", "the", "--tokens", "40", "--json")).stdout)[0];
    const stop = free.text.slice(10, 13);
    const at = free.text.indexOf(stop);
    const stopped = lines(
      (await write("runs/tiny", "--prompt", "the", "--tokens", "40", "--json", "--stop", stop, "never there")).stdout,
    )[0];
    expect(stopped).toMatchObject({ text: free.text.slice(0, at), ending: "stop" });
    const plain = await write("runs/tiny", "--prompt", "the", "--tokens", "40", "--stop", stop);
    expect(plain.stdout).toBe(`the${stopped.text}\n`);
  });

  it("keeps to penalties and biases", async () => {
    const argv = ["runs/tiny", "--prompt", "the", "--tokens", "30", "--temperature", "0"];
    const free = (await write(...argv)).stdout;
    const { logProbs } = lines((await write(...argv, "--log-probs", "0")).stdout)[0];
    const banned = logProbs[0].id as number;
    const without = lines((await write(...argv, "--log-probs", "0", "--logit-bias", `${banned}=-Infinity`)).stdout)[0];
    expect(without.logProbs.map(({ id }: { id: number }) => id)).not.toContain(banned);
    for (const option of ["--presence-penalty", "--frequency-penalty", "--repetition-penalty"])
      expect((await write(...argv, option, "50")).stdout, option).not.toBe(free);
    expect((await write(...argv.slice(0, -2), "--min-p", "1")).stdout).toBe(free);
  });

  it("writes the same with a draft model, and says how often it was right", async () => {
    const argv = ["runs/tiny", "--prompt", "the ", "--tokens", "30", "--temperature", "0"];
    const alone = await write(...argv);
    const drafted = await write(...argv, "--draft", "runs/tiny/checkpoints/step-00000012", "--draft-tokens", "3");
    expect(drafted.stdout).toBe(alone.stdout);
    // The draft model is the model itself.
    expect(drafted.stderr).toMatch(/(\d+) of \1 drafted tokens were right \(100 %\)/);
  });

  it("stops when interrupted", async () => {
    const outcome = await place.run(["generate", "runs/tiny", "--prompts", "prompts.txt", "--tokens", "400"], {
      interruptAt: "\n",
    });
    expect(outcome.code).toBe(130);
  });

  it.each([
    ["a folder that doesn't exist", ["runs/nothing", "--prompt", "a"], 1, /runs\/nothing doesn't exist/],
    ["a folder without a checkpoint", [".", "--prompt", "a"], 1, /holds no checkpoint/],
    ["no prompt", ["runs/tiny"], 2, /either by --prompt TEXT or by --prompts FILE/],
    [
      "a prompt and a file of them",
      ["runs/tiny", "--prompt", "a", "--prompts", "prompts.txt"],
      2,
      /either by --prompt/,
    ],
    ["a file of prompts that isn't there", ["runs/tiny", "--prompts", "none.txt"], 1, /none\.txt/],
    ["a file without a prompt", ["runs/tiny", "--prompts", "empty.txt"], 2, /empty\.txt holds no prompt/],
    [
      "lines without a prompt",
      ["runs/tiny", "--prompts", "broken.jsonl"],
      1,
      /line 1: field "prompt" must be a string/,
    ],
    ["an empty stop string", ["runs/tiny", "--prompt", "a", "--stop", ""], 1, /a stop string must be a text/],
    ["a share above one", ["runs/tiny", "--prompt", "a", "--min-p", "2"], 2, /expected a number in \[0, 1\]/],
    ["a penalty of zero", ["runs/tiny", "--prompt", "a", "--repetition-penalty", "0"], 2, /expected a positive number/],
    [
      "a penalty that is no number",
      ["runs/tiny", "--prompt", "a", "--presence-penalty", "x"],
      2,
      /expected a number\./,
    ],
    ["a bias without an id", ["runs/tiny", "--prompt", "a", "--logit-bias", "x=1"], 2, /expected ID=NUMBER/],
    ["a bias that is no number", ["runs/tiny", "--prompt", "a", "--logit-bias", "1="], 2, /expected ID=NUMBER/],
    [
      "a bias of no token",
      ["runs/tiny", "--prompt", "a", "--logit-bias", "9999=1"],
      1,
      /must be in 0\.\.\d+, the model's/,
    ],
    ["no sample", ["runs/tiny", "--prompt", "a", "--samples", "0"], 2, /expected a positive integer/],
    ["drafts without a draft model", ["runs/tiny", "--prompt", "a", "--draft-tokens", "2"], 2, /Name one with --draft/],
    ["another tokenizer's drafts", ["runs/tiny", "--prompt", "a", "--draft", "runs/bytes"], 2, /has another tokenizer/],
    ["an empty prompt", ["runs/tiny", "--prompt", ""], 1, /at least one token/],
    ["a prompt of unknown characters", ["runs/tiny", "--prompt", "λ"], 1, /character "λ"/],
    ["a temperature below zero", ["runs/tiny", "--prompt", "a", "--temperature", "-1"], 2, /expected a number ≥ 0/],
  ])("refuses %s", async (_, argv, code, message) => {
    const outcome = await write(...argv);
    expect(outcome.stderr).toMatch(message);
    expect(outcome.code).toBe(code);
  });

  it("refuses a damaged checkpoint and goes on with the one before", async () => {
    const checkpoint = place.path("runs/bytes/checkpoints/step-00000012");
    await writeFile(`${checkpoint}/model.safetensors`, "broken");
    const direct = await write(checkpoint, "--prompt", "a", "--tokens", "3");
    expect(direct).toMatchObject({ code: 1, stderr: expect.stringContaining("is not a valid checkpoint") });
    const run = await write("runs/bytes", "--prompt", "a", "--tokens", "3");
    expect(run.code).toBe(0);
  });
});

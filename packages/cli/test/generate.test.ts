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

  it.each([
    ["a folder that doesn't exist", ["runs/nothing", "--prompt", "a"], 1, /runs\/nothing doesn't exist/],
    ["a folder without a checkpoint", [".", "--prompt", "a"], 1, /holds no checkpoint/],
    ["no prompt", ["runs/tiny"], 2, /required option '--prompt <text>'/],
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

/** `llmeff eval run` of models in this process: how their folders say that prompts are written, where answers end, and what fits. */
import { readFile, writeFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Workplace } from "./harness.js";
import { makePlace } from "./served.js";

interface Line {
  status: string;
  finish?: string;
  error?: string;
  text: string;
  maxTokens: number;
  budgetTokens: number;
  usage?: { promptTokens: number; completionTokens: number };
}

let place: Workplace;
beforeAll(async () => {
  place = await makePlace();
});
afterAll(() => place[Symbol.asyncDispose]());

async function results(...folder: string[]): Promise<Line[]> {
  const lines = (await place.read(...folder, "results.jsonl")).trim().split("\n");
  return lines.slice(1).map((line) => JSON.parse(line) as Line);
}

async function copyStories(folder: string): Promise<void> {
  for (const name of ["config.json", "tokenizer.json", "model.safetensors"]) {
    await place.copy(`stories/${name}`, `${folder}/${name}`);
  }
}

const small = ["--task", "niah_s2", "--lengths", "400,512", "--samples", "3"];
const run = (folder: string, ...more: string[]) =>
  place.run(["eval", "run", "--model", `local:${folder}`, ...small, "--out", `runs/${folder}`, ...more]);

describe("llmeff eval run of a local model", () => {
  it("reads prompts behind the token that begins a text, and counts it", async () => {
    expect(await run("stories")).toMatchObject({ code: 0 });
    const lines = await results("runs", "stories");
    expect(lines).toHaveLength(6);
    for (const { usage, budgetTokens, maxTokens } of lines) {
      expect(usage!.promptTokens).toBe(budgetTokens);
      expect(budgetTokens).toBeLessThanOrEqual(maxTokens - 128);
    }
    const { origin } = JSON.parse(await place.read("runs", "stories", "samples.summary.json")) as {
      origin: { tokenizer: string };
    };
    expect(origin.tokenizer).toBe("local:stories");
  });

  it("ends answers at the token that ends a text", async () => {
    const { model } = JSON.parse(await place.read("stories", "tokenizer.json")) as {
      model: { vocab: Record<string, number> };
    };
    await copyStories("ending");
    await place.write("ending/generation_config.json", { eos_token_id: model.vocab["."] });
    const sample = {
      ...(JSON.parse((await place.read("runs", "stories", "samples.jsonl")).split("\n")[0]!) as object),
      id: "tale",
      messages: [{ role: "user", content: "Once upon a time" }],
      budget: { maxTokens: 500, reserve: 480, promptTokens: 5, tokenizer: "local:stories" },
    };
    await place.write("tale.jsonl", JSON.stringify(sample));
    expect(await run("ending", "--set", "tale.jsonl", "--out", "runs/tale")).toMatchObject({ code: 0 });
    const [line] = await results("runs", "tale");
    expect(line).toMatchObject({ status: "ok", finish: "stop" });
    expect(line!.text).toMatch(/^, there was a little [^.]+$/);
  });

  it("writes conversations as the folder's chat template does", async () => {
    const template = "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}<assistant>";
    await place.write("chat/chat_template.jinja", template);
    await copyStories("chat");
    expect(await run("chat")).toMatchObject({ code: 0 });
    const [plain, chat] = await Promise.all([results("runs", "stories"), results("runs", "chat")]);
    for (const { usage, budgetTokens } of chat) {
      // One token is held in reserve for how the contents' ends meet the template.
      expect(budgetTokens - usage!.promptTokens).toBeGreaterThanOrEqual(0);
      expect(budgetTokens - usage!.promptTokens).toBeLessThanOrEqual(2);
    }
    expect(chat.map(({ text }) => text)).not.toEqual(plain.map(({ text }) => text));
    const header = JSON.parse((await place.read("runs", "chat", "results.jsonl")).split("\n")[0]!) as {
      config: { models: Record<string, { kind: string }> };
    };
    expect(header.config.models.chat!.kind).toBe("chat");
  });

  it("asks a folder again whose weights or template have become others", async () => {
    await copyStories("training");
    const ask = async (out: string) => {
      const { code, stdout, stderr } = await run("training", "--out", out, "--cache", "replies", "--json");
      return code === 0 ? (JSON.parse(stdout) as { summary: { fromCache: number } }).summary.fromCache : stderr;
    };
    expect(await ask("runs/before")).toBe(0);
    expect(await ask("runs/again")).toBe(6);
    const weights = await readFile(place.path("training/model.safetensors"));
    weights[weights.length - 1]! ^= 0x80; // the sign of the last one
    await writeFile(place.path("training/model.safetensors"), weights);
    expect(await ask("runs/after")).toBe(0);
    expect(await ask("runs/before")).toMatch(/holds results made with other settings \(model training/);
    const template = (mark: string) =>
      place.write(
        "training/chat_template.jinja",
        `{% for m in messages %}{% if m.role == "system" %}${mark}{% endif %}{{ m.content }}{% endfor %}`,
      );
    await template("<<");
    expect(await ask("runs/template")).toBe(0);
    await template(">>");
    expect(await ask("runs/other-template")).toBe(0);
  });

  it("counts prompts that are too long for it, whoever made them", async () => {
    const ruler = [40, 4000].map((words) => ({ input: `${"word ".repeat(words)}The code is 5.`, outputs: ["5"] }));
    await place.write("ruler.jsonl", ruler.map((row) => JSON.stringify(row)).join("\n"));
    const made = ["eval", "import", "ruler", "ruler.jsonl", "--task", "niah_single_1", "--out", "ruler-set.jsonl"];
    expect(await place.run(made)).toMatchObject({ code: 0 });
    expect(await run("stories", "--set", "ruler-set.jsonl", "--out", "runs/ruler")).toMatchObject({ code: 0 });
    const lines = await results("runs", "ruler");
    expect(lines.map(({ status }) => status).sort()).toEqual([
      "context_exceeded",
      expect.stringMatching(/ok|truncated/),
    ]);
    expect(lines.find(({ status }) => status === "context_exceeded")!.error).toMatch(/the context of stories has 512/);
  });

  it("gives the same answers in batches as one by one", async () => {
    expect(await run("stories", "--concurrency", "1", "--out", "runs/single")).toMatchObject({ code: 0 });
    const byPrompt = (lines: Line[]) => lines.map(({ text }) => text).sort();
    expect(byPrompt(await results("runs", "single"))).toEqual(byPrompt(await results("runs", "stories")));
  });
});

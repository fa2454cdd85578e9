import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { readConfig } from "../src/config/read-config.js";
import { trainingSchema } from "../src/config/training-schema.js";
import { loadStudy } from "../src/study/load-study.js";
import { chosenRate, readSweep } from "../src/study/sweep-file.js";
import { Workplace } from "./harness.js";

const examples = fileURLToPath(new URL("../../../examples", import.meta.url));
const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
const configs = readdirSync(examples).filter((name) => name.endsWith(".json") && !name.endsWith(".sweep.json"));

/** A file is a study's if it has parts. */
async function load(path: string): Promise<"study" | "training"> {
  const study = "parts" in JSON.parse(readFileSync(path, "utf8"));
  await (study ? loadStudy(path) : readConfig(path, trainingSchema));
  return study ? "study" : "training";
}

describe("configs", () => {
  it.each(configs)(
    "examples/%s is valid, and a study's learning rates were found by a sweep with its settings",
    async (name) => {
      const path = join(examples, name);
      if ((await load(path)) === "training") return;
      const study = await loadStudy(path);
      const sweep = await readSweep(study);
      for (const part of study.parts)
        for (const arm of part.arms) expect(arm.learningRates, arm.id).toContain(chosenRate(sweep, part, arm));
    },
  );

  it("in the README are valid", async () => {
    await using place = await Workplace.create();
    const blocks = [...readme.matchAll(/```json\n([\s\S]*?)```/g)].map(([, text]) => text!);
    const kinds: string[] = [];
    for (const [i, block] of blocks.entries()) {
      await place.write(`${i}.json`, block);
      kinds.push(await load(place.path(`${i}.json`)));
    }
    expect(kinds).toEqual(["training", "training", "training", "study"]);
  });
});

import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { readMetrics } from "@llmeff/report";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { sampleText, studyConfig, Workplace } from "./harness.js";

let place: Workplace;
beforeAll(async () => {
  place = await Workplace.create();
  await place.write("text.txt", sampleText);
  await place.write("pair.json", studyConfig());
});
afterAll(() => place[Symbol.asyncDispose]());

const ids = ["relations/2-simplicial", "relations/dot-product", "text/adamw", "text/sonew"];

/** Loss curves of an arm, without what depends on the clock. */
async function curve(folder: string, id: string) {
  const records = await readMetrics(place.path(folder, id, "metrics.jsonl"));
  return records.map(({ step, loss, validationLoss, accuracy }) => ({ step, loss, validationLoss, accuracy }));
}

describe("llmeff study", () => {
  it("asks for the sweep first", async () => {
    const { code, stderr } = await place.run(["study", "pair.json"]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/pair\.sweep\.json, which doesn't exist\. Run the sweep: llmeff study pair\.json --sweep/);
  });

  it("--sweep tries every rate of every arm, over an interruption too, and chooses the best", async () => {
    const broken = await place.run(["study", "pair.json", "--sweep"], { interruptAt: "text/adamw at 0.003" });
    expect(broken.code).toBe(130);
    expect(existsSync(place.path("pair.sweep.json"))).toBe(false);
    const { code, stdout, stderr } = await place.run(["study", "pair.json", "--sweep"]);
    expect(stderr).toContain("going on with the sweep: 4 runs are done");
    expect(code).toBe(0);
    expect(stdout).toContain("Chosen");
    const { parts } = JSON.parse(await place.read("pair.sweep.json"));
    expect(parts).toHaveLength(2);
    for (const { runs, learningRates, chosen } of parts[1].arms) {
      expect(runs.map(({ learningRate }: { learningRate: number }) => learningRate)).toEqual(learningRates);
      const best = runs.reduce((a: { value: number }, b: { value: number }) => (b.value < a.value ? b : a));
      expect(chosen).toBe(best.learningRate);
    }
  });

  it("trains every arm at its chosen rate and writes one page with everything", async () => {
    const { code, stdout } = await place.run(["study", "pair.json"]);
    expect(code).toBe(0);
    for (const text of ["Two elements", "A fox", "Tokens to", "FLOPs", "— SONew —", "report: runs/pair/report.html"])
      expect(stdout).toContain(text);
    const page = await place.read("runs/pair/report.html");
    for (const text of ["<svg", "2-simplicial", "Instruction set in use", "Learning rates", "the "])
      expect(page).toContain(text);
    expect(page).not.toMatch(/(?:src|href)="https?:/);
    for (const id of ids) expect(existsSync(place.path("runs/pair", id, "checkpoints")), id).toBe(true);
    const sweep = JSON.parse(await place.read("pair.sweep.json"));
    const ledger = JSON.parse(await place.read("runs/pair/study.json"));
    for (const arm of sweep.parts[1].arms)
      expect(ledger.results[`text/${arm.name.toLowerCase()}`].learningRate).toBe(arm.chosen);
  });

  it("gives all arms of a part the same batches", async () => {
    // The first loss of two arms with equal models depends on the batch alone.
    const [adamw, sonew] = [await curve("runs/pair", "text/adamw"), await curve("runs/pair", "text/sonew")];
    expect(adamw[0]!.loss).toBe(sonew[0]!.loss);
    expect(adamw[1]!.loss).not.toBe(sonew[1]!.loss);
  });

  it("interrupted, goes on with the arm it was at and ends with the same curves", async () => {
    const broken = await place.run(["study", "pair.json", "--out", "runs/broken"], { interruptAt: "text/adamw" });
    expect(broken).toMatchObject({
      code: 130,
      stderr: expect.stringContaining("Start the same command again to go on"),
    });
    expect(existsSync(place.path("runs/broken/report.html"))).toBe(false);
    const again = await place.run(["study", "pair.json", "--out", "runs/broken"]);
    expect(again.code).toBe(0);
    expect(again.stderr).toContain("2 arms are done");
    expect(again.stderr).not.toContain("relations/dot-product");
    for (const id of ids) expect(await curve("runs/broken", id), id).toEqual(await curve("runs/pair", id));
  });

  it("started again after its end keeps the old results aside", async () => {
    const again = await place.run(["study", "pair.json", "--out", "runs/broken", "--only", "text/sonew"]);
    expect(again).toMatchObject({ code: 0, stderr: expect.stringContaining("are now in runs/broken.previous") });
    expect(existsSync(place.path("runs/broken.previous/report.html"))).toBe(true);
    expect(existsSync(place.path("runs/broken/text/sonew/metrics.jsonl"))).toBe(true);
    expect(existsSync(place.path("runs/broken/text/adamw"))).toBe(false);
  });

  it("touches no folder that isn't a study's", async () => {
    await place.write("mine/letter.txt", "dear");
    const outcome = await place.run(["study", "pair.json", "--out", "mine"]);
    expect(outcome).toMatchObject({ code: 2, stderr: expect.stringContaining("holds other files than a study's") });
    expect(await place.read("mine/letter.txt")).toBe("dear");
    await rm(place.path("mine"), { recursive: true });
  });

  it("refuses rates that were found with other settings, an unknown arm, and unequal sizes", async () => {
    const study = studyConfig() as {
      parts: { base: { model: Record<string, unknown> }; arms: object[]; equalParameters?: boolean }[];
    };
    study.parts[1]!.base.model.dModel = 32;
    await place.write("pair.json", study);
    expect(await place.run(["study", "pair.json"])).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/text\/adamw: model\.dModel was 16, is 32/),
    });
    await place.write("pair.json", studyConfig());
    expect(await place.run(["study", "pair.json", "--only", "nobody"])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining(`Arms: ${ids.join(", ")}`),
    });
    const unequal = studyConfig() as { parts: object[] };
    unequal.parts = [{ ...unequal.parts[0], equalParameters: true }];
    await place.write("pair.json", unequal);
    expect(await place.run(["study", "pair.json"])).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(
        /equalParameters allows 2 % between the arms; they have 2-simplicial [\d,]+, dot-product/,
      ),
    });
    await place.write("pair.json", studyConfig());
  });
});

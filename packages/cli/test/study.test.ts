import { existsSync } from "node:fs";
import { rm, stat } from "node:fs/promises";
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

const armIds = ["relations/2-simplicial", "relations/dot-product", "text/adamw", "text/sonew"];
/** Relations have the seeds 1 and 2, the text has its base's. */
const ids = armIds.flatMap((id) => (id.startsWith("text") ? [`${id}/seed-3`] : [`${id}/seed-1`, `${id}/seed-2`]));

/** Loss curves of a run, without what depends on the clock. */
async function curve(folder: string, id: string) {
  const records = await readMetrics(place.path(folder, id, "metrics.jsonl"));
  return records.map(({ step, loss, validationLoss, accuracy }) => ({ step, loss, validationLoss, accuracy }));
}

/** What the study of `runs/pair` printed. */
let printed = "";

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
    expect(stderr).toContain("going on with the sweep: finished runs are kept (4)");
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
    printed = stdout;
    for (const text of [
      "Two elements",
      "A fox",
      "Target: 3 nats/char",
      "FLOPs",
      "— SONew —",
      "report: runs/pair/report.html",
    ])
      expect(stdout).toContain(text);
    const page = await place.read("runs/pair/report.html");
    for (const text of ["<svg", "2-simplicial", "Instruction set in use", "Learning rates", "the "])
      expect(page).toContain(text);
    expect(page).not.toMatch(/(?:src|href)="https?:/);
    for (const id of ids) expect(existsSync(place.path("runs/pair", id, "checkpoints")), id).toBe(true);
    const sweep = JSON.parse(await place.read("pair.sweep.json"));
    const ledger = JSON.parse(await place.read("runs/pair/study.json"));
    for (const arm of sweep.parts[1].arms)
      expect(ledger.results[`text/${arm.name.toLowerCase()}/seed-3`].learningRate).toBe(arm.chosen);
  });

  it("gives all arms of a part the same batches", async () => {
    // The first loss of two arms with equal models depends on the batch alone.
    const [adamw, sonew] = [
      await curve("runs/pair", "text/adamw/seed-3"),
      await curve("runs/pair", "text/sonew/seed-3"),
    ];
    expect(adamw[0]!.loss).toBe(sonew[0]!.loss);
    expect(adamw[1]!.loss).not.toBe(sonew[1]!.loss);
  });

  it("trains every arm with every seed and aggregates them", async () => {
    const { results } = JSON.parse(await place.read("runs/pair/study.json"));
    const { parts } = JSON.parse(await place.read("pair.sweep.json"));
    for (const [i, id] of ["relations/2-simplicial", "relations/dot-product"].entries()) {
      const [one, two] = [1, 2].map((seed) => results[`${id}/seed-${seed}`]);
      expect([one.learningRate, two.learningRate]).toEqual([parts[0].arms[i].chosen, parts[0].arms[i].chosen]);
      const curves = [await curve("runs/pair", `${id}/seed-1`), await curve("runs/pair", `${id}/seed-2`)];
      expect(curves[0]![0]!.loss).not.toBe(curves[1]![0]!.loss);
      // Of two values, the mean's standard error is half their distance.
      const percent = (value: number) => `${(100 * value).toFixed(1)} %`;
      const final = `${percent((one.value + two.value) / 2)} ± ${percent(Math.abs(one.value - two.value) / 2)}`;
      const row = printed.split("\n").find((line) => line.startsWith(id.split("/")[1]!))!;
      expect(row).toContain(final);
      expect(row).toMatch(/\([0-2]\/2\)/);
    }
    const page = await place.read("runs/pair/report.html");
    for (const text of ["medians over 2 seeds", "with 2 seeds (1, 2)", "seed 1; the same with 2"])
      expect(page).toContain(text);
  });

  it("interrupted between two seeds of an arm, keeps the finished one", async () => {
    const broken = await place.run(["study", "pair.json", "--out", "runs/between"], {
      interruptAt: "relations/2-simplicial/seed-2",
    });
    expect(broken.code).toBe(130);
    const finished = place.path("runs/between/relations/2-simplicial/seed-1/metrics.jsonl");
    const before = (await stat(finished)).mtimeMs;
    const again = await place.run(["study", "pair.json", "--out", "runs/between"]);
    expect(again).toMatchObject({ code: 0, stderr: expect.stringContaining("finished runs are kept (1)") });
    expect(again.stderr).not.toContain("relations/2-simplicial/seed-1");
    expect((await stat(finished)).mtimeMs).toBe(before);
    for (const id of ids) expect(await curve("runs/between", id), id).toEqual(await curve("runs/pair", id));
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
    expect(again.stderr).toContain("finished runs are kept (4)");
    expect(again.stderr).not.toContain("relations/dot-product");
    for (const id of ids) expect(await curve("runs/broken", id), id).toEqual(await curve("runs/pair", id));
  });

  it("started again after its end keeps the old results aside", async () => {
    const again = await place.run(["study", "pair.json", "--out", "runs/broken", "--only", "text/sonew"]);
    expect(again).toMatchObject({ code: 0, stderr: expect.stringContaining("are now in runs/broken.previous") });
    expect(existsSync(place.path("runs/broken.previous/report.html"))).toBe(true);
    expect(existsSync(place.path("runs/broken/text/sonew/seed-3/metrics.jsonl"))).toBe(true);
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
      stderr: expect.stringContaining(`Arms: ${armIds.join(", ")}`),
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

import { afterAll, beforeAll, expect, it } from "vitest";
import { documentsConfig, sampleDocuments, Workplace } from "./harness.js";

let place: Workplace;
beforeAll(async () => {
  place = await Workplace.create();
  for (const language of ["en", "de"] as const) await place.write(`${language}.jsonl`, sampleDocuments(language, 40));
});
afterAll(() => place[Symbol.asyncDispose]());

it("llmeff study compares objectives on causal loss, and tells the loss on each", async () => {
  const {
    name: _,
    seed: __,
    optimizer: ___,
    ...base
  } = documentsConfig({ evaluateObjectives: [{ kind: "prefix" }, { kind: "S", corruption: 0.25 }] });
  await place.write("study.json", {
    name: "mixtures",
    title: "Objectives",
    parts: [
      {
        ...{ name: "all", title: "All", metric: "validationLoss", target: 5, seeds: [1, 2], equalParameters: true },
        base: { ...base, optimizer: { kind: "adamw" }, training: { steps: 6, evaluateWindows: 4 } },
        sample: { prompt: "the ", tokens: 5 },
        arms: [
          { name: "causal", learningRates: [0.01] },
          {
            name: "prefix and S",
            data: { objectives: [{ kind: "prefix" }, { kind: "S", corruption: 0.25 }] },
            learningRates: [0.01],
          },
        ],
      },
    ],
  });
  expect((await place.run(["study", "study.json", "--sweep"])).code).toBe(0);
  const { code, stdout, stderr } = await place.run(["study", "study.json"]);
  expect(code, stderr).toBe(0);
  const { results } = JSON.parse(await place.read("runs/mixtures/study.json"));
  const losses = ["causal", "prefix-and-s"].map((arm) =>
    [1, 2].map((seed) => results[`all/${arm}/seed-${seed}`].metrics["objective/S-0.25/loss"] as number),
  );
  const row = stdout.split("\n").find((line) => line.startsWith("objective S-0.25"))!;
  const shown = [...row.matchAll(/(\d\.\d+) ± (\d\.\d+)/g)].map(([, value, error]) => [Number(value), Number(error)]);
  expect(shown).toHaveLength(2);
  for (const [i, [one, other]] of losses.entries()) {
    expect(shown[i]![0]).toBeCloseTo((one! + other!) / 2, 1);
    expect(shown[i]![1]).toBeCloseTo(Math.abs(one! - other!) / 2, 1);
  }
  expect(new Set(losses.flat()).size).toBe(4);
  const page = await place.read("runs/mixtures/report.html");
  for (const text of ["each under objectives of its own", "source de", "objective prefix"])
    expect(page).toContain(text);
});

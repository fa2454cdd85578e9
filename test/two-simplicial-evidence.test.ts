/** The study of 2-simplicial attention at its smallest: fits, equal parameters, and all of it from training to the report. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Transformer } from "@llmeff/models";
import { memory } from "@llmeff/tensor";
import { afterAll, afterEach, describe, expect, it, vi } from "vitest";
import { collectGarbage } from "./garbage.js";

const evidence = "../bench/evidence";
const { fitExponent } = await import(`${evidence}/lib/exponent.mjs`);
const { meanInterval } = await import(`${evidence}/lib/statistics.mjs`);
const { Results } = await import(`${evidence}/lib/trials.mjs`);
const { majorityRate, novels, sourceOf } = await import(`${evidence}/lib/two-simplicial-data.mjs`);
const { exponents, tell } = await import(`${evidence}/lib/two-simplicial-report.mjs`);
const { partNames, partsOf, scales } = await import(`${evidence}/lib/two-simplicial-settings.mjs`);
const { trainTrial } = await import(`${evidence}/lib/two-simplicial-trial.mjs`);
const { chosenRate, study } = await import(`${evidence}/two-simplicial.mjs`);

interface Trial {
  part: string;
  arm: string;
  rate: number;
  seed: number;
}
interface Part {
  name: string;
  rates: number[];
  data: { kind: string };
  seqLen: number;
  models: Record<string, { attention: { kind: string }[]; maxSeqLen: number }>;
  parameters: Record<string, number>;
}

const folder = mkdtempSync(join(tmpdir(), "llmeff-two-simplicial-"));
afterEach(() => vi.restoreAllMocks());
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("fitExponent", () => {
  const sizes = [1e9, 2e9, 3.5e9];
  // Losses of arXiv:2507.02754 table 2, fitted anew with the nominal sizes.
  it.each([
    ["GSM8k, Transformer", [0.3277, 0.2987, 0.2781], 0.1311, -1.6008, 0.9998],
    ["GSM8k, 2-simplicial", [0.3302, 0.2942, 0.2718], 0.1558, -2.1183, 0.9979],
    ["MMLU-pro, Transformer", [0.8718, 0.8193, 0.7858], 0.0832, -1.5849, 0.9974],
    ["MBPP, 2-simplicial", [0.2714, 0.2411, 0.2193], 0.1702, -2.2222, 1],
  ])("refits %s", (_, losses, alpha, beta, r2) => {
    const fit = fitExponent(losses.map((loss, i) => ({ parameters: sizes[i], loss })));
    expect(fit.alpha).toBeCloseTo(alpha, 4);
    expect(fit.beta).toBeCloseTo(beta, 4);
    expect(fit.r2).toBeCloseTo(r2, 4);
  });

  it("has the interval of a slope", () => {
    // ln N = 0, 1, 2 and −ln L = 0, 1.3, 2: slope 1, residuals −0.1, 0.2, −0.1, spread 2; one degree of freedom.
    const points = [0, 1.3, 2].map((y, i) => ({ parameters: Math.exp(i), loss: Math.exp(-y) }));
    const { alpha, low, high } = fitExponent(points);
    expect(alpha).toBeCloseTo(1, 12);
    expect(high - alpha).toBeCloseTo(12.7062 * Math.sqrt(0.06 / 2), 4);
    expect(alpha - low).toBeCloseTo(high - alpha, 12);
    expect(fitExponent(points.slice(0, 2))).not.toHaveProperty("low");
  });
});

describe("meanInterval", () => {
  it("is Student's", () => {
    // Deviations −1, 0, 1: standard error √(1/3), t = 4.3027 for two degrees of freedom.
    expect(meanInterval([4, 5, 6]).high).toBeCloseTo(5 + 4.3027 / Math.sqrt(3), 10);
    expect(meanInterval([4])).toEqual({ mean: 4 });
    const many = Array.from({ length: 31 }, (_, i) => i % 2);
    const { mean, high } = meanInterval(many);
    expect((high - mean) / Math.sqrt((mean * (1 - mean)) / 30)).toBeCloseTo(2.0423, 2);
  });
});

describe("partsOf", () => {
  it.each(["smoke", "cpu", "gpu"])("gives the arms of a part as many parameters, %s", (size) => {
    const parts: Part[] = partsOf(scales[size], novels);
    expect(parts.map(({ name }) => name)).toEqual(partNames);
    for (const { name, models, parameters, seqLen } of parts) {
      const { dot, ...others } = parameters;
      for (const [arm, count] of Object.entries(others)) {
        expect(Math.abs(count / dot! - 1), `${name}, ${arm}`).toBeLessThan(size === "smoke" ? 0.1 : 0.01);
        expect(new Transformer(models[arm] as never).parameterCount).toBe(count);
        expect(models[arm]!.maxSeqLen).toBe(seqLen);
      }
      const kinds = models.simplicial!.attention.map(({ kind }) => kind);
      expect(kinds.indexOf("simplicial")).toBe(kinds.length - 1);
    }
  });
});

describe("chosenRate", () => {
  const rates = [1, 2, 3];
  const run = (value: number | null, tokensToTarget: number | null = null) => ({ value, tokensToTarget });

  it("takes the fewest tokens to the target, else the highest accuracy; the lowest loss; never a divergence", () => {
    expect(chosenRate("accuracy", rates, [run(0.99, 300), run(0.95, 200), run(0.94)])).toBe(2);
    expect(chosenRate("accuracy", rates, [run(0.6), run(null), run(0.7)])).toBe(3);
    expect(chosenRate("loss", rates, [run(2), run(1), run(null)])).toBe(2);
    expect(chosenRate("loss", rates, [run(null), run(null), {}])).toBeUndefined();
  });
});

describe("exponents", () => {
  it("compares the arms seed by seed", () => {
    const sizes = [1e5, 1e6, 1e7];
    // L = N^−α exactly: α = 0.1 and 0.12 without noise, whatever the seed.
    const armOf = (arm: string, parameters: number, alpha: number) => ({
      ...{ arm, parameters, runs: [1, 2].map((factor) => ({ value: factor * parameters ** -alpha })) },
    });
    const results = sizes.map((n) => ({ arms: [armOf("simplicial", n, 0.12), armOf("dot", n, 0.1)] }));
    const { fits, difference } = exponents(results, [1, 2]);
    expect(fits.simplicial.alpha).toBeCloseTo(0.12, 10);
    expect(fits.dot.alpha).toBeCloseTo(0.1, 10);
    expect(difference.mean).toBeCloseTo(0.02, 10);
    expect(exponents(results.slice(1), [1, 2])).toMatchObject({ fits: { dot: undefined }, difference: undefined });
  });
});

describe("tell", () => {
  const path = join(folder, "told.html");
  const parts: Part[] = partsOf(scales.smoke, novels).filter(({ name }: Part) =>
    ["match3", "text-small"].includes(name),
  );
  const { seeds } = scales.smoke;

  /** The tables of a study whose trials come to what `result` says. */
  async function tables(result: (trial: Trial) => object, asked = parts) {
    const log = vi.spyOn(console, "log").mockImplementation(() => undefined);
    const run = (trials: Trial[]) => Promise.all(trials.map(result));
    const found = await study({ parts: asked, seeds, dtype: "float32", device: "cpu", run });
    await tell(path, found, { seeds, settings: asked, machines: [], width: 200 });
    return log.mock.calls.map(([text]) => String(text));
  }
  const done = { value: 0.96, tokensToTarget: 1000, curve: [[3, 0.96]], seconds: 1, deviceName: "none" };
  const rowOf = (table: string | undefined, arm: string) =>
    table!.split("\n").find((line) => line.includes(`${arm} `) && line.includes(" of "))!;

  it("counts over all planned runs, and has no mean where one diverged or wasn't made", async () => {
    const [tasks, text] = await tables(({ arm, seed }) => {
      if (arm === "deeper") return seed === 101 ? { ...done, value: null, tokensToTarget: null } : {};
      if (seed === 3) return arm === "simplicial" ? { ...done, value: null, tokensToTarget: null } : {};
      return seed === 2 && arm === "dot" ? { ...done, value: 0.5, tokensToTarget: null } : done;
    });
    expect(rowOf(tasks, "2-simplicial")).toMatch(/2 of 3 \(1 diverged\) +– +1 +–/);
    expect(rowOf(tasks, "dot-product")).toMatch(/1 of 3 \(1 not run\) +– +– +–/);
    expect(rowOf(tasks, "deeper")).toMatch(/0 of 3 \(3 not run\) +– +– +–/);
    expect(rowOf(text, "2-simplicial")).toMatch(/2 of 3 \(1 diverged\) +– +–/);
    expect(rowOf(text, "dot-product")).toMatch(/2 of 3 \(1 not run\) +– +–/);
  });

  it("has means, intervals and ratios where all runs are known", async () => {
    const told = await tables(({ arm }) => ({ ...done, tokensToTarget: arm === "dot" ? 2000 : 1000 }));
    const [tasks] = told;
    expect(told.join("\n")).not.toContain("What was not run");
    expect(readFileSync(path, "utf8")).toContain("learning rates tuned alike");
    expect(rowOf(tasks, "dot-product")).toMatch(/3 of 3 .*2\.00 \[2\.00, 2\.00\] +96\.0 %/);
  });

  it("lists what was not run, and marks rates of a search that isn't complete", async () => {
    const searched = parts.map((part) => ({ ...part, rates: [0.001, 0.002, 0.004] }));
    const told = await tables(({ part, arm, rate, seed }) => {
      if (part !== "match3" || seed === 2) return {};
      return arm === "dot" && rate !== 0.002 ? {} : done;
    }, searched);
    expect(rowOf(told[0], "dot-product")).toContain(" 0.002* ");
    expect(rowOf(told[0], "2-simplicial")).toContain(" 0.001 ");
    expect(told[1]).toMatch(/At the border of what was tried: [^.]*Match3 \(dot-product\)/);
    const missing = told[2]!.split("\n").map((line) => line.trim().replace(/ {2,}/g, "|"));
    expect(missing).toContain("Match3|2-simplicial|–|2");
    expect(missing).toContain("Match3|dot-product|0.001, 0.004|2");
    expect(missing).toContain("text, width 8|all|all|all");
    const html = readFileSync(path, "utf8");
    expect(html).toContain("not all learning rates tried");
    expect(html).not.toContain("tuned alike");
    expect(html).toContain("What was not run");
  });
});

describe("majorityRate", () => {
  it("is the share of the commonest answer", () => {
    const data = { kind: "match", count: 5, modulus: 9, terms: 3, batchSize: 8, heldOut: 20 };
    const [{ targets }] = sourceOf({ ...data, batchSize: 20 }, "valid", 0).first(20) as [{ targets: Int32Array }];
    const answers = [...targets].filter((id) => id >= 0);
    const [first] = answers;
    const share = answers.filter((id) => id === first).length / answers.length;
    expect(new Set(answers).size).toBe(2);
    expect(majorityRate(data)).toBeCloseTo(Math.max(share, 1 - share), 12);
  });
});

describe("two-simplicial", () => {
  it("trains every arm of every part, keeps all runs, makes none twice, and tells of them", async () => {
    await collectGarbage();
    vi.spyOn(console, "log").mockImplementation(() => undefined);
    const { seeds } = scales.smoke;
    const parts: Part[] = partsOf(scales.smoke, novels);
    const results = new Results("two-simplicial", { cpu: "the test's" }, folder);
    let made = 0;
    const run = async (trials: Trial[]) => {
      const found = [];
      for (const trial of trials) {
        if (results.get(trial) === undefined) {
          made++;
          results.add(trial, await trainTrial(trial));
        }
        found.push(results.get(trial));
      }
      return found;
    };
    const setting = { parts, seeds, dtype: "float32", device: "cpu" };
    const before = memory().tensors;
    const found = await study({ ...setting, run });
    expect(memory().tensors).toBe(before);
    // One rate each and three seeds; nine tasks of three arms, three sizes of two.
    expect(made).toBe((1 + 3) * (9 * 3 + 3 * 2));
    expect(await study({ ...setting, run })).toEqual(found);
    expect(made).toBe(4 * 33);
    const lines = readFileSync(results.path, "utf8").trim().split("\n");
    for (const line of lines) {
      const { trial, result } = JSON.parse(line) as {
        trial: { metric: string; training: { steps: number } };
        result: never;
      };
      const { value, curve, steps } = result as { value: number; curve: number[][]; steps: number };
      expect(curve.at(-1)).toEqual([steps, value]);
      if (trial.metric === "loss") expect(value).toBeLessThan(Math.log(256));
      else expect(value).toBeGreaterThan(0);
    }
    const path = join(folder, "report.html");
    await tell(path, found, { seeds, settings: parts, machines: results.machines, width: 160 });
    const html = readFileSync(path, "utf8");
    for (const text of ["Tokens to 95 % accuracy", "Match3", "Loss on a held-out novel", "Exponents of", "the test"])
      expect(html).toContain(text);
  });
});

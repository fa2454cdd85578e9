import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { IGNORE_INDEX } from "@llmeff/data";
import { drawToken, resolveSampling, tokenProbabilities } from "@llmeff/models";
import { AdamW } from "@llmeff/optim";
import { FormatError, OptionError, tensor } from "@llmeff/tensor";
import { train } from "@llmeff/train";
import { afterAll, describe, expect, it } from "vitest";
import {
  bitsOf,
  disposeAll,
  seqLen,
  student,
  studentModel,
  teacherModel,
  teacherOf,
  textData,
  vocabSize,
} from "../test/setup.js";
import { distill, type WrittenBatchesOptions, writeContinuations, writtenBatches } from "./index.js";

const folder = mkdtempSync(join(tmpdir(), "llmeff-policy-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const writer = { model: studentModel, params: studentModel.init(4) };
const prompts = Int32Array.of(1, 2, 3, 4, 5, 6);

describe("writeContinuations", () => {
  it("continues every row as the model without a cache would", async () => {
    const written = await writeContinuations(writer.model, writer.params, prompts, 2, { length: 6, temperature: 0 });
    for (const b of [0, 1]) {
      const row = [...prompts.subarray(3 * b, 3 * b + 3)];
      for (let t = 0; t < 6; t++) {
        using given = tensor(Int32Array.from(row), { shape: [1, row.length] });
        using logits = studentModel.lastLogits(writer.params, given);
        row.push(drawToken(tokenProbabilities(await logits.data(), resolveSampling({ temperature: 0 })), 0));
      }
      expect([...written.subarray(6 * b, 6 * b + 6)]).toEqual(row.slice(3));
    }
  });

  it("reads the scores of bfloat16 parameters as numbers", async () => {
    const params = studentModel.init(4, { dtype: "bfloat16" });
    const [written] = await writeContinuations(studentModel, params, prompts.subarray(0, 3), 1, {
      length: 1,
      temperature: 0,
    });
    using given = tensor(prompts.subarray(0, 3), { shape: [1, 3] });
    using logits = studentModel.lastLogits(params, given);
    using wide = logits.astype("float32");
    const scores = [...(await wide.data())];
    expect(scores[written!]! + 1e-3).toBeGreaterThan(Math.max(...scores));
    disposeAll(params);
  });

  it("draws in the model's proportions, other numbers for another index", async () => {
    const same = new Int32Array(3 * 2000).map((_, i) => prompts[i % 3]!);
    const options = { length: 1, seed: 5 };
    const written = await writeContinuations(writer.model, writer.params, same, 2000, options);
    using given = tensor(prompts.subarray(0, 3), { shape: [1, 3] });
    using logits = studentModel.lastLogits(writer.params, given);
    const wanted = tokenProbabilities(await logits.data(), resolveSampling({}));
    for (let id = 0; id < vocabSize; id++) {
      const share = written.filter((drawn) => drawn === id).length / 2000;
      expect(Math.abs(share - wanted[id]!)).toBeLessThan(4.5 * Math.sqrt((wanted[id]! * (1 - wanted[id]!)) / 2000));
    }
    expect(await writeContinuations(writer.model, writer.params, same, 2000, options)).toEqual(written);
    expect(await writeContinuations(writer.model, writer.params, same, 2000, { ...options, index: 1 })).not.toEqual(
      written,
    );
  });

  it("writes nothing behind a stop token, without changing the other rows", async () => {
    const options = { length: 12, seed: 5 };
    const free = await writeContinuations(writer.model, writer.params, prompts, 2, options);
    const stop = free[3]!;
    const stopped = await writeContinuations(writer.model, writer.params, prompts, 2, {
      ...options,
      stopTokens: [stop],
    });
    for (const b of [0, 1]) {
      const row = [...free.subarray(12 * b, 12 * b + 12)];
      const end = row.indexOf(stop) < 0 ? 12 : row.indexOf(stop) + 1;
      expect([...stopped.subarray(12 * b, 12 * b + 12)]).toEqual([
        ...row.slice(0, end),
        ...new Array(12 - end).fill(-1),
      ]);
    }
  });
});

describe("writtenBatches", () => {
  const open = (options: Partial<WrittenBatchesOptions> = {}) =>
    writtenBatches(textData(), { ...writer, share: 1, promptLength: 4, seed: 2, ...options });

  it("keeps prompts, and makes targets of what was written alone", async () => {
    const original = textData().next();
    const data = open();
    const { tokens, targets } = await data.next();
    for (let b = 0; b < 4; b++) {
      const row = tokens.subarray(b * seqLen, (b + 1) * seqLen);
      expect([...row.subarray(0, 4)]).toEqual([...original.tokens.subarray(b * seqLen, b * seqLen + 4)]);
      const wanted = targets.subarray(b * seqLen, (b + 1) * seqLen);
      expect([...wanted.subarray(0, 3)]).toEqual([IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX]);
      expect([...wanted.subarray(3, -1)]).toEqual([...row.subarray(4)]);
      expect(wanted.at(-1)).toBeGreaterThanOrEqual(0);
    }
    expect([data.writtenFraction, data.meanLength]).toEqual([1, seqLen + 1 - 4]);
  });

  it("writes a share of the batches, and leaves the others as they are", async () => {
    const plain = textData();
    const data = open({ share: 0.3 });
    let same = 0;
    for (let i = 0; i < 100; i++) {
      const original = plain.next();
      if ((await data.next()).tokens.join() === original.tokens.join()) same += 1;
    }
    expect(data.writtenFraction).toBeCloseTo(1 - same / 100, 12);
    expect(Math.abs(data.writtenFraction - 0.3)).toBeLessThan(4 * Math.sqrt(0.21 / 100));
    expect(await open({ share: 0 }).next()).toEqual(textData().next());
  });

  it("ignores what lies behind a stop token", async () => {
    const data = open({ stopTokens: Array.from({ length: vocabSize }, (_, id) => id) });
    const { targets } = await data.next();
    expect(targets.filter((id) => id !== IGNORE_INDEX)).toHaveLength(4);
    expect(data.meanLength).toBe(1);
  });

  it.each(["student", "teacher"] as const)("resumes with the same losses when the %s writes", async (who) => {
    const teacher = teacherOf();
    const run = async (steps: number, directory?: string, resume = false) => {
      const params = studentModel.init(1);
      const own = who === "student" ? { model: studentModel, params } : { model: teacherModel, params: teacher.params };
      const data = open({ ...own, share: 0.6 });
      const schedule = { kind: "always" } as const;
      const objective =
        who === "student"
          ? distill({ student, teacher, omega: 1, tauTeacher: 1, divergence: { kind: "jsd" }, schedule })
          : studentModel.loss.bind(studentModel);
      const optimizer = new AdamW(params, { learningRate: 1e-2, maxGradNorm: 1 });
      const losses: number[] = [];
      const options = { params, objective, optimizer, data, steps, resume };
      for await (const event of train(
        directory === undefined ? { ...options, resume: false } : { ...options, checkpoint: { directory } },
      )) {
        if (event.type === "step") losses.push(event.loss);
      }
      const bits = await bitsOf(params);
      disposeAll(params);
      return { losses, bits };
    };
    const whole = await run(6);
    const directory = join(folder, who);
    const first = await run(3, directory);
    const rest = await run(6, directory, true);
    expect([...first.losses, ...rest.losses]).toEqual(whole.losses);
    expect(rest.bits).toEqual(whole.bits);
  });

  it("refuses shares and prompts outside their domain, and other states", async () => {
    expect(() => open({ share: 1.5 })).toThrow(OptionError);
    expect(() => open({ promptLength: 0 })).toThrow("promptLength must be a positive integer");
    await expect(open({ promptLength: seqLen + 1 }).next()).rejects.toThrow(
      "promptLength is 11; the rows have 10 tokens",
    );
    expect(() => open().restore(open({ share: 0.5 }).state())).toThrow("the state has share 0.5 but this source has 1");
    for (const other of [{ temperature: 0.5 }, { stopTokens: [3] }])
      expect(() => open().restore(open(other).state())).toThrow("but this source has");
  });

  it("stays as it is when it refuses a state", async () => {
    const data = open();
    await data.next();
    const state = data.state();
    expect(() => data.restore({ ...state, written: -1 })).toThrow("written must be an integer of at least 0");
    expect(() => data.restore({ ...state, batches: 9, source: {} })).toThrow(FormatError);
    expect(data.state()).toEqual(state);
  });
});

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inStages, SelectedWindows, selectTop, TokenDataset, windowsAt } from "@llmeff/data";
import { memory, OptionError, sync } from "@llmeff/tensor";
import { afterAll, describe, expect, it } from "vitest";
import { disposeAll, seqLen, student, studentModel, teacherOf, text, textData, trained } from "../test/setup.js";
import { type DistillMetrics, type DistillOptions, distill, type OmegaSchedule, scoreSequences } from "./index.js";

const folder = mkdtempSync(join(tmpdir(), "llmeff-distill-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
let runs = 0;
const newFolder = () => join(folder, String(runs++));

const teacher = teacherOf();
const salt = (options: Partial<DistillOptions> = {}) =>
  distill({ student, teacher, schedule: { kind: "step", steps: 4 }, ...options });

const schedules: OmegaSchedule[] = [
  { kind: "step", steps: 4 },
  { kind: "linearDecay", steps: 5 },
  { kind: "linearRatio", steps: 2, rampSteps: 3 },
];

describe("distill", () => {
  it("is plain training, bit for bit, with omega 0", async () => {
    const plain = await trained({ objective: studentModel.loss.bind(studentModel), data: textData(), steps: 6 });
    expect(await trained({ objective: salt({ omega: 0 }), data: textData(), steps: 6 })).toEqual(plain);
  });

  it("is plain training from where it leaves the teacher", async () => {
    const directory = newFolder();
    const options = { data: textData(), checkpoint: { directory, every: 4 } };
    await trained({ ...options, objective: salt(), steps: 4 });
    const objective = studentModel.loss.bind(studentModel);
    const plain = await trained({ objective, data: textData(), checkpoint: { directory }, resume: true, steps: 8 });
    const whole = await trained({ objective: salt(), data: textData(), steps: 8 });
    expect(plain.losses).toEqual(whole.losses.slice(4));
    expect(plain.bits).toEqual(whole.bits);
  });

  it.each(schedules)("resumes from every checkpoint as if never interrupted: %j", async (schedule) => {
    const whole = await trained({ objective: salt({ schedule }), data: textData(), steps: 8 });
    for (let cut = 1; cut < 8; cut++) {
      const options = { data: textData(), checkpoint: { directory: newFolder() } };
      const first = await trained({ ...options, objective: salt({ schedule }), steps: cut });
      const rest = await trained({
        ...options,
        data: textData(),
        objective: salt({ schedule }),
        steps: 8,
        resume: true,
      });
      expect([...first.losses, ...rest.losses]).toEqual(whole.losses);
      expect(rest.bits).toEqual(whole.bits);
    }
  });

  it("resumes SALT_DS in either stage, selected sequences first and the ordinary stream then", async () => {
    const starts = new TokenDataset(text(), { seqLen, batchSize: 1, randomPhase: false }).windowStarts(0);
    const scores = await scoreSequences(teacherOf(9), windowsAt(text(), starts, { seqLen, batchSize: 8 }));
    expect(scores).toHaveLength(starts.length);
    const chosen = selectTop(scores, 16).map((i) => starts[i]!);
    const selected = () => new SelectedWindows(text(), chosen, { seqLen, batchSize: 4, seed: 5 });
    const data = () => inStages([{ source: selected(), batches: 4 }, { source: textData() }]);
    const whole = await trained({ objective: salt(), data: data(), steps: 8 });
    const ordinary = await trained({ objective: salt(), data: textData(), steps: 8 });
    expect(whole.losses).not.toEqual(ordinary.losses);
    for (const cut of [2, 4, 6]) {
      const checkpoint = { directory: newFolder() };
      const first = await trained({ objective: salt(), data: data(), checkpoint, steps: cut });
      const rest = await trained({ objective: salt(), data: data(), checkpoint, steps: 8, resume: true });
      expect([...first.losses, ...rest.losses]).toEqual(whole.losses);
    }
  });

  it.each([1, 3])("has the same bits and metrics in captured steps, %d micro-batches", async (gradientAccumulation) => {
    const schedule = { kind: "linearRatio", steps: 4, rampSteps: 4 } as const;
    const run = async (captureStep: boolean) => {
      const objective = salt({ schedule });
      const told: (DistillMetrics | undefined)[] = [];
      const options = { objective, data: textData(), steps: 13, gradientAccumulation, captureStep };
      const result = await trained(options, async () => void told.push(await objective.metrics()));
      objective.dispose();
      return { ...result, told: told.map((one) => ({ ...one, teacherSeconds: undefined })) };
    };
    const plain = await run(false);
    expect(await run(true)).toEqual(plain);
    expect(plain.told.map(({ omega }) => omega! > 0)).toEqual([
      ...new Array(8).fill(true),
      ...new Array(5).fill(false),
    ]);
  });

  it("tells parts that make up the loss", async () => {
    const objective = salt();
    expect(await objective.metrics()).toBeUndefined();
    const told: DistillMetrics[] = [];
    const { losses } = await trained({ objective, data: textData(), steps: 6, gradientAccumulation: 2 }, async () => {
      told.push((await objective.metrics())!);
    });
    for (const [i, { ce, kd, kl, omega, teacherEntropy, agreement, tokens, teacherSeconds }] of told.entries()) {
      expect(omega).toBe(i < 4 ? 0.667 : 0);
      expect(losses[i]![1]).toBeCloseTo((1 - omega) * ce + omega * kd, 5);
      if (i < 4) expect(kl).toBeCloseTo(kd - teacherEntropy!, 5);
      expect(tokens).toBe(2 * 4 * seqLen);
      if (i < 4) expect(agreement! >= 0 && agreement! <= 1).toBe(true);
      else expect([kd, kl, teacherEntropy, agreement]).toEqual([0, undefined, undefined, undefined]);
      expect(i < 4 ? teacherSeconds! > 0 : teacherSeconds === undefined).toBe(true);
    }
    objective.dispose();
  });

  it("equals training on the teacher's first choice as its temperature goes to 0, with omega 1", async () => {
    const sharp = { omega: 1, tauTeacher: 1e-6, schedule: { kind: "always" } } as const;
    const told: DistillMetrics[] = [];
    const objective = salt(sharp);
    await trained({ objective, data: textData(), steps: 2 }, async () => void told.push((await objective.metrics())!));
    for (const { kd, kl, teacherEntropy } of told) {
      expect(teacherEntropy).toBeLessThan(1e-5);
      expect(kd).toBeCloseTo(kl!, 5);
    }
    objective.dispose();
  });

  it("gives the teacher up once, when it has had its last word", async () => {
    const steps: number[] = [];
    let step = 0;
    const objective = salt({ releaseTeacher: () => steps.push(step) });
    await trained({ objective, data: textData(), steps: 7 }, async (event) => {
      step = event.step;
    });
    expect(steps).toEqual([4]);
  });

  it("averages several teachers", async () => {
    const other = teacherOf(8);
    const alone = await trained({ objective: salt(), data: textData(), steps: 3 });
    const twice = await trained({ objective: salt({ teacher: [teacher, teacher] }), data: textData(), steps: 3 });
    for (const [i, [, loss]] of twice.losses.entries()) expect(loss).toBeCloseTo(alone.losses[i]![1], 5);
    const mixed = await trained({ objective: salt({ teacher: [teacher, other] }), data: textData(), steps: 3 });
    expect(Math.abs(mixed.losses[0]![1] - alone.losses[0]![1])).toBeGreaterThan(1e-4);
    disposeAll(other.params);
  });

  it("holds the same memory at the end of every step", async () => {
    const objective = salt({ schedule: { kind: "always" } });
    const seen = new Set<string>();
    await trained({ objective, data: textData(), steps: 30 }, async ({ step }) => {
      await sync();
      if (step > 3) seen.add(`${memory().tensors} ${memory().liveBytes}`);
    });
    expect(seen.size).toBe(1);
    objective.dispose();
  });

  it("refuses options outside their domain, at the call", () => {
    const refuse = (options: Partial<DistillOptions>, message: string) => {
      expect(() => salt(options)).toThrow(OptionError);
      expect(() => salt(options)).toThrow(message);
    };
    refuse({ omega: 1.5 }, "[distill] omega must be in [0, 1]; received 1.5.");
    refuse({ schedule: { kind: "step", steps: 0 } }, "schedule.steps must be a positive integer; received 0");
    refuse({ schedule: { kind: "linearRatio", steps: 2 } as never }, "schedule.rampSteps");
    refuse({ schedule: { kind: "cosine" } as never }, "schedule.kind must be step");
    refuse({ cache: true }, "expected a teacher or cache: true; received both");
    refuse({ teacher: [] }, "received neither");
    refuse({ tauTeacher: -1 }, "tauTeacher must be above 0");
    refuse({ vocabPad: true, divergence: { kind: "reverseKl" } }, "reverseKl is infinite");
    const cached = (options: object) => () =>
      distill({ student, cache: true, schedule: { kind: "always" }, ...options });
    expect(cached({ mode: "tail", tauTeacher: 0.25 })).toThrow("has no teacher temperature but 1");
    expect(cached({ divergence: { kind: "jsd" } })).toThrow("a cache holds a few tokens only");
  });
});

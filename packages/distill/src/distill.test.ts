import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inStages, SelectedWindows, selectTop, TokenDataset, windowsAt } from "@llmeff/data";
import { memory, OptionError, ShapeError, sync } from "@llmeff/tensor";
import type { Objective, StepEvent } from "@llmeff/train";
import { afterAll, describe, expect, it } from "vitest";
import { collectGarbage } from "../../../test/garbage.js";
import {
  bitsOf,
  disposeAll,
  seqLen,
  student,
  studentModel,
  teacherOf,
  text,
  textData,
  trained,
  vocabSize,
} from "../test/setup.js";
import {
  type DistillMetrics,
  type DistillOptions,
  distill,
  featureProjections,
  type OmegaSchedule,
  scoreSequences,
} from "./index.js";

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

  describe("with k of the teacher's tokens", () => {
    const losses = async (options: Partial<DistillOptions>, captureStep = false) => {
      const objective = salt(options);
      const result = await trained({ objective, data: textData(), steps: 8, captureStep });
      objective.dispose();
      return result;
    };

    it.each(["renorm", "naive", "tail", "restrict"] as const)("is the dense loss if they are all: %s", async (mode) => {
      const dense = await losses({ tauTeacher: 1 });
      const few = await losses({ tauTeacher: 1, mode, k: vocabSize });
      for (const [i, [, loss]] of few.losses.entries()) expect(loss).toBeCloseTo(dense.losses[i]![1], 5);
    });

    it.each(["renorm", "tail", "sampled"] as const)(
      "learns from fewer, in captured steps the same: %s",
      async (mode) => {
        const few = await losses({ mode, k: 3 });
        expect(few.losses.slice(0, 4)).not.toEqual((await losses({})).losses.slice(0, 4));
        expect(await losses({ mode, k: 3 }, true)).toEqual(few);
      },
    );

    it("draws other tokens in every step, and the same in a run that was interrupted", async () => {
      const options = { mode: "sampled", k: 2, schedule: { kind: "always" } } as const;
      const directory = newFolder();
      const whole = await trained({ objective: salt(options), data: textData(), steps: 6 });
      const first = await trained({ objective: salt(options), data: textData(), steps: 3, checkpoint: { directory } });
      const resumed = { data: textData(), checkpoint: { directory }, resume: true };
      const rest = await trained({ objective: salt(options), steps: 6, ...resumed });
      expect([...first.losses, ...rest.losses]).toEqual(whole.losses);
      expect(rest.bits).toEqual(whole.bits);
    });
  });

  describe("with hidden states", () => {
    const options = { hiddenStates: { pairs: [[0, 0]], weight: 0.5 } } satisfies Partial<DistillOptions>;
    const projections = () => {
      const like = studentModel.init(1);
      const made = featureProjections([[16, 8]], { seed: 4, like: like["model.norm.weight"]! });
      disposeAll(like);
      return made;
    };
    const run = (objective: Objective, rest: object = {}, eachStep?: (event: StepEvent) => Promise<void>) =>
      trained({ objective, data: textData(), steps: 7, more: projections(), ...rest }, eachStep);

    it("adds their distance to the loss while there is a teacher, and trains the projections", async () => {
      const objective = salt(options);
      const told: DistillMetrics[] = [];
      const { losses, bits } = await run(objective, {}, async () => void told.push((await objective.metrics())!));
      for (const [i, { ce, kd, omega, hiddenStates }] of told.entries()) {
        const distance = i < 4 ? hiddenStates! : 0;
        expect(losses[i]![1]).toBeCloseTo((1 - omega) * ce + omega * (kd + 0.5 * distance), 5);
        expect(hiddenStates === undefined).toBe(i >= 4);
      }
      const initial = projections();
      expect(bits["distill.projection.0"]).not.toBe((await bitsOf(initial))["distill.projection.0"]);
      disposeAll(initial);
      objective.dispose();
    });

    it("brings the student's states nearer to the teacher's", async () => {
      const near = { hiddenStates: { ...options.hiddenStates, loss: "unitMse", weight: 10 } } as const;
      const objective = salt({ ...near, schedule: { kind: "always" } });
      const told: number[] = [];
      const tell = async () => void told.push((await objective.metrics())!.hiddenStates!);
      await run(objective, { steps: 30 }, tell);
      expect(told.at(-1)).toBeLessThan(told[0]! / 2);
      objective.dispose();
    });

    it("resumes from every checkpoint with the projections in it, and has the same bits in captured steps", async () => {
      const whole = await run(salt(options));
      expect(await run(salt(options), { captureStep: true })).toEqual(whole);
      for (const cut of [2, 4, 5]) {
        const checkpoint = { directory: newFolder() };
        await run(salt(options), { steps: cut, checkpoint });
        expect((await run(salt(options), { checkpoint, resume: true })).bits).toEqual(whole.bits);
      }
    });

    it("compares states as they are on request, and refuses what it lacks", async () => {
      const identity = { hiddenStates: { pairs: [[0, 0]], identity: true } } satisfies Partial<DistillOptions>;
      const twin = { model: student, params: studentModel.init(1) };
      const told: number[] = [];
      const objective = salt({ ...identity, teacher: twin });
      const tell = async () => void told.push((await objective.metrics())!.hiddenStates!);
      await trained({ objective, data: textData(), steps: 1 }, tell);
      expect(told).toEqual([0]);
      const once = (given: Partial<DistillOptions>) => trained({ objective: salt(given), data: textData(), steps: 1 });
      await expect(once(options)).rejects.toThrow('have no "distill.projection.0". Add featureProjections');
      await expect(once(identity)).rejects.toThrow(ShapeError);
      await expect(once({ hiddenStates: { pairs: [[3, 0]] } })).rejects.toThrow("blocks must be numbers in 0..0");
      const { trained: _, ...plain } = student;
      await expect(once({ ...identity, student: plain })).rejects.toThrow("the student returns no output of block 0");
      disposeAll(twin.params);
    });
  });

  it("holds the same memory at the end of every step", async () => {
    await collectGarbage();
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
    refuse({ mode: "tail" }, 'mode "tail" takes a few of the teacher\'s tokens: say by k how many');
    refuse({ k: 0 }, "k must be a positive integer; received 0");
    refuse({ k: 2, mode: "tail", tauTeacher: 0.5 }, "has no teacher temperature but 1");
    refuse({ k: 2, divergence: { kind: "jsd" } }, "k takes a few tokens only");
    refuse({ hiddenStates: { pairs: [] } }, "must name at least one pair");
    refuse({ hiddenStates: { pairs: [[0, -1]] } }, "numbers of blocks, from 0; received -1");
    refuse({ hiddenStates: { pairs: [[0, 0]], weight: 0 } }, "hiddenStates.weight must be above 0");
    refuse({ hiddenStates: { pairs: [[0, 0]], loss: "l1" as never } }, "loss must be mse, cosine or unitMse");
    refuse(
      { hiddenStates: { pairs: [[0, 0]] }, teacher: [teacher, teacher] },
      "hiddenStates need one teacher; received 2",
    );
    refuse({ vocabPad: true, divergence: { kind: "reverseKl" } }, "reverseKl is infinite");
    const cached = (options: object) => () =>
      distill({ student, cache: true, schedule: { kind: "always" }, ...options });
    expect(cached({ mode: "tail", tauTeacher: 0.25 })).toThrow("has no teacher temperature but 1");
    expect(cached({ k: 3 })).toThrow("a cache has its own k");
    expect(cached({ hiddenStates: { pairs: [[0, 0]] } })).toThrow("need one teacher; received a cache");
    expect(cached({ divergence: { kind: "jsd" } })).toThrow("a cache holds a few tokens only");
  });
});

import { AdamW } from "@llmeff/optim";
import { copyInto, FormatError, memory, OptionError, sync, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { disposeAll, student, studentModel, textData, trained } from "../test/setup.js";
import { distill } from "./distill.js";
import { EmaTeacher } from "./ema-teacher.js";

describe("EmaTeacher", () => {
  it("averages with a weight that grows with the steps", async () => {
    const params = { w: tensor([1, 2]) };
    const average = new EmaTeacher(params, { decay: 0.5 });
    // d: 1/10, 2/11, 3/12, …; from 4, (1 + 8)/(10 + 8), on 0.5.
    let wanted = [1, 2];
    for (let t = 0; t < 12; t++) {
      copyInto(params.w, tensor([t, -t]));
      average.update();
      const d = Math.min(0.5, (1 + t) / (10 + t));
      wanted = [d * wanted[0]! + (1 - d) * t, d * wanted[1]! - (1 - d) * t];
    }
    const [a, b] = await average.params.w!.data();
    expect(a).toBeCloseTo(wanted[0]!, 5);
    expect(b).toBeCloseTo(wanted[1]!, 5);
    expect(average.count).toBe(12);
    average.dispose();
  });

  it("keeps averages of 16-bit parameters in float32, and shows them in 16 bits", async () => {
    const params = { w: tensor([1]).astype("bfloat16") };
    const average = new EmaTeacher(params, { decay: 0.999 });
    for (let t = 0; t < 9; t++) average.update();
    copyInto(params.w, tensor([1 + 2 ** -7]).astype("bfloat16"));
    average.update(); // a change of 0.49 · 2⁻⁷ that bfloat16 would lose half of
    expect(average.params.w!.dtype).toBe("bfloat16");
    const [value] = await average.stateDict().tensors.w!.data();
    expect(value).toBeCloseTo(1 + (9 / 19) * 2 ** -7, 6);
    average.dispose();
  });

  it("goes on from a saved state, and refuses that of another student", async () => {
    const params = { w: tensor([1, 2]) };
    const first = new EmaTeacher(params);
    first.update();
    copyInto(params.w, tensor([5, 5]));
    const second = new EmaTeacher(params);
    second.loadStateDict(first.stateDict());
    for (const average of [first, second]) average.update();
    expect(await second.params.w!.data()).toEqual(await first.params.w!.data());
    expect(second.count).toBe(2);
    const other = new EmaTeacher({ w: tensor([1, 2, 3]) });
    expect(() => other.loadStateDict(first.stateDict())).toThrow(FormatError);
    const text = "2" as unknown as number; // as metadata of a file has it
    expect(() => second.loadStateDict({ ...first.stateDict(), count: text })).toThrow('received "2"');
    expect(() => new EmaTeacher(params, { decay: 1 })).toThrow(OptionError);
    for (const average of [first, second, other]) average.dispose();
  });

  it("teaches the student that it follows, and leaks nothing", async () => {
    await sync();
    const before = memory().tensors;
    const params = studentModel.init(1);
    const average = new EmaTeacher(params);
    const optimizer = new AdamW(params, { learningRate: 1e-2 });
    optimizer.hooks.afterStep(() => average.update());
    const objective = distill({
      student,
      teacher: { model: student, params: average.params },
      schedule: { kind: "always" },
    });
    const { train } = await import("@llmeff/train");
    const losses: number[] = [];
    for await (const event of train({ params, objective, optimizer, data: textData(), steps: 25 })) {
      if (event.type === "step") losses.push(event.loss);
    }
    expect(average.count).toBe(25);
    expect(losses.at(-1)!).toBeLessThan(losses[0]!);
    const plain = await trained({ objective: studentModel.loss.bind(studentModel), data: textData(), steps: 1 });
    expect(losses[0]).not.toBeCloseTo(plain.losses[0]![1], 4);
    objective.dispose();
    average.dispose();
    disposeAll(params);
    optimizer.dispose();
    await sync();
    expect(memory().tensors - before).toBeLessThanOrEqual(2); // rotary tables of the model, made once
  });
});

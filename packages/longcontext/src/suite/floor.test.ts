import { describe, expect, it } from "vitest";
import { randomModel } from "../models/stand-ins.js";
import { scoreSample } from "./score-sample.js";
import { tasksNamed } from "./tasks.js";

/** By how many standard errors the guesses' mean lies above that of their floors. One in 16,000 honest runs would be more than 4 away. */
async function distance(name: string, count: number, maxTokens: number, floorOf = scoredFloor): Promise<number> {
  const [task] = tasksNamed([name]);
  const differences: number[] = [];
  for (const sample of task!.samples({ seed: 11, count, maxTokens })) {
    const request = { messages: sample.messages, maxTokens: sample.budget.reserve, sample };
    const score = scoreSample(sample, (await randomModel().generate(request)).text);
    differences.push(score.score - floorOf(score));
  }
  const mean = differences.reduce((sum, x) => sum + x, 0) / count;
  const variance = differences.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (count - 1);
  return mean / Math.sqrt(variance / count);
}

function scoredFloor({ floor }: ReturnType<typeof scoreSample>): number {
  return floor!;
}

describe("a model that knows the form of the answer alone is on the floor of", () => {
  it.each([
    ["idk", 300, 4096],
    ["latent_list", 300, 2048],
  ])("%s", async (name, count, maxTokens) => {
    expect(Math.abs(await distance(name, count, maxTokens))).toBeLessThan(4);
  });

  it("MRCR, where it copies any reply of the chat; one of the replies to the key is worth more", async () => {
    const floorAll = await distance("mrcr_2", 80, 16_384, ({ metrics }) => metrics!.floorAll!);
    expect(Math.abs(floorAll)).toBeLessThan(4);
    expect(await distance("mrcr_2", 80, 16_384)).toBeLessThan(-4);
  });
});

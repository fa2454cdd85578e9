import { describe, expect, it } from "vitest";
import { checkSample } from "./check-sample.js";
import { EVERY_TASK } from "./every-task.js";

const LENGTHS = [4096, 16_384, 65_536];

describe.each(EVERY_TASK.map((variant) => [variant.name, variant] as const))("%s", (_, { generate, leastBytes }) => {
  it.each(LENGTHS.filter((length) => length >= leastBytes))(
    "is solved again from its prompt of %i bytes",
    (maxTokens) => {
      for (let index = 0; index < 4; index++) {
        const sample = generate({ seed: 7, index, maxTokens });
        expect(checkSample(sample).problems).toEqual([]);
      }
    },
  );
});

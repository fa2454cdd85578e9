import { expect, it } from "vitest";
import { utf8Length } from "../tokens/tokenizer.js";
import { calibrate, calibratedTokens } from "./calibrate.js";
import { standIn } from "./stand-ins.js";

it("finds tokens per byte, the template's own tokens, and those of each message", async () => {
  const model = standIn("m", ({ messages }) => {
    const bytes = messages!.reduce((sum, { content }) => sum + utf8Length(content), 0);
    const promptTokens = 9 + Math.round(bytes / 4) + 5 * messages!.length;
    return { text: "yes", usage: { promptTokens, completionTokens: 1 } };
  });
  const calibration = await calibrate(model);
  expect(calibration.perMessage).toBeCloseTo(5, 1);
  const { tokenizer, overhead } = calibratedTokens("m", calibration);
  expect(tokenizer.tokensPerByte).toBeCloseTo(0.25, 3);
  expect(tokenizer.count("x".repeat(40_000))).toBeGreaterThanOrEqual(10_000);
  expect(tokenizer.count("x".repeat(40_000))).toBeLessThan(10_150);
  expect(Math.abs(overhead([{ role: "user", content: "" }]) - 14)).toBeLessThanOrEqual(1);
  expect(Math.abs(overhead(Array(11).fill({ role: "user", content: "" })) - 64)).toBeLessThanOrEqual(2);
  expect(tokenizer.id).toMatch(/^calibrated:m:0\.2/);
});

it("says what to do where an endpoint tells no usage", async () => {
  const silent = {
    ...standIn("m", () => ""),
    generate: async () => ({ text: "", finish: "stop" as const, totalMs: 1 }),
  };
  await expect(calibrate(silent)).rejects.toThrow(/Name a tokenizer/);
});

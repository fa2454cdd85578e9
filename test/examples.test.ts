/** The examples with other libraries run, here for a few steps, and every optimizer gets to a result. */
import { afterEach, describe, expect, it, vi } from "vitest";

const argument = process.argv[2];
afterEach(() => {
  process.argv[2] = argument!;
  vi.restoreAllMocks();
});

describe("examples with other libraries", () => {
  it.each(["tfjs", "jax-js"])("%s-autoencoder.mjs compares three optimizers", { timeout: 240_000 }, async (name) => {
    process.argv[2] = "3";
    const lines: string[] = [];
    vi.spyOn(console, "log").mockImplementation((line) => void lines.push(line));
    vi.spyOn(process, "exit").mockImplementation(() => undefined as never);
    await import(`../examples/${name}-autoencoder.mjs`);
    expect(lines.filter((line) => /: validation loss 0\.\d{4}$/.test(line))).toHaveLength(15);
    const results = lines.filter((line) => line.includes("test loss"));
    expect(results).toHaveLength(3);
    for (const line of results) {
      // Guessing 1/2 for every pixel costs log 2.
      const loss = Number(/test loss (0\.\d{4}) at its best rate/.exec(line)?.[1]);
      expect(loss, line).toBeLessThan(Math.log(2));
    }
  });
});

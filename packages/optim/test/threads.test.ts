import { execFileSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const root = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));
const addon = process.env.LLMEFF_NATIVE_PATH ?? join(root, "native", "build", "Release", "llmeff.node");

/** Three steps on tensors that span many chunks; prints a digest of all that changed. The number of threads is fixed for a process. */
const program = `
const { createHash } = require("node:crypto");
const { op } = require(process.argv[1]);
const sizes = [5, 100_000, 16_384, 300_001];
const make = (f) => sizes.map((n) => Float32Array.from({ length: n }, (_, i) => f(i)));
const zeros = () => make(() => 0);
const changed = [];
const norm = new Float32Array(1);
const gradsOf = (step) => make((i) => Math.sin(i * step) / (1 + (i % 7)));
for (const [band, isolate] of [[1, false], [0, false], [3, true], [10, false]]) {
  const p = make(Math.cos), m = zeros(), diagonals = Array.from({ length: band + 1 }, zeros).flat();
  for (let step = 1; step <= 3; step++) {
    const g = gradsOf(step);
    op.globalNorm(g, norm);
    op.sonewStep(p, [], g, m, diagonals, [], [0, 0, 100, 0], [0, 1, 2, 3], norm, 0.01, 0.9, 0.99, 1e-4, step === 2, 0.1, false, isolate, 1, 1e-8, true, 0.1, step, 0, null);
  }
  changed.push(...p, ...m, ...diagonals);
}
const p = make(Math.cos), m = zeros(), v = zeros();
for (let step = 1; step <= 3; step++) {
  const adam = 7, factors = [0, 0.99, 0.9, 0.1, 0.99, 0.01, 1 / Math.sqrt(1 - 0.99 ** step), 1e-8, 0.01 / (1 - 0.9 ** step), 0];
  op.optimizerStep(adam, p, [], gradsOf(step), [...m, ...v], factors, norm);
}
const hash = createHash("sha256");
for (const x of [...changed, ...p, ...m, ...v, norm]) hash.update(new Uint8Array(x.buffer));
console.log(hash.digest("hex"));
`;

describe("optimizer kernels", () => {
  it("give the same bits for every number of threads", () => {
    const digests = ["1", "2", "5"].map((threads) =>
      execFileSync(process.execPath, ["-e", program, addon], {
        encoding: "utf8",
        env: { ...process.env, LLMEFF_NUM_THREADS: threads },
      }).trim(),
    );
    expect(digests[0]).toMatch(/^[0-9a-f]{64}$/);
    expect(new Set(digests).size).toBe(1);
  });
});

/** Processes that share a GPU: one that is killed in the middle of a step disturbs no other, and a fresh one starts at once. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bundle, onGpu, Program } from "./gpu.js";

const steps = "40";

describe.skipIf(!onGpu)("a process that is killed while it trains on a GPU", () => {
  const folder = mkdtempSync(join(tmpdir(), "llmeff-gpu-"));
  let program = "";
  beforeAll(async () => {
    program = await bundle("train-program", folder);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it("leaves the bits of the others as they would be, and room for a new one", async () => {
    const alone = await new Program(program, [steps]).result();
    expect(alone).toMatch(/^final [0-9a-f]{64}$/);
    const victims = [new Program(program, ["100000"]), new Program(program, ["100000"])];
    await Promise.all(victims.map((victim) => victim.line("step 3")));
    const other = new Program(program, [steps]);
    expect(await other.line("step 3")).toBe("step 3");
    // Right after the end of a step the next one is already queued.
    for (const victim of victims) {
      expect(await victim.line("step "), "it is still at work").toMatch(/^step \d+$/);
      victim.kill();
    }
    expect(other.lines.at(-1), "it is still at work").toMatch(/^step /);
    const fresh = new Program(program, [steps]);
    for (const victim of victims) expect((await victim.ended).signal).toBe("SIGKILL");
    expect(await other.result()).toBe(alone);
    expect(await fresh.result()).toBe(alone);
  });
});

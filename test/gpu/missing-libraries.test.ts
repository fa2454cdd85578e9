/**
 * The CUDA engine where something that it opens at run time is missing or too old: no driver, an old one, no GPU that may be seen, no cuBLASLt.
 * The machine is real; what is missing is hidden from the process by a library before the system's (`absent.c`).
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bundle, hasCudaLibrary, onGpu, Program } from "./gpu.js";

const hasCompiler = spawnSync("cc", ["--version"]).status === 0;
const folder = mkdtempSync(join(tmpdir(), "llmeff-absent-"));
const [absent, oldDriver] = [join(folder, "absent.so"), join(folder, "libcuda.so.1")];
let program = "";

function compile(source: string, library: string): void {
  const path = fileURLToPath(new URL(source, import.meta.url));
  const { status, stderr } = spawnSync("cc", ["-shared", "-fPIC", "-O1", path, "-o", library, "-ldl"]);
  if (status !== 0) throw new Error(`[test] ${source} doesn't compile: ${stderr}`);
}

beforeAll(async () => {
  program = await bundle("probe-program", folder);
  if (!hasCompiler) return;
  compile("absent.c", absent);
  compile("old-driver.c", oldDriver);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Found {
  missing?: string;
  devices: string[];
  auto: string;
  refused?: { code: string; message: string };
}

/** What a process finds that is free to use a GPU and doesn't need one. */
async function devicesWith(environment: NodeJS.ProcessEnv): Promise<Found> {
  const result = await new Program(program, ["devices"], { LLMEFF_DEVICE: "", ...environment }).result();
  return JSON.parse(result) as Found;
}

function expectNone(found: Found, reason: RegExp): void {
  expect(found.missing).toMatch(reason);
  expect(found).toMatchObject({ devices: ["cpu"], auto: "cpu", refused: { code: "ERR_DEVICE" } });
  expect(found.refused?.message).toContain("[full] device cuda:0 is not to be had: ");
  expect(found.refused?.message).toMatch(reason);
  expect(found.refused?.message).toContain('Use device "cpu"');
}

describe.skipIf(!hasCudaLibrary)("the CUDA engine", () => {
  it.skipIf(!hasCompiler)("without a driver says so, and the CPU serves", async () => {
    const found = await devicesWith({ LD_PRELOAD: absent, LLMEFF_TEST_ABSENT: "cuda" });
    expectNone(found, /there is no NVIDIA driver on this machine\. Install one, or use device "cpu"/);
  });

  it.skipIf(!hasCompiler)("with a driver that is too old names both versions", async () => {
    const found = await devicesWith({ LD_PRELOAD: absent, LLMEFF_TEST_OLD_DRIVER: oldDriver });
    expectNone(found, /the NVIDIA driver knows CUDA 12\.2; CUDA 13\.0 or newer is needed\. Update the driver\./);
  });
});

describe.skipIf(!onGpu)("on a GPU", () => {
  it("CUDA_VISIBLE_DEVICES set to nothing is named as a reason", async () => {
    const found = await devicesWith({ CUDA_VISIBLE_DEVICES: "" });
    expectNone(found, /no GPU can be used: .*Is CUDA_VISIBLE_DEVICES set to nothing\?/);
  });

  it.skipIf(!hasCompiler)("without cuBLASLt the plain kernel multiplies, and says what it doesn't take", async () => {
    const compute = async (environment: NodeJS.ProcessEnv) =>
      JSON.parse(await new Program(program, ["compute"], environment).result());
    const [library, plain] = [await compute({}), await compute({ LD_PRELOAD: absent, LLMEFF_TEST_ABSENT: "cublasLt" })];
    expect(library.tall).toBeUndefined();
    expect(plain.tall).toMatchObject({
      code: "ERR_SHAPE",
      message: expect.stringMatching(
        /^\[matmul\] 8388608 rows are more than the plain kernel takes\. Install cuBLASLt \(libcublasLt\.so\.13 or \.12; .*absent/,
      ),
    });
    // Sums of K products of numbers below 5: 4·eps·sqrt(K)·max|a||b|, and one rounding of the result to bfloat16.
    const bound = (eps: number) => 4 * eps * Math.sqrt(129) * 25;
    const tolerances = { float64: bound(2 ** -52), float32: bound(2 ** -23), bfloat16: bound(2 ** -23) + 2 ** -7 * 64 };
    for (const [dtype, tolerance] of Object.entries(tolerances)) {
      const worst = Math.max(...plain[dtype].map((x: number, i: number) => Math.abs(x - library[dtype][i])));
      expect(worst, dtype).toBeLessThan(tolerance);
    }
    expect(plain.losses).toHaveLength(library.losses.length);
    expect(plain.losses.at(-1)).toBeLessThan(plain.losses[0] - 0.5);
    expect(Math.abs(plain.losses[0] - library.losses[0])).toBeLessThan(2 ** -7);
  });
});

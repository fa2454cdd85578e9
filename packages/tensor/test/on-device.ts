/** The suites run on the CPU, and with `LLMEFF_DEVICE=cuda` on a GPU, where they hold the same functions to the same numbers. */
import { describe } from "vitest";
import { defaultDevice } from "../src/index.js";

export const onCpu = defaultDevice() === "cpu";

/** A `describe` of what only the CPU has; on a GPU it is reported as not run, with the reason. */
export function describeOnCpu(name: string, reason: string, body: () => void): void {
  describe.skipIf(!onCpu)(onCpu ? name : `${name} (on the CPU only: ${reason})`, body);
}

/** A `describe` of what only GPUs do. */
export function describeOnGpu(name: string, reason: string, body: () => void): void {
  describe.skipIf(onCpu)(onCpu ? `${name} (on a GPU only: ${reason})` : name, body);
}

/** One long sample, made and written as JSON: seconds by the clock and of the processor, and the peak memory of the process. */
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkSample, EVERY_TASK } from "@llmeff/longcontext";
import { childOptions, emit, expect } from "../lib/child.mjs";

const { name, bytes } = childOptions();
const { generate } = EVERY_TASK.find((variant) => variant.name === name);
const folder = mkdtempSync(join(tmpdir(), "llmeff-bench-"));
const used = process.cpuUsage();
const start = performance.now();
const sample = generate({ seed: 3, index: 0, maxTokens: bytes });
const file = openSync(join(folder, "sample.jsonl"), "w");
writeSync(file, JSON.stringify(sample));
closeSync(file);
const seconds = (performance.now() - start) / 1e3;
const { user, system } = process.cpuUsage(used);
const megabytes = process.resourceUsage().maxRSS / 1024;
rmSync(folder, { recursive: true });
expect(checkSample(sample).ok, `${name} of ${bytes} bytes`);
emit({ name, bytes, seconds, processorSeconds: (user + system) / 1e6, megabytes });

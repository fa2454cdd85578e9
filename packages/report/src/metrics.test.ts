import { appendFile, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { FormatError, IoError, OptionError } from "@llmeff/native/errors";
import { describe, expect, it } from "vitest";
import { temporaryFolder } from "../test/temporary-folder.js";
import { MetricsWriter, readMetrics, truncateMetricsAfter } from "./metrics.js";

const metricsPath = async () => join(await temporaryFolder(), "run", "metrics.jsonl");

async function writeSteps(path: string, from: number, to: number, resumeAfter?: number): Promise<void> {
  const writer = await MetricsWriter.open(path, resumeAfter === undefined ? {} : { resumeAfter });
  for (let step = from; step <= to; step++) writer.append({ step, loss: 4 / step, split: "train" });
  await writer.close();
}

describe("MetricsWriter", () => {
  it("writes one JSON object a line", async () => {
    const path = await metricsPath();
    await writeSteps(path, 1, 2);
    expect(await readFile(path, "utf8")).toBe(
      '{"step":1,"loss":4,"split":"train"}\n{"step":2,"loss":2,"split":"train"}\n',
    );
  });

  it("keeps NaN and the infinities, which JSON has not", async () => {
    const path = await metricsPath();
    const writer = await MetricsWriter.open(path);
    const record = { step: 3, loss: Number.NaN, low: Number.NEGATIVE_INFINITY, parts: [1, Number.POSITIVE_INFINITY] };
    writer.append(record);
    await writer.close();
    expect(await readMetrics(path)).toEqual([record]);
    for (const line of (await readFile(path, "utf8")).trim().split("\n")) expect(() => JSON.parse(line)).not.toThrow();
  });

  it("gives the number for a text that names one, and other texts as they are", async () => {
    const path = await metricsPath();
    const writer = await MetricsWriter.open(path);
    writer.append({ step: 1, note: "NaN", other: "nan" });
    await writer.close();
    expect(await readMetrics(path)).toEqual([{ step: 1, note: Number.NaN, other: "nan" }]);
  });

  it("leaves the same bytes after an interruption as without one", async () => {
    const [whole, resumed] = [await metricsPath(), await metricsPath()];
    await writeSteps(whole, 1, 30);
    await writeSteps(resumed, 1, 23);
    await appendFile(resumed, '{"step":24,"lo'); // killed while writing; the last checkpoint was at step 20
    await writeSteps(resumed, 21, 30, 20);
    expect(await readFile(resumed, "utf8")).toBe(await readFile(whole, "utf8"));
  });

  it("starts a new line after a half-written one, for every place of the cut", async () => {
    const path = await metricsPath();
    await writeSteps(path, 1, 2);
    const text = await readFile(path, "utf8");
    const firstLine = text.indexOf("\n") + 1;
    for (let cut = firstLine; cut <= text.length; cut++) {
      await writeFile(path, text.slice(0, cut));
      await writeSteps(path, 3, 3);
      // The second record is whole even when only its newline is missing.
      const steps = cut >= text.length - 1 ? [1, 2, 3] : [1, 3];
      expect((await readMetrics(path)).map((record) => record.step)).toEqual(steps);
    }
  });

  it("refuses a record without a proper step", async () => {
    const writer = await MetricsWriter.open(await metricsPath());
    for (const step of [-1, 0.5, Number.NaN]) expect(() => writer.append({ step })).toThrow(OptionError);
    await writer.close();
  });

  it("flush puts everything on the disk", async () => {
    const path = await metricsPath();
    const writer = await MetricsWriter.open(path);
    writer.append({ step: 1 });
    await writer.flush();
    expect(await readMetrics(path)).toEqual([{ step: 1 }]);
    await writer.close();
  });
});

describe("readMetrics", () => {
  it("names the file and line of damage before the last line", async () => {
    const path = await metricsPath();
    await writeSteps(path, 1, 1);
    await appendFile(path, '{"loss":1}\n{"step":3}\n');
    const reading = readMetrics(path);
    await expect(reading).rejects.toThrow(FormatError);
    await expect(reading).rejects.toThrow(/metrics\.jsonl, line 2: expected a JSON object with an integer "step"/);
  });

  it("says which file is missing", async () => {
    await expect(readMetrics(await metricsPath())).rejects.toThrow(IoError);
  });
});

describe("truncateMetricsAfter", () => {
  it("keeps the kept lines byte for byte and does not touch a file with nothing to drop", async () => {
    const path = await metricsPath();
    await writeSteps(path, 1, 1);
    await writeFile(path, '{"step": 1, "loss": 1.0e0}\n{"step": 2}\n');
    await truncateMetricsAfter(path, 1);
    expect(await readFile(path, "utf8")).toBe('{"step": 1, "loss": 1.0e0}\n');
    const before = (await stat(path)).ino;
    await truncateMetricsAfter(path, 1);
    expect((await stat(path)).ino).toBe(before);
  });
});

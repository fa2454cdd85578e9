import { readdir, readFile, truncate, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { OptionError } from "@llmeff/native/errors";
import { describe, expect, it } from "vitest";
import { temporaryFolder } from "../test/temporary-folder.js";
import { EventFileWriter, eventFiles, readEventFile, truncateEventsAfter } from "./tensorboard.js";

const now = () => 1_700_000_000_250;

/** Decodes by the .proto files with fixed offsets: shares nothing with the code under test. */
function decodeByHand(file: Buffer) {
  const events: { wallTime: number; step: number; rest: Buffer }[] = [];
  for (let at = 0; at < file.length; ) {
    const length = Number(file.readBigUInt64LE(at));
    const data = file.subarray(at + 12, at + 12 + length);
    expect(data[0]).toBe(0x09); // field 1, fixed64: wall_time
    expect(data[9]).toBe(0x10); // field 2, varint: step
    let step = 0;
    let next = 10;
    for (let shift = 0; ; shift += 7) {
      const byte = data[next++]!;
      step += (byte & 127) * 2 ** shift;
      if (byte < 128) break;
    }
    events.push({ wallTime: data.readDoubleLE(1), step, rest: data.subarray(next) });
    at += length + 16;
  }
  return events;
}

describe("EventFileWriter", () => {
  it("writes what an independent decoder reads", async () => {
    const writer = await EventFileWriter.open(await temporaryFolder(), { now, host: "a b/c" });
    writer.scalar("loss", 2.5, 300);
    await writer.close();
    expect(basename(writer.path)).toBe(`events.out.tfevents.1700000000.a_b_c.${process.pid}.0`);

    const [first, second] = decodeByHand(await readFile(writer.path));
    expect(first!.wallTime).toBe(1_700_000_000.25);
    expect(first!.rest.toString("latin1")).toBe("\x1a\x0dbrain.Event:2"); // field 3, 13 bytes
    expect(second!.step).toBe(300);
    // field 5 (summary, 13 bytes) { field 1 (value, 11 bytes) { field 1 "loss", field 2 float 2.5 = 0x40200000 } }
    expect(second!.rest.toString("hex")).toBe(`2a0d0a0b0a04${Buffer.from("loss").toString("hex")}1500002040`);
  });

  it("round-trips scalars, non-finite values, texts and steps beyond 32 bits", async () => {
    const writer = await EventFileWriter.open(await temporaryFolder(), { now });
    writer.scalars({ "train/loss": 0.5, "train/größe": Number.NaN }, 2 ** 40);
    writer.scalar("inf", Number.NEGATIVE_INFINITY, 0);
    writer.text("sample", "Ünïcode\n**bold**", 7);
    await writer.close();
    const { events, problem } = await readEventFile(writer.path);
    expect(problem).toBeUndefined();
    expect(events.map((event) => event.values)).toEqual([
      [],
      [
        { tag: "train/loss", value: 0.5 },
        { tag: "train/größe", value: Number.NaN },
      ],
      [{ tag: "inf", value: Number.NEGATIVE_INFINITY }],
      [{ tag: "sample", value: "Ünïcode\n**bold**" }],
    ]);
    expect(events.map((event) => event.step)).toEqual([0, 2 ** 40, 0, 7]);
    expect(events[0]).toMatchObject({ fileVersion: "brain.Event:2", wallTime: 1_700_000_000.25 });
  });

  it("gives two writers of the same second two files", async () => {
    const folder = await temporaryFolder();
    const writers = [await EventFileWriter.open(folder, { now }), await EventFileWriter.open(folder, { now })];
    for (const writer of writers) await writer.close();
    expect(await readdir(folder)).toHaveLength(2);
  });

  it("refuses a step that is no step", async () => {
    const writer = await EventFileWriter.open(await temporaryFolder(), { now });
    for (const step of [-1, 1.5, Number.NaN]) expect(() => writer.scalar("x", 1, step)).toThrow(OptionError);
    await writer.close();
  });

  it("resumes without duplicate steps and tells TensorBoard to forget later ones", async () => {
    const folder = await temporaryFolder();
    const first = await EventFileWriter.open(folder, { now });
    for (let step = 1; step <= 5; step++) first.scalar("loss", step, step);
    await first.close();
    const second = await EventFileWriter.open(folder, { now: () => now() + 60_000, resumeAfter: 3 });
    for (let step = 4; step <= 6; step++) second.scalar("loss", 10 * step, step);
    await second.close();

    const events = (await Promise.all((await eventFiles(folder)).map(readEventFile))).flatMap((file) => file.events);
    const losses = events.filter((event) => event.values.length > 0);
    expect(losses.map((event) => [event.step, event.values[0]!.value])).toEqual([
      [1, 1],
      [2, 2],
      [3, 3],
      [4, 40],
      [5, 50],
      [6, 60],
    ]);
    expect(events.filter((event) => event.sessionStart).map((event) => event.step)).toEqual([4]);
  });
});

describe("readEventFile", () => {
  it("reads a file cut at any byte up to the cut", async () => {
    const folder = await temporaryFolder();
    const writer = await EventFileWriter.open(folder, { now });
    for (let step = 0; step < 3; step++) writer.scalar("loss", 1 / (step + 1), step);
    await writer.close();
    const bytes = await readFile(writer.path);
    const copy = join(folder, "copy");
    let previous = 0;
    for (let cut = 0; cut <= bytes.length; cut++) {
      await writeFile(copy, bytes.subarray(0, cut));
      const { events, validBytes, problem } = await readEventFile(copy);
      expect(events.length).toBeGreaterThanOrEqual(previous);
      expect(problem === undefined).toBe(validBytes === cut);
      previous = events.length;
    }
    expect(previous).toBe(4);
  });
});

describe("truncateEventsAfter", () => {
  it("drops a damaged end together with the later steps", async () => {
    const folder = await temporaryFolder();
    const writer = await EventFileWriter.open(folder, { now });
    for (let step = 0; step < 4; step++) writer.scalar("loss", step, step);
    await writer.close();
    await truncate(writer.path, (await readFile(writer.path)).length - 3);
    await truncateEventsAfter(folder, 1);
    const { events, problem } = await readEventFile(writer.path);
    expect(problem).toBeUndefined();
    expect(events.map((event) => event.step)).toEqual([0, 0, 1]);
  });

  it("takes a missing folder for an empty one", async () => {
    await expect(truncateEventsAfter(join(await temporaryFolder(), "none"), 1)).resolves.toBeUndefined();
  });
});

import { defaultDevice } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { Workplace } from "./harness.js";

describe("llmeff info", () => {
  it("tells what runs here, for people and as JSON", async () => {
    await using place = await Workplace.create();
    const { code, stdout } = await place.run(["info", "--json"]);
    expect(code).toBe(0);
    const info = JSON.parse(stdout);
    expect(info).toMatchObject({
      node: process.versions.node,
      device: defaultDevice(),
      nativeBinary: expect.stringMatching(/\.node$/),
    });
    expect(info.gpus.length > 0).toBe(info.noGpu === undefined);
    expect(info.availableInstructionSets).toContain(info.instructionSet);
    expect(info.threads).toBeGreaterThan(0);
    const plain = await place.run(["info"]);
    expect(plain.stdout).toMatch(/^llmeff +\d+\.\d+\.\d+\nNode\.js /);
    expect(plain.stdout.trim().split("\n")).toHaveLength(Object.keys(info).length);
  });

  it("prints version and help", async () => {
    await using place = await Workplace.create();
    expect(await place.run(["--version"])).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/),
    });
    const help = await place.run(["--help"]);
    for (const command of ["train", "generate", "study", "info"]) expect(help.stdout).toContain(command);
    expect(help.code).toBe(0);
  });
});

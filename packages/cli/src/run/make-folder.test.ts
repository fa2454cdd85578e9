import { existsSync } from "node:fs";
import { IoError } from "@llmeff/native/errors";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Workplace } from "../../test/harness.js";
import { makeFolder } from "./make-folder.js";

let place: Workplace;
beforeAll(async () => {
  place = await Workplace.create();
  await place.write("letter.txt", "dear");
});
afterAll(() => place[Symbol.asyncDispose]());

describe("makeFolder", () => {
  it("makes what is missing, and is content with what is there", async () => {
    await makeFolder(place.path("a/b/c"));
    expect(existsSync(place.path("a/b/c"))).toBe(true);
    await makeFolder(place.path("a/b/c"));
    await makeFolder("/");
  });

  it.each(["letter.txt", "letter.txt/a", "letter.txt/a/b"])("says that %s can't be one", async (name) => {
    const error = await makeFolder(place.path(name)).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(IoError);
    expect((error as IoError).message).toMatch(
      /^\[llmeff\] can't make the folder .*letter\.txt.*: E(EXIST|NOTDIR).*\. Choose a place where files can be written\.$/,
    );
  });
});

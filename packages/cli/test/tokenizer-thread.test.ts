import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { byteTokenizer, characterTokenizer, type Tokenizer } from "@llmeff/data";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { TokenizerThread } from "../src/serve/tokenizer-thread.js";
import { bundleTokenizerWorker } from "./served.js";

let folder: string;
let program: URL;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "llmeff-thread-"));
  program = await bundleTokenizerWorker(folder);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const tokenizer = byteTokenizer();
const short = "a short text";
const long = "a text that isn't short, é€ ".repeat(100);
const endless = "a".repeat(10_000_000); // minutes

/** A tokenizer that isn't asked itself. */
const never: Tokenizer = {
  ...tokenizer,
  vocabSize: tokenizer.vocabSize,
  toJSON: () => tokenizer.toJSON(),
  encode: () => expect.fail("asked in this thread"),
  decode: () => expect.fail("asked in this thread"),
};

async function ownProgram(text: string): Promise<URL> {
  const path = join(folder, `own-${Math.random()}.js`);
  await writeFile(path, `import { parentPort } from "node:worker_threads";\n${text}`);
  return pathToFileURL(path);
}

describe("TokenizerThread", () => {
  it("gives what the tokenizer gives, of short texts and of long ones", async () => {
    await using thread = new TokenizerThread(tokenizer, { program });
    for (const texts of [[short], [long], [short, long, ""], [short, short]]) {
      const ids = await thread.encode(texts, true);
      expect(ids).toEqual(texts.map((text) => tokenizer.encode(text)));
      expect(await thread.decode(ids)).toEqual(texts);
    }
  });

  it("does what is long elsewhere, and leaves this thread its time", async () => {
    await using thread = new TokenizerThread(never, { program });
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    const text = long.repeat(40);
    const [ids] = await thread.encode([text], true);
    clearInterval(timer);
    expect(turns).toBeGreaterThan(10);
    expect(ids).toHaveLength(Buffer.byteLength(text));
    expect(await thread.decode([ids!])).toEqual([text]);
  });

  it("tells what a tokenizer refuses, here and there", async () => {
    const characters = characterTokenizer("ab");
    await using thread = new TokenizerThread(characters, { program });
    for (const text of ["abλ", `${"ab".repeat(2000)}λ`])
      await expect(thread.encode([text], true)).rejects.toMatchObject({
        code: expect.stringMatching(/^ERR_/),
        message: expect.stringContaining("λ"),
      });
    expect(await thread.encode(["ab".repeat(2000)], true)).toEqual([characters.encode("ab".repeat(2000))]);
  });

  it("forgets who gives up, before and while it works for him, and goes on with the others", async () => {
    await using thread = new TokenizerThread(never, { program });
    const [working, waiting, gone] = [
      new AbortController(),
      new AbortController(),
      AbortSignal.abort(new Error("gone")),
    ];
    await expect(thread.encode([long], true, gone)).rejects.toThrow("gone");
    const first = thread.encode([endless], true, working.signal);
    const second = thread.encode([endless], true, waiting.signal);
    const third = thread.encode([long], true);
    waiting.abort(new Error("second"));
    await expect(second).rejects.toThrow("second");
    working.abort(new Error("first"));
    await expect(first).rejects.toThrow("first");
    expect(await third).toEqual([tokenizer.encode(long)]);
  });

  it("begins no thread for any of those who give up together", async () => {
    await using thread = new TokenizerThread(never, { program });
    let begun = 0;
    const count = () => begun++;
    process.on("worker", count);
    const leaving = new AbortController();
    const asked = Array.from({ length: 8 }, () => thread.encode([endless], true, leaving.signal));
    const outcomes = Promise.allSettled(asked);
    leaving.abort(new Error("all"));
    for (const outcome of await outcomes) expect(outcome).toMatchObject({ reason: { message: "all" } });
    expect(await thread.encode([long], true)).toEqual([tokenizer.encode(long)]);
    process.off("worker", count);
    expect(begun).toBe(2);
  });

  it("tells those whose thread dies, and begins another for the next", async () => {
    const dying = `parentPort.on("message", () => process.exit(3));\nparentPort.postMessage("ready");`;
    await using thread = new TokenizerThread(tokenizer, { program: await ownProgram(dying) });
    for (let i = 0; i < 2; i++) await expect(thread.encode([long], true)).rejects.toThrow(/thread ended with 3/);
    const failing = `parentPort.on("message", () => { throw new Error("broken"); });\nparentPort.postMessage("ready");`;
    await using other = new TokenizerThread(tokenizer, { program: await ownProgram(failing) });
    await expect(other.encode([long], true)).rejects.toThrow("broken");
  });

  it("hears out a thread whose error comes before its word that it was ready", async () => {
    const dying = `parentPort.on("message", () => { parentPort.postMessage("ready"); process.exit(3); });`;
    await using thread = new TokenizerThread(tokenizer, { program: await ownProgram(dying) });
    process.once("worker", (worker) => worker.emit("error", new Error("broken")));
    await expect(thread.encode([long], true)).rejects.toThrow("broken");
    await expect(thread.encode([long], true)).rejects.toThrow(/thread ended with 3/);
  });

  it("does all in this thread where there can be no other, and says so once", async () => {
    const programs = [
      pathToFileURL(join(folder, "nothing.js")),
      await ownProgram("process.exit(0);"),
      new URL("https://localhost/refused-at-the-call.js"),
    ];
    for (const missing of programs) {
      const failures: string[] = [];
      const onFailure = ({ message }: Error) => failures.push(message);
      await using thread = new TokenizerThread(tokenizer, { program: missing, onFailure });
      const texts = [`${long}1`, `${long}2`, `${long}3`];
      const found = await Promise.all(texts.map((text) => thread.encode([text], true)));
      expect(found).toEqual(texts.map((text) => [tokenizer.encode(text)]));
      expect(await thread.decode([tokenizer.encode(long)])).toEqual([long]);
      expect(failures).toEqual([expect.stringMatching(/no thread for the tokenizer/)]);
    }
  });

  it("tells those who still wait at its end", async () => {
    const thread = new TokenizerThread(never, { program });
    const asked = [endless, long].map((text) => thread.encode([text], true));
    const outcomes = Promise.allSettled(asked);
    await thread[Symbol.asyncDispose]();
    for (const outcome of await outcomes)
      expect(outcome).toMatchObject({ status: "rejected", reason: { code: "ERR_DISPOSED" } });
  });
});

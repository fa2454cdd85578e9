import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sequentialWindows, TokenDataset } from "@llmeff/data";
import { copyInto, logSoftmax, mul, OptionError, scope, tensor } from "@llmeff/tensor";
import { afterAll, describe, expect, it } from "vitest";
import { seqLen, student, teacherModel, teacherOf, text, textData, trained, vocabSize } from "../test/setup.js";
import { distill, type LabelOptions, labelCorpus, openTeacherCache, withTeacherCache } from "./index.js";

const folder = mkdtempSync(join(tmpdir(), "llmeff-label-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const tokenizerHash = "ab".repeat(32);
const teacher = teacherOf();
const tokens = text();
const expected = { vocabSize, tokenCount: tokens.length, tokenizerHash };
let files = 0;

async function label(options: Partial<LabelOptions> = {}, of: Uint8Array = tokens) {
  const path = join(folder, `${files++}.lkd`);
  await labelCorpus(path, teacher, of, { vocabSize, k: vocabSize, contextLength: 16, tokenizerHash, ...options });
  return openTeacherCache(path, { ...expected, tokenCount: of.length });
}

/** The teacher's log-probabilities for what follows each token of a text that it sees as a whole, by id. */
function direct(ids: Uint8Array): number[][] {
  return scope(() => {
    const given = tensor(Int32Array.from(ids), { shape: [1, ids.length] });
    const rows = logSoftmax(teacherModel.logits(teacher.params, given)).dataSync();
    return Array.from({ length: ids.length }, (_, t) => [...rows.subarray(t * vocabSize, (t + 1) * vocabSize)]);
  });
}

describe("labelCorpus", () => {
  it("keeps what the teacher says of every token, given what stands before it in its document", async () => {
    const documentStarts = [0, 6, 7, 14];
    const short = text(24);
    await using cache = await label({ documentStarts }, short);
    const { ids, logProbs, tailLogProb } = await cache.read(0, 24);
    for (const [i, start] of documentStarts.entries()) {
      expect([...ids.subarray(start * vocabSize, (start + 1) * vocabSize)]).toEqual(new Array(vocabSize).fill(0));
      const end = documentStarts[i + 1] ?? 24;
      const wanted = direct(short.subarray(start, end));
      for (let at = start + 1; at < end; at++) {
        for (let j = 0; j < vocabSize; j++) {
          const place = at * vocabSize + j;
          const logProb = wanted[at - 1 - start]![ids[place]!]!;
          expect(Math.abs(logProbs![place]! - logProb)).toBeLessThan(2e-4 + 1e-5);
          if (j > 0) expect(logProbs![place]!).toBeLessThanOrEqual(logProbs![place - 1]!);
        }
        expect(tailLogProb![at]).toBe(-24); // nothing is outside of all tokens
      }
    }
  });

  it("keeps all tokens where more are asked for than there are", async () => {
    await using cache = await label({ k: 99 }, text(5));
    expect(cache.header.k).toBe(vocabSize);
  });

  it("moves its window on so that predictions have context, whatever the batches", async () => {
    const options = { k: 4, contextLength: 12, stride: 5 };
    await using one = await label({ ...options, batchSize: 1 });
    await using many = await label({ ...options, batchSize: 7 });
    const [a, b] = [await one.read(0, tokens.length), await many.read(0, tokens.length)];
    expect(b.ids).toEqual(a.ids);
    // Token 14 is the second that the window from 5 on predicts first, with 9 tokens of context.
    const wanted = direct(tokens.subarray(5, 14)).at(-1)!;
    for (let j = 0; j < 4; j++) {
      expect(Math.abs(a.logProbs![14 * 4 + j]! - wanted[a.ids[14 * 4 + j]!]!)).toBeLessThan(3e-4);
    }
    const mass = (at: number) =>
      [0, 1, 2, 3].reduce((sum, j) => sum + Math.exp(a.logProbs![4 * at + j]!), Math.exp(a.tailLogProb![at]!));
    for (let at = 1; at < tokens.length; at++) expect(Math.abs(mass(at) - 1)).toBeLessThan(1e-3);
  });

  it("draws tokens in the teacher's proportions", async () => {
    await using cache = await label({ k: 4000, sampled: true, seed: 3 }, text(3));
    const { ids } = await cache.read(2, 1);
    const wanted = direct(text(2))[1]!;
    for (let id = 0; id < vocabSize; id++) {
      const share = ids.filter((drawn) => drawn === id).length / 4000;
      const p = Math.exp(wanted[id]!);
      expect(Math.abs(share - p)).toBeLessThan(4.5 * Math.sqrt((p * (1 - p)) / 4000));
    }
  });

  it.each([{}, { tail: false }, { sampled: true }])("refuses what a diverged teacher says: %j", async (kept) => {
    const before = readdirSync(folder);
    const wrong = teacherOf();
    const weight = wrong.model.outputWeight(wrong.params);
    scope(() => copyInto(weight, mul(weight, Number.NaN)));
    const path = join(folder, "diverged.lkd");
    const options = { vocabSize, k: 2, contextLength: 16, tokenizerHash, ...kept };
    await expect(labelCorpus(path, wrong, text(9), options)).rejects.toThrow(OptionError);
    expect(readdirSync(folder)).toEqual(before);
  });

  it("refuses options outside their domain and leaves no file", async () => {
    const before = readdirSync(folder);
    await expect(label({ stride: 17 })).rejects.toThrow("stride must be a positive integer of at most 16; received 17");
    await expect(label({ contextLength: 0 })).rejects.toThrow(OptionError);
    await expect(label({ documentStarts: [0, 5, 5] })).rejects.toThrow("received 5 at index 1");
    await expect(label({ documentStarts: [1] })).rejects.toThrow("must begin with 0");
    await expect(label({ signal: AbortSignal.abort(new Error("enough")) })).rejects.toThrow("enough");
    expect(readdirSync(folder)).toEqual(before);
  });
});

describe("withTeacherCache", () => {
  const schedule = { kind: "step", steps: 4 } as const;

  it("hands out the predictions for the targets of each row", async () => {
    await using cache = await label();
    const data = withTeacherCache(textData(), cache);
    const batch = await data.next();
    expect(Object.keys(batch.extras!)).toEqual(["teacherIds", "teacherLogProbs", "teacherTail"]);
    expect(batch.extras!.teacherIds!.shape).toEqual([4, seqLen, vocabSize]);
    for (const [b, origin] of batch.origins!.entries()) {
      const own = await cache.read(origin + 1, seqLen);
      expect([
        ...batch.extras!.teacherIds!.data.subarray(b * seqLen * vocabSize, (b + 1) * seqLen * vocabSize),
      ]).toEqual([...own.ids]);
    }
  });

  it("trains as with the teacher itself where both see the same context", async () => {
    // One window, which begins the text: its rows see what the cache's saw.
    const short = tokens.slice(0, seqLen + 1);
    await using cache = await label({ contextLength: seqLen }, short);
    const source = () => new TokenDataset(short, { seqLen, batchSize: 1, randomPhase: false });
    const online = await trained({ objective: distill({ student, teacher, schedule }), data: source(), steps: 6 });
    const objective = distill({ student, cache: true, schedule });
    const cached = await trained({ objective, data: withTeacherCache(source(), cache), steps: 6 });
    for (const [i, [, loss]] of cached.losses.entries())
      expect(Math.abs(loss - online.losses[i]![1])).toBeLessThan(2e-3);
    expect(cached.losses.slice(0, 4)).not.toEqual(online.losses.slice(0, 4));
  });

  it.each([
    { mode: "renorm", k: 4 },
    { mode: "tail", k: 4 },
    { mode: "sampled", k: 6, sampled: true },
  ] as const)("resumes with the same losses in either stage: $mode", async ({ mode, ...kept }) => {
    await using cache = await label(kept);
    const objective = () => distill({ student, cache: true, schedule, mode });
    const data = () => withTeacherCache(textData(), cache);
    const whole = await trained({ objective: objective(), data: data(), steps: 7 });
    expect(await trained({ objective: objective(), data: data(), steps: 7, captureStep: true })).toEqual(whole);
    for (const cut of [2, 5]) {
      const checkpoint = { directory: join(folder, `${mode}-${cut}`) };
      const first = await trained({ objective: objective(), data: data(), checkpoint, steps: cut });
      const rest = await trained({ objective: objective(), data: data(), checkpoint, steps: 7, resume: true });
      expect([...first.losses, ...rest.losses]).toEqual(whole.losses);
      expect(rest.bits).toEqual(whole.bits);
    }
  });

  it("takes the first tokens of documents from the targets", async () => {
    await using cache = await label({ k: 2, documentStarts: [0, 300] });
    const source = new TokenDataset(tokens, { seqLen: 100, batchSize: 6, randomPhase: false });
    const { targets, origins } = await withTeacherCache(source, cache, { documentStarts: [0, 300] }).next();
    const ignored = [...targets.keys()].filter((at) => targets[at] === -100);
    expect(ignored.map((at) => origins![Math.floor(at / 100)]! + 1 + (at % 100))).toEqual([300]);
  });

  it.each([{ k: 2, tail: false }, { k: 1 }])(
    "refuses targets for which the cache has nothing, since they begin a document: %j",
    async (kept) => {
      await using cache = await label({ ...kept, documentStarts: [0, 300] });
      const source = new TokenDataset(tokens, { seqLen: 100, batchSize: 6, randomPhase: false });
      await expect(withTeacherCache(source, cache).next()).rejects.toThrow(
        "token 300 begins a document in the cache, which has no prediction for it. Give documentStarts, as to labelCorpus.",
      );
    },
  );

  it("refuses sources without places, objectives without predictions, and states of other caches", async () => {
    await using cache = await label({ k: 2 });
    const [batch] = sequentialWindows(tokens, { seqLen, batchSize: 2 });
    const placeless = { next: () => batch!, state: () => ({}), restore: () => undefined };
    await expect(withTeacherCache(placeless, cache).next()).rejects.toThrow("expected batches with origins");
    const objective = distill({ student, cache: true, schedule });
    await expect(trained({ objective, data: textData(), steps: 1 })).rejects.toThrow(
      "Wrap the source in withTeacherCache",
    );
    const data = withTeacherCache(textData(), cache);
    expect(() => data.restore({ ...data.state(), k: 3 })).toThrow("the state has k 3 but this cache has 2");
  });
});

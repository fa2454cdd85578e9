import { FormatError, OptionError } from "@llmeff/native/errors";
import { describe, expect, it } from "vitest";
import { inStages } from "./stages.js";
import { TokenDataset } from "./token-dataset.js";

const tokens = (first: number) => Int32Array.from({ length: 60 }, (_, i) => first + i);
const open = () =>
  inStages([
    { source: new TokenDataset(tokens(0), { seqLen: 4, batchSize: 2, seed: 1 }), batches: 5 },
    { source: new TokenDataset(tokens(100), { seqLen: 4, batchSize: 2, seed: 1 }) },
  ]);

describe("inStages", () => {
  it("hands out the batches of one source, then of the next from its start", async () => {
    const data = open();
    const first = new TokenDataset(tokens(0), { seqLen: 4, batchSize: 2, seed: 1 });
    for (let i = 0; i < 5; i++) expect(await data.next()).toEqual(first.next());
    const second = new TokenDataset(tokens(100), { seqLen: 4, batchSize: 2, seed: 1 });
    for (let i = 0; i < 5; i++) expect(await data.next()).toEqual(second.next());
  });

  it("resumes in either stage and at the border", async () => {
    for (const steps of [0, 3, 5, 8]) {
      const data = open();
      for (let i = 0; i < steps; i++) await data.next();
      const again = open();
      again.restore(JSON.parse(JSON.stringify(data.state())));
      for (let i = 0; i < 7; i++) expect(await again.next()).toEqual(await data.next());
    }
  });

  it("refuses stages without an end before the last, one after it, and damaged states", () => {
    const source = new TokenDataset(tokens(0), { seqLen: 4, batchSize: 2 });
    expect(() => inStages([])).toThrow(OptionError);
    expect(() => inStages([{ source, batches: 2 }])).toThrow("the last stage must have no number of batches");
    expect(() => inStages([{ source }, { source }])).toThrow("stage 0 must have its number of batches");
    const data = open();
    const state = data.state();
    expect(() => data.restore({ ...state, batches: "6,all" })).toThrow(FormatError);
    expect(() => data.restore({ ...state, states: [] })).toThrow("those of 2 sources");
  });
});

import { FormatError, OptionError } from "@llmeff/native/errors";
import { describe, expect, it } from "vitest";
import { SelectedWindows, windowsAt } from "./selected-windows.js";

const tokens = Int32Array.from({ length: 100 }, (_, i) => i);
const starts = [3, 40, 7, 95, 20];
const sizes = { seqLen: 4, batchSize: 2 };

describe("windowsAt", () => {
  it("gives each window once, in the order of the places", () => {
    const batches = [...windowsAt(tokens, starts, sizes)];
    expect(batches.map(({ batchSize }) => batchSize)).toEqual([2, 2, 1]);
    expect(batches.flatMap(({ origins }) => [...origins!])).toEqual(starts);
    expect([...batches[2]!.tokens, ...batches[2]!.targets]).toEqual([20, 21, 22, 23, 21, 22, 23, 24]);
  });

  it("refuses windows outside the text", () => {
    expect(() => windowsAt(tokens, [96], sizes)).toThrow(
      "[windowsAt] a window of 5 tokens must begin in 0..95; received 96.",
    );
    expect(() => windowsAt(tokens, [-1], sizes)).toThrow(OptionError);
    expect([...windowsAt(tokens, [], sizes)]).toEqual([]);
  });
});

describe("SelectedWindows", () => {
  it("visits each window once an epoch, and resumes", () => {
    const data = new SelectedWindows(tokens, starts, { ...sizes, seed: 2 });
    const seen = Array.from({ length: 5 }, () => [...data.next().origins!]).flat();
    expect(seen.slice(0, 5).toSorted((a, b) => a - b)).toEqual(starts.toSorted((a, b) => a - b));
    expect(seen.slice(5).toSorted((a, b) => a - b)).toEqual(starts.toSorted((a, b) => a - b));
    const again = new SelectedWindows(tokens, starts, { ...sizes, seed: 2 });
    again.restore(JSON.parse(JSON.stringify(data.state())));
    for (let i = 0; i < 6; i++) expect(again.next()).toEqual(data.next());
  });

  it("refuses no places, and states of another selection", () => {
    expect(() => new SelectedWindows(tokens, [], sizes)).toThrow(OptionError);
    const data = new SelectedWindows(tokens, starts, sizes);
    expect(() => data.restore(new SelectedWindows(tokens, [3], sizes).state())).toThrow(FormatError);
    expect(() => data.restore({ ...data.state(), index: 6 })).toThrow("beyond the 5 windows");
  });
});

/** Span corruption and packing of models.json. */
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { type ModelsCase as Case, describeGolden } from "../../../test/golden.js";
import {
  corrupt,
  corruptionCounts,
  type Denoiser,
  decoderOnly,
  documentMask,
  packDocuments,
  packedRow,
  spansFromCuts,
} from "../src/index.js";

const denoiser = ({ kind, mu, r }: { kind: Denoiser["kind"]; mu: number | null; r: number }): Denoiser =>
  kind === "S" ? { kind, corruption: r, weight: 1 } : { kind, meanSpan: mu!, corruption: r, weight: 1 };

const runners: Record<string, (golden: Case) => void> = {
  ul2_counts({ params, outputs }) {
    expect(outputs.rows.length).toBeGreaterThan(0);
    for (const row of outputs.rows) {
      expect(corruptionCounts(params.length, denoiser(row))).toEqual({ noise: row.noise, spans: row.spans });
    }
  },
  ul2_corrupt({ params, inputs, outputs }) {
    const tokens = Int32Array.from(inputs.tokens);
    const { noise, spans } = corruptionCounts(tokens.length, denoiser(params));
    expect(inputs.noise_cuts).toHaveLength(spans - 1);
    const hidden = spansFromCuts(tokens.length, noise, inputs.noise_cuts, inputs.nonnoise_cuts);
    expect(hidden).toEqual(outputs.spans);
    const corrupted = corrupt(tokens, hidden, {
      sentinels: { first: params.sentinel0, step: params.sentinel_step, count: 100 },
      mode: params.mode_id,
      eos: params.eos,
    });
    expect([...corrupted.inputs]).toEqual(outputs.inputs);
    expect([...corrupted.targets]).toEqual(outputs.targets);
    const example = decoderOnly(corrupted.inputs, corrupted.targets, { bos: params.bos });
    expect([...example.tokens]).toEqual(outputs.decoder_only.tokens);
    expect([...example.targets]).toEqual(outputs.decoder_only.labels);
    expect(example.prefixLength).toBe(outputs.decoder_only.prefix_len);
  },
  packing({ params, inputs, outputs }) {
    expect(packDocuments(inputs.lengths, params.seq_len, "greedy")).toEqual(outputs.greedy);
    expect(packDocuments(inputs.lengths, params.seq_len, "firstFit")).toEqual(outputs.ffd);
  },
  packed_row({ params, inputs, outputs }) {
    const row = packedRow(inputs.doc_lengths, params.seq_len);
    expect([...row.documents]).toEqual(outputs.doc_ids);
    expect([...row.positions]).toEqual(outputs.positions);
    expect([...row.cumulativeLengths]).toEqual(outputs.cu_seqlens);
    expect([...row.hasNext]).toEqual(outputs.label_valid);
    expect([...documentMask(row.documents)]).toEqual(outputs.mask.data);
  },
};

describeGolden("models.json", (path) => {
  const { cases } = JSON.parse(readFileSync(path, "utf8")) as { cases: Case[] };
  const own = cases.filter(({ op }) => op in runners);
  it("has cases of every kind that runs here", () =>
    expect(new Set(own.map(({ op }) => op))).toEqual(new Set(Object.keys(runners))));
  it.each(own)("$id", (golden) => runners[golden.op]!(golden));
});

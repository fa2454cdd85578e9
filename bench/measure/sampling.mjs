/** Probabilities of the next token and a draw, as generation does it and by a sort of all tokens, in turn. */
import { drawToken, resolveSampling, tokenProbabilities } from "@llmeff/models";
import { childOptions, emit, expect } from "../lib/child.mjs";
import { rng } from "../lib/gpt.mjs";
import { median } from "../lib/timing.mjs";

const { V, rounds } = childOptions();
const next = rng(1);
const normal = () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
const scores = {
  "nearly flat": Float32Array.from({ length: V }, () => 0.05 * normal()),
  "of spread 1": Float32Array.from({ length: V }, normal),
  "of spread 4": Float32Array.from({ length: V }, () => 4 * normal()),
  equal: new Float32Array(V),
};
const filters = { none: {}, "top-p 0.9": { topP: 0.9 }, "top-k 50": { topK: 50 }, "min-p 0.05": { minP: 0.05 } };

/** By the definitions. */
function bySorting(logits, { topK = V, topP = 1, minP = 0 }) {
  const order = Uint32Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b);
  const highest = logits[order[0]];
  const least = logits[order[Math.min(topK, V) - 1]];
  const weights = Float64Array.from(logits, (z) => (z < least ? 0 : Math.exp(z - highest)));
  const target = topP * weights.reduce((a, b) => a + b, 0);
  let before = 0;
  for (const id of order) {
    const weight = weights[id];
    if ((topP < 1 && before >= target) || weight < minP) weights[id] = 0;
    before += weight;
  }
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / total);
}

for (const [name, logits] of Object.entries(scores)) {
  for (const [filter, options] of Object.entries(filters)) {
    const resolved = resolveSampling(options);
    const into = new Float64Array(V);
    const ours = () => tokenProbabilities(logits, resolved, {}, into);
    const sorted = bySorting(logits, options);
    expect(
      ours().every((p, id) => Math.abs(p - sorted[id]) < 1e-9),
      `${filter} of scores ${name}`,
    );
    const times = [[], []];
    for (let i = 0; i < rounds; i++) {
      for (const [way, work] of [ours, () => bySorting(logits, options)].entries()) {
        const start = performance.now();
        drawToken(work(), 0.77);
        times[way].push(performance.now() - start);
      }
    }
    emit({ scores: name, filters: filter, V, rounds, ms: median(times[0]), sortMs: median(times[1]) });
  }
}

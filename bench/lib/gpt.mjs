/** The training step that we and the peers are measured with: one size, one stream of batches, one count of operations. */

export const full = { layers: 4, d: 256, heads: 4, T: 256, B: 8, vocab: 4096, lr: 3e-4 };
export const tiny = { layers: 1, d: 32, heads: 2, T: 16, B: 2, vocab: 64, lr: 3e-3 };

/** mulberry32: the same numbers in every library, so that losses can be compared. */
export function rng(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Tokens that follow `x → (5x + 17) mod vocab` with a tenth of noise: learnable without a file. `[B·T]` each. */
export function batch(step, { B, T, vocab }) {
  const next = rng(1000 + step);
  const tokens = new Int32Array(B * T);
  const targets = new Int32Array(B * T);
  for (let b = 0; b < B; b++) {
    let token = Math.floor(next() * vocab);
    for (let t = 0; t < T; t++) {
      tokens[b * T + t] = token;
      token = next() < 0.1 ? Math.floor(next() * vocab) : (5 * token + 17) % vocab;
      targets[b * T + t] = token;
    }
  }
  return { tokens, targets };
}

/** The peers' feed-forward layers have two matrices of `d × 4d`; ours three of `d × ffn`: as many weights, rounded up to a multiple of 8. */
export const ffnDim = (d) => Math.ceil((d * 8) / 3 / 8) * 8;

/** Our model of a size; `ffn` where it isn't as wide as the peers'. */
export const modelConfig = ({ layers, d, heads, T, vocab, ffn = ffnDim(d) }) => ({
  ...{ vocabSize: vocab, dModel: d, numLayers: layers, numHeads: heads },
  ...{ ffnDim: ffn, maxSeqLen: T },
});

/** Operations of a step as they are usually counted: 6 a weight and token, and attention over the whole square. */
export function stepFlops({ layers, d, T, B, vocab }, feedForward) {
  const weights = layers * (4 * d * d + feedForward) + d * vocab;
  return 6 * weights * B * T + layers * 12 * B * T * T * d;
}

function normal(shape, deviation, next) {
  const out = new Float32Array(shape.reduce((a, b) => a * b, 1));
  for (let i = 0; i < out.length; i++)
    out[i] = deviation * Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
  return out;
}

/** The peers' parameters: pre-LN, learned positions, GELU, no biases, untied head. `{ name: { shape, data } }` */
export function initialParameters({ layers, d, T, vocab }) {
  const next = rng(1);
  const parameters = {};
  const add = (name, shape, deviation) => {
    parameters[name] = { shape, data: normal(shape, deviation, next) };
  };
  const ones = (name) => {
    parameters[name] = { shape: [d], data: new Float32Array(d).fill(1) };
  };
  add("wte", [vocab, d], 0.02);
  add("wpe", [T, d], 0.02);
  for (let l = 0; l < layers; l++) {
    ones(`ln1.${l}`);
    add(`qkv.${l}`, [d, 3 * d], 0.02);
    add(`proj.${l}`, [d, d], 0.02 / Math.sqrt(2 * layers));
    ones(`ln2.${l}`);
    add(`fc.${l}`, [d, 4 * d], 0.02);
    add(`out.${l}`, [4 * d, d], 0.02 / Math.sqrt(2 * layers));
  }
  ones("lnf");
  add("head", [d, vocab], 0.02);
  return parameters;
}

/** The additive causal mask `[T·T]`. */
export function causalMask(T) {
  return Float32Array.from({ length: T * T }, (_, i) => (i % T > Math.floor(i / T) ? -1e9 : 0));
}

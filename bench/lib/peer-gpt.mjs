/**
 * The GPT of the peers (`initialParameters` in gpt.mjs) in our library: pre-LN with weights only, learned positions, causal attention, GELU
 * layers, no biases, an untied head. The same first parameters and batches give the same losses in every library.
 *
 * Matrices are kept as `[out, in]`, the layout of `linear`; the peers multiply by `[in, out]`.
 */
import {
  add,
  addLayerNorm,
  argMax,
  attention,
  copyInto,
  embedding,
  layerNorm,
  linear,
  linearCrossEntropy,
  reshape,
  scope,
  slice,
  split,
  tensor,
  zeros,
} from "@llmeff/tensor";
import { initialParameters } from "./gpt.mjs";

const isMatrixOfALayer = (name) => !/^(wte|wpe|ln)/.test(name);

function transposed(data, [rows, columns]) {
  return Float32Array.from(data, (_, i) => data[(i % rows) * columns + Math.floor(i / rows)]);
}

export function peerParameters(size) {
  const entries = Object.entries(initialParameters(size)).map(([name, { shape, data }]) => [
    name,
    isMatrixOfALayer(name) ? tensor(transposed(data, shape), { shape: shape.toReversed() }) : tensor(data, { shape }),
  ]);
  return Object.fromEntries(entries);
}

/** Queries, keys and values `[B, T, H, D]`, as views of their common projection. */
function splitHeads(qkv, heads) {
  const [B, T] = qkv.shape;
  return split(reshape(qkv, [B, T, 3 * heads, -1]), 3, 2);
}

/**
 * The last hidden states, normed.
 *
 * @param position - of the first token
 * @param attend - attention of layer `l` on its queries, keys and values
 */
function hidden(p, tokens, { heads, layers }, position, attend) {
  const [B, T] = tokens.shape;
  const x = add(embedding(p.wte, tokens), slice(p.wpe, 0, position, position + T));
  let [stream, normed] = [x, layerNorm(x, p["ln1.0"])];
  for (let l = 0; l < layers; l++) {
    const mixed = attend(l, ...splitHeads(linear(normed, p[`qkv.${l}`]), heads));
    [stream, normed] = addLayerNorm(stream, linear(reshape(mixed, [B, T, -1]), p[`proj.${l}`]), p[`ln2.${l}`]);
    const wide = linear(normed, p[`fc.${l}`], undefined, { activation: "gelu" });
    [stream, normed] = addLayerNorm(stream, linear(wide, p[`out.${l}`]), p[`ln1.${l + 1}`] ?? p.lnf);
  }
  return normed;
}

/** Mean cross-entropy of a batch `{ tokens, targets }`, each `[B, T]`. */
export function peerLoss(p, { tokens, targets }, size) {
  const states = hidden(p, tokens, size, 0, (_layer, q, k, v) => attention(q, k, v));
  return linearCrossEntropy(states, p.head, targets);
}

/** Greedy decoding of one sequence with a cache of keys and values. */
export class PeerDecoder {
  #cache;
  #length = 0;

  constructor(params, size) {
    const { layers, heads, d, T } = size;
    Object.assign(this, { params, size });
    const rows = () => zeros([1, T, heads, d / heads]);
    this.#cache = Array.from({ length: layers }, () => ({ k: rows(), v: rows() }));
  }

  /** The likeliest token after `tokens` `[1, n]`, as `[1, 1]`: it can be the next input before anybody has read it. */
  next(tokens) {
    return scope(() => {
      const [start, end] = [this.#length, this.#length + tokens.shape[1]];
      const states = hidden(this.params, tokens, this.size, start, (layer, q, k, v) => {
        const cache = this.#cache[layer];
        copyInto(slice(cache.k, 1, start, end), k);
        copyInto(slice(cache.v, 1, start, end), v);
        return attention(q, slice(cache.k, 1, 0, end), slice(cache.v, 1, 0, end));
      });
      this.#length = end;
      return argMax(linear(slice(states, 1, -1), this.params.head), { axis: -1 });
    });
  }

  dispose() {
    for (const { k, v } of this.#cache) {
      k.dispose();
      v.dispose();
    }
  }
}

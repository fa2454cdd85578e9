/**
 * The forward pass of a dense dot-product model in plain loops over float64 numbers: what `Transformer` must compute, written from the formulas of
 * models.md §2 and not from its code.
 */
import { ropeFrequencies, type Tensor } from "@llmeff/tensor";
import type { ResolvedConfig } from "../src/index.js";

type Row = number[];

export class PlainTransformer {
  readonly #values = new Map<string, { shape: readonly number[]; data: ArrayLike<number> }>();

  constructor(
    private readonly config: ResolvedConfig,
    params: Record<string, Tensor>,
  ) {
    for (const [name, x] of Object.entries(params)) this.#values.set(name, { shape: x.shape, data: x.dataSync() });
  }

  /** Scores of one sequence, `[T][V]`. */
  logits(ids: readonly number[]): Row[] {
    const { config } = this;
    let xs = ids.map((id, t) => {
      const token = this.#row("model.embed_tokens.weight", id).map((x) => x * config.embeddingScale);
      if (config.positions === "rotary") return token;
      return plus(token, this.#row("model.embed_positions.weight", t));
    });
    for (let layer = 0; layer < config.layers.length; layer++) xs = this.#block(layer, xs);
    const table = config.tieEmbeddings ? "model.embed_tokens.weight" : "lm_head.weight";
    const cap = config.finalSoftcap;
    return xs.map((x) => {
      const last = config.block === "post" ? x : this.#norm("model.norm", x);
      const scores = this.#times(table, last).map((z) => z / (config.mup ? config.dModel / config.mup.baseWidth : 1));
      return scores.map((z) => (cap > 0 ? cap * Math.tanh(z / cap) : z));
    });
  }

  #block(layer: number, xs: Row[]): Row[] {
    const at = `model.layers.${layer}`;
    const norm = (name: string) => (x: Row) => this.#norm(`${at}.${name}_layernorm`, x);
    const attention = (rows: Row[]) => this.#attention(layer, rows);
    const wide = (x: Row) => this.#feedForward(at, x);
    switch (this.config.block) {
      case "pre": {
        const mixed = attention(xs.map(norm("input"))).map((y, t) => plus(xs[t]!, y));
        return mixed.map((x) => plus(x, wide(norm("post_attention")(x))));
      }
      case "sandwich": {
        const mixed = attention(xs.map(norm("input"))).map((y, t) => plus(xs[t]!, norm("post_attention")(y)));
        return mixed.map((x) => plus(x, norm("post_feedforward")(wide(norm("pre_feedforward")(x)))));
      }
      case "parallel": {
        const inputs = xs.map(norm("input"));
        return attention(inputs).map((y, t) => plus(plus(xs[t]!, y), wide(inputs[t]!)));
      }
      case "post": {
        const mixed = attention(xs).map((y, t) => norm("post_attention")(plus(xs[t]!, y)));
        return mixed.map((x) => norm("post_feedforward")(plus(x, wide(x))));
      }
    }
  }

  #attention(index: number, xs: Row[]): Row[] {
    const { numHeads, headDim, attentionScale, attentionSoftcap } = this.config;
    const layer = this.config.layers[index]!;
    const at = `model.layers.${index}.self_attn`;
    const heads = (name: string, turn: boolean) =>
      xs.map((x, t) => {
        const all = this.#linear(`${at}.${name}_proj`, x);
        const split = Array.from({ length: all.length / headDim }, (_, h) => all.slice(h * headDim, (h + 1) * headDim));
        const normed = layer.qkNorm && turn ? split.map((head) => this.#rms(`${at}.${name}_norm`, head)) : split;
        return turn && layer.rope ? normed.map((head) => this.#turned(head, t, xs.length)) : normed;
      });
    const [q, k, v] = [heads("q", true), heads("k", true), heads("v", false)];
    const { window = xs.length, scaleFrom = Number.POSITIVE_INFINITY } = layer.kind === "dot" ? layer : {};
    return xs.map((_, t) => {
      const sharpness = Math.max(1, Math.log(t + 1) / Math.log(scaleFrom));
      const mixed = q[t]!.flatMap((query, h) => {
        const group = Math.floor((h * layer.numKvHeads) / numHeads);
        const seen = Array.from({ length: t + 1 }, (_, s) => s).filter((s) => s > t - window);
        const scores = seen.map((s) => {
          const score = sharpness * attentionScale * dot(query, k[s]![group]!);
          return attentionSoftcap > 0 ? attentionSoftcap * Math.tanh(score / attentionSoftcap) : score;
        });
        const largest = Math.max(...scores);
        const weights = scores.map((score) => Math.exp(score - largest));
        const total = weights.reduce((a, b) => a + b, 0);
        return query.map((_, d) => seen.reduce((sum, s, i) => sum + (weights[i]! / total) * v[s]![group]![d]!, 0));
      });
      return this.#linear(`${at}.o_proj`, mixed);
    });
  }

  #turned(head: Row, position: number, length: number): Row {
    const { rotaryDim, ropeBase: base, ropeScaling: scaling, ropeInterleaved, positions } = this.config;
    if (positions === "learned" || rotaryDim === 0) return head;
    const { frequencies, attentionFactor } = ropeFrequencies(rotaryDim, { base, length, ...(scaling && { scaling }) });
    const out = [...head];
    for (let i = 0; i < rotaryDim / 2; i++) {
      const [a, b] = ropeInterleaved ? [2 * i, 2 * i + 1] : [i, i + rotaryDim / 2];
      const [cos, sin] = [Math.cos, Math.sin].map((f) => attentionFactor * f(position * frequencies[i]!)) as [
        number,
        number,
      ];
      out[a] = head[a]! * cos - head[b]! * sin;
      out[b] = head[b]! * cos + head[a]! * sin;
    }
    return out;
  }

  #feedForward(at: string, x: Row): Row {
    const { feedForward } = this.config;
    const up = this.#linear(`${at}.mlp.up_proj`, x);
    const gate =
      feedForward === "swiglu" || feedForward === "geglu" ? this.#linear(`${at}.mlp.gate_proj`, x) : undefined;
    const units: Record<typeof feedForward, (u: number, i: number) => number> = {
      swiglu: (u, i) => (gate![i]! / (1 + Math.exp(-gate![i]!))) * u,
      geglu: (u, i) => geluTanh(gate![i]!) * u,
      gelu: geluTanh,
      geluErf: (u) => (u / 2) * (1 + erf(u / Math.SQRT2)),
      relu2: (u) => Math.max(u, 0) ** 2,
    };
    const inner = up.map(units[feedForward]);
    return this.#linear(`${at}.mlp.down_proj`, inner);
  }

  #norm(name: string, x: Row): Row {
    if (this.config.norm === "rms") return this.#rms(name, x);
    const mean = x.reduce((a, b) => a + b, 0) / x.length;
    const variance = x.reduce((sum, a) => sum + (a - mean) ** 2, 0) / x.length;
    const [weight, bias] = [this.#vector(`${name}.weight`), this.#vector(`${name}.bias`)];
    return x.map((a, i) => ((a - mean) / Math.sqrt(variance + this.config.normEps)) * weight[i]! + bias[i]!);
  }

  #rms(name: string, x: Row): Row {
    const weight = this.#vector(`${name}.weight`);
    const scale = 1 / Math.sqrt(dot(x, x) / x.length + this.config.normEps);
    return x.map((a, i) => a * scale * ((this.config.normPlusOne ? 1 : 0) + weight[i]!));
  }

  #linear(name: string, x: Row): Row {
    const y = this.#times(`${name}.weight`, x);
    return this.#values.has(`${name}.bias`) ? plus(y, this.#vector(`${name}.bias`)) : y;
  }

  #times(name: string, x: Row): Row {
    const rows = this.#values.get(name)!.shape[0]!;
    return Array.from({ length: rows }, (_, row) => dot(this.#row(name, row), x));
  }

  #row(name: string, row: number): Row {
    const { shape, data } = this.#values.get(name)!;
    return Array.from({ length: shape[1]! }, (_, i) => data[row * shape[1]! + i]!);
  }

  #vector(name: string): Row {
    return Array.from(this.#values.get(name)!.data);
  }
}

const dot = (a: Row, b: Row) => a.reduce((sum, x, i) => sum + x * b[i]!, 0);
const plus = (a: Row, b: Row) => a.map((x, i) => x + b[i]!);

function geluTanh(x: number): number {
  return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
}

/** The error function by its series, which converges everywhere; exact to rounding for the arguments of a small model. */
function erf(x: number): number {
  let term = x;
  let total = x;
  for (let n = 1; n < 200; n++) {
    term *= -(x * x) / n;
    total += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * total;
}

/** Running averages of the Kronecker factors of gradients, and their eigenvalues. */
import { astype, eigh, matmul, scope, stack, transpose } from "@llmeff/tensor";

/** `L = EMA(G Gᵀ)` ("outputs", `[N, m, m]`) and `R = EMA(Gᵀ G)` ("inputs", `[N, n, n]`) of N matrices of one shape. */
class Factors {
  #averages = {};

  constructor(names, beta2) {
    this.names = names;
    this.beta2 = beta2;
  }

  add(grads) {
    const next = scope(() => {
      const g = stack(grads);
      const averaged = (side, a, b) => {
        const fresh = matmul(a, b).mul(1 - this.beta2);
        const old = this.#averages[side];
        return old === undefined ? fresh : old.mul(this.beta2).add(fresh);
      };
      return { outputs: averaged("outputs", g, transpose(g)), inputs: averaged("inputs", transpose(g), g) };
    });
    this.dispose();
    this.#averages = next;
  }

  async *spectra() {
    for (const [side, average] of Object.entries(this.#averages)) {
      const values = scope(() => eigh(astype(average, "float64")).values);
      const size = values.shape[1];
      const data = await values.data();
      values.dispose();
      for (const [i, name] of this.names.entries()) {
        yield { name, side, values: data.slice(i * size, (i + 1) * size).reverse() };
      }
    }
  }

  dispose() {
    for (const average of Object.values(this.#averages)) average.dispose();
  }
}

/** The factors of many matrices. */
export class KroneckerFactors {
  #groups;

  constructor(beta2) {
    this.beta2 = beta2;
  }

  /** @param grads - by name, the same ones every time */
  add(grads) {
    if (this.#groups === undefined) {
      const byShape = new Map();
      for (const [name, { shape }] of Object.entries(grads)) {
        const key = shape.join();
        byShape.set(key, [...(byShape.get(key) ?? []), name]);
      }
      this.#groups = [...byShape.values()].map((names) => new Factors(names, this.beta2));
    }
    for (const group of this.#groups) group.add(group.names.map((name) => grads[name]));
  }

  /** `{ name, side, values }` of every factor, eigenvalues descending, in float64. */
  async *spectra() {
    for (const group of this.#groups) yield* group.spectra();
  }

  dispose() {
    for (const group of this.#groups) group.dispose();
  }
}

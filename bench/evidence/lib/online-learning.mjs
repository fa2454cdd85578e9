/**
 * Online logistic regression: at every step an example comes, the loss of the present weights on it is counted, and they are stepped by its
 * gradient. Several learners see one stream together.
 */
import {
  abs,
  astype,
  greater,
  lessEqual,
  matmul,
  scope,
  sigmoid,
  sigmoidCrossEntropy,
  stack,
  tensor,
  where,
  zeros,
} from "@llmeff/tensor";

/** Weights beyond this have diverged: their learner isn't stepped any more, and its loss is infinite. */
const largestWeight = 1e6;

/** Steps that are queued before any is waited for. */
const queued = 50;

/** Learners of one transform, which get its updates times their own `rates`. */
class Learners {
  constructor({ transform, rates }, size) {
    this.transform = transform;
    this.rates = tensor(Float32Array.from(rates), { shape: [rates.length, 1] });
    this.weights = zeros([rates.length, size]);
    this.sums = zeros([2, rates.length]);
    this.state = transform.init(this.#rows(this.weights));
  }

  #rows(x) {
    const [count, size] = x.shape;
    return Object.fromEntries(Array.from({ length: count }, (_, i) => [i, x.slice(0, i, i + 1).reshape([size])]));
  }

  /** @param x - `[size]`; @param y - `[1]`, 0 or 1 */
  step(x, y) {
    const before = [this.weights, this.sums, this.state];
    const next = scope(() => {
      const logits = matmul(this.weights, x);
      const alive = lessEqual(abs(this.weights).max({ axis: -1 }), largestWeight);
      const targets = y.mul(logits.mul(0).add(1));
      const loss = where(alive, sigmoidCrossEntropy(logits, targets, { reduction: "none" }), Number.POSITIVE_INFINITY);
      const mistakes = abs(astype(greater(logits, 0), "float32").sub(targets));
      const slopes = sigmoid(logits).sub(targets).unsqueeze(-1);
      const grads = where(alive.unsqueeze(-1), slopes.mul(x.unsqueeze(0)), 0);
      const { updates, state } = this.transform.update(this.#rows(grads), this.state, this.#rows(this.weights));
      const direction = stack(Object.values(updates)).mul(this.rates);
      return {
        weights: where(alive.unsqueeze(-1), this.weights.add(direction), this.weights),
        sums: this.sums.add(stack([loss, mistakes])),
        state,
      };
    });
    disposeAll(before);
    Object.assign(this, next);
  }

  dispose() {
    disposeAll([this.rates, this.weights, this.sums, this.state]);
  }
}

function disposeAll(tree) {
  if (typeof tree?.dispose === "function") tree.dispose();
  else if (typeof tree === "object" && tree !== null) for (const part of Object.values(tree)) disposeAll(part);
}

/**
 * Cumulative losses and mistakes of each learner of each group, after each of `points` equal parts of the stream:
 * `result[group][learner] = { losses, mistakes }`.
 */
export async function learnOnline(groups, { x, y, size }, points) {
  const learners = groups.map((group) => new Learners(group, size));
  const results = groups.map(({ rates }) => rates.map(() => ({ losses: [], mistakes: [] })));
  const examples = tensor(x, { shape: [y.length, size] });
  const labels = tensor(y);
  const every = y.length / points;
  for (let t = 0; t < y.length; t++) {
    const views = [examples.slice(0, t, t + 1).reshape([size]), labels.slice(0, t, t + 1)];
    for (const one of learners) one.step(...views);
    for (const view of views) view.dispose();
    if ((t + 1) % queued === 0) await learners.at(-1).sums.data();
    if (Math.floor((t + 1) / every) === Math.floor(t / every)) continue;
    for (const [g, { sums }] of learners.entries()) {
      const data = await sums.data();
      for (const [i, result] of results[g].entries()) {
        result.losses.push(data[i]);
        result.mistakes.push(data[results[g].length + i]);
      }
    }
  }
  for (const one of [...learners, examples, labels]) one.dispose();
  return results;
}

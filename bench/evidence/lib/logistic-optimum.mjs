/** The fixed weights that would have had the least logistic loss on a whole stream, by Newton's method in float64. */
import {
  add,
  cholesky,
  choleskySolve,
  eye,
  matmul,
  scope,
  sigmoid,
  sigmoidCrossEntropy,
  sub,
  tensor,
  zeros,
} from "@llmeff/tensor";

/** Of the mean loss: keeps directions that no example has from being singular, and changes no digit that is shown. */
const ridge = 1e-8;
const smallestStep = 1e-9;

/** Cumulative losses and mistakes of those weights after each of `points` equal parts of the stream. */
export async function bestInHindsight({ x, y, size }, points) {
  const examples = tensor(Float64Array.from(x), { shape: [y.length, size] });
  const labels = tensor(Float64Array.from(y));
  const objective = (w) =>
    scope(() => {
      const losses = sigmoidCrossEntropy(matmul(examples, w), labels, { reduction: "mean" });
      return losses.add(
        w
          .square()
          .sum()
          .mul(ridge / 2),
      );
    });
  let w = zeros([size], { dtype: "float64" });
  let value = await objective(w).item();
  for (let iteration = 0; iteration < 100; iteration++) {
    const direction = newtonStep(examples, labels, w);
    // Halved until the objective falls: far from the optimum a full step can be too long.
    let length = 1;
    let next = scope(() => sub(w, direction));
    let nextValue = await objective(next).item();
    while (!(nextValue <= value) && length > smallestStep) {
      length /= 2;
      next.dispose();
      next = scope(() => sub(w, direction.mul(length)));
      nextValue = await objective(next).item();
    }
    direction.dispose();
    const gained = value - nextValue;
    if (!(gained > 0)) break;
    w.dispose();
    [w, value] = [next, nextValue];
    if (gained < 1e-10) break;
  }
  return cumulative(examples, labels, w, points);
}

/** `H⁻¹ g` of the regularised mean loss. */
function newtonStep(examples, labels, w) {
  return scope(() => {
    const [count, size] = examples.shape;
    const p = sigmoid(matmul(examples, w));
    const gradient = matmul(examples.T, sub(p, labels))
      .mul(1 / count)
      .add(w.mul(ridge));
    const weighted = examples.mul(p.mul(sub(1, p)).unsqueeze(-1));
    const hessian = add(
      matmul(examples.T, weighted).mul(1 / count),
      eye(size, undefined, { dtype: "float64" }).mul(ridge),
    );
    return choleskySolve(cholesky(hessian), gradient.unsqueeze(-1)).squeeze(-1);
  });
}

async function cumulative(examples, labels, w, points) {
  const logits = scope(() => matmul(examples, w));
  const perExample = scope(() => sigmoidCrossEntropy(logits, labels, { reduction: "none" }));
  const [loss, z, y] = [await perExample.data(), await logits.data(), await labels.data()];
  for (const x of [logits, perExample, examples, labels, w]) x.dispose();
  const result = { losses: [], mistakes: [] };
  let [sum, wrong] = [0, 0];
  for (let t = 0; t < y.length; t++) {
    sum += loss[t];
    wrong += Number(z[t] > 0 !== y[t] > 0.5);
    if (Math.floor(((t + 1) * points) / y.length) > Math.floor((t * points) / y.length)) {
      result.losses.push(sum);
      result.mistakes.push(wrong);
    }
  }
  return result;
}

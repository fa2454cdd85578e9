/** A loop of one small operation, its results dropped: the time until the last call has returned, and until all have run. */
import { engine } from "@llmeff/native";
import { add, exp, mul, ones, reshape, scope, softmax } from "@llmeff/tensor";
import { childOptions, emit, expect } from "../lib/child.mjs";

const { count, samples } = childOptions();
const { isa, numThreads: threads } = engine().info();
const [a, b, rows, row] = [ones([16]), ones([16]), ones([4, 4]), ones([4])];

const operations = {
  add: () => add(a, b),
  "add, broadcast": () => add(rows, row),
  "mul by a number": () => mul(a, 2),
  exp: () => exp(a),
  softmax: () => softmax(rows),
  reshape: () => reshape(a, [4, 4]),
};

function measured(call) {
  let jsMicroseconds = Number.POSITIVE_INFINITY;
  let microseconds = Number.POSITIVE_INFINITY;
  for (let sample = 0; sample < samples; sample++) {
    const start = performance.now();
    const called = scope(() => {
      for (let i = 0; i < count; i++) call();
      return performance.now() - start;
    });
    a.dataSync();
    const ran = performance.now() - start;
    jsMicroseconds = Math.min(jsMicroseconds, (1e3 * called) / count);
    microseconds = Math.min(microseconds, (1e3 * ran) / count);
  }
  return { jsMicroseconds, microseconds };
}

/** Each operation takes the result of the one before, as the layers of a model that generates do. */
function chain() {
  let x = a;
  return () => {
    x = x.disposed ? a : x;
    x = add(x, b);
    return x;
  };
}

expect(
  scope(() => add(a, b).dataSync()).every((x) => x === 2),
  "1 + 1",
);
for (const [name, call] of Object.entries({ ...operations, "add, chained": chain() }))
  emit({ name, isa, threads, count, ...measured(call) });

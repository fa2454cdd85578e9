/** Square matrix products of jax-js on its wasm device. */
import { blockUntilReady, defaultDevice, init, numpy as np } from "@jax-js/jax";
import { childOptions, emit } from "../lib/child.mjs";
import { time } from "../lib/timing.mjs";

const { sizes, samples, sampleMs } = childOptions();
await init("wasm"); // plain init() needs the `navigator` global, absent in Node 20
defaultDevice("wasm");
for (const n of sizes) {
  const values = (period) =>
    np.array(Float32Array.from({ length: n * n }, (_, i) => (i % period) * 0.1)).reshape([n, n]);
  const [a, b] = [values(7), values(5)];
  // A use without .ref consumes an array.
  const work = async (count) => {
    for (let i = 0; i < count; i++) {
      const c = np.matmul(a.ref, b.ref);
      await blockUntilReady(c.ref);
      c.dispose();
    }
  };
  const { best } = await time(work, { samples: Math.min(samples, 4), sampleMs });
  emit({ library: "jax-js wasm", n, gflops: (2 * n ** 3) / best / 1e9 });
}
process.exit(0);

/** Handwritten characters for the examples: Omniglot, ten alphabets (datasets/LICENSES.md), as 14 × 14 grey values in [0, 1]. */
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";

const path = new URL("../datasets/omniglot10-images-idx3-ubyte.gz", import.meta.url);
const side = 14;
export const pixels = side * side;

/** mulberry32: the same numbers in every run. */
export function random(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Images in an order of their own, 4 pixels averaged to one: `{ train, valid, test }`, each a list of `Float32Array(196)`. */
export function loadImages() {
  const file = gunzipSync(readFileSync(path)); // IDX: 16 bytes of sizes, then 28 · 28 bytes an image
  const images = Array.from({ length: file.readUInt32BE(4) }, (_, n) => {
    const at = (y, x) => file[16 + 784 * n + 28 * y + x];
    return Float32Array.from({ length: pixels }, (_, i) => {
      const [y, x] = [2 * Math.floor(i / side), 2 * (i % side)];
      return (at(y, x) + at(y, x + 1) + at(y + 1, x) + at(y + 1, x + 1)) / (4 * 255);
    });
  });
  const next = random(1);
  for (let i = images.length - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1));
    [images[i], images[j]] = [images[j], images[i]];
  }
  return { test: images.slice(0, 250), valid: images.slice(250, 500), train: images.slice(500) };
}

/** `count` of the images, drawn with the numbers of `next`, one after the other in one array. */
export function batchOf(images, count, next) {
  const batch = new Float32Array(count * pixels);
  for (let i = 0; i < count; i++) batch.set(images[Math.floor(next() * images.length)], i * pixels);
  return batch;
}

/** All images in one array. */
export function together(images) {
  const all = new Float32Array(images.length * pixels);
  for (const [i, image] of images.entries()) all.set(image, i * pixels);
  return all;
}

/**
 * Trains with every optimizer at every learning rate and prints the losses; of each optimizer the rate with the least validation loss counts. All
 * have equally many rates to choose from.
 *
 * @param run - trains from scratch and returns `{ valid, test }`, the losses at the end
 */
export async function compare(optimizers, rates, run) {
  for (const name of optimizers) {
    const results = [];
    for (const rate of rates) {
      const losses = await run(name, rate);
      results.push({ rate, ...losses });
      console.log(`${name} at ${rate}: validation loss ${losses.valid.toFixed(4)}`);
    }
    // A rate that diverged has NaN, which is less than nothing.
    const best = results.reduce((a, b) => (b.valid < a.valid || Number.isNaN(a.valid) ? b : a));
    console.log(`${name}: test loss ${best.test.toFixed(4)} at its best rate, ${best.rate}\n`);
  }
}

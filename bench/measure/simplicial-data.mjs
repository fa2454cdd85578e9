/** Writes inputs and output of 2-simplicial attention to a file of float32, for peers to check their results against. */
import { writeFileSync } from "node:fs";
import { randomNormal, simplicialAttention } from "@llmeff/tensor";
import { childOptions, emit } from "../lib/child.mjs";

const { shape, path } = childOptions();
const { B, T, H, K, D, w1, w2 } = shape;
const keys = [B, T, K, D];
const inputs = [[B, T, H, D], keys, keys, keys, keys].map((s, i) => randomNormal({ seed: 1, stream: i }, s));
const out = simplicialAttention(...inputs, { w1, w2 });
const arrays = [...inputs, out].map((x) => x.dataSync());
writeFileSync(path, Buffer.concat(arrays.map((x) => Buffer.from(x.buffer, x.byteOffset, x.byteLength))));
emit({ elements: arrays.reduce((sum, x) => sum + x.length, 0) });

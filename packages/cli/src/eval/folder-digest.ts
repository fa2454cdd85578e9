import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";

/** Of a training checkpoint what says how to go on; its answers don't depend on it. */
const ofTraining: ReadonlySet<string> = new Set(["optimizer.safetensors", "state.json"]);

/** SHA-256 over the names and contents of the files of a model's folder that its answers may depend on: weights, config, tokenizer and chat template. */
export async function folderDigest(folder: string): Promise<string> {
  const names = (await readdir(folder)).filter((name) => /\.(?:safetensors|json|jinja)$/.test(name));
  const hash = createHash("sha256");
  for (const name of names.filter((name) => !ofTraining.has(name)).sort()) {
    const path = join(folder, name);
    hash.update(`${name}\n${(await stat(path)).size}\n`);
    for await (const piece of createReadStream(path, { highWaterMark: 2 ** 20 })) hash.update(piece as Buffer);
  }
  return hash.digest("hex");
}

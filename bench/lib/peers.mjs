/** Other libraries: installed on demand into `bench/node_modules`, never part of the workspace. */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { run } from "../../scripts/lib/process.mjs";
import { readJson } from "../../scripts/lib/workspace.mjs";
import { measure } from "./child.mjs";

const bench = dirname(dirname(fileURLToPath(import.meta.url)));
const wanted = readJson(join(bench, "package.json")).dependencies;

/** The scripts that measure peers, by benchmark, with the package that each needs. */
const scripts = {
  matmul: [
    ["onnxruntime-node", "peers/matmul-onnxruntime.mjs"],
    ["@jax-js/jax", "peers/matmul-jaxjs.mjs"],
  ],
  "train-step": [
    ["@jax-js/jax", "peers/train-step-jaxjs.mjs"],
    ["@tensorflow/tfjs-backend-wasm", "peers/train-step-tfjs.mjs"],
  ],
};

const isInstalled = (name) => {
  const manifest = join(bench, "node_modules", name, "package.json");
  return existsSync(manifest) && readJson(manifest).version === wanted[name];
};

/** Without install scripts: what they would download is not needed here. */
export function installPeers() {
  if (Object.keys(wanted).every(isInstalled)) return;
  console.log("installing the libraries to compare with into bench/node_modules");
  const args = ["install", "--ignore-scripts", "--no-package-lock", "--no-fund", "--no-audit"];
  if (run("npm", args, { cwd: bench }) !== 0)
    console.error("[bench] not all peers could be installed (messages above).");
}

/** Results of every peer whose library is there. One that fails is reported and left out: it is not ours to mend. */
export async function measurePeers(benchmark, options) {
  const rows = [];
  for (const [name, file] of scripts[benchmark]) {
    if (!isInstalled(name)) {
      console.error(`[bench] ${name} is not installed: its figures are left out.`);
      continue;
    }
    try {
      rows.push(...(await measure(file, options)));
    } catch (error) {
      console.error(`[bench] ${name} could not be measured: ${error.message}`);
    }
  }
  return rows;
}

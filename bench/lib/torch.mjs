/** PyTorch: that of a Python of this system, else one that is installed into a virtual environment below `bench/`. */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { capture, run } from "../../scripts/lib/process.mjs";
import { jsonLinesOf } from "./child.mjs";

const bench = dirname(dirname(fileURLToPath(import.meta.url)));
const environment = join(bench, ".venv");
const ownPython = join(environment, "bin", "python");
const hasTorch = (python) => python && capture(python, ["-c", "import torch, numpy"]).status === 0;
const findTorch = () => [process.env.LLMEFF_PYTHON, ownPython, "python3", "/usr/bin/python3"].find(hasTorch);

/** Installs PyTorch unless there is one; says so where it can't. */
export function installTorch() {
  if (findTorch() !== undefined) return;
  console.log("installing PyTorch to compare with into bench/.venv");
  const installed =
    run("python3", ["-m", "venv", environment]) === 0 &&
    run(ownPython, ["-m", "pip", "install", "--quiet", "torch", "numpy"]) === 0;
  if (!installed)
    console.error(
      "[bench] PyTorch could not be installed (messages above): its figures are left out. Debian has it as python3-torch; LLMEFF_PYTHON names an interpreter.",
    );
}

/** JSON lines of `bench/FILE`, a script that takes one JSON argument; undefined without PyTorch. */
export async function torchLines(file, options) {
  const python = findTorch();
  if (python === undefined) return undefined;
  return jsonLinesOf(python, [join(bench, file), JSON.stringify(options)]);
}

/** PyTorch, where a Python of this system has it. */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { capture } from "../../scripts/lib/process.mjs";
import { jsonLinesOf } from "./child.mjs";

const bench = dirname(dirname(fileURLToPath(import.meta.url)));
const hasTorch = (python) => python && capture(python, ["-c", "import torch"]).status === 0;

/** JSON lines of `bench/FILE`, a script that takes one JSON argument; undefined without PyTorch. `LLMEFF_PYTHON` names the interpreter. */
export async function torchLines(file, options) {
  const python = [process.env.LLMEFF_PYTHON, "python3", "/usr/bin/python3"].find(hasTorch);
  if (python === undefined) return undefined;
  return jsonLinesOf(python, [join(bench, file), JSON.stringify(options)]);
}

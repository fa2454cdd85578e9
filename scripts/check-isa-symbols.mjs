/**
 * The kernels are compiled once per instruction set into one binary. If an AVX-512 object defined a weak symbol that other objects define
 * too (an inline function of the standard library, say), the linker could keep that copy, and a machine without AVX-512 would crash in it.
 * So every weak symbol that a kernel object defines must lie in that instruction set's own namespace, `llmeff::cpu::<isa>`.
 */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { Checks } from "./lib/counted.mjs";
import { capture } from "./lib/process.mjs";
import { root } from "./lib/workspace.mjs";

const objectsRoot = join(root, "native", "build", "CMakeFiles");
/** nm's letters for symbols of which the linker keeps one: weak (W, V; lower case when local) and unique (u). */
const weakLetters = /^[WVwvu]$/;
/** Type information and the pointer to the unwinder are plain data, the same bytes in every instruction set. */
const plainData = /^(?:typeinfo (?:name )?for |DW\.ref\.)/;

function objectFiles(folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return objectFiles(path);
    return entry.name.endsWith(".o") ? [path] : [];
  });
}

/** Weak symbols of an object file that lie outside the namespace. */
function strayWeakSymbols(object, namespace) {
  const { status, stdout, stderr } = capture("nm", ["-C", "--defined-only", "--format=posix", object]);
  if (status !== 0) throw new Error(`nm failed on ${object}: ${stderr}`);
  return stdout
    .split("\n")
    .map((line) => /^(.*) ([A-Za-z]) [0-9a-f]+(?: [0-9a-f]+)?\s*$/.exec(line))
    .filter((match) => match !== null && weakLetters.test(match[2]))
    .map((match) => match[1])
    .filter((symbol) => !plainData.test(symbol) && !belongsTo(symbol, namespace));
}

/** Demangled names of functions may begin with a return type, so the owner is the last qualified name before the parameter list. */
function belongsTo(symbol, namespace) {
  const owner = symbol.replace(/^(?:guard variable|vtable|VTT|TLS \w+ function|construction vtable) for /, "");
  const head = withoutBrackets(owner).split("(")[0] ?? "";
  return (head.trim().split(/\s+/).at(-1) ?? "").startsWith(`${namespace}::`);
}

/** Drops template arguments: `std::vector<llmeff::cpu::avx2::Tile>` is the standard library's, whatever stands between the brackets. */
function withoutBrackets(text) {
  let depth = 0;
  let kept = "";
  for (const character of text.replace(/\boperator(?:<<|>>|<=>|<=|>=|<|>|->)/g, "operator")) {
    if (character === "<") depth++;
    else if (character === ">") depth--;
    else if (depth === 0) kept += character;
  }
  return kept.replace(/\(anonymous namespace\)/g, "anonymous");
}

const checks = new Checks();
if (process.platform === "linux") {
  const folders = existsSync(objectsRoot)
    ? readdirSync(objectsRoot).filter((name) => /^kernels_\w+\.dir$/.test(name))
    : [];
  await checks.check("the build has kernel objects", () => {
    if (folders.length === 0)
      throw new Error(`no kernels_<isa>.dir in ${objectsRoot}; build the engine first (npm run build:native).`);
  });
  for (const folder of folders) {
    const isa = folder.slice("kernels_".length, -".dir".length);
    for (const object of objectFiles(join(objectsRoot, folder))) {
      await checks.check(`${isa}: ${object.slice(join(objectsRoot, folder).length + 1)}`, () => {
        const stray = strayWeakSymbols(object, `llmeff::cpu::${isa}`);
        if (stray.length > 0)
          throw new Error(`weak symbols outside llmeff::cpu::${isa}:\n  ${[...new Set(stray)].join("\n  ")}`);
      });
    }
  }
}
checks.finish();

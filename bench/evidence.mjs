/**
 * Studies of optimizers and of attention, with equal tuning for all: minutes to hours on a GPU, hours on a CPU (bench/README.md). Every trial is kept with its settings in
 * `bench/results/NAME.jsonl`; a study that was interrupted goes on where it stopped, and one that is complete only prints its tables.
 *
 *   npm run evidence -- autoencoder --device cuda                    every rule
 *   npm run evidence -- autoencoder --only adam,sonew1              these
 *   npm run evidence -- autoencoder --dtype bfloat16 --workers 8     in bfloat16, eight trials at a time
 *   npm run evidence -- autoencoder --epochs 20 --points 4           another budget: epochs, tuneEpochs, points, finalists, seeds
 *   npm run evidence -- sketchy-spectra --device cuda                what Sketchy rests on: eigenvalues of a language model's Kronecker factors
 *   npm run evidence -- sketchy-rank --device cuda --only sketchy8   its loss and memory by rank, between AdamW's and Shampoo's
 *   npm run evidence -- online-convex                                S-AdaGrad and its baselines on streams of logistic losses
 *   npm run evidence -- autoencoder --device cuda --workers 0        runs nothing: tables and figures of the results that are kept
 *   npm run evidence -- language-model --device cuda --dtype bfloat16   AdamW, Muon, SOAP, SONew, Shampoo and S-Shampoo on a small language model
 *   npm run evidence -- two-simplicial                              2-simplicial against dot-product attention: tokens to 95 % accuracy, exponents on text
 *   npm run evidence -- two-simplicial --size gpu --device cuda --dtype bfloat16 --corpus books-train.jsonl.gz --only match3,text-small
 *
 * `--results FOLDER` keeps the trials elsewhere. Of `two-simplicial`: `--size smoke|cpu|gpu`, `--corpus FILE` (JSON lines with `text` and `split`; by default
 * the project's novels), `--out FOLDER` for the report (default runs/two-simplicial-SIZE).
 */
import { parseArgs } from "node:util";
import * as autoencoder from "./evidence/autoencoder.mjs";
import * as languageModel from "./evidence/language-model.mjs";
import { rules } from "./evidence/lib/rules.mjs";
import { Results } from "./evidence/lib/trials.mjs";
import * as onlineConvex from "./evidence/online-convex.mjs";
import * as sketchyRank from "./evidence/sketchy-rank.mjs";
import * as sketchySpectra from "./evidence/sketchy-spectra.mjs";
import * as twoSimplicial from "./evidence/two-simplicial.mjs";
import { describeMachine } from "./lib/machine.mjs";

const studies = {
  autoencoder,
  "language-model": languageModel,
  "online-convex": onlineConvex,
  "sketchy-rank": sketchyRank,
  "sketchy-spectra": sketchySpectra,
  "two-simplicial": twoSimplicial,
};
/** Options of one study with their defaults, which are texts. */
const ownOptions = Object.assign({}, ...Object.values(studies).map(({ options }) => options));
const sizeNames = [...new Set(Object.values(studies).flatMap(({ sizes }) => Object.keys(sizes)))];

function fail(message) {
  console.error(`[evidence] ${message}`);
  process.exit(1);
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    device: { type: "string", default: process.env.LLMEFF_DEVICE ?? "cpu" },
    dtype: { type: "string", default: "float32" },
    only: { type: "string" },
    workers: { type: "string", default: "1" },
    results: { type: "string" },
    ...Object.fromEntries([...sizeNames, ...Object.keys(ownOptions)].map((name) => [name, { type: "string" }])),
  },
});

const count = (name, text, least = 1) => {
  const value = Number(text);
  return Number.isSafeInteger(value) && value >= least
    ? value
    : fail(`--${name} must be an integer of at least ${least}; received ${text}.`);
};
const [name] = positionals;
if (positionals.length !== 1 || !Object.hasOwn(studies, name)) {
  fail(`expected one of ${Object.keys(studies).join(", ")}; received ${positionals.join(" ") || "nothing"}.`);
}
const { title, run, sizes, names: all = Object.keys(rules), dtypes = ["float32", "bfloat16"] } = studies[name];
if (!dtypes.includes(values.dtype)) fail(`--dtype must be ${dtypes.join(" or ")}; received ${values.dtype}.`);
const names = values.only?.split(",") ?? all;
const unknown = names.filter((rule) => !all.includes(rule));
if (unknown.length > 0) fail(`--only takes ${all.join(", ") || "nothing"}; received ${unknown.join(", ")}.`);

const given = sizeNames.filter((size) => values[size] !== undefined);
console.log(title);
await run({
  names,
  dtype: values.dtype,
  device: values.device,
  workers: count("workers", values.workers, 0),
  results: new Results(name, describeMachine(), values.results),
  options: Object.fromEntries(Object.entries(ownOptions).map(([name, value]) => [name, values[name] ?? value])),
  sizes: { ...sizes, ...Object.fromEntries(given.map((size) => [size, count(size, values[size])])) },
});

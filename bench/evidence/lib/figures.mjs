/** The pictures of a study, beside its results: drawn anew from them at every run. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { renderFigure } from "@llmeff/report";
import { resultsFolder } from "./trials.mjs";

const folder = join(resultsFolder, "figures");

/** Writes `bench/results/figures/NAME.svg`. */
export function writeFigure(name, chart) {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `${name}.svg`), renderFigure({ kind: "lineChart", ...chart }));
  console.log(`drawn: bench/results/figures/${name}.svg`);
}

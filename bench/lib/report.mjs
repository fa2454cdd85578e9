/** Tables for people, JSON lines for programs. */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const results = join(dirname(dirname(fileURLToPath(import.meta.url))), "results");

/** Prints rows below a header, numbers to the right; a missing value is a dash. */
export function printTable(header, rows) {
  const text = [header, ...rows].map((row) => row.map((cell) => (cell === undefined ? "–" : String(cell))));
  const widths = header.map((_, i) => Math.max(...text.map((row) => row[i].length)));
  const line = (row) => row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join("  ");
  console.log(line(text[0]));
  console.log(widths.map((width) => "─".repeat(width)).join("  "));
  for (const row of text.slice(1)) console.log(line(row));
}

export const fixed = (value, digits = 1) => (value === undefined ? undefined : value.toFixed(digits));
export const percent = (part, whole) =>
  part === undefined || whole === undefined ? undefined : `${((100 * part) / whole).toFixed(0)} %`;

/** Writes `results/NAME.jsonl`: every row with the machine it was measured on. Smoke runs measure nothing and leave no file. */
export function writeResults(name, machine, rows, { smoke }) {
  if (smoke) return;
  mkdirSync(results, { recursive: true });
  const path = join(results, `${name}.jsonl`);
  writeFileSync(path, rows.map((row) => `${JSON.stringify({ bench: name, ...row, machine })}\n`).join(""));
  console.log(`\nwritten: bench/results/${name}.jsonl`);
}

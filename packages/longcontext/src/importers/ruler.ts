/** Samples of RULER (github.com/NVIDIA/RULER): JSON lines with `input`, `outputs`, `length` and, in newer versions, `answer_prefix`. */
import { OptionError } from "@llmeff/native/errors";
import type { Sample, TaskName } from "../sample.js";
import { type ImportOptions, importedSample } from "./imported-sample.js";
import { jsonRows, textOf, textsOf } from "./lines.js";

/** RULER's task names by their beginnings, and the tokens it lets each answer take. */
const KINDS: readonly { prefix: string; task: TaskName; reserve: number }[] = [
  { prefix: "niah", task: "niah", reserve: 128 },
  { prefix: "vt", task: "variable_tracking", reserve: 30 },
  { prefix: "cwe", task: "common_words", reserve: 120 },
  { prefix: "fwe", task: "frequent_words", reserve: 50 },
  { prefix: "qa", task: "doc_qa", reserve: 32 },
];

/**
 * Reads a `validation.jsonl`. The prompt is `input + answer_prefix`.
 *
 * @param name - RULER's name of the task, such as `niah_multikey_2`; it names the results
 * @throws {FormatError} naming the line that doesn't fit
 */
export async function* rulerSamples(path: string, name: string, options: ImportOptions = {}): AsyncGenerator<Sample> {
  const kind = KINDS.find(({ prefix }) => name.startsWith(prefix));
  if (kind === undefined) {
    throw new OptionError(
      `[import] RULER has no task "${name}". Its names begin with ${KINDS.map(({ prefix }) => prefix).join(", ")}.`,
    );
  }
  for await (const { row, where, index } of jsonRows(path)) {
    const prefix = typeof row.answer_prefix === "string" ? row.answer_prefix : "";
    const target = textsOf(row, "outputs", where);
    const content = textOf(row, "input", where) + prefix;
    const length = typeof row.length === "number" ? row.length : undefined;
    const meta = { variant: name, source: "ruler" };
    yield importedSample(
      {
        task: kind.task,
        index,
        messages: [{ role: "user", content }],
        target,
        reserve: kind.reserve,
        complexity: target.length,
        length,
        meta,
      },
      options,
    );
  }
}

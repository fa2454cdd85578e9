/** Results that other harnesses wrote, as results of ours: they can be reported and compared. */
import { readFile } from "node:fs/promises";
import { FormatError, IoError } from "@llmeff/native/errors";
import { promptSha256, sha256 } from "../runner/identity.js";
import type { ResultRecord } from "../runner/result.js";
import type { TaskName } from "../sample.js";
import { judgeScore } from "../score/needle-judge.js";
import { matchAll, matchPart } from "../score/string-match.js";
import { jsonRows, type Row, textsOf } from "./lines.js";

/**
 * Samples logged by lm-evaluation-harness (`--log_samples`) for its RULER tasks: replies are scored anew, and the harness's own figures kept as
 * metrics `lm_eval_…`. Its question answering takes the mean over the references where RULER and we take the best.
 *
 * @param model - names the model in the results
 * @throws {FormatError} naming the line that doesn't fit
 */
export async function* lmEvalRecords(path: string, model: string): AsyncGenerator<ResultRecord> {
  for await (const { row, where, index } of jsonRows(path)) {
    const doc = (typeof row.doc === "object" && row.doc !== null ? row.doc : {}) as Row;
    const outputs = textsOf(doc, "outputs", where);
    const text = firstText(row.filtered_resps) ?? firstText(row.resps);
    if (text === undefined)
      throw new FormatError(`[import] ${where}: expected "resps" with a text. Was it logged with --log_samples?`);
    const input = typeof doc.input === "string" ? doc.input : JSON.stringify(row.arguments ?? "");
    const name = String(row.task ?? doc.task ?? "ruler");
    const question = /qa/i.test(name);
    const tokens = Number(doc.max_length ?? doc.length ?? 0);
    const task: TaskName = question ? "doc_qa" : "niah";
    yield {
      ...importedRecord(model, index, input, tokens, text),
      task,
      variant: name,
      complexity: outputs.length,
      score: (question ? matchPart : matchAll)(text, outputs, { compat: "ruler" }),
      metrics: upstreamFigures(row),
    };
  }
}

/**
 * Results of the needle-in-a-haystack test: a JSON list, or one object, with `context_length` or `token_limit`, `depth_percent`, and a judge's
 * `score` of 1 to 10.
 */
export async function needleRecords(path: string, model: string): Promise<ResultRecord[]> {
  const rows = await readList(path);
  return rows.map((row, index) => {
    const length = Number(row.context_length ?? row.token_limit);
    const depth = Number(row.depth_percent);
    const score = Number(row.score);
    if (!(length > 0) || !Number.isFinite(depth) || !Number.isFinite(score)) {
      throw new FormatError(
        `[import] ${path}, entry ${index + 1}: expected context_length or token_limit, depth_percent and score; received ${Object.keys(row).join(", ")}.`,
      );
    }
    const text = typeof row.model_response === "string" ? row.model_response : "";
    const record = importedRecord(model, index, `${length}/${depth}`, length, text);
    return {
      ...record,
      task: "niah",
      variant: "niah_judged",
      complexity: 1,
      depths: [depth],
      score: judgeScore(score),
    };
  });
}

async function readList(path: string): Promise<Row[]> {
  let value: unknown;
  try {
    value = JSON.parse(await readFile(path, "utf8"));
  } catch (cause) {
    if (cause instanceof SyntaxError)
      throw new FormatError(`[import] ${path}: expected JSON; ${cause.message}.`, { cause });
    throw new IoError(`[import] cannot read ${path}: ${(cause as Error).message}. Check the path.`, { cause });
  }
  const list = Array.isArray(value) ? value : [value];
  if (list.every((row) => typeof row === "object" && row !== null)) return list as Row[];
  throw new FormatError(`[import] ${path}: expected a list of objects.`);
}

function importedRecord(model: string, index: number, input: string, tokens: number, text: string) {
  const promptTokens = tokens > 0 ? tokens : Math.ceil(input.length / 4);
  const sha = promptSha256([{ role: "user", content: input }]);
  return {
    id: `import-${index}-${sha.slice(0, 12)}`,
    seed: 0,
    index,
    maxTokens: promptTokens,
    budgetTokens: promptTokens,
    promptSha256: sha,
    key: sha256(`${model}\n${sha}`),
    model,
    trial: 0,
    status: "ok" as const,
    text,
    attempts: 1,
    at: new Date(0).toISOString(),
  };
}

function upstreamFigures(row: Row): Record<string, number> {
  const figures = Object.entries(row).filter(
    ([name, value]) =>
      typeof value === "number" &&
      Number.isFinite(value) &&
      !/^(?:doc_id|doc_hash|prompt_hash|target_hash)$/.test(name),
  );
  // A length that a document was too long for is marked −1.
  return Object.fromEntries(
    figures.filter(([, value]) => (value as number) >= 0).map(([name, value]) => [`lm_eval_${name}`, value as number]),
  );
}

function firstText(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  return Array.isArray(value) && value.length > 0 ? firstText(value[0]) : undefined;
}

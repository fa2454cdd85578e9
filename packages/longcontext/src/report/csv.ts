/** Results as a table for other programs (RFC 4180). */
import { promptTokensOf, type ResultRecord } from "../runner/result.js";
import { latestRecords, taskLabel } from "./aggregate.js";

const columns: Record<string, (record: ResultRecord) => string | number | undefined> = {
  model: ({ model }) => model,
  task: taskLabel,
  id: ({ id }) => id,
  trial: ({ trial }) => trial,
  complexity: ({ complexity }) => complexity,
  max_tokens: ({ maxTokens }) => maxTokens,
  prompt_tokens: promptTokensOf,
  completion_tokens: ({ usage }) => usage?.completionTokens,
  depth_percent: ({ depths }) => (depths?.length === 1 ? depths[0] : undefined),
  status: ({ status }) => status,
  score: ({ score }) => score,
  floor: ({ floor }) => floor,
  cost: ({ cost }) => cost,
  attempts: ({ attempts }) => attempts,
  first_token_ms: ({ ttftMs }) => ttftMs,
  total_ms: ({ totalMs }) => totalMs,
};

/** One row a sample, model and trial. */
export function resultsCsv(records: Iterable<ResultRecord>): string {
  const rows = latestRecords(records).map((record) => Object.values(columns).map((read) => field(read(record))));
  return [Object.keys(columns), ...rows].map((row) => `${row.join(",")}\r\n`).join("");
}

function field(value: string | number | undefined): string {
  const text = value === undefined ? "" : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

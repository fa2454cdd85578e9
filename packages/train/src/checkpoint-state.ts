/**
 * `state.json` of a checkpoint: everything of a run that is not an array, and the sizes and SHA-256 of the array files.
 *
 * The file carries a SHA-256 of its own content too, so that any changed byte is found.
 */
import { createHash } from "node:crypto";
import type { JsonObject } from "@llmeff/data";
import type { OptimizerState } from "@llmeff/optim";
import { FormatError, type Tensor } from "@llmeff/tensor";
import type { LossScaleState } from "./loss-scale.js";

/** What `evaluate` measured, and when. */
export interface EvaluationRecord {
  step: number;
  /** A metric that is not finite is stored as null. */
  metrics: Record<string, number | null>;
}

export interface BestRecord {
  step: number;
  value: number;
  /** What it is the best by; absent in checkpoints of before both were stored. */
  metric?: string;
  highest?: boolean;
}

export interface CheckpointState {
  /** Optimizer steps done. */
  step: number;
  /** Input positions seen. */
  tokens: number;
  /** Time spent in steps. */
  seconds: number;
  /** Random numbers are keyed by (seed, step): with the step this is the whole state of the generator. */
  seed: number;
  /** Micro-batches a step. */
  gradientAccumulation: number;
  /** Steps in a row, up to this one, that the optimizer skipped. */
  skippedSteps: number;
  /** Absent where losses aren't scaled. */
  lossScale?: LossScaleState;
  /** Of the data source, after the last batch used. */
  data: JsonObject;
  /** The optimizer's state that is not arrays. */
  optimizer: OptimizerState<Tensor>["meta"];
  /** The last evaluation. */
  evaluation: EvaluationRecord | null;
  /** The step whose evaluation was the best so far, by `checkpoint.best`, and its value. */
  best?: BestRecord | null;
  /** What the user gave as `config`. */
  config: JsonObject;
}

export const arrayFiles = ["model.safetensors", "optimizer.safetensors"] as const;
export const stateFile = "state.json";

export interface FileSummary {
  bytes: number;
  sha256: string;
}

export interface Manifest {
  files: Record<(typeof arrayFiles)[number], FileSummary>;
  state: CheckpointState;
}

const kind = "llmeff-checkpoint";
const format = 1;

/** JSON keeps key order and number values, so the digest of parsed and printed content is that of the original. */
function digest(content: unknown): string {
  return createHash("sha256").update(JSON.stringify(content)).digest("hex");
}

export function encodeManifest({ files, state }: Manifest): string {
  const content = { files, state };
  return `${JSON.stringify({ kind, format, sha256: digest(content), ...content }, null, 2)}\n`;
}

/** @throws {FormatError} saying what is wrong with the text */
export function decodeManifest(text: string): Manifest {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new FormatError(`${stateFile} is not valid JSON.`, { cause });
  }
  if (typeof json !== "object" || json === null || (json as { kind?: unknown }).kind !== kind) {
    throw new FormatError(`${stateFile} is not that of an llmeff checkpoint.`);
  }
  const { format: version, sha256, kind: _, ...content } = json as { format?: unknown; sha256?: unknown; kind: string };
  if (version !== format) {
    throw new FormatError(`${stateFile} has format ${JSON.stringify(version)}; this version reads format ${format}.`);
  }
  if (digest(content) !== sha256) throw new FormatError(`${stateFile} doesn't have the content it was written with.`);
  return content as Manifest;
}

/** Batches made while others are trained on. */
import { type BatchSource, prefetch } from "@llmeff/data";

/** Four at a time. No signal ends it, for a step that was begun needs its batches. */
export function readAhead(source: BatchSource): BatchSource {
  return prefetch(source, { depth: 4 });
}

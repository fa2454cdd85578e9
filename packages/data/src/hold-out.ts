/** Held-out splits by document, decided by what a document says. */
import { createHash } from "node:crypto";
import { OptionError } from "@llmeff/native/errors";
import type { Seed } from "./philox.js";
import type { Split } from "./sampled-task.js";

export interface HoldOutOptions {
  /** Share of the documents for validation; default 0.01. */
  valid?: number;
  /** Share for the test; default 0. */
  test?: number;
  /** Another seed gives another split; default 0. */
  seed?: Seed;
}

/**
 * The split of a document, from a hash of its text: copies of a document are on one side, and a document stays where it is
 * when others come, go or move.
 *
 * @param document - its text, or a key that stands for it, such as its address
 *
 * @example
 * for await (const { text } of streamJsonl(path)) if (holdOut(text, { valid: 0.005 }) === "train") use(text);
 */
export function holdOut(document: string, options: HoldOutOptions = {}): Split {
  const { valid = 0.01, test = 0, seed = 0 } = options;
  if (!(valid >= 0 && test >= 0 && valid + test < 1)) {
    throw new OptionError(
      `[holdOut] valid and test must be shares that leave something for training; received ${valid} and ${test}.`,
    );
  }
  const hash = createHash("sha256").update(`${seed}\0${document}`).digest();
  const u = hash.readUIntBE(0, 6) / 2 ** 48;
  return u < test ? "test" : u < test + valid ? "valid" : "train";
}

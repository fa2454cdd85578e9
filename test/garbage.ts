import { setImmediate } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { memory } from "@llmeff/tensor";

/**
 * Collects the tensors that nobody refers to any more, until none is left. A test that counts tensors across an `await` starts with it: what
 * earlier tests of its file dropped would otherwise be collected in the middle.
 */
export async function collectGarbage(): Promise<void> {
  setFlagsFromString("--expose-gc");
  const collect: () => void = runInNewContext("gc");
  for (let before = -1; before !== memory().tensors; ) {
    before = memory().tensors;
    collect();
    // Finalizers run as tasks of their own, after the collection.
    for (let turn = 0; turn < 3; turn++) await setImmediate();
  }
}

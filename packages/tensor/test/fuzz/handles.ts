/** The engine's arrays by number. */
import { engine, type Handle, LlmeffError } from "@llmeff/native";
import { type Dice, type Report, sizes } from "./dice.js";

/** The engine's arrays by number: made, viewed, read, written and released with numbers that may name nothing. */
export function fuzzHandles(dice: Dice, report: Report): string {
  const native = engine();
  const handles: Handle[] = [];
  const any = () =>
    dice.chance(0.8) && handles.length > 0 ? dice.of(handles) : dice.of([-1, 0, 0.5, 2 ** 60, 7 << 24]);
  const shape = () => Array.from({ length: dice.below(4) }, () => dice.of(sizes) - (dice.chance(0.05) ? 1 : 0));
  for (let i = 0; i < 20; i++) {
    try {
      const kind = dice.below(6);
      if (kind < 2) handles.push(native.create(0, dice.below(9) - 1, ...shape()));
      else if (kind === 2) {
        const to = shape();
        const strides = to.map(() => dice.below(9) - 2);
        handles.push(native.view(any(), dice.below(8), dice.below(40) - 5, ...to, ...strides));
      } else if (kind === 3) native.readSync(any(), new Float32Array(dice.of(sizes)));
      else if (kind === 4) native.upload(any(), new Float64Array(dice.of(sizes)), dice.below(8));
      else native.release(any());
      report.computed("handles");
    } catch (error) {
      if (!(error instanceof LlmeffError || error instanceof TypeError))
        report.fail(`handles: ${(error as Error)?.stack ?? error}`);
      report.refused();
    }
  }
  for (const handle of handles) native.release(handle);
  return "handles";
}

export { budgetTolerance, countPrompt, type Overhead } from "./budget.js";
export { type CalibratedTokenizer, type CalibrateOptions, calibrated, type UsageProbe } from "./calibrated.js";
export type { Placement } from "./placement.js";
export { fromTokenizer, type Tokenizer, utf8Bytes } from "./tokenizer.js";

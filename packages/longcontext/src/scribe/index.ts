export { FORMAT_NAMES, type FormatName } from "./formats.js";
export { STYLE_NAMES, type StyleName } from "./styles.js";
export { type TextKey, writeText } from "./text.js";
export { type TextKeysOptions, textKeys } from "./text-keys.js";
export { type PoolEntry, readTextPool, textPool } from "./text-pool.js";
export type { TextSource } from "./text-source.js";
export {
  TEXT_REPLY_TOKENS,
  type TextPoolSummary,
  TWEAKS,
  textRequest,
  type WriteTextPoolOptions,
  writeTextPool,
} from "./write-text-pool.js";

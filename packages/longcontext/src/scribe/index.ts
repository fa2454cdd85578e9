export { FORMAT_NAMES, type FormatName } from "./formats.js";
export { STYLE_NAMES, type StyleName } from "./styles.js";
export { type TextKey, writeText } from "./text.js";
export { type PoolEntry, readTextPool, textPool } from "./text-pool.js";
export type { TextSource } from "./text-source.js";
export { TWEAKS, type WriteTextPoolOptions, writeTextPool } from "./write-text-pool.js";

export { FORMAT_NAMES, type FormatName } from "./formats.js";
export { STYLE_NAMES, type StyleName } from "./styles.js";
export { type TextKey, writeText } from "./text.js";

import { formatCompact } from "@llmeff/report";

/** `4k` for 4,096, `128k`, `1M`; other lengths in decimal thousands. */
export function tokensLabel(tokens: number): string {
  const [unit, name] = tokens >= 2 ** 20 ? [2 ** 20, "M"] : [1024, "k"];
  return tokens >= 1024 && tokens % (unit / 8) === 0 ? `${tokens / unit}${name}` : formatCompact(tokens);
}

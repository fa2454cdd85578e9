/** `prepublishOnly` of the platform packages: one without its binary must not reach users. */
import { existsSync } from "node:fs";

if (!existsSync("llmeff.node")) {
  console.error(
    `[publish] ${process.cwd()} has no llmeff.node. Build it on that platform with "pnpm --filter @llmeff/native run build:release" first.`,
  );
  process.exitCode = 1;
}

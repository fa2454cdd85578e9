/**
 * `prepublishOnly` of the platform packages, run in their folder: without its binary, or (Linux) with one that needs a newer C library than
 * the one promised to users, a package must not reach them.
 */
import { existsSync, readFileSync } from "node:fs";

const newestGlibcMinor = 28;
const binary = process.argv[2] ?? "llmeff.node";

function problem() {
  if (!existsSync(binary))
    return `there is no ${binary}. Build it on that platform: "pnpm --filter @llmeff/native run build:release"`;
  const versions = readFileSync(binary, "latin1").matchAll(/GLIBC_2\.(\d+)/g);
  const minor = Math.max(0, ...Array.from(versions, (match) => Number(match[1])));
  if (minor > newestGlibcMinor)
    return `${binary} needs glibc 2.${minor}, more than 2.${newestGlibcMinor}. Build it in an image that has the older one`;
  return undefined;
}

const found = problem();
if (found !== undefined) {
  console.error(`[publish] ${process.cwd()}: ${found}.`);
  process.exitCode = 1;
}

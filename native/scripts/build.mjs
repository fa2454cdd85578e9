/** Compiles the addon to build/Release/llmeff.node; does nothing when sources and settings are those of the last build. */
import { isUpToDate, runCmakeJs } from "./cmake-js.mjs";

if (!isUpToDate()) process.exitCode = runCmakeJs("build");

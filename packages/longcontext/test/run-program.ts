/** A run of its own process, to be killed: `run-program URL FOLDER COUNT CONCURRENCY`. */
import { join } from "node:path";
import { httpModel } from "../src/models/http-model.js";
import { folderCache } from "../src/runner/response-cache.js";
import { runEvaluation } from "../src/runner/run.js";
import { plainSamples, scorePlain } from "./samples.js";

const [url = "", folder = "", count = "", concurrency = ""] = process.argv.slice(2);
const model = httpModel(url, "m");
const atATime = { start: Number(concurrency), max: Number(concurrency) };
await runEvaluation({
  folder,
  models: [{ model, concurrency: atATime, retries: { baseMs: 5, maxMs: 20 }, prices: { input: 1, output: 2 } }],
  samples: () => plainSamples(Number(count)),
  score: scorePlain,
  cache: folderCache(join(folder, "cache")),
});
await model.close?.();

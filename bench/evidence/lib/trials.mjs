/**
 * Runs many trials of a study over several processes, keeps every result with all its settings as a JSON line, and picks up where an
 * interrupted run stopped: a trial whose settings are among the lines isn't run again.
 */
import { fork } from "node:child_process";
import { appendFileSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const evidence = dirname(dirname(fileURLToPath(import.meta.url)));
export const resultsFolder = join(dirname(evidence), "results");

const keyOf = (trial) => JSON.stringify(trial);

/** Results by trial, as kept in `bench/results/NAME.jsonl`. */
export class Results {
  #byTrial = new Map();

  constructor(name, machine) {
    this.path = join(resultsFolder, `${name}.jsonl`);
    this.name = name;
    this.machine = machine;
    if (!existsSync(this.path)) return;
    for (const line of readFileSync(this.path, "utf8").split("\n")) {
      if (line === "") continue;
      const { trial, result } = JSON.parse(line);
      this.#byTrial.set(keyOf(trial), result);
    }
  }

  get(trial) {
    return this.#byTrial.get(keyOf(trial));
  }

  add(trial, result) {
    this.#byTrial.set(keyOf(trial), result);
    mkdirSync(resultsFolder, { recursive: true });
    appendFileSync(this.path, `${JSON.stringify({ bench: this.name, trial, result, machine: this.machine })}\n`);
  }
}

/**
 * The results of `trials`, in their order. `file` in measure/ runs them, in `workers` processes, each of which serves trial after trial
 * (`serve` below).
 */
export async function runTrials(file, trials, { results, workers, device }) {
  const missing = trials.filter((trial) => results.get(trial) === undefined);
  const unique = [...new Map(missing.map((trial) => [keyOf(trial), trial])).values()];
  const count = Math.min(workers, unique.length);
  let started = 0;
  const work = (child) =>
    new Promise((done, fail) => {
      let current;
      const next = () => {
        if (started === unique.length) return child.disconnect();
        current = unique[started++];
        child.send(current);
      };
      child.on("message", (message) => {
        if (message !== "ready") {
          results.add(current, message);
          console.log(`${JSON.stringify(current)} → ${JSON.stringify(message.loss)} in ${message.seconds} s`);
        }
        next();
      });
      child.once("error", fail);
      child.once("exit", (code, signal) =>
        code === 0 ? done() : fail(new Error(`[evidence] ${file} ended with ${signal ?? code}.`)),
      );
    });
  const env = { ...process.env, LLMEFF_DEVICE: device };
  await Promise.all(
    Array.from({ length: count }, () => work(fork(join(evidence, "measure", file), { env, stdio: "inherit" }))),
  );
  return trials.map((trial) => results.get(trial));
}

/** In the child: runs each trial that the parent sends. `run(trial)` returns what shall be kept, with `loss` and `seconds`. */
export function serve(run) {
  process.on("message", async (trial) => process.send(await run(trial)));
  process.send("ready");
}

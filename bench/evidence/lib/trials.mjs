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
  #machines = new Map();

  constructor(name, machine, folder = resultsFolder) {
    this.path = join(folder, `${name}.jsonl`);
    this.name = name;
    this.machine = machine;
    if (!existsSync(this.path)) return;
    for (const line of readFileSync(this.path, "utf8").split("\n")) {
      if (line === "") continue;
      const { trial, result, machine } = JSON.parse(line);
      this.#keep(trial, result, machine);
    }
  }

  #keep(trial, result, { commit: _, date: __, load: ___, ...machine }) {
    this.#byTrial.set(keyOf(trial), { result, machine });
  }

  /** Those that the results come from that were asked for, each once. */
  get machines() {
    return [...this.#machines.values()];
  }

  get(trial) {
    const kept = this.#byTrial.get(keyOf(trial));
    if (kept !== undefined) this.#machines.set(JSON.stringify(kept.machine), kept.machine);
    return kept?.result;
  }

  add(trial, result) {
    this.#keep(trial, result, this.machine);
    // Its machine counts among those that were asked for.
    this.get(trial);
    mkdirSync(dirname(this.path), { recursive: true });
    appendFileSync(this.path, `${JSON.stringify({ bench: this.name, trial, result, machine: this.machine })}\n`);
  }
}

/**
 * Processes that run trials, by a file in measure/ that serves trial after trial (`serve` below). Of the trials that wait the dearest is begun
 * first, so that none of them is still running alone at the end; `costOf(trial)` is in any unit, by default the same for all. With a `count` of 0 nothing is
 * run: a trial without a kept result has an empty one.
 */
export class Workers {
  #waiting = [];
  #idle = [];
  #children = [];
  #failure;

  constructor(file, { count, device, results, costOf = () => 1 }) {
    this.file = file;
    this.results = results;
    this.costOf = costOf;
    this.count = count;
    const env = { ...process.env, LLMEFF_DEVICE: device };
    // A process isn't made before there is something for it to do.
    this.free = count;
    this.fork = () => fork(join(evidence, "measure", file), { env, stdio: "inherit" });
  }

  /** The results of `trials`, in their order. */
  run(trials) {
    const missing = (trial) => (this.count === 0 ? {} : this.#measure(trial));
    return Promise.all(trials.map((trial) => this.results.get(trial) ?? missing(trial)));
  }

  /** Lets the processes end. */
  end() {
    for (const child of this.#children) if (child.connected) child.disconnect();
  }

  #measure(trial) {
    return new Promise((done, fail) => {
      this.#waiting.push({ trial, done, fail });
      // When all that is asked for at once has been put down.
      setImmediate(() => this.#assign());
    });
  }

  #assign() {
    if (this.#failure) for (const { fail } of this.#waiting.splice(0)) fail(this.#failure);
    this.#waiting.sort((a, b) => this.costOf(b.trial) - this.costOf(a.trial));
    while (this.#waiting.length > 0) {
      const child = this.#idle.pop() ?? (this.free > 0 ? this.#start() : undefined);
      if (child === undefined) return;
      const job = this.#waiting.shift();
      child.job = job;
      child.send(job.trial);
    }
  }

  #start() {
    this.free--;
    const child = this.fork();
    this.#children.push(child);
    child.on("message", (result) => {
      const { trial, done } = child.job;
      this.results.add(trial, result);
      console.log(`${JSON.stringify(trial)} → ${JSON.stringify(result.loss)} in ${result.seconds} s`);
      child.job = undefined;
      done(result);
      this.#idle.push(child);
      setImmediate(() => this.#assign());
    });
    const fail = (reason) => {
      this.#failure = new Error(`[evidence] ${this.file} ended with ${reason}.`);
      child.job?.fail(this.#failure);
      this.#assign();
    };
    child.once("error", (error) => fail(error.message));
    child.once("exit", (code, signal) => code !== 0 && fail(signal ?? code));
    return child;
  }
}

/** The results of `trials`, in their order, by `workers` processes. */
export async function runTrials(file, trials, { workers: count, device, results }) {
  const workers = new Workers(file, { count, device, results });
  try {
    return await workers.run(trials);
  } finally {
    workers.end();
  }
}

/** In the child: runs each trial that the parent sends. `run(trial)` returns what shall be kept, with `loss` and `seconds`. */
export function serve(run) {
  process.on("message", async (trial) => process.send(await run(trial)));
}

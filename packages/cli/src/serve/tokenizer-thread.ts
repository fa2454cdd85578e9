/** A tokenizer that long texts don't hold up the event loop with. */
import { Worker } from "node:worker_threads";
import type { Tokenizer } from "@llmeff/data";
import { LlmeffError } from "@llmeff/native/errors";
import { perform, type TokenizerAnswer, type TokenizerTask, taskSize } from "./tokenizer-task.js";

/** Characters or tokens that take no longer than the way to another thread and back is worth: some milliseconds at the worst. */
const mostAtOnce = 1024;

export interface TokenizerThreadOptions {
  /** What the thread runs; default what is built with this package. */
  program?: URL | undefined;
  /** Is told once if no thread can be had. */
  onFailure?: ((error: Error) => void) | undefined;
}

interface Job {
  task: TokenizerTask;
  resolve(answer: TokenizerAnswer): void;
  reject(reason: unknown): void;
}

/**
 * Divides texts into tokens, and writes tokens as text. What is short is done at once, what is long one after the other on a thread of its own, which begins
 * with the first of it and has the tokenizer a second time. Who gives up waiting is forgotten, and what is done for him ends with the thread; the next
 * one begins another. Where none can be had, all is done at once.
 */
export class TokenizerThread implements AsyncDisposable {
  readonly #program: URL;
  readonly #onFailure: (error: Error) => void;
  /** What makes the tokenizer again. As text, since that is copied to another thread in no time. */
  readonly #spec: string;
  readonly #waiting: Job[] = [];
  #worker: Worker | undefined;
  /** What the thread works on. */
  #current: Job | undefined;
  #unavailable = false;

  constructor(
    private readonly tokenizer: Tokenizer,
    { program, onFailure }: TokenizerThreadOptions = {},
  ) {
    this.#program = program ?? new URL("./tokenizer-worker.js", import.meta.url);
    this.#onFailure = onFailure ?? (() => {});
    this.#spec = JSON.stringify(tokenizer.toJSON());
  }

  /**
   * @throws {LlmeffError} for a text that the tokenizer can't write; the signal's reason if it is aborted
   */
  async encode(texts: readonly string[], addSpecialTokens: boolean, signal?: AbortSignal): Promise<Int32Array[]> {
    const { ids } = (await this.#answer({ encode: texts, addSpecialTokens }, signal)) as { ids: Int32Array[] };
    return ids;
  }

  /** @throws {LlmeffError} for ids that are no tokens; the signal's reason if it is aborted */
  async decode(ids: readonly Int32Array[], signal?: AbortSignal): Promise<string[]> {
    const { texts } = (await this.#answer({ decode: ids }, signal)) as { texts: string[] };
    return texts;
  }

  async #answer(task: TokenizerTask, signal: AbortSignal | undefined): Promise<TokenizerAnswer> {
    signal?.throwIfAborted();
    const atOnce = this.#unavailable || taskSize(task) <= mostAtOnce;
    const answer = atOnce ? perform(this.tokenizer, task) : await this.#elsewhere(task, signal);
    if ("refused" in answer) throw new LlmeffError(answer.refused.code, answer.refused.message);
    return answer;
  }

  async #elsewhere(task: TokenizerTask, signal: AbortSignal | undefined): Promise<TokenizerAnswer> {
    let giveUp = () => {};
    try {
      return await new Promise<TokenizerAnswer>((resolve, reject) => {
        const job = { task, resolve, reject };
        giveUp = () => {
          reject(signal!.reason);
          this.#forget(job);
        };
        signal?.addEventListener("abort", giveUp, { once: true });
        this.#waiting.push(job);
        this.#next();
      });
    } finally {
      signal?.removeEventListener("abort", giveUp);
    }
  }

  #forget(job: Job): void {
    const at = this.#waiting.indexOf(job);
    if (at >= 0) this.#waiting.splice(at, 1);
    if (job !== this.#current) return;
    // Not at once: all who wait may give up together, and each would begin a thread for the next.
    void this.#end().then(() => this.#next());
  }

  #next(): void {
    if (this.#current !== undefined || this.#waiting.length === 0) return;
    const job = this.#waiting.shift()!;
    this.#current = job;
    try {
      this.#worker ??= this.#begin();
    } catch (error) {
      // The system refuses a thread at the call, not by an event.
      this.#current = undefined;
      this.#doWithout(error as Error, job);
      return;
    }
    this.#worker.postMessage(job.task);
  }

  #begin(): Worker {
    const worker = new Worker(this.#program, { workerData: this.#spec });
    let ready = false;
    let failure: Error | undefined;
    const died = (error: Error) => {
      if (worker !== this.#worker) return;
      const job = this.#current;
      this.#worker = undefined;
      this.#current = undefined;
      if (ready) job?.reject(error);
      else this.#doWithout(error, job);
      this.#next();
    };
    worker.on("message", (message: "ready" | TokenizerAnswer) => {
      if (worker !== this.#worker) return;
      if (message === "ready") {
        ready = true;
        return;
      }
      const job = this.#current!;
      this.#current = undefined;
      job.resolve(message);
      this.#next();
    });
    // Its error may come before what it has said until then; its exit comes after all of it.
    worker.on("error", (error: Error) => {
      failure = error;
    });
    worker.on("exit", (code) => died(failure ?? new Error(`[serve] the tokenizer's thread ended with ${code}.`)));
    return worker;
  }

  /** Does at once what waits for a thread that can't be had. */
  #doWithout(cause: Error, current: Job | undefined): void {
    this.#unavailable = true;
    const why = `[serve] there is no thread for the tokenizer, so that long prompts will hold up all answers: ${cause.message}.`;
    this.#onFailure(new Error(why, { cause }));
    for (const { task, resolve, reject } of [current, ...this.#waiting.splice(0)].filter((job) => job !== undefined)) {
      try {
        resolve(perform(this.tokenizer, task));
      } catch (error) {
        reject(error);
      }
    }
  }

  /** Ends the thread, and with it what it works on. */
  async #end(): Promise<void> {
    const worker = this.#worker;
    this.#worker = undefined;
    this.#current = undefined;
    await worker?.terminate();
  }

  /** Ends the thread; who still waits is told. */
  async [Symbol.asyncDispose](): Promise<void> {
    const left = [this.#current, ...this.#waiting.splice(0)];
    for (const job of left) job?.reject(new LlmeffError("ERR_DISPOSED", "[serve] the tokenizer's thread was ended."));
    await this.#end();
  }
}

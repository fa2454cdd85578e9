/** What a long job has finished, on the disk after every piece, so that it can go on where it was interrupted. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { FormatError } from "@llmeff/native/errors";
import { writeFileAtomic } from "@llmeff/report";
import type { z } from "zod";
import { formatJson } from "../config/format-json.js";
import { toJson } from "../config/merge.js";
import { makeFolder } from "../run/make-folder.js";

interface Content<T> {
  /** What the job was asked to do; another question starts another ledger. */
  identity: unknown;
  finished: boolean;
  results: Record<string, T>;
}

export class Ledger<T> {
  readonly path: string;
  readonly #content: Content<T>;

  private constructor(path: string, content: Content<T>) {
    this.path = path;
    this.#content = content;
  }

  /** An empty ledger. */
  static async create<T>(path: string, identity: unknown): Promise<Ledger<T>> {
    await makeFolder(dirname(path));
    const ledger = new Ledger<T>(path, { identity: toJson(identity), finished: false, results: {} });
    await ledger.#save();
    return ledger;
  }

  /**
   * The ledger of an unfinished job of this identity, if that is what lies there.
   *
   * @throws {FormatError} if the file is damaged
   */
  static async unfinished<T>(path: string, identity: unknown, result: z.ZodType<T>): Promise<Ledger<T> | undefined> {
    if (!existsSync(path)) return undefined;
    let content: Content<T>;
    try {
      content = JSON.parse(await readFile(path, "utf8")) as Content<T>;
      const entries = Object.entries(content.results).map(([key, value]) => [key, result.parse(value)] as const);
      content.results = Object.fromEntries(entries);
    } catch (cause) {
      throw new FormatError(`[llmeff] ${path} is damaged: ${(cause as Error).message} Remove it to start anew.`, {
        cause,
      });
    }
    const same = JSON.stringify(content.identity) === JSON.stringify(toJson(identity));
    return same && !content.finished ? new Ledger<T>(path, content) : undefined;
  }

  get(key: string): T | undefined {
    return Object.hasOwn(this.#content.results, key) ? this.#content.results[key] : undefined;
  }

  get size(): number {
    return Object.keys(this.#content.results).length;
  }

  async put(key: string, value: T): Promise<void> {
    this.#content.results[key] = value;
    await this.#save();
  }

  async finish(): Promise<void> {
    this.#content.finished = true;
    await this.#save();
  }

  async #save(): Promise<void> {
    await writeFileAtomic(this.path, formatJson(this.#content));
  }
}

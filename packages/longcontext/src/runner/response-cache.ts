/** Replies by what was asked, one file each: nothing is asked, or paid, twice. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "@llmeff/report";
import type { GenResult } from "../models/eval-model.js";

export interface CachedReply {
  result: GenResult;
  /** The run that asked. */
  runId: string;
  attempts: number;
}

export interface ResponseCache {
  get(key: string): Promise<CachedReply | undefined>;
  put(key: string, reply: CachedReply): Promise<void>;
}

/** A cache in a folder, which several runs may share. A damaged entry counts as none. */
export function folderCache(folder: string): ResponseCache {
  const pathOf = (key: string) => join(folder, key.slice(0, 2), `${key}.json`);
  return {
    async get(key) {
      try {
        const text = await readFile(pathOf(key), "utf8");
        const value = JSON.parse(text) as CachedReply | null;
        return typeof value?.result?.text === "string" && typeof value.runId === "string" ? value : undefined;
      } catch {
        return undefined;
      }
    },
    put: (key, reply) => writeFileAtomic(pathOf(key), JSON.stringify(reply)),
  };
}

/** Replies by what was asked, one file each: nothing is asked, or paid, twice. */
import { randomUUID } from "node:crypto";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
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
    async put(key, reply) {
      const path = pathOf(key);
      const temporary = `${path}.${randomUUID()}.tmp`;
      await mkdir(dirname(path), { recursive: true });
      // Whole or not at all, but not flushed: a process may be killed at any time, and after a power cut a lost reply is asked for again.
      await writeFile(temporary, JSON.stringify(reply), { flag: "wx" });
      await rename(temporary, path);
    },
  };
}

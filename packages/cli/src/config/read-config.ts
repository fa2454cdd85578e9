/** JSON files with a schema: read, checked, and every problem reported at once. */
import { readFile } from "node:fs/promises";
import { IoError } from "@llmeff/native/errors";
import type { z } from "zod";
import { UsageError } from "../errors.js";

/** Something wrong in a config. */
export interface Problem {
  path: readonly PropertyKey[];
  message: string;
  /** A key that shouldn't be at the path. */
  unknownKey?: string;
}

/** `parts[0].base.model`; the top is `(top level)`. */
export function formatPath(path: readonly PropertyKey[]): string {
  const joined = path
    .map((key) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`))
    .join("")
    .replace(/^\./, "");
  return joined === "" ? "(top level)" : joined;
}

/** @throws {UsageError} that lists all problems, if there are any */
export function refuseProblems(file: string, problems: readonly Problem[]): void {
  if (problems.length === 0) return;
  const lines = [...new Set(problems.map(({ path, message }) => `${formatPath(path)}: ${message}`))];
  const count = lines.length === 1 ? "a problem" : `${lines.length} problems`;
  throw new UsageError(`[${file}] the config has ${count}:\n${lines.map((line) => `  ${line}`).join("\n")}`);
}

/** The value if it fits, or what is wrong with it. */
export function check<T extends z.ZodType>(
  schema: T,
  value: unknown,
): { ok: true; value: z.output<T> } | { ok: false; problems: Problem[] } {
  const result = schema.safeParse(value);
  if (result.success) return { ok: true, value: result.data };
  const problems = result.error.issues.flatMap((issue): Problem[] => {
    const { path, message } = issue;
    if (issue.code !== "unrecognized_keys") return [{ path, message }];
    const lines = message.split("\n");
    return issue.keys.map((unknownKey, i) => ({ path, message: lines[i]!, unknownKey }));
  });
  return { ok: false, problems };
}

/** A JSON file's content. @throws {IoError | UsageError} naming the file, and the place of a syntax error */
export async function readJson(file: string): Promise<unknown> {
  const content = await readText(file);
  try {
    return JSON.parse(content.replace(/^\uFEFF/, ""));
  } catch (cause) {
    const { message } = cause as SyntaxError;
    throw new UsageError(`[${file}] expected JSON; ${message}${placeOf(content, message)}. Mend the file.`, { cause });
  }
}

/** @throws {IoError | UsageError} if the file can't be read, isn't JSON, or doesn't fit the schema */
export async function readConfig<T extends z.ZodType>(file: string, schema: T): Promise<z.output<T>> {
  const result = check(schema, await readJson(file));
  if (result.ok) return result.value;
  refuseProblems(file, result.problems);
  throw new UsageError(`[${file}] the config doesn't fit.`);
}

const reasons: Record<string, string> = {
  ENOENT: "there is no such file",
  EISDIR: "it is a folder",
  EACCES: "permission to read it is missing",
};

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    throw new IoError(`[llmeff] can't read ${file}: ${reasons[code ?? ""] ?? message}. Check the path.`, { cause });
  }
}

/** Newer versions of Node say line and column themselves. */
function placeOf(content: string, message: string): string {
  if (message.includes("line ")) return "";
  const position = /position (\d+)/.exec(message)?.[1];
  if (position === undefined) return "";
  const before = content.slice(0, Number(position)).split("\n");
  return ` (line ${before.length}, column ${before.at(-1)!.length + 1})`;
}

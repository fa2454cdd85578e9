/** One place that turns what Node reports about a file into our errors. */
import { FormatError, IoError, LlmeffError } from "@llmeff/native/errors";

const REASONS: Record<string, string> = {
  ENOENT: "there is no such file. Check the path; relative paths start at the working directory",
  EACCES: "permission to read it is missing",
  EPERM: "permission to read it is missing",
  EISDIR: "it is a folder. Name a file inside it",
  ENOTDIR: "part of the path is a file, not a folder",
  EMFILE: "too many files are open",
};

/**
 * The error for a failed read of `path`: damaged gzip data is a FormatError, everything else an IoError.
 * Errors that are already ours, and the reason of an AbortSignal, pass through.
 */
export function readFailure(where: string, path: string, cause: unknown): unknown {
  const { code, name, message } = Object(cause) as { code?: string; name?: string; message?: string };
  if (cause instanceof LlmeffError || name === "AbortError" || code === undefined) return cause;
  if (code.startsWith("Z_")) {
    return new FormatError(`[${where}] ${path} is a damaged gzip file (${message}). Copy or download it again.`, {
      cause,
    });
  }
  return new IoError(`[${where}] can't read ${path}: ${REASONS[code] ?? message}.`, { cause });
}

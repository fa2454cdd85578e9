/**
 * Checkpoints: `<directory>/step-00000100/` with `model.safetensors`, `optimizer.safetensors` and `state.json`.
 *
 * A checkpoint is written to a temporary folder beside its place, flushed, and appears by one rename: at no moment is
 * there half a checkpoint under its name, whenever the process is killed.
 */
import { randomUUID } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { OptimizerState } from "@llmeff/optim";
import {
  FormatError,
  IoError,
  LlmeffError,
  loadSafetensors,
  type SafetensorsOptions,
  saveSafetensors,
  syncFolder,
  type Tensor,
  writeDurably,
} from "@llmeff/tensor";
import {
  arrayFiles,
  type CheckpointState,
  decodeManifest,
  encodeManifest,
  type Manifest,
  stateFile,
} from "./checkpoint-state.js";
import { summarize, systemCode } from "./durable-files.js";
import { disposeAll } from "./gradients.js";

/** A checkpoint that could not be used. */
export interface SkippedCheckpoint {
  path: string;
  reason: string;
}

export interface FoundCheckpoint {
  path: string;
  step: number;
  state: CheckpointState;
  /** Newer ones that are not valid, newest first. */
  skipped: SkippedCheckpoint[];
}

/** A checkpoint in memory; its tensors belong to the caller. */
export interface Checkpoint {
  path: string;
  step: number;
  params: Record<string, Tensor>;
  optimizer: OptimizerState<Tensor>;
  state: CheckpointState;
}

const finalName = /^step-(\d{8,})$/;
const temporaryName = /^\.step-\d{8,}\.[\w-]+\.tmp$/;
const temporaryState = /^\.state\.json\.[\w-]+\.tmp$/;

const nameOf = (step: number) => `step-${String(step).padStart(8, "0")}`;
const temporaryNameOf = (step: number) => `.${nameOf(step)}.${randomUUID()}.tmp`;

/** Steps of the checkpoints in a directory by their names, newest first; empty if there is no such directory. */
export async function listSteps(directory: string): Promise<number[]> {
  const names = await readdirOrEmpty(directory);
  return names
    .flatMap((name) => finalName.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => b - a);
}

/**
 * The newest valid checkpoint of a directory: all files there, with the sizes and hashes they were written with.
 *
 * @returns undefined if there is none at all
 * @throws {FormatError} with every reason, if there are checkpoints but none is valid
 * @throws {IoError} if the directory can't be read
 */
export async function latestCheckpoint(directory: string): Promise<FoundCheckpoint | undefined> {
  const skipped: SkippedCheckpoint[] = [];
  for (const step of await listSteps(directory)) {
    const path = join(resolve(directory), nameOf(step));
    try {
      const { state } = await verify(path);
      return { path, step, state, skipped };
    } catch (error) {
      if (!(error instanceof LlmeffError)) throw error;
      skipped.push({ path, reason: error.message });
    }
  }
  if (skipped.length === 0) return undefined;
  throw new FormatError(
    `[train] none of the ${skipped.length} checkpoints in ${directory} is valid: ${skipped.map(({ reason }) => reason).join(" ")}`,
  );
}

/**
 * The checkpoint of the best evaluation so far, of a run with `checkpoint.best`.
 *
 * @returns undefined if there is no checkpoint, or none was evaluated
 * @throws {FormatError} if it is damaged
 */
export async function bestCheckpoint(directory: string): Promise<Omit<FoundCheckpoint, "skipped"> | undefined> {
  const best = (await latestCheckpoint(directory))?.state.best;
  if (best === undefined || best === null) return undefined;
  const path = join(resolve(directory), nameOf(best.step));
  const { state } = await verify(path);
  return { path, step: best.step, state };
}

/**
 * Reads and verifies one checkpoint.
 *
 * @param options.device - where its tensors are made; default that of `tensor`
 * @throws {FormatError} if a file is missing, truncated or changed
 * @throws {IoError} if a file can't be read
 */
export async function loadCheckpoint(path: string, options: SafetensorsOptions = {}): Promise<Checkpoint> {
  const { state } = await verify(path);
  const model = await loadSafetensors(join(path, arrayFiles[0]), options);
  try {
    const optimizer = await loadSafetensors(join(path, arrayFiles[1]), options);
    const { step } = state;
    return {
      path,
      step,
      params: model.tensors,
      optimizer: { tensors: optimizer.tensors, meta: state.optimizer },
      state,
    };
  } catch (error) {
    disposeAll(model.tensors);
    throw error;
  }
}

/**
 * Writes a checkpoint durably, then removes those older than the `keepLast` newest up to this step, but for the best one.
 *
 * @returns its path
 * @throws {IoError} if it can't be written; nothing of it is left and earlier ones are untouched
 */
export async function saveCheckpoint(
  directory: string,
  params: Record<string, Tensor>,
  optimizerTensors: Record<string, Tensor>,
  state: CheckpointState,
  keepLast: number,
): Promise<string> {
  const { step } = state;
  const path = join(resolve(directory), nameOf(step));
  const temporary = join(resolve(directory), temporaryNameOf(step));
  try {
    await mkdir(temporary, { recursive: true });
    await saveSafetensors(join(temporary, arrayFiles[0]), params, { format: "pt" });
    await saveSafetensors(join(temporary, arrayFiles[1]), optimizerTensors);
    const [model, optimizer] = await Promise.all(arrayFiles.map((name) => summarize(join(temporary, name))));
    const files = { "model.safetensors": model!, "optimizer.safetensors": optimizer! } satisfies Manifest["files"];
    await writeDurably(join(temporary, stateFile), encodeManifest({ files, state }));
    await syncFolder(temporary);
    await removeByRename(directory, step); // an invalid one of the same step, from before a resume
    await rename(temporary, path);
    await syncFolder(directory);
  } catch (cause) {
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
    if (!(cause instanceof IoError) && systemCode(cause) === undefined) throw cause;
    throw new IoError(
      `[train] the checkpoint of step ${step} can't be written to ${directory}: ${(cause as Error).message} ` +
        "Earlier checkpoints are unchanged; check the free space and the permissions, then resume.",
      { cause },
    );
  }
  await removeOld(directory, step, keepLast, state.best?.step);
  return path;
}

/** Writes the state of a checkpoint anew, whose tensors stay: at no moment is there none. @throws {IoError} if it can't be written */
export async function rewriteState(path: string, state: CheckpointState): Promise<void> {
  try {
    const { files } = decodeManifest(await readFile(join(path, stateFile), "utf8"));
    const temporary = join(path, `.${stateFile}.${randomUUID()}.tmp`);
    await writeDurably(temporary, encodeManifest({ files, state }));
    await rename(temporary, join(path, stateFile));
    await syncFolder(path);
  } catch (cause) {
    throw asIoError(cause, `[train] the state of ${path} can't be written`);
  }
}

/** Removes what writers that were killed have left. @throws {IoError} if the directory can't be used */
export async function removeTemporaries(directory: string): Promise<void> {
  try {
    const names = await readdirOrEmpty(directory);
    const stale = names.filter((name) => temporaryName.test(name)).map((name) => join(directory, name));
    for (const folder of names.filter((name) => finalName.test(name)).map((name) => join(directory, name))) {
      const inside = await readdir(folder).catch(() => []); // what can't be read is told of where it is verified
      stale.push(...inside.filter((name) => temporaryState.test(name)).map((name) => join(folder, name)));
    }
    for (const path of stale) await rm(path, { recursive: true, force: true });
  } catch (cause) {
    throw asIoError(cause, `[train] old temporary files in ${directory} can't be removed`);
  }
}

async function removeOld(directory: string, newest: number, keepLast: number, best: number | undefined): Promise<void> {
  // Steps after the newest are invalid ones that a resume has passed over; they don't count, and are replaced when the run gets there.
  const steps = (await listSteps(directory)).filter((step) => step <= newest);
  try {
    for (const step of steps.slice(keepLast)) if (step !== best) await removeByRename(directory, step);
  } catch (cause) {
    throw asIoError(cause, `[train] checkpoints older than the last ${keepLast} in ${directory} can't be removed`);
  }
}

/** A folder that is being deleted no longer has a checkpoint's name. */
async function removeByRename(directory: string, step: number): Promise<void> {
  const doomed = join(directory, temporaryNameOf(step));
  try {
    await rename(join(directory, nameOf(step)), doomed);
  } catch (error) {
    if (systemCode(error) === "ENOENT") return;
    throw error;
  }
  await rm(doomed, { recursive: true, force: true });
}

/** The content of `state.json`, after checking every file against it. */
async function verify(path: string): Promise<Manifest> {
  const invalid = (reason: string, cause?: unknown) =>
    new FormatError(`[train] ${path} is not a valid checkpoint: ${reason}`, { cause });
  try {
    const manifest = decodeManifest(await readFile(join(path, stateFile), "utf8"));
    if (nameOf(manifest.state.step) !== nameOf(stepOf(path) ?? manifest.state.step)) {
      throw new FormatError(`${stateFile} is that of step ${manifest.state.step}.`);
    }
    for (const name of arrayFiles) {
      const expected = manifest.files[name];
      const { size } = await stat(join(path, name));
      if (size !== expected.bytes) throw new FormatError(`${name} has ${size} bytes; ${expected.bytes} were written.`);
      const { sha256 } = await summarize(join(path, name));
      if (sha256 !== expected.sha256) throw new FormatError(`${name} doesn't have the content it was written with.`);
    }
    return manifest;
  } catch (error) {
    if (error instanceof FormatError) throw invalid(error.message, error);
    const code = systemCode(error);
    if (code === "ENOENT") throw invalid(`a file is missing (${(error as Error).message}).`, error);
    if (code !== undefined)
      throw new IoError(`[train] ${path} can't be read: ${(error as Error).message}.`, { cause: error });
    throw error;
  }
}

/** The step that a checkpoint's folder is named after, unless somebody has given it another name. */
function stepOf(path: string): number | undefined {
  const step = /(?:^|[\\/])step-(\d{8,})[\\/]?$/.exec(path)?.[1];
  return step === undefined ? undefined : Number(step);
}

async function readdirOrEmpty(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (cause) {
    if (systemCode(cause) === "ENOENT") return [];
    throw asIoError(cause, `[train] the checkpoint directory ${directory} can't be read`);
  }
}

function asIoError(cause: unknown, what: string): unknown {
  if (systemCode(cause) === undefined) return cause;
  return new IoError(`${what}: ${(cause as Error).message}. Check the path and its permissions.`, { cause });
}

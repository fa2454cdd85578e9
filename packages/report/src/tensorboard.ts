/**
 * TensorBoard event files: TFRecord framing around the protocol buffers `Event` and `Summary`
 * (tensorboard/compat/proto/event.proto, summary.proto, tensor.proto).
 */
import { readdir, readFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { FormatError, OptionError } from "@llmeff/native/errors";
import { AppendFile, ioError, isMissing, writeFileAtomic } from "./files.js";
import { MessageWriter, readFields } from "./protobuf.js";
import { encodeRecord, scanRecords } from "./tfrecord.js";

// Field numbers of the messages, as the .proto files give them.
const EVENT = { wallTime: 1, step: 2, fileVersion: 3, summary: 5, sessionLog: 7 } as const;
const VALUE = { tag: 1, simpleValue: 2, tensor: 8, metadata: 9 } as const;
const TENSOR = { dtype: 1, shape: 2, stringValue: 8 } as const;
const SUMMARY_VALUE = 1;
const SESSION_STATUS = 1;
const SESSION_START = 1;
const DT_STRING = 7;
const DATA_CLASS = 4;
const DATA_CLASS_TENSOR = 2;

/** One value of an event: a number, or a text. */
export interface EventValue {
  readonly tag: string;
  readonly value: number | string;
}

/** One event as read from a file. */
export interface TensorBoardEvent {
  /** Seconds since 1970. */
  readonly wallTime: number;
  readonly step: number;
  /** Present in the first event of a file: `brain.Event:2`. */
  readonly fileVersion?: string;
  /** True for the mark of a resumed run, from whose step on TensorBoard drops what came before. */
  readonly sessionStart?: boolean;
  readonly values: readonly EventValue[];
}

export interface EventFileOptions {
  /** Milliseconds since 1970; default `Date.now`. */
  now?: () => number;
  /** Part of the file name; default the machine's host name. */
  host?: string;
  /** Resume after this step: later events leave the folder's older files, and TensorBoard is told to forget them. */
  resumeAfter?: number;
}

/**
 * Writes scalars and texts to a new event file of a folder. Calls return at once; `flush` waits for the disk.
 *
 * @example
 * const events = await EventFileWriter.open("runs/demo");
 * events.scalars({ "train/loss": 2.31, "train/lr": 3e-4 }, 10);
 * await events.close();
 */
export class EventFileWriter {
  readonly path: string;
  readonly #file: AppendFile;
  readonly #now: () => number;

  private constructor(file: AppendFile, now: () => number) {
    this.path = file.path;
    this.#file = file;
    this.#now = now;
  }

  /**
   * Opens `events.out.tfevents.<seconds>.<host>.<process>.<n>` in `folder`, which is made if it is missing.
   *
   * @throws {IoError} if the file cannot be made
   */
  static async open(folder: string, options: EventFileOptions = {}): Promise<EventFileWriter> {
    const { now = Date.now, host = hostname(), resumeAfter } = options;
    if (resumeAfter !== undefined) await truncateEventsAfter(folder, resumeAfter);
    const seconds = String(Math.floor(now() / 1000)).padStart(10, "0");
    const safeHost = host.replace(/[^\w.-]+/g, "_") || "localhost";
    const prefix = join(folder, `events.out.tfevents.${seconds}.${safeHost}.${process.pid}`);
    const writer = new EventFileWriter(await openFirstFree(prefix), now);
    writer.#event(0, (event) => event.string(EVENT.fileVersion, "brain.Event:2"));
    if (resumeAfter !== undefined) {
      const start = new MessageWriter().varint(SESSION_STATUS, SESSION_START);
      writer.#event(resumeAfter + 1, (event) => event.message(EVENT.sessionLog, start));
    }
    return writer;
  }

  /** One number (stored as float32); NaN and infinities are kept. */
  scalar(tag: string, value: number, step: number): void {
    this.scalars({ [tag]: value }, step);
  }

  /** Several numbers of one step, in one event. */
  scalars(values: Readonly<Record<string, number>>, step: number): void {
    const summary = new MessageWriter();
    for (const [tag, value] of Object.entries(values)) {
      summary.message(SUMMARY_VALUE, new MessageWriter().string(VALUE.tag, tag).float(VALUE.simpleValue, value));
    }
    this.#event(step, (event) => event.message(EVENT.summary, summary));
  }

  /** A text, which TensorBoard shows as Markdown. */
  text(tag: string, text: string, step: number): void {
    const value = new MessageWriter()
      .string(VALUE.tag, tag)
      .message(VALUE.tensor, stringTensor(text))
      .message(VALUE.metadata, textMetadata());
    const summary = new MessageWriter().message(SUMMARY_VALUE, value);
    this.#event(step, (event) => event.message(EVENT.summary, summary));
  }

  /** Waits until everything written so far is on the disk. */
  flush(): Promise<void> {
    return this.#file.flush();
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  #event(step: number, fill: (event: MessageWriter) => void): void {
    if (!Number.isSafeInteger(step) || step < 0) {
      throw new OptionError(`[EventFileWriter] step must be a non-negative integer; received ${step}.`);
    }
    const event = new MessageWriter().double(EVENT.wallTime, this.#now() / 1000).varint(EVENT.step, step);
    fill(event);
    this.#file.append(encodeRecord(event.finish()));
  }
}

/** Two writers in one process and second get different numbers. */
async function openFirstFree(prefix: string): Promise<AppendFile> {
  for (let n = 0; ; n++) {
    try {
      return await AppendFile.open(`${prefix}.${n}`, { exclusive: true });
    } catch (error) {
      const cause = error instanceof Error ? error.cause : undefined;
      const taken = cause instanceof Error && "code" in cause && cause.code === "EEXIST";
      if (!taken || n >= 1000) throw error;
    }
  }
}

/** A one-element tensor of strings: shape `[1]`, as the text plugin expects. */
function stringTensor(text: string): MessageWriter {
  const shape = new MessageWriter().message(2, new MessageWriter().varint(1, 1));
  return new MessageWriter()
    .varint(TENSOR.dtype, DT_STRING)
    .message(TENSOR.shape, shape)
    .string(TENSOR.stringValue, text);
}

/** SummaryMetadata that hands the value to the text plugin. */
function textMetadata(): MessageWriter {
  return new MessageWriter().message(1, new MessageWriter().string(1, "text")).varint(DATA_CLASS, DATA_CLASS_TENSOR);
}

/** What an event file holds up to its first defect; see {@link readEventFile}. */
export interface EventFileContent {
  readonly events: readonly TensorBoardEvent[];
  /** Bytes up to the first defect. */
  readonly validBytes: number;
  /** Why reading stopped early; absent if the file is whole. */
  readonly problem?: string;
}

/**
 * Reads an event file. A file cut in the middle (a killed run, a full disk) gives the events before the cut and says
 * in `problem` what is wrong there.
 *
 * @throws {IoError} if the file cannot be read
 * @throws {FormatError} if a record with a right checksum holds no event
 */
export async function readEventFile(path: string): Promise<EventFileContent> {
  const { records, ...rest } = scanRecords(await readBytes(path));
  return { events: records.map((record) => decodeEvent(record)), ...rest };
}

/**
 * Drops the events after `step` from every event file of a folder, each rewritten atomically and only if it changes.
 * A damaged end goes too. A missing folder is an empty one.
 */
export async function truncateEventsAfter(folder: string, step: number): Promise<void> {
  for (const path of await eventFiles(folder)) {
    const bytes = await readBytes(path);
    const { records } = scanRecords(bytes);
    const kept = records.filter((record) => decodeEvent(record).step <= step).map((record) => encodeRecord(record));
    const content = Buffer.concat(kept);
    if (content.length !== bytes.length) await writeFileAtomic(path, content);
  }
}

/** The event files of a folder, oldest first. */
export async function eventFiles(folder: string): Promise<string[]> {
  try {
    const names = await readdir(folder);
    return names
      .filter((name) => name.includes(".tfevents.") && !name.endsWith(".tmp"))
      .sort()
      .map((name) => join(folder, name));
  } catch (cause) {
    if (isMissing(cause)) return [];
    throw ioError("list", folder, cause);
  }
}

async function readBytes(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw ioError("read", path, cause);
  }
}

function decodeEvent(message: Uint8Array): TensorBoardEvent {
  const event: { -readonly [K in keyof TensorBoardEvent]: TensorBoardEvent[K] } = { wallTime: 0, step: 0, values: [] };
  for (const { field, value } of readFields(message)) {
    if (field === EVENT.wallTime) event.wallTime = asNumber(value);
    else if (field === EVENT.step) event.step = asNumber(value);
    else if (field === EVENT.fileVersion) event.fileVersion = asText(value);
    else if (field === EVENT.summary) event.values = [...event.values, ...decodeSummary(asBytes(value))];
    else if (field === EVENT.sessionLog) {
      event.sessionStart = [...readFields(asBytes(value))].some(
        (f) => f.field === SESSION_STATUS && f.value === SESSION_START,
      );
    }
  }
  return event;
}

function decodeSummary(message: Uint8Array): EventValue[] {
  const values: EventValue[] = [];
  for (const { field, value } of readFields(message)) {
    if (field !== SUMMARY_VALUE) continue;
    let tag = "";
    let content: number | string | undefined;
    for (const part of readFields(asBytes(value))) {
      if (part.field === VALUE.tag) tag = asText(part.value);
      else if (part.field === VALUE.simpleValue) content = asNumber(part.value);
      else if (part.field === VALUE.tensor) content = decodeStringTensor(asBytes(part.value));
    }
    // Images, histograms and the like of other writers are passed over.
    if (content !== undefined) values.push({ tag, value: content });
  }
  return values;
}

function decodeStringTensor(message: Uint8Array): string | undefined {
  const text = [...readFields(message)].find((field) => field.field === TENSOR.stringValue);
  return text && asText(text.value);
}

function asNumber(value: number | Uint8Array): number {
  if (typeof value === "number") return value;
  throw new FormatError("[readEventFile] expected a number in an event field, found bytes. Is this an event file?");
}

function asBytes(value: number | Uint8Array): Uint8Array {
  if (typeof value !== "number") return value;
  throw new FormatError("[readEventFile] expected bytes in an event field, found a number. Is this an event file?");
}

function asText(value: number | Uint8Array): string {
  return new TextDecoder().decode(asBytes(value));
}

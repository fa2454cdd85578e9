/**
 * A progress line with rate, estimated time to go, tokens per second and loss. On a terminal it redraws in place;
 * elsewhere (a log file, CI) it writes a plain line now and then. Clock and stream are passed in; there is no timer, so
 * nothing keeps the process alive.
 */
import { OptionError } from "@llmeff/native/errors";
import { formatCompact, formatDuration, formatNumber } from "./format.js";
import { padText, printable, textWidth, truncateText } from "./text-width.js";

/** What the progress line needs of a stream; `process.stderr` fits. */
export interface ProgressStream {
  write(text: string): unknown;
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
  on?(event: "resize", listener: () => void): unknown;
  off?(event: "resize", listener: () => void): unknown;
}

export interface ProgressOptions {
  /** Where to write; usually `process.stderr`. */
  stream: ProgressStream;
  /** Steps of the whole job. */
  total: number;
  /** Steps done before this run, when it resumes; they don't count for the rate. Default 0. */
  start?: number;
  label?: string;
  /** Milliseconds from any origin; default `performance.now`. */
  now?: () => number;
  /** Environment, for NO_COLOR and TERM; default `process.env`. */
  env?: Readonly<Record<string, string | undefined>>;
  /** Seconds between plain lines when not on a terminal; default 10. */
  intervalSeconds?: number;
}

export interface ProgressStatus {
  /** Tokens seen so far in this run. */
  tokens?: number | undefined;
  loss?: number | undefined;
  /** Anything else to show: an evaluation, the learning rate. */
  note?: string | undefined;
}

export interface Progress extends Disposable {
  /** Tells how far the job is. Cheap enough for every step: it draws at most ten times a second. */
  update(step: number, status?: ProgressStatus): void;
  /** Writes a line of its own above the progress line. */
  message(text: string): void;
  /** Draws the last state and ends the line; later calls do nothing. Leaving a `using` block does the same. */
  finish(): void;
}

const REDRAW_MS = 100;
/** Rates are taken over this time, so that a slow evaluation an hour ago doesn't count. */
const RATE_WINDOW_MS = 30_000;
const BAR_CELLS = 24;

interface Moment {
  readonly time: number;
  readonly step: number;
  readonly tokens: number | undefined;
}

/**
 * Starts a progress line.
 *
 * @example
 * const progress = createProgress({ stream: process.stderr, total: 1000, label: "train" });
 * progress.update(1, { tokens: 4096, loss: 4.17 });
 * progress.finish();
 */
export function createProgress(options: ProgressOptions): Progress {
  const { stream, total, start = 0, label = "", now = () => performance.now(), env = process.env } = options;
  const { intervalSeconds = 10 } = options;
  if (!Number.isSafeInteger(total) || total < 1) {
    throw new OptionError(`[createProgress] total must be a positive integer; received ${total}.`);
  }
  const plainText = Boolean(env.NO_COLOR) || env.TERM === "dumb";
  const display = stream.isTTY ? terminalDisplay(stream, !plainText) : lineDisplay(stream);
  const pause = stream.isTTY ? REDRAW_MS : intervalSeconds * 1000;
  const startTime = now();
  let moments: Moment[] = [{ time: startTime, step: start, tokens: 0 }];
  let status: ProgressStatus = {};
  let drawnAt = Number.NEGATIVE_INFINITY;
  let drawnStep = Number.NaN;
  let finished = false;

  const draw = () => {
    const last = moments.at(-1)!;
    drawnAt = now();
    drawnStep = last.step;
    const elapsed = (drawnAt - startTime) / 1000;
    display.show(describe({ label: printable(label), total, elapsed, moments, status }, stream));
  };
  const redraw = () => {
    if (!finished && !Number.isNaN(drawnStep)) draw();
  };
  if (stream.isTTY) stream.on?.("resize", redraw);

  const finish = () => {
    if (finished) return;
    if (drawnStep !== moments.at(-1)!.step) draw();
    finished = true;
    if (stream.isTTY) stream.off?.("resize", redraw);
    display.end();
  };

  return {
    update(step, newStatus = {}) {
      if (finished) return;
      const time = now();
      status = { ...status, ...newStatus };
      moments.push({ time, step, tokens: newStatus.tokens });
      moments = withinWindow(moments, time);
      if (time - drawnAt >= pause || (step >= total && drawnStep !== step)) draw();
    },
    message(text) {
      if (!finished) display.message(text.split("\n").map(printable).join("\n"));
    },
    finish,
    [Symbol.dispose]: finish,
  };
}

/** Keeps the newest moment before the window as its left end; thins out what lies inside to a bounded number. */
function withinWindow(moments: Moment[], time: number): Moment[] {
  const first = moments.findLastIndex((moment) => moment.time <= time - RATE_WINDOW_MS);
  const kept = first > 0 ? moments.slice(first) : moments;
  return kept.length <= 512 ? kept : kept.filter((_, i) => i % 2 === 0 || i === kept.length - 1);
}

interface State {
  label: string;
  total: number;
  elapsed: number;
  moments: readonly Moment[];
  status: ProgressStatus;
}

/** The line's text: everything on a wide terminal, without the bar on a narrow one, cut as the last resort. */
function describe(state: State, stream: ProgressStream): string {
  const { label, total, elapsed, moments, status } = state;
  const { step } = moments.at(-1)!;
  const stepRate = rate(moments, (moment) => moment.step);
  const tokenRate = rate(moments, (moment) => moment.tokens);
  const share = Math.min(1, Math.max(0, step / total));
  const left = stepRate ? Math.max(0, total - step) / stepRate : undefined;
  const time =
    step >= total ? `took ${formatDuration(elapsed)}` : left === undefined ? "" : `ETA ${formatDuration(left)}`;
  const percent = `${Math.floor(share * 100)} %`.padStart(5);
  const facts = [
    `${formatNumber(step)}/${formatNumber(total)}`,
    status.loss === undefined ? "" : `loss ${Number.isFinite(status.loss) ? status.loss.toFixed(4) : status.loss}`,
    tokenRate === undefined ? "" : `${formatCompact(tokenRate)} tokens/s`,
    time,
    printable(status.note ?? ""),
  ].filter((part) => part !== "");
  const head = label === "" ? percent.trimStart() : `${label} ${percent}`;
  if (!stream.isTTY) return [head, ...facts].join("  ");

  const columns = stream.columns ?? 80;
  const full = [head, bar(share), ...facts].join("  ");
  // The last column stays free: writing it makes some terminals wrap.
  return textWidth(full) < columns ? full : truncateText([head, ...facts].join("  "), Math.max(1, columns - 1));
}

/** Change a second between the first and the last moment that have the quantity. */
function rate(moments: readonly Moment[], quantity: (moment: Moment) => number | undefined): number | undefined {
  const known = moments.filter((moment) => quantity(moment) !== undefined);
  const first = known[0];
  const last = known.at(-1);
  if (!first || !last || last.time <= first.time) return undefined;
  const change = quantity(last)! - quantity(first)!;
  return change > 0 ? (change * 1000) / (last.time - first.time) : undefined;
}

function bar(share: number): string {
  const eighths = Math.round(share * BAR_CELLS * 8);
  const full = "█".repeat(Math.floor(eighths / 8));
  const part = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8]!;
  return `│${padText(full + part, BAR_CELLS, "left")}│`;
}

interface Display {
  show(line: string): void;
  message(text: string): void;
  end(): void;
}

function lineDisplay(stream: ProgressStream): Display {
  return {
    show: (line) => void stream.write(`${line}\n`),
    message: (text) => void stream.write(`${text}\n`),
    end: () => {},
  };
}

/** Redraws one line in place; with `ansi` off only by carriage return and spaces. */
function terminalDisplay(stream: ProgressStream, ansi: boolean): Display {
  let current = "";
  const erase = () => {
    if (current === "") return "\r";
    const columns = Math.max(1, stream.columns ?? 80);
    const width = textWidth(current);
    if (!ansi) return `\r${" ".repeat(Math.min(width, columns - 1))}\r`;
    // A terminal made narrower has folded the old line: go up over its rows.
    const extraRows = Math.max(0, Math.ceil(width / columns) - 1);
    return `\r\x1b[2K${"\x1b[1A\x1b[2K".repeat(extraRows)}`;
  };
  return {
    show(line) {
      stream.write(erase() + line);
      current = line;
    },
    message(text) {
      stream.write(`${erase()}${text}\n${current}`);
    },
    end() {
      if (current !== "") stream.write("\n");
      current = "";
    },
  };
}

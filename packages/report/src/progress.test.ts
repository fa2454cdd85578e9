import { EventEmitter } from "node:events";
import { describe, expect, it } from "vitest";
import { createProgress, type ProgressOptions, type ProgressStream } from "./progress.js";

const ESC = "\u001b";

/** A terminal of one's own: applies carriage return, line feed, erase and cursor-up, and folds long lines. */
class Terminal extends EventEmitter implements ProgressStream {
  readonly isTTY: boolean;
  columns: number;
  written = "";
  writes = 0;

  constructor(options: { isTTY?: boolean; columns?: number } = {}) {
    super();
    this.isTTY = options.isTTY ?? true;
    this.columns = options.columns ?? 100;
  }

  write(text: string): void {
    this.written += text;
    this.writes++;
  }

  screen(): string[] {
    const rows = [""];
    let row = 0;
    let column = 0;
    for (const token of this.written.match(new RegExp(`${ESC}\\[\\d?[AK]|[^]`, "gu")) ?? []) {
      if (token === "\r") column = 0;
      else if (token === "\n") {
        row++;
        column = 0;
        rows[row] ??= "";
      } else if (token === `${ESC}[2K`) rows[row] = "";
      else if (token === `${ESC}[1A`) row--;
      else {
        rows[row] = rows[row]!.slice(0, column).padEnd(column) + token + rows[row]!.slice(column + 1);
        column++;
      }
    }
    return rows.map((text) => text.trimEnd());
  }
}

function start(options: Partial<ProgressOptions> & { terminal?: Terminal } = {}) {
  const { terminal = new Terminal(), ...rest } = options;
  const clock = { seconds: 0 };
  const progress = createProgress({
    stream: terminal,
    total: 100,
    label: "train",
    env: {},
    now: () => clock.seconds * 1000,
    ...rest,
  });
  return { terminal, clock, progress };
}

describe("createProgress", () => {
  it("shows share, loss, tokens a second and time to go", () => {
    const { terminal, clock, progress } = start();
    for (let step = 1; step <= 25; step++) {
      clock.seconds = step * 2;
      progress.update(step, { tokens: step * 5000, loss: 2.34567 });
    }
    // 25 steps of 2 s: 0.5 steps/s, so 75 steps need 150 s; 5000 tokens in 2 s are 2.50k/s.
    expect(terminal.screen().at(-1)).toBe(
      "train  25 %  │██████                  │  25/100  loss 2.3457  2.50k tokens/s  ETA 2m 30s",
    );
  });

  it("does not count the steps of an earlier run for the rate", () => {
    const { terminal, clock, progress } = start({ start: 90 });
    clock.seconds = 10;
    progress.update(95);
    expect(terminal.screen().at(-1)).toContain("ETA 10 s");
  });

  it("forgets the rate of long ago", () => {
    const { terminal, clock, progress } = start({ total: 1000 });
    for (let step = 1; step <= 100; step++) {
      clock.seconds = step;
      progress.update(step);
    }
    for (let step = 101; step <= 500; step++) {
      clock.seconds += 0.1;
      progress.update(step);
    }
    expect(terminal.screen().at(-1)).toContain("ETA 50 s");
  });

  it("redraws at most ten times a second, and always at the end", () => {
    const { terminal, clock, progress } = start({ total: 10_000 });
    for (let step = 1; step <= 10_000; step++) {
      clock.seconds = step / 10_000;
      progress.update(step);
    }
    expect(terminal.writes).toBeLessThanOrEqual(12);
    expect(terminal.screen().at(-1)).toContain("10,000/10,000");
    expect(terminal.screen().at(-1)).toContain("took 1.0 s");
  });

  it("stays within the terminal's width and drops the bar first", () => {
    for (const columns of [20, 40, 60, 79, 120]) {
      const { terminal, clock, progress } = start({ terminal: new Terminal({ columns }) });
      clock.seconds = 1;
      progress.update(50, { tokens: 1e6, loss: 1.5, note: "valid 1.6" });
      expect(terminal.screen().at(-1)!.length).toBeLessThan(columns);
      expect(terminal.screen().at(-1)!.includes("█")).toBe(columns > 90);
    }
  });

  it("cleans up a line that a narrowed terminal has folded", () => {
    const { terminal, clock, progress } = start({ terminal: new Terminal({ columns: 100 }) });
    clock.seconds = 1;
    progress.update(50, { tokens: 1e6, loss: 1.5 });
    const width = terminal.screen()[0]!.length;
    terminal.written = "";
    terminal.columns = 30;
    terminal.emit("resize");
    const rowsUp = terminal.written.split(`${ESC}[1A`).length - 1;
    expect(rowsUp).toBe(Math.ceil(width / 30) - 1);
  });

  it("writes messages above the line", () => {
    const { terminal, clock, progress } = start();
    clock.seconds = 1;
    progress.update(10);
    progress.message("saved step 10");
    progress.finish();
    expect(terminal.screen().map((row) => row.slice(0, 13))).toEqual(["saved step 10", "train  10 %  ", ""]);
  });

  it("finishes once, with the last state, and lets go of the stream", () => {
    const { terminal, clock, progress } = start();
    progress.update(1);
    clock.seconds = 0.01;
    progress.update(2);
    expect(terminal.listenerCount("resize")).toBe(1);
    progress.finish();
    progress.finish();
    progress.update(3);
    expect(terminal.listenerCount("resize")).toBe(0);
    expect(terminal.screen()).toEqual([expect.stringContaining("2/100"), ""]);
  });

  it("writes plain lines now and then where there is no terminal", () => {
    const { terminal, clock, progress } = start({ terminal: new Terminal({ isTTY: false }), intervalSeconds: 10 });
    for (let step = 1; step <= 100; step++) {
      clock.seconds = step;
      progress.update(step, { loss: Number.NaN });
    }
    progress.finish();
    const lines = terminal.written.trimEnd().split("\n");
    expect(lines).toHaveLength(11); // steps 1, 11, …, 91 and 100
    expect(lines.at(-1)).toBe("train 100 %  100/100  loss NaN  took 1m 40s");
    expect(terminal.written).not.toMatch(new RegExp(`[${ESC}\\r]`));
  });

  it("uses no escape sequence under NO_COLOR or on a dumb terminal", () => {
    for (const env of [{ NO_COLOR: "1" }, { TERM: "dumb" }]) {
      const { terminal, clock, progress } = start({ env });
      for (const step of [50, 60]) {
        clock.seconds += 1;
        progress.update(step, { note: step === 50 ? "a long note that goes away" : "" });
      }
      progress.finish();
      expect(terminal.written).not.toContain(ESC);
      expect(terminal.screen()[0]).toContain("60/100");
      expect(terminal.screen()[0]).not.toContain("away");
    }
  });

  it("lets no escape sequence through from labels, notes and messages", () => {
    const hostile = `${ESC}[2J${ESC}]0;title\u0007`;
    const { terminal, progress } = start({ label: hostile, env: { NO_COLOR: "1" } });
    progress.update(1, { note: hostile });
    progress.message(hostile);
    progress.finish();
    expect(terminal.written).not.toContain(ESC);
  });

  it("refuses a total that is no number of steps", () => {
    expect(() => start({ total: 0 })).toThrow(/total must be a positive integer; received 0/);
  });
});

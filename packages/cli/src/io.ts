/** What the command needs of its process; tests give their own. */
import type { ProgressStream } from "@llmeff/report";

export interface Io {
  /** Results. */
  stdout: ProgressStream;
  /** Progress and messages. */
  stderr: ProgressStream;
  env: Readonly<Record<string, string | undefined>>;
  /** Relative paths of the command line start here. */
  cwd: string;
  /** Calls the listener at every Ctrl-C or request to end; returns the way to stop that. */
  onInterrupt(listener: () => void): () => void;
  /** Ends the process at once. */
  exit(code: number): void;
}

/** The process that runs the command. */
export function processIo(): Io {
  return {
    stdout: process.stdout,
    stderr: process.stderr,
    env: process.env,
    cwd: process.cwd(),
    onInterrupt(listener) {
      const signals = ["SIGINT", "SIGTERM"] as const;
      for (const signal of signals) process.on(signal, listener);
      return () => {
        for (const signal of signals) process.off(signal, listener);
      };
    },
    exit: (code) => process.exit(code),
  };
}

/** One line of results. */
export function print(io: Io, text = ""): void {
  io.stdout.write(`${text}\n`);
}

/** One line of messages. */
export function note(io: Io, text: string): void {
  io.stderr.write(`${text}\n`);
}

/** Paragraphs of results, broken between words where the terminal ends. */
export function printWrapped(io: Io, text: string): void {
  const width = io.stdout.columns ?? 120;
  for (const paragraph of text.split("\n")) {
    let line = "";
    for (const word of paragraph.split(" ")) {
      if (line !== "" && line.length + 1 + word.length > width) {
        print(io, line);
        line = word;
      } else line = line === "" ? word : `${line} ${word}`;
    }
    print(io, line);
  }
}

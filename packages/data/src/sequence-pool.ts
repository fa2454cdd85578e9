/** Sequences that wait for a row: read ahead from a stream, and taken where they fit. */
import { FormatError } from "@llmeff/native/errors";
import type { Json, JsonObject } from "./batch.js";
import type { Example } from "./denoising.js";
import type { PlacedSequence, SequencePlace, SequenceStream } from "./sequence-stream.js";

interface Waiting extends PlacedSequence {
  /** Number in the stream, from where it began or was resumed. */
  number: number;
}

/** A state that is still to be gone back to. */
interface Replay {
  /** Numbers, from the first, of the sequences that wait. */
  waiting: readonly number[];
  /** Sequences read since the first that waits. */
  read: number;
}

/**
 * At most `size` sequences read ahead. Each row begins with the oldest, so that none waits for more than `size` rows; where there is room for more, it is
 * filled by the longest that fits, of equally long ones the oldest. A pool of one fills rows in the order of the stream.
 *
 * Its state is the place of the oldest and which of those after it wait; the sequences themselves are read again.
 */
export class SequencePool {
  readonly #stream: SequenceStream;
  readonly #size: number;
  /** In the order of the stream. */
  #waiting: Waiting[] = [];
  #read = 0;
  #replay: Replay | undefined;

  constructor(stream: SequenceStream, size: number) {
    this.#stream = stream;
    this.#size = size;
  }

  /** The sequences of a row of so many places. */
  async row(length: number): Promise<Example[]> {
    await this.#goBack();
    const row: Example[] = [];
    let room = length;
    while (room > 0) {
      while (this.#waiting.length < this.#size) await this.#readNext();
      const chosen = row.length === 0 ? 0 : this.#longestWithin(room);
      if (chosen < 0) break;
      const [{ example }] = this.#waiting.splice(chosen, 1) as [Waiting];
      row.push(example);
      room -= example.tokens.length;
    }
    return row;
  }

  state(): JsonObject {
    const oldest = this.#waiting[0];
    const { source, taken } = oldest?.place ?? this.#stream.place();
    const first = oldest?.number ?? this.#read;
    const { waiting, read } = this.#replay ?? {
      waiting: this.#waiting.map(({ number }) => number - first),
      read: this.#read - first,
    };
    return { source, taken, waiting: [...waiting], read };
  }

  /** @throws {FormatError} if the numbers are none that a pool has, or the source refuses its state; nothing has changed then */
  restore(where: string, state: JsonObject, taken: number): void {
    const replay = readReplay(where, state, this.#size);
    const place: SequencePlace = { source: state.source as JsonObject, taken };
    this.#stream.goTo(place);
    this.#waiting = [];
    this.#read = 0;
    this.#replay = replay;
  }

  #longestWithin(room: number): number {
    let chosen = -1;
    for (const [i, { example }] of this.#waiting.entries()) {
      const { length } = example.tokens;
      if (length <= room && (chosen < 0 || length > this.#waiting[chosen]!.example.tokens.length)) chosen = i;
    }
    return chosen;
  }

  async #readNext(): Promise<Waiting> {
    const waiting = { ...(await this.#stream.next()), number: this.#read };
    this.#read += 1;
    this.#waiting.push(waiting);
    return waiting;
  }

  async #goBack(): Promise<void> {
    if (this.#replay === undefined) return;
    const { waiting, read } = this.#replay;
    const kept = new Set(waiting);
    while (this.#read < read) {
      const { number } = await this.#readNext();
      if (!kept.has(number)) this.#waiting.pop();
    }
    this.#replay = undefined;
  }
}

function readReplay(where: string, { waiting, read }: JsonObject, size: number): Replay {
  const isCount = (value: Json | undefined): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
  const ascends =
    Array.isArray(waiting) &&
    waiting.length <= size &&
    waiting.every((number, i) => isCount(number) && (i === 0 ? number === 0 : number > (waiting[i - 1] as number)));
  if (ascends && isCount(read) && read > ((waiting as number[]).at(-1) ?? -1)) {
    return { waiting: waiting as number[], read };
  }
  if (ascends && waiting.length === 0 && read === 0) return { waiting: [], read: 0 };
  throw new FormatError(
    `[${where}] the state's waiting sequences must be up to ${size} ascending numbers from 0, below read; received ${JSON.stringify(waiting)} and ${JSON.stringify(read)}. The state is damaged.`,
  );
}

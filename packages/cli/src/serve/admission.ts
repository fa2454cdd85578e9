import { ApiError, badField } from "./api-error.js";

/** Counts the sequences that are written or wait, and refuses more than there is room for. */
export class Admission {
  #admitted = 0;

  /** @param room - sequences at most */
  constructor(private readonly room: number) {}

  /**
   * @returns what gives the places back
   * @throws {ApiError} if there is no room for so many, now or ever
   */
  enter(sequences: number): () => void {
    if (sequences > this.room) {
      throw badField("n", `The request asks for ${sequences} answers; this server takes ${this.room} at the most.`);
    }
    if (this.#admitted + sequences > this.room) {
      throw new ApiError(503, "The server has as many requests as it can hold. Try again in a moment.", {
        code: "queue_full",
        headers: { "retry-after": "1" },
      });
    }
    this.#admitted += sequences;
    let left = false;
    return () => {
      if (!left) this.#admitted -= sequences;
      left = true;
    };
  }
}

/** Server-sent events: the `data` of each event of a stream. */

/**
 * Splits a stream into the data of its events, as the HTML standard does (§9.2.6): lines end in CR, LF or both, an empty line ends an event,
 * several data lines are joined by LF, comments and other fields are passed over. An event that the end of the stream leaves open is dropped.
 */
export async function* sseData(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  let data: string[] = [];
  for await (const line of lines(pieces)) {
    if (line === "") {
      if (data.length > 0) yield data.join("\n");
      data = [];
    } else if (line === "data") data.push("");
    else if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
  }
}

async function* lines(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let open = "";
  for await (const piece of pieces) {
    open += decoder.decode(piece, { stream: true });
    // A CR at the end may be half of a CR LF.
    const held = open.endsWith("\r") ? "\r" : "";
    const parts = open.slice(0, open.length - held.length).split(/\r\n|\r|\n/);
    open = parts.pop()! + held;
    yield* parts;
  }
  if (open.endsWith("\r")) yield open.slice(0, -1);
}

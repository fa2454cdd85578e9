import fc from "fast-check";
import { expect, it } from "vitest";
import { sseData } from "./sse.js";

async function read(pieces: Iterable<Uint8Array>): Promise<string[]> {
  async function* source() {
    yield* pieces;
  }
  const events: string[] = [];
  for await (const data of sseData(source())) events.push(data);
  return events;
}

it("reads events with all line ends, several data lines, comments and other fields; drops one without an end", async () => {
  const stream = "data: a\r\n\r\n: comment\ndata:b\ndata: c\n\nevent: x\nid: 1\ndata\r\rretry: 5\n\ndata: open\n";
  expect(await read([Buffer.from(stream)])).toEqual(["a", "b\nc", ""]);
});

it("gives the same events however the bytes are cut", async () => {
  const stream = Buffer.from('data: {"text":"größe 🌍"}\r\n\r\ndata: 2\n\ndata: [DONE]\r\r');
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(stream.length), { maxLength: 8 }), async (cuts) => {
      const edges = [0, ...cuts.sort((a, b) => a - b), stream.length];
      const pieces = edges.slice(1).map((end, i) => stream.subarray(edges[i], end));
      expect(await read(pieces)).toEqual(['{"text":"größe 🌍"}', "2", "[DONE]"]);
    }),
  );
});

/** The JSON lines of a benchmark of promises: each figure beside its ceiling, its peer and its bar, printed as it is measured. */
export function promiseLines() {
  const rows = [];
  const absent = new Set();

  /** @param ratio - what the bar is about; `atMost`: it must not be exceeded. Null where something wasn't measured or doesn't apply. */
  function report({ name, shape, threads, value, unit, bar, atMost = false, ...found }) {
    const { ceiling = null, peer = null, peerValue = null, ratio = null, ...more } = found;
    const line = { name, shape, threads, value, unit, ceiling, peer, peerValue, ratio, ...more };
    if (bar !== undefined)
      Object.assign(line, { bar, ok: ratio === null ? null : atMost ? ratio <= bar : ratio >= bar });
    rows.push(line);
    console.log(JSON.stringify(line, (_key, x) => (typeof x === "number" ? Number(x.toPrecision(4)) : x)));
  }

  /** Says once which peer is left out, and what it would take. */
  function leaveOut(peer, why) {
    if (absent.has(peer)) return;
    absent.add(peer);
    console.log(`without ${peer}: ${why}`);
  }

  /** Starts anew. */
  function begin() {
    rows.length = 0;
    absent.clear();
  }

  return { rows, report, leaveOut, begin };
}

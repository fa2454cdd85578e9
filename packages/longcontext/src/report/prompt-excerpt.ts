/** The parts of a long prompt that a reader wants to see. */
import type { Sample } from "../sample.js";

const MOST = 2000;
const AROUND = 200;

/**
 * At most 2,000 characters of the last message and of those that hold the target: the text around each relevant place, `…` for what is left out.
 * Without such places the beginning and the end.
 */
export function promptExcerpt({ messages, target, meta }: Sample): string {
  const wanted = [...needleTexts(meta.needles), ...(typeof target === "string" ? [] : target)].filter(
    (text) => text.length >= 2,
  );
  const spans: string[] = [];
  let room = MOST;
  for (const [i, { role, content }] of messages.entries()) {
    const last = i === messages.length - 1;
    const shown = windows(content, wanted, last);
    if (shown === "" || room <= 0) continue;
    spans.push(messages.length > 1 ? `[${role}] ${shown.slice(0, room)}` : shown.slice(0, room));
    room -= shown.length;
  }
  return spans.join("\n");
}

/** `[key, value]` pairs, as niah keeps them. */
function needleTexts(needles: unknown): string[] {
  if (!Array.isArray(needles)) return [];
  return needles.flatMap((needle) => (Array.isArray(needle) ? String(needle.at(-1)) : []));
}

function windows(content: string, wanted: readonly string[], last: boolean): string {
  const marks = wanted.flatMap((text) => {
    const at = content.indexOf(text);
    return at < 0 ? [] : [[Math.max(0, at - AROUND), Math.min(content.length, at + text.length + AROUND)] as const];
  });
  if (last) marks.push([Math.max(0, content.length - 2 * AROUND), content.length]);
  if (last && marks.length === 1) marks.push([0, Math.min(content.length, 2 * AROUND)]);
  const merged: [number, number][] = [];
  for (const [from, to] of marks.sort((a, b) => a[0] - b[0])) {
    const before = merged.at(-1);
    if (before !== undefined && from <= before[1]) before[1] = Math.max(before[1], to);
    else merged.push([from, to]);
  }
  const pieces = merged.map(([from, to]) => content.slice(from, to));
  const head = (merged[0]?.[0] ?? 0) > 0 ? "… " : "";
  const tail = (merged.at(-1)?.[1] ?? content.length) < content.length ? " …" : "";
  return pieces.length === 0 ? "" : `${head}${pieces.join(" … ")}${tail}`;
}

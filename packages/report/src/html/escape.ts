/** Everything that comes from outside goes through one of these two functions on its way into a page. */

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/**
 * Text for element content or a quoted attribute. Control characters, which HTML forbids, and unpaired surrogates,
 * which UTF-8 cannot hold, become `�`.
 */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => ENTITIES[character]!).replace(/[^\P{Cc}\t\n\r]|\p{Cs}/gu, "\ufffd");
}

/** JSON for a `<script type="application/json">`: no `<` that could end the element. */
export function escapeJson(value: unknown): string {
  return JSON.stringify(value).replace(
    /[<>&\u2028\u2029]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** JSON for people: indented, lists of numbers on one line, a line break at the end. */
export function formatJson(value: unknown): string {
  const indented = JSON.stringify(value, null, 2);
  // Only a list spread over lines begins with a bracket and a line break: texts in JSON hold no line breaks.
  const compact = indented.replace(
    /\[\n\s+([-+\d.eE,\s]+?)\s+\]/g,
    (_, numbers: string) => `[${numbers.replace(/\s+/g, " ")}]`,
  );
  return `${compact}\n`;
}

/** Tables for the terminal and for Markdown. */
import type { Table } from "./model.js";
import { type FormattedTable, formatTable } from "./table-cells.js";
import { padText, printable, textWidth, truncateText, wrapText } from "./text-width.js";

export interface TextTableOptions {
  /** Cells a line may take; default 100. */
  width?: number;
}

const GAP = "  ";
/** A text column is not folded below this many cells. */
const NARROWEST = 10;
const BEST = "*";

/**
 * A table as aligned plain text, no line wider than `width`. Text columns are folded; if that isn't enough, every row
 * becomes a block of lines, one a column. The best value of a column carries a `*`.
 */
export function renderTextTable(table: Table, options: TextTableOptions = {}): string {
  const { width = 100 } = options;
  const formatted = printableTable(formatTable(table));
  const widths = fitColumns(formatted, width);
  const lines = widths ? gridLines(formatted, widths) : blockLines(formatted, width);
  const prose = (text: string | undefined) => (text === undefined ? [] : wrapText(printable(text), width));
  return [...prose(table.caption), ...lines, ...prose(table.note)].join("\n");
}

/** A table as GitHub-flavoured Markdown; the best value of a column is bold. */
export function renderMarkdownTable(table: Table): string {
  const { columns, rows } = formatTable(table);
  const row = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const lines = [
    row(columns.map((column) => escapeMarkdown(column.unit ? `${column.header} (${column.unit})` : column.header))),
    row(columns.map((column) => (column.align === "right" ? "---:" : ":---"))),
    ...rows.map((cells) =>
      row(cells.map((cell) => (cell.best ? `**${escapeMarkdown(cell.text)}**` : escapeMarkdown(cell.text)))),
    ),
  ];
  if (table.caption) lines.unshift(`**${escapeMarkdown(table.caption)}**`, "");
  if (table.note) lines.push("", escapeMarkdown(table.note));
  return lines.join("\n");
}

/** Characters that would end a cell, start markup or HTML. */
function escapeMarkdown(text: string): string {
  return printable(text).replace(/[\\|`*_[\]<>&~$]/g, (character) =>
    character === "<" ? "&lt;" : character === ">" ? "&gt;" : character === "&" ? "&amp;" : `\\${character}`,
  );
}

function printableTable(table: FormattedTable): FormattedTable {
  const anyBest = table.columns.map((_, c) => table.rows.some((row) => row[c]!.best));
  return {
    columns: table.columns.map((column) => ({
      ...column,
      header: printable(column.header),
      unit: printable(column.unit),
    })),
    // Where a column has a mark, the other cells get a space, so that the digits stay in line.
    rows: table.rows.map((row) =>
      row.map((cell, c) => ({ ...cell, text: printable(cell.text) + (cell.best ? BEST : anyBest[c] ? " " : "") })),
    ),
  };
}

/** Column widths that fit, or undefined if the table is too wide even with its text columns folded. */
function fitColumns(table: FormattedTable, width: number): number[] | undefined {
  const body = table.columns.map((_, c) => Math.max(0, ...table.rows.map((row) => textWidth(row[c]!.text))));
  const widths = table.columns.map((column, c) => {
    const words = [...column.header.split(" "), column.unit];
    return Math.max(body[c]!, ...words.map((word) => textWidth(word)));
  });
  const total = () => widths.reduce((sum, w) => sum + w, 0) + GAP.length * (widths.length - 1);
  while (total() > width) {
    const widest = widths.reduce(
      (best, w, c) => (table.columns[c]!.align === "left" && w > Math.max(NARROWEST, widths[best] ?? 0) ? c : best),
      -1,
    );
    if (widest < 0) return undefined;
    widths[widest]!--;
  }
  return widths;
}

function gridLines({ columns, rows }: FormattedTable, widths: readonly number[]): string[] {
  const foldRow = (folded: readonly (readonly string[])[], from: "top" | "bottom"): string[] => {
    const height = Math.max(0, ...folded.map((lines) => lines.length));
    return Array.from({ length: height }, (_, i) =>
      folded
        .map((lines) => lines[from === "top" ? i : i - (height - lines.length)] ?? "")
        .map((text, c) => padText(text, widths[c]!, columns[c]!.align))
        .join(GAP)
        .trimEnd(),
    );
  };
  const headers = columns.map(({ header, unit }, c) => [...wrapText(header, widths[c]!), ...(unit ? [unit] : [])]);
  return [
    // Headers stand on the rule below them, rows hang from their first line.
    ...foldRow(headers, "bottom"),
    widths.map((width) => "─".repeat(width)).join(GAP),
    ...rows.flatMap((row) =>
      foldRow(
        row.map((cell, c) => wrapText(cell.text, widths[c]!)),
        "top",
      ),
    ),
  ];
}

function blockLines({ columns, rows }: FormattedTable, width: number): string[] {
  const names = columns.map((column) => (column.unit ? `${column.header} (${column.unit})` : column.header));
  const nameWidth = Math.min(Math.floor(width / 2), Math.max(0, ...names.map((name) => textWidth(name))));
  const hang = " ".repeat(nameWidth + GAP.length);
  return rows.flatMap((row, r) => [
    ...(r > 0 ? [""] : []),
    ...row.flatMap((cell, c) => {
      const name = padText(truncateText(names[c]!, nameWidth), nameWidth, "left");
      const lines = wrapText(cell.text, Math.max(1, width - hang.length));
      return lines.map((line, i) => `${i === 0 ? name + GAP : hang}${line}`.trimEnd());
    }),
  ]);
}

/** From a table of values to a table of strings: the step that HTML, Markdown and terminal tables share. */
import { ShapeError } from "@llmeff/native/errors";
import { formatNumber, significantToFraction } from "./format.js";
import type { Cell, Column, Estimate, Table } from "./model.js";

export interface FormattedTable {
  readonly columns: readonly FormattedColumn[];
  readonly rows: readonly (readonly FormattedCell[])[];
}

export interface FormattedColumn {
  readonly header: string;
  readonly unit: string;
  readonly align: "left" | "right";
}

export interface FormattedCell {
  readonly text: string;
  readonly best: boolean;
}

/**
 * Formats every cell with the digits of its column.
 *
 * @throws {ShapeError} if a row has not one cell a column
 */
export function formatTable(table: Table): FormattedTable {
  table.rows.forEach((row, index) => {
    if (row.length === table.columns.length) return;
    throw new ShapeError(
      `[table] row ${index} has ${row.length} cells but there are ${table.columns.length} columns. ` +
        "Use null for a cell without a value.",
    );
  });
  const columns = table.columns.map((column, c) =>
    formatColumn(
      column,
      table.rows.map((row) => row[c]!),
    ),
  );
  return {
    columns: columns.map(({ header, unit, align }) => ({ header, unit, align })),
    rows: table.rows.map((_, r) => columns.map((column) => column.cells[r]!)),
  };
}

function formatColumn(column: Column, cells: readonly Cell[]): FormattedColumn & { cells: FormattedCell[] } {
  const filled = cells.filter((cell) => cell !== null);
  const numeric = filled.length > 0 && filled.every((cell) => numberOf(cell) !== undefined);
  const digits = column.digits ?? columnDigits(column, filled);
  const best = bestValue(column, filled);
  return {
    header: column.header,
    unit: column.unit ?? "",
    align: column.align ?? (numeric ? "right" : "left"),
    cells: cells.map((cell) => ({
      text: formatCell(cell, column, digits),
      best: best !== undefined && cell !== null && numberOf(cell) === best,
    })),
  };
}

function formatCell(cell: Cell, column: Column, digits: number | undefined): string {
  if (cell === null) return "–";
  if (typeof cell === "string") return cell;
  if (typeof cell === "boolean") return cell ? "yes" : "no";
  if (typeof cell === "number") return formatNumber(cell, column.style, digits);
  return `${formatNumber(cell.value, column.style, digits)} ± ${formatNumber(cell.standardError, column.style, digits)}`;
}

/**
 * Digits after the point so that the column lines up: two significant digits of the smallest standard error if there
 * are any (more would be noise), otherwise three of the smallest number.
 */
function columnDigits(column: Column, cells: readonly Cell[]): number | undefined {
  const style = column.style ?? "auto";
  if (style !== "auto" && style !== "fixed") return undefined;
  const errors = cells.filter(isEstimate).map((cell) => cell.standardError);
  const positive = errors.filter((error) => error > 0 && Number.isFinite(error));
  if (positive.length > 0) return Math.max(...positive.map((error) => significantToFraction(error, 2)));
  const numbers = cells.map(numberOf).filter((value) => value !== undefined && Number.isFinite(value)) as number[];
  if (numbers.length === 0 || numbers.every(Number.isInteger)) return style === "auto" ? 0 : undefined;
  // A stray tiny value must not give the whole column a tail of digits.
  return Math.min(6, Math.max(...numbers.map((value) => significantToFraction(value, 3))));
}

function bestValue(column: Column, cells: readonly Cell[]): number | undefined {
  if (!column.best) return undefined;
  const numbers = cells.map(numberOf).filter((value) => value !== undefined && !Number.isNaN(value)) as number[];
  // The best of one is no news.
  if (numbers.length < 2) return undefined;
  return column.best === "min" ? Math.min(...numbers) : Math.max(...numbers);
}

function isEstimate(cell: Cell): cell is Estimate {
  return typeof cell === "object" && cell !== null;
}

function numberOf(cell: Cell): number | undefined {
  if (typeof cell === "number") return cell;
  return isEstimate(cell) ? cell.value : undefined;
}

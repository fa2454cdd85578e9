/**
 * The document model: a report is plain data, so that any program can make, store, test and render it. Tables stand on
 * their own as well: in the terminal and as Markdown.
 */
import type { NumberStyle } from "./format.js";

export interface Report {
  readonly title: string;
  readonly subtitle?: string | undefined;
  /** When the report was made; shown as it is. */
  readonly date?: string | undefined;
  /** A line at the end: program and version, say. */
  readonly footer?: string | undefined;
  readonly sections: readonly Section[];
}

export interface Section {
  readonly title: string;
  readonly blocks: readonly Block[];
}

export type Block = Prose | Facts | TableBlock | LineChart | JsonBlock | Samples;

/** Paragraphs, separated by blank lines. */
export interface Prose {
  readonly kind: "prose";
  readonly text: string;
}

/** Names with values: the machine, the settings that matter, the headline numbers. */
export interface Facts {
  readonly kind: "facts";
  readonly facts: readonly Fact[];
  /** `headline` sets the values large, for three to six results at the top; default `list`. */
  readonly display?: "list" | "headline" | undefined;
}

export interface Fact {
  readonly name: string;
  readonly value: string | number;
  readonly unit?: string | undefined;
}

export interface Table {
  readonly caption?: string | undefined;
  readonly columns: readonly Column[];
  /** One cell a column. */
  readonly rows: readonly (readonly Cell[])[];
  /** Small print below. */
  readonly note?: string | undefined;
}

export interface TableBlock extends Table {
  readonly kind: "table";
}

export interface Column {
  readonly header: string;
  readonly unit?: string | undefined;
  /** Default: right for a column of numbers, left otherwise. */
  readonly align?: "left" | "right" | undefined;
  readonly style?: NumberStyle | undefined;
  /** Digits after the point; default: as many as the column's numbers or their standard errors deserve. */
  readonly digits?: number | undefined;
  /** Marks the smallest or the largest value; ties are all marked. */
  readonly best?: "min" | "max" | undefined;
}

/** `null` is shown as a dash. */
export type Cell = string | number | boolean | null | Estimate;

/** A value with its standard error, shown as `1.482 ± 0.006`. */
export interface Estimate {
  readonly value: number;
  readonly standardError: number;
}

export interface LineChart {
  readonly kind: "lineChart";
  readonly title: string;
  /** What the figure shows and how to read it. */
  readonly caption?: string | undefined;
  readonly x: Axis;
  readonly y: Axis;
  /** A name has the same colour, dash and marker in all charts of a report. */
  readonly series: readonly Series[];
  /**
   * Draws an exponential moving average over about this many points, the values themselves faint behind it. For a
   * loss of every step; default none. A series with a band is never smoothed.
   */
  readonly smoothing?: number | undefined;
  /** Horizontal lines: a target, a baseline. */
  readonly references?: readonly Reference[] | undefined;
}

export interface Axis {
  readonly label: string;
  /** Default `linear`. A log axis leaves out values that are not positive. */
  readonly scale?: "linear" | "log" | undefined;
  /** Default: the data's. */
  readonly min?: number | undefined;
  readonly max?: number | undefined;
  /** `percent` labels 0.95 as 95 %; default `auto`. */
  readonly style?: "auto" | "percent" | undefined;
}

/** Points in order of x. A value that is not finite leaves a gap in the line. */
export interface Series {
  readonly name: string;
  readonly x: ArrayLike<number>;
  readonly y: ArrayLike<number>;
  /** Lower and upper edge of an error band. */
  readonly low?: ArrayLike<number> | undefined;
  readonly high?: ArrayLike<number> | undefined;
}

export interface Reference {
  readonly value: number;
  readonly label: string;
}

/** A collapsible block of JSON: a config, say. */
export interface JsonBlock {
  readonly kind: "json";
  readonly title: string;
  readonly value: unknown;
  readonly open?: boolean | undefined;
}

/** Texts that models wrote. */
export interface Samples {
  readonly kind: "samples";
  readonly samples: readonly Sample[];
}

export interface Sample {
  readonly title: string;
  /** What the model was given; set apart from what it wrote. */
  readonly prompt?: string | undefined;
  readonly text: string;
}

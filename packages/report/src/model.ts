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

export type Block = Prose | Facts | TableBlock | LineChart | HeatMap | JsonBlock | Samples | Excerpts | Download;

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
  /** Default `linear`. A log axis leaves out values that are not positive; `log2` has its ticks at powers of two, with k for 1024. */
  readonly scale?: "linear" | "log" | "log2" | undefined;
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

/** A colour for each pair of a row and a column, with its value written in it, and the same as a table below. */
export interface HeatMap {
  readonly kind: "heatMap";
  readonly title: string;
  readonly caption?: string | undefined;
  readonly columns: HeatMapAxis;
  /** From top to bottom. */
  readonly rows: HeatMapAxis;
  /** `[row][column]` */
  readonly cells: readonly (readonly HeatMapCell[])[];
  /** Values of the two ends of the colours; default 0 and 1. Values outside get the colour of the end. */
  readonly range?: readonly [low: number, high: number] | undefined;
  /** `percent` writes 0.95 as 95; default `auto`. */
  readonly style?: "auto" | "percent" | undefined;
}

export interface HeatMapAxis {
  readonly label: string;
  readonly names: readonly string[];
}

export interface HeatMapCell {
  /** Null where nothing was measured. */
  readonly value: number | null;
  /** There is no value because the measurement failed: shown hatched, not as an empty cell. */
  readonly failed?: boolean | undefined;
  /** More about the cell, such as the number of trials. */
  readonly note?: string | undefined;
}

/** Texts to be looked into one by one: each a heading to open, with named parts. */
export interface Excerpts {
  readonly kind: "excerpts";
  readonly excerpts: readonly Excerpt[];
}

export interface Excerpt {
  readonly title: string;
  readonly parts: readonly ExcerptPart[];
}

export interface ExcerptPart {
  readonly name: string;
  /** As a whole, or in pieces some of which are marked: what two texts have in common, say. */
  readonly text: string | readonly TextPiece[];
}

export interface TextPiece {
  readonly text: string;
  readonly marked?: boolean | undefined;
}

/** A button that saves data of the report as a JSON file. */
export interface Download {
  readonly kind: "download";
  readonly label: string;
  readonly fileName: string;
  readonly value: unknown;
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

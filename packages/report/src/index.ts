export { renderFigure } from "./chart/figure.js";
export { AppendFile, writeFileAtomic } from "./files.js";
export { formatCompact, formatDuration, formatNumber, formatScientific, type NumberStyle } from "./format.js";
export { renderReport, writeReport } from "./html/render.js";
export { type Interval, studentHalfWidth, studentInterval } from "./interval.js";
export { type Lock, LockedError, takeLock } from "./lock.js";
export { machineFacts } from "./machine.js";
export {
  type MetricRecord,
  type MetricsOptions,
  MetricsWriter,
  type MetricValue,
  readMetrics,
  truncateMetricsAfter,
} from "./metrics.js";
export type {
  Axis,
  Block,
  Cell,
  Column,
  Download,
  Estimate,
  Excerpt,
  ExcerptPart,
  Excerpts,
  Fact,
  Facts,
  HeatMap,
  HeatMapAxis,
  HeatMapCell,
  JsonBlock,
  LineChart,
  Prose,
  Reference,
  Report,
  Sample,
  Samples,
  Section,
  Series,
  Table,
  TableBlock,
  TextPiece,
} from "./model.js";
export {
  createProgress,
  type Progress,
  type ProgressOptions,
  type ProgressStatus,
  type ProgressStream,
} from "./progress.js";
export { renderMarkdownTable, renderTextTable, type TextTableOptions } from "./table.js";
export {
  type EventFileContent,
  type EventFileOptions,
  EventFileWriter,
  type EventValue,
  eventFiles,
  readEventFile,
  type TensorBoardEvent,
  truncateEventsAfter,
} from "./tensorboard.js";

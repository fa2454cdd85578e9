/** The blocks of a section as HTML. */
import type { StyleIndex } from "../chart/line-chart.js";
import { formatNumber } from "../format.js";
import type { Block, Download, ExcerptPart, Excerpts, Facts, JsonBlock, Prose, Samples, Table } from "../model.js";
import { type FormattedCell, type FormattedColumn, formatTable } from "../table-cells.js";
import { legendKey, renderChart } from "./chart.js";
import { escapeHtml, escapeJson } from "./escape.js";
import { renderHeatMap } from "./heat-map.js";

export function renderBlock(block: Block, styles: StyleIndex): string {
  switch (block.kind) {
    case "prose":
      return renderProse(block);
    case "facts":
      return renderFacts(block);
    case "table":
      return renderTable(block, styles);
    case "lineChart":
      return renderChart(block, styles);
    case "heatMap":
      return renderHeatMap(block, styles, renderTable);
    case "json":
      return renderJson(block);
    case "samples":
      return renderSamples(block);
    case "excerpts":
      return renderExcerpts(block);
    case "download":
      return renderDownload(block);
  }
}

function renderProse({ text }: Prose): string {
  return text
    .split(/\n\s*\n/)
    .filter((paragraph) => paragraph.trim() !== "")
    .map((paragraph) => `<p>${escapeHtml(paragraph.trim())}</p>`)
    .join("\n");
}

function renderFacts({ facts, display = "list" }: Facts): string {
  const items = facts.map(({ name, value, unit }) => {
    const text = typeof value === "number" ? formatNumber(value) : value;
    const suffix = unit ? ` <span class="unit">${escapeHtml(unit)}</span>` : "";
    const pair = `<dt>${escapeHtml(name)}</dt><dd>${escapeHtml(text)}${suffix}</dd>`;
    return display === "headline" ? `<div>${pair}</div>` : pair;
  });
  return `<dl class="${display === "headline" ? "headline" : "facts"}">${items.join("\n")}</dl>`;
}

/** The first column heads its row; where it names a series, it carries that series's key. */
function renderTable(table: Table, styles: StyleIndex): string {
  const { columns, rows } = formatTable(table);
  const head = columns.map((column) => {
    const unit = column.unit ? `<span class="unit">${escapeHtml(column.unit)}</span>` : "";
    return `<th scope="col"${alignment(column)}>${escapeHtml(column.header)} ${unit}</th>`;
  });
  const body = rows.map((row) => {
    const cells = row.map((cell, c) => {
      const content = cellContent(cell);
      if (c > 0) return `<td${alignment(columns[c]!)}>${content}</td>`;
      const style = styles.get(cell.text);
      return `<th scope="row"${alignment(columns[c]!)}>${style === undefined ? "" : legendKey(style)}${content}</th>`;
    });
    return `<tr>${cells.join("")}</tr>`;
  });
  const label = escapeHtml(table.caption ?? "Table");
  return [
    `<div class="scroll" tabindex="0" role="region" aria-label="${label}"><table>`,
    table.caption ? `<caption>${label}</caption>` : "",
    `<thead><tr>${head.join("")}</tr></thead>`,
    `<tbody>${body.join("\n")}</tbody></table></div>`,
    table.note ? `<p class="note">${escapeHtml(table.note)}</p>` : "",
  ].join("\n");
}

function alignment(column: FormattedColumn): string {
  return column.align === "right" ? ' class="right"' : "";
}

function cellContent({ text, best }: FormattedCell): string {
  const content = escapeHtml(text.replace(/^-(?=[\d∞])/, "−"));
  return best ? `<strong class="best">${content}<span class="hidden"> (best)</span></strong>` : content;
}

function renderJson({ title, value, open = false }: JsonBlock): string {
  const json = JSON.stringify(value, null, 2) ?? "undefined";
  return `<details${open ? " open" : ""}><summary>${escapeHtml(title)}</summary><pre>${escapeHtml(json)}</pre></details>`;
}

function renderSamples({ samples }: Samples): string {
  const items = samples.map(({ title, prompt, text }) => {
    const given = prompt ? `<mark>${escapeHtml(prompt)}</mark>` : "";
    return `<article class="sample"><h3>${escapeHtml(title)}</h3><blockquote>${given}${escapeHtml(text)}</blockquote></article>`;
  });
  return `<div class="samples">${items.join("\n")}</div>`;
}

function renderExcerpts({ excerpts }: Excerpts): string {
  const items = excerpts.map(({ title, parts }) => {
    const shown = parts.map((part) => `<h4>${escapeHtml(part.name)}</h4><pre>${partText(part)}</pre>`);
    return `<details class="excerpt"><summary>${escapeHtml(title)}</summary>${shown.join("")}</details>`;
  });
  return `<div class="excerpts">${items.join("\n")}</div>`;
}

function partText({ text }: ExcerptPart): string {
  if (typeof text === "string") return escapeHtml(text);
  return text
    .map((piece) => (piece.marked ? `<mark>${escapeHtml(piece.text)}</mark>` : escapeHtml(piece.text)))
    .join("");
}

/** The button does nothing without the page's script, so it is shown by it. */
function renderDownload({ label, fileName, value }: Download): string {
  return (
    `<p class="download" hidden><button type="button" data-file="${escapeHtml(fileName)}">${escapeHtml(label)}</button>` +
    `<script type="application/json">${escapeJson(value)}</script></p>`
  );
}

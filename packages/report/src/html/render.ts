/** From a report to one HTML file that needs nothing else: no network, no other file. */
import { createHash } from "node:crypto";
import { assignStyles } from "../chart/assign-styles.js";
import type { StyleIndex } from "../chart/line-chart.js";
import { writeFileAtomic } from "../files.js";
import type { Report, Section } from "../model.js";
import { renderBlock } from "./blocks.js";
import { escapeHtml } from "./escape.js";
import { CHART_SCRIPT } from "./script.js";
import { styleSheet } from "./style.js";

/**
 * A report as a page. Every string of the report is escaped, and the page's content security policy lets only its own
 * style sheet and script (by their hashes) take effect.
 *
 * @throws {ShapeError} if a table row or a series has the wrong length
 * @throws {OptionError} if the limits of an axis make no interval
 *
 * @example
 * const html = renderReport({ title: "Study", sections: [{ title: "Summary", blocks: [{ kind: "prose", text: "…" }] }] });
 */
export function renderReport(report: Report): string {
  const styles = assignStyles(report);
  const css = styleSheet();
  const policy = `default-src 'none'; style-src '${hash(css)}'; script-src '${hash(CHART_SCRIPT)}'; base-uri 'none'; form-action 'none'`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escapeHtml(report.title)}</title>
<style>${css}</style>
</head>
<body>
<div class="page">
<header>
${report.date ? `<p class="date">${escapeHtml(report.date)}</p>` : ""}
<h1>${escapeHtml(report.title)}</h1>
${report.subtitle ? `<p class="subtitle">${escapeHtml(report.subtitle)}</p>` : ""}
${renderContents(report.sections)}
</header>
<main>
${report.sections.map((section, index) => renderSection(section, index, styles)).join("\n")}
</main>
${report.footer ? `<footer><p>${escapeHtml(report.footer)}</p></footer>` : ""}
</div>
<script>${CHART_SCRIPT}</script>
</body>
</html>
`;
}

/**
 * Renders a report and writes it in one piece: a reader sees the old file or the new one.
 *
 * @throws {IoError} if the file cannot be written
 */
export async function writeReport(path: string, report: Report): Promise<void> {
  await writeFileAtomic(path, renderReport(report));
}

function renderContents(sections: readonly Section[]): string {
  if (sections.length < 3) return "";
  const items = sections.map((section, i) => `<li><a href="#section-${i + 1}">${escapeHtml(section.title)}</a></li>`);
  return `<nav aria-label="Contents"><ol>${items.join("")}</ol></nav>`;
}

function renderSection(section: Section, index: number, styles: StyleIndex): string {
  const id = `section-${index + 1}`;
  return [
    `<section id="${id}" aria-labelledby="${id}-title">`,
    `<h2 id="${id}-title">${escapeHtml(section.title)}</h2>`,
    ...section.blocks.map((block) => renderBlock(block, styles)),
    "</section>",
  ].join("\n");
}

function hash(content: string): string {
  return `sha256-${createHash("sha256").update(content).digest("base64")}`;
}

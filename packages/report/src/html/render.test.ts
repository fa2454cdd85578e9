import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { sampleReport } from "../../test/sample-report.js";
import { temporaryFolder } from "../../test/temporary-folder.js";
import type { HeatMap, LineChart, Report } from "../model.js";
import { renderReport, writeReport } from "./render.js";

const chart = (parts: Partial<LineChart>): Report => ({
  title: "t",
  sections: [
    {
      title: "s",
      blocks: [{ kind: "lineChart", title: "c", x: { label: "x" }, y: { label: "y" }, series: [], ...parts }],
    },
  ],
});

const heatMap = (): HeatMap => ({
  kind: "heatMap",
  title: "Recall",
  rows: { label: "depth", names: ["0 %", "100 %"] },
  columns: { label: "tokens", names: ["4k", "8k", "16k"] },
  style: "percent",
  cells: [
    [{ value: 1, note: "n = 5" }, { value: 0.5 }, { value: 0 }],
    [{ value: 0.625 }, { value: null, failed: true }, { value: null }],
  ],
});

/** Opening and closing tags as a stack; throws at the first that does not match. */
function checkNesting(html: string): number {
  const open: string[] = [];
  let tags = 0;
  const body = html.replace(/<!doctype html>/, "").replace(/(<(script|style)\b[^>]*>)[\s\S]*?(<\/\2>)/g, "$1$3");
  for (const [, close, name, rest] of body.matchAll(/<(\/?)([a-z0-9]+)((?:"[^"]*"|[^">])*)>/g)) {
    tags++;
    if (close) expect(open.pop()).toBe(name);
    else if (name !== "meta" && !rest!.endsWith("/")) open.push(name!);
  }
  expect(open).toEqual([]);
  return tags;
}

describe("renderReport", () => {
  const html = renderReport(sampleReport());

  it("is well nested", () => {
    expect(checkNesting(html)).toBeGreaterThan(500);
  });

  it("asks for nothing from outside", () => {
    for (const [tag] of html.matchAll(/<[a-z][^>]*>/g)) {
      expect(tag).not.toMatch(/\s(?:src|srcset|data|action|poster|background|ping)=/);
      for (const [, target] of tag.matchAll(/href="([^"]*)"/g)) expect(target).toMatch(/^#section-\d$/);
    }
    expect(html).not.toMatch(/url\(|@import|<link|<img|<iframe/);
  });

  it("lets only its own script and style take effect", () => {
    const policy = html.match(/Content-Security-Policy" content="([^"]*)"/)![1]!;
    const sha = (text: string) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
    expect(policy).toContain(`script-src ${sha(html.match(/<script>([\s\S]*?)<\/script>/)![1]!)};`);
    expect(policy).toContain(`style-src ${sha(html.match(/<style>([\s\S]*?)<\/style>/)![1]!)};`);
    expect(policy).toContain("default-src 'none'");
    expect(html).not.toMatch(/<[^>]*\sstyle=/);
  });

  it("heads columns and rows, and captions figures and tables", () => {
    expect(html.match(/<th scope="col"/g)).toHaveLength(7);
    expect(html.match(/<th scope="row"/g)).toHaveLength(4);
    expect(html).toContain("<caption>Results at 12.3 M tokens</caption>");
    expect(html.match(/<figcaption>/g)).toHaveLength(3);
    expect(html.match(/role="img" aria-label="Line chart of /g)).toHaveLength(6);
  });

  it("gives a name one style in all charts and in the table", () => {
    const keys = [...html.matchAll(/class="key (c\d)"(?:(?!<\/svg>)[\s\S])*<\/svg>(?:<span>)?2-simplicial · SONew/g)];
    expect(keys.map((match) => match[1])).toEqual(["c3", "c3", "c3"]);
  });

  it("escapes every string of a report", () => {
    const hostile = `</script></style></title><script>alert(1)</script><img src=x onerror=alert(2)>"' onload=alert(3) \u0000\ud800 &amp; ]]> -->`;
    const report: Report = {
      title: hostile,
      subtitle: hostile,
      date: hostile,
      footer: hostile,
      sections: [
        {
          title: hostile,
          blocks: [
            { kind: "prose", text: `${hostile}\n\n${hostile}` },
            { kind: "facts", facts: [{ name: hostile, value: hostile, unit: hostile }] },
            { kind: "facts", display: "headline", facts: [{ name: hostile, value: hostile, unit: hostile }] },
            {
              kind: "table",
              caption: hostile,
              columns: [{ header: hostile, unit: hostile }],
              rows: [[hostile], [hostile]],
              note: hostile,
            },
            {
              kind: "lineChart",
              title: hostile,
              caption: hostile,
              x: { label: hostile },
              y: { label: hostile },
              series: [{ name: hostile, x: [1, 2], y: [1, 2] }],
              references: [{ value: 1.5, label: hostile }],
            },
            { kind: "json", title: hostile, value: { [hostile]: hostile } },
            { kind: "samples", samples: [{ title: hostile, prompt: hostile, text: hostile }] },
            {
              kind: "heatMap",
              title: hostile,
              caption: hostile,
              rows: { label: hostile, names: [hostile] },
              columns: { label: hostile, names: [hostile, hostile] },
              cells: [
                [
                  { value: 1, note: hostile },
                  { value: null, failed: true },
                ],
              ],
            },
            {
              kind: "excerpts",
              excerpts: [{ title: hostile, parts: [{ name: hostile, text: [{ text: hostile, marked: true }] }] }],
            },
            { kind: "download", label: hostile, fileName: hostile, value: { [hostile]: hostile } },
          ],
        },
        { title: hostile, blocks: [] },
        { title: hostile, blocks: [] },
      ],
    };
    const page = renderReport(report);
    checkNesting(page);
    expect(page.match(/<script/g)).toHaveLength(3); // the data of chart and download, and the page's own script
    expect(page.match(/<\/script>/g)).toHaveLength(3);
    expect(page).not.toContain("<img");
    expect(page).not.toMatch(/<[^>"]*("[^"]*"[^>"]*)*\son\w+=/);
    for (const forbidden of ["\u0000", "\ud800"]) expect(page).not.toContain(forbidden);
    const data = page.match(/<script type="application\/json">([\s\S]*?)<\/script>/)![1]!;
    expect(JSON.parse(data).label.slice(0, 20)).toBe(hostile.slice(0, 20));
  });

  it("draws a heat map with a value, a title and a colour for each cell, failures hatched, and the same as a table", () => {
    const page = renderReport({ title: "t", sections: [{ title: "s", blocks: [heatMap()] }] });
    const [wide] = page.match(/<svg class="wide"[\s\S]*?<\/svg>/)!;
    expect(wide.match(/<g class="cell" tabindex="0"/g)).toHaveLength(1);
    expect(wide.match(/<g class="cell" tabindex="-1"/g)).toHaveLength(5);
    expect(wide).toContain("<title>depth 0 %, tokens 4k: 100.0 % (n = 5)</title>");
    expect(wide).toContain("<title>depth 100 %, tokens 8k: failed</title>");
    expect(wide).toContain("<title>depth 100 %, tokens 16k: nothing measured</title>");
    expect([...wide.matchAll(/<rect [^>]*fill="(#\w{6})"/g)].map(([, fill]) => fill)).toEqual([
      "#fde725",
      "#21918c",
      "#440154",
      "#28ae80",
    ]);
    expect(wide.match(/class="failed"/g)).toHaveLength(1);
    expect(wide.match(/class="empty"/g)).toHaveLength(1);
    const cells = [...page.matchAll(/<td class="right">([^<]*)<\/td>/g)].map(([, text]) => text);
    expect(cells).toEqual(["100.0 %", "50.0 %", "0.0 %", "62.5 %", "failed", "–"]);
    checkNesting(page);
  });

  it("draws a heat map of nothing, and refuses one whose cells don't fit its names", () => {
    const page = (parts: object) =>
      renderReport({ title: "t", sections: [{ title: "s", blocks: [{ ...heatMap(), ...parts }] }] });
    checkNesting(page({ cells: [], rows: { label: "r", names: [] } }));
    expect(() => page({ cells: [] })).toThrow(/2 rows and 3 columns but has 0 rows/);
    expect(() => page({ cells: [[], []] })).toThrow(/0 cells in row 0/);
  });

  it("marks pieces of an excerpt, and keeps the data of a download", () => {
    const excerpt = {
      title: "e",
      parts: [{ name: "reply", text: [{ text: "same", marked: true }, { text: " other" }] }],
    };
    const download = { kind: "download", label: "Save", fileName: "data.json", value: { a: [1, null] } } as const;
    const page = renderReport({
      title: "t",
      sections: [{ title: "s", blocks: [{ kind: "excerpts", excerpts: [excerpt] }, download] }],
    });
    expect(page).toContain("<h4>reply</h4><pre><mark>same</mark> other</pre>");
    expect(page).toContain('data-file="data.json"');
    expect(JSON.parse(page.match(/<script type="application\/json">(.*?)<\/script>/)![1]!)).toEqual({ a: [1, null] });
    checkNesting(page);
  });

  it("draws a line in pieces around missing values", () => {
    const page = renderReport(chart({ series: [{ name: "a", x: [0, 1, 2, 3, 4], y: [1, 2, Number.NaN, 2, 3] }] }));
    const path = page.match(/class="line c0" d="([^"]*)"\/><\/svg><path/)![1]!;
    expect(path.match(/M/g)).toHaveLength(2);
    expect(page).not.toContain("NaN");
  });

  it("draws charts of nothing, of one point and of no finite value without NaN in the drawing", () => {
    for (const series of [
      [],
      [{ name: "a", x: [], y: [] }],
      [{ name: "a", x: [1], y: [1] }],
      [{ name: "a", x: [1, 2], y: [Number.NaN, Number.POSITIVE_INFINITY] }],
    ]) {
      for (const scale of ["linear", "log"] as const) {
        const page = renderReport(chart({ series, y: { label: "y", scale } }));
        expect(page).not.toMatch(/NaN|Infinity/);
        checkNesting(page);
      }
    }
  });

  it("puts points where the axes say", () => {
    const page = renderReport(chart({ series: [{ name: "a", x: [0, 5, 10], y: [0, 50, 100] }] }));
    const d = page.match(/class="line c0" d="([^"]*)"\/><\/svg><path/)![1];
    const [l, t, w, h] = page
      .match(/<svg x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"/)!
      .slice(1)
      .map(Number) as [number, number, number, number];
    expect(d).toBe(`M${l} ${t + h}L${l + w / 2} ${t + h / 2}L${l + w} ${t}`);
  });

  it("stays small for many points", () => {
    const x = Float64Array.from({ length: 200_000 }, (_, i) => i);
    const page = renderReport(chart({ series: [{ name: "a", x, y: x.map((v) => Math.sin(v)) }], smoothing: 100 }));
    expect(page.length).toBeLessThan(150_000);
  });

  it("says which series does not fit", () => {
    expect(() => renderReport(chart({ series: [{ name: "arm", x: [1, 2], y: [1] }] }))).toThrow(
      '"arm" has 2 values of x but 1 of y',
    );
  });
});

describe("writeReport", () => {
  it("writes the page", async () => {
    const path = join(await temporaryFolder(), "runs", "report.html");
    await writeReport(path, sampleReport());
    expect(await readFile(path, "utf8")).toBe(renderReport(sampleReport()));
  });
});

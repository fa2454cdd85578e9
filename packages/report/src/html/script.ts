/**
 * The one script of a report: reads values off a chart under the pointer or with the arrow keys, and saves data as files. It takes its data from
 * a JSON block beside the drawing and writes text only through `textContent`. Without it the page loses nothing else.
 */
export const CHART_SCRIPT = `"use strict";
for (const plot of document.querySelectorAll(".plot:not(.scroll)")) {
  const data = JSON.parse(plot.querySelector("script").textContent);
  const tip = plot.querySelector(".tip");
  const show = (value, digits) => value.toLocaleString("en-US", { maximumSignificantDigits: digits });
  const drawing = () => {
    const svg = [...plot.querySelectorAll(":scope > svg")].find((s) => s.getClientRects().length > 0);
    return { svg, frame: svg && data.frames[svg.classList.contains("wide") ? 0 : 1] };
  };
  const share = (x) => {
    const [from, to] = data.x;
    return data.log ? Math.log(x / from) / Math.log(to / from) : (x - from) / (to - from);
  };
  const nearest = (series, at) => {
    let low = 0, high = series.x.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (share(series.x[middle]) <= at) low = middle; else high = middle;
    }
    return Math.abs(share(series.x[low]) - at) <= Math.abs(share(series.x[high]) - at) ? low : high;
  };
  let line = null, current = null;
  const hide = () => {
    tip.hidden = true;
    if (line) line.remove();
    line = null;
    current = null;
  };
  const point = (at) => {
    const { svg, frame } = drawing();
    const found = data.series.filter((s) => s.x.length > 0).map((s) => ({ s, i: nearest(s, at) }));
    if (!svg || found.length === 0) return hide();
    const distance = (f) => Math.abs(share(f.s.x[f.i]) - at);
    const anchor = found.reduce((a, b) => (distance(b) < distance(a) ? b : a));
    const x = anchor.s.x[anchor.i];
    current = share(x);
    const head = document.createElement("b");
    head.textContent = data.label + " " + show(x, 7);
    const rows = found.filter((f) => Math.abs(share(f.s.x[f.i]) - current) * frame.width < 12).map(({ s, i }) => {
      const row = document.createElement("span");
      row.className = s.style;
      const name = document.createElement("i");
      name.textContent = s.name;
      row.append(name, data.percent ? show(s.y[i] * 100, 4) + " %" : show(s.y[i], 5));
      return row;
    });
    tip.replaceChildren(head, ...rows);
    tip.hidden = false;
    const left = frame.left + current * frame.width;
    if (!line || line.parentNode !== svg) {
      if (line) line.remove();
      line = document.createElementNS("http://www.w3.org/2000/svg", "path");
      line.setAttribute("class", "crosshair");
      svg.append(line);
    }
    line.setAttribute("d", "M" + left + " " + frame.top + "v" + frame.height);
    const pixels = (left / frame.total) * svg.clientWidth;
    const free = plot.clientWidth - tip.offsetWidth;
    tip.style.left = Math.max(0, Math.min(free, pixels > plot.clientWidth / 2 ? pixels - tip.offsetWidth - 14 : pixels + 14)) + "px";
    tip.style.top = (frame.top / frame.total) * svg.clientWidth + 6 + "px";
  };
  plot.addEventListener("pointermove", (event) => {
    const { svg, frame } = drawing();
    if (!svg) return;
    const box = svg.getBoundingClientRect();
    const at = (((event.clientX - box.left) / box.width) * frame.total - frame.left) / frame.width;
    if (at < -0.03 || at > 1.03) hide(); else point(Math.max(0, Math.min(1, at)));
  });
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1 }[event.key];
    if (event.key === "Escape") hide();
    if (move === undefined) return;
    event.preventDefault();
    point(Math.max(0, Math.min(1, (current === null ? 0 : current + move))));
  });
}
for (const heat of document.querySelectorAll(".heat")) {
  const told = heat.querySelector(".told");
  const tell = (event) => {
    const cell = event.target.closest(".cell");
    if (cell) told.textContent = cell.getAttribute("aria-label");
  };
  heat.addEventListener("pointerover", tell);
  heat.addEventListener("focusin", tell);
  heat.addEventListener("keydown", (event) => {
    const cell = event.target.closest(".cell");
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!cell || !move) return;
    event.preventDefault();
    const row = Number(cell.dataset.row) + move[0], column = Number(cell.dataset.column) + move[1];
    const next = cell.parentNode.querySelector('[data-row="' + row + '"][data-column="' + column + '"]');
    if (!next) return;
    cell.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });
}
for (const place of document.querySelectorAll(".download")) {
  const button = place.querySelector("button");
  button.addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([place.querySelector("script").textContent], { type: "application/json" }));
    link.download = button.dataset.file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
  place.hidden = false;
}
`;

/** The style sheet of reports: light and dark, wide and narrow, screen and paper. */
import { DARK_GROUND, LIGHT_GROUND, SERIES_COLOURS } from "../chart/palette.js";

/** Text colours of both schemes; tests hold them to a contrast of 4.5 (WCAG 2.2, 1.4.3). */
export const LIGHT_THEME = {
  ground: LIGHT_GROUND,
  raised: "#f6f7f9",
  ink: "#1b1f26",
  muted: "#5a6270",
  rule: "#dfe3e8",
  grid: "#e8ebef",
  accent: "#0067a8",
  best: "#00664a",
  bestGround: "#e3f4ee",
} as const;

export const DARK_THEME: Readonly<Record<keyof typeof LIGHT_THEME, string>> = {
  ground: DARK_GROUND,
  raised: "#1c2027",
  ink: "#e6e9ee",
  muted: "#9aa3b2",
  rule: "#31363f",
  grid: "#272c34",
  accent: "#5ab4ee",
  best: "#5fdcb4",
  bestGround: "#12352b",
};

export function styleSheet(): string {
  return `:root{color-scheme:light dark;${variables(LIGHT_THEME, 0)}}
@media (prefers-color-scheme:dark){:root{${variables(DARK_THEME, 1)}}}
${SERIES_COLOURS.map((_, i) => `.c${i}{--c:var(--series-${i})}`).join("")}
${LAYOUT}
@media print{:root{${variables(LIGHT_THEME, 0)}}${PRINT}}`;
}

function variables(theme: Readonly<Record<string, string>>, scheme: 0 | 1): string {
  const named = Object.entries(theme).map(([name, colour]) => `--${name}:${colour}`);
  return [...named, ...SERIES_COLOURS.map((pair, i) => `--series-${i}:${pair[scheme]}`)].join(";");
}

const LAYOUT = `
*,*::before,*::after{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;-webkit-font-smoothing:antialiased}
.page{max-width:60rem;margin:0 auto;padding:4.5rem 1.5rem 4rem}
h1,h2,h3{line-height:1.2;letter-spacing:-.015em;text-wrap:balance;overflow-wrap:anywhere}
h1{font-size:clamp(1.75rem,5vw,2.5rem);font-weight:650;margin:0}
h2{font-size:1.375rem;font-weight:620;margin:0 0 1.25rem}
h3{font-size:1rem;font-weight:600;letter-spacing:0;margin:0}
p{margin:0 0 1rem;max-width:42rem;overflow-wrap:anywhere}
a{color:var(--accent);text-decoration-thickness:1px;text-underline-offset:.2em}
:focus-visible{outline:2px solid var(--accent);outline-offset:3px;border-radius:3px}
.date{margin:0 0 .75rem;color:var(--muted);font-size:.875rem}
.subtitle{margin:.9rem 0 0;color:var(--muted);font-size:1.125rem;line-height:1.5}
nav{margin-top:2rem;padding-top:1rem;border-top:1px solid var(--rule);font-size:.875rem}
nav ol{display:flex;flex-wrap:wrap;gap:.35rem 1.5rem;list-style:none;margin:0;padding:0}
nav a{color:var(--muted);text-decoration:none}
nav a:hover{color:var(--accent);text-decoration:underline}
section{margin-top:4rem}
section>*+*:not(p){margin-top:2.25rem}
section>:not(p,h2)+p{margin-top:2rem}
section>h2+*{margin-top:0!important}
.facts{display:grid;grid-template-columns:minmax(8rem,max-content) 1fr;gap:.45rem 2rem;margin:0;font-size:.9375rem}
.facts dt{color:var(--muted)}
.facts dd{margin:0;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
.headline{display:grid;grid-template-columns:repeat(auto-fit,minmax(10.5rem,1fr));gap:1.75rem 2rem;margin:0;padding:1.5rem 0;border-top:1px solid var(--rule);border-bottom:1px solid var(--rule)}
.headline div{display:flex;flex-direction:column}
.headline dt{color:var(--muted);font-size:.875rem;order:2;line-height:1.35;margin-top:.3rem}
.headline dd{margin:0;font-size:1.75rem;font-weight:600;line-height:1.15;letter-spacing:-.02em;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.headline .unit{font-size:.9375rem;font-weight:400;letter-spacing:0;color:var(--muted)}
.scroll{overflow-x:auto;margin-inline:-.5rem;padding:0 .5rem}
table{border-collapse:collapse;width:100%;font-size:.9375rem;line-height:1.4}
caption{caption-side:top;text-align:left;font-weight:600;padding-bottom:.75rem}
th,td{padding:.6rem 0 .6rem 1.2rem;text-align:left;vertical-align:baseline}
th:first-child,td:first-child{padding-left:0}
thead th{font-weight:500;font-size:.8125rem;color:var(--muted);vertical-align:bottom;border-bottom:1px solid var(--muted)}
thead .unit{display:block;font-weight:400}
tbody th{font-weight:500;min-width:13rem}
tbody tr+tr>*{border-top:1px solid var(--rule)}
.right{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.best{font-weight:650;color:var(--best);background:var(--bestGround);padding:.1em .4em;margin:-.1em -.4em;border-radius:.3em}
.note,figcaption{color:var(--muted);font-size:.875rem;line-height:1.5;max-width:42rem;margin:.9rem 0 0}
figure{margin:0;container-type:inline-size;break-inside:avoid}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.5rem;list-style:none;margin:.6rem 0 .9rem;padding:0;font-size:.875rem;line-height:1.5}
.legend li{display:flex;align-items:center;gap:.55rem;min-width:0;overflow-wrap:anywhere}
.key{flex:none;display:inline-block;vertical-align:-.15em}
tbody .key{margin-right:.6rem}
.plot{position:relative;border-radius:3px}
.plot>svg{display:block;width:100%;height:auto;overflow:visible}
.plot>svg.narrow{display:none}
@container (max-width:36rem){.plot>svg.wide{display:none}.plot>svg.narrow{display:block}}
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;fill:var(--muted);font-variant-numeric:tabular-nums}
svg .label{fill:var(--ink);font-size:12.5px}
svg .halo{paint-order:stroke;stroke:var(--ground);stroke-width:4px;stroke-linejoin:round}
.grid{stroke:var(--grid);stroke-width:1}
.axis{stroke:var(--muted);stroke-width:1}
.reference{stroke:var(--muted);stroke-width:1.25;stroke-dasharray:3 3}
.line{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.line[stroke-dasharray]{stroke-linecap:butt}
.raw{fill:none;stroke:var(--c);stroke-width:1;opacity:.22;stroke-linejoin:round}
.band{fill:var(--c);opacity:.16}
.marker{fill:var(--c);stroke:var(--ground);stroke-width:1.25}
.crosshair{stroke:var(--muted);stroke-width:1;pointer-events:none}
.heat .plot>svg{width:auto;max-width:none;height:auto}
.heat .plot>svg.narrow{display:none}
@container (max-width:36rem){.heat .plot>svg.narrow{display:block}}
.cell text{fill:var(--ink);font-size:12px}
.cell text[fill="#000"]{fill:#000}
.cell text[fill="#fff"]{fill:#fff}
.cell:focus{outline:none}
.cell:focus rect{stroke:var(--ink);stroke-width:2.5}
.failed{fill:var(--rule)}
.empty{fill:none;stroke:var(--rule)}
.hatch{fill:none;stroke:var(--muted);stroke-width:1.25}
.told{font-variant-numeric:tabular-nums}
.heat details{margin-top:1rem}
.heat details .scroll{margin-inline:0;padding:0 1rem 1rem}
.excerpt h4{font-size:.8125rem;font-weight:600;color:var(--muted);margin:0;padding:.5rem 1rem 0}
.excerpt pre{max-height:24rem;overflow:auto}
.excerpt mark{background:var(--bestGround);color:var(--best)}
button{font:inherit;font-size:.9375rem;padding:.5rem 1rem;border:1px solid var(--muted);border-radius:.5rem;background:var(--raised);color:var(--ink);cursor:pointer}
.tip{position:absolute;z-index:1;top:0;left:0;pointer-events:none;max-width:min(22rem,90%);padding:.55rem .75rem;border:1px solid var(--rule);border-radius:.45rem;background:var(--ground);box-shadow:0 6px 24px rgb(0 0 0/.14);font-size:.8125rem;line-height:1.5;font-variant-numeric:tabular-nums}
.tip b{display:block;font-weight:600}
.tip span{display:flex;justify-content:space-between;gap:1.25rem}
.tip span::before{content:"";flex:none;align-self:center;width:.6rem;height:.6rem;border-radius:50%;margin-right:-.7rem;background:var(--c)}
.tip i{font-style:normal;flex:1;overflow-wrap:anywhere}
details{border:1px solid var(--rule);border-radius:.5rem}
details+details{margin-top:.75rem!important}
summary{cursor:pointer;padding:.7rem 1rem;font-size:.9375rem;font-weight:500;overflow-wrap:anywhere}
pre,.sample blockquote{font:.8125rem/1.6 ui-monospace,SFMono-Regular,"SF Mono",Menlo,Consolas,"Liberation Mono",monospace;white-space:pre-wrap;overflow-wrap:anywhere;margin:0}
details pre{padding:.25rem 1rem 1rem}
.samples{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1.5rem}
.sample{break-inside:avoid}
.sample blockquote{margin-top:.65rem;padding:1rem 1.15rem;background:var(--raised);border-radius:.5rem}
.sample mark{background:none;color:var(--muted)}
footer{margin-top:5rem;padding-top:1.25rem;border-top:1px solid var(--rule);color:var(--muted);font-size:.8125rem}
footer p{margin:0}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
@media (max-width:36rem){.page{padding:2.5rem 1.15rem 3rem}section{margin-top:3rem}.facts{grid-template-columns:1fr;gap:0}.facts dd{margin-bottom:.75rem}.headline{grid-template-columns:1fr 1fr;gap:1.25rem}.headline dd{font-size:1.375rem}}`;

const PRINT = `
body{font-size:10.5pt}.page{max-width:none;padding:0}nav,.tip,.crosshair,.download,.told{display:none}
section{margin-top:2rem}h2,h3,caption{break-after:avoid}tr{break-inside:avoid}
.scroll{overflow:visible}table{font-size:8.5pt}th,td{padding-left:.8rem}
details:not([open])>*:not(summary){display:block}details::details-content{content-visibility:visible;display:block}
.plot{max-width:14.5cm}.headline{grid-template-columns:repeat(auto-fit,minmax(3.8cm,1fr))}
.best{background:none;padding:0;margin:0;text-decoration:underline}`;

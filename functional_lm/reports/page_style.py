"""How the page about a run looks, in the light and in the dark."""

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1f2328; --quiet: #59636e; --paper: #ffffff; --ground: #f3f4f6; --line: #d5d9de;
  --bad: #b3261e; --warn: #8a5a00; --blue: #0072b2;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e8eb; --quiet: #9aa4af; --paper: #1b1e22; --ground: #111316; --line: #373d45;
    --bad: #ff8a80; --warn: #f0b429; --blue: #3f9fdf;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; color: var(--ink); background: var(--ground);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 70rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { margin: 0 0 1rem; font-size: 1.8rem; overflow-wrap: anywhere; }
h2 { margin: 2.2rem 0 0.8rem; font-size: 1.25rem; }
h3 { margin: 0 0 0.3rem; font-size: 1rem; }
p { margin: 0.3rem 0; overflow-wrap: anywhere; }
footer, small, dt, figcaption, caption { color: var(--quiet); }
footer { margin-top: 2.5rem; font-size: 0.85rem; }
.cards, .pictures, .tables { display: grid; gap: 0.7rem; margin: 0; }
.cards { grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); }
.pictures { grid-template-columns: repeat(2, minmax(0, 1fr)); }
.tables { grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); align-items: start; }
.cards div, figure, details, .finding, table {
  background: var(--paper); border: 1px solid var(--line); border-radius: 8px;
}
.cards div { padding: 0.6rem 0.9rem; }
dt { font-size: 0.82rem; }
dd { margin: 0; font-size: 1.15rem; font-weight: 600; font-variant-numeric: tabular-nums; }
dd small { font-size: 0.8rem; font-weight: 400; white-space: nowrap; }
ul { list-style: none; margin: 0; padding: 0; }
.finding { padding: 0.7rem 0.9rem; margin-bottom: 0.6rem; border-left-width: 5px; }
.finding b { text-transform: uppercase; font-size: 0.75rem; letter-spacing: 0.05em; }
.finding p::first-letter { text-transform: uppercase; }
.error { border-left-color: var(--bad); }
.error b { color: var(--bad); }
.warning { border-left-color: var(--warn); }
.warning b { color: var(--warn); }
.pictures figure:first-child { grid-column: 1 / -1; }
figure { margin: 0; padding: 0.6rem; }
figcaption {
  position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
}
svg { display: block; width: 100%; height: auto; color: var(--ink); }
svg text { font-family: inherit !important; }
details { margin-bottom: 0.6rem; }
summary { padding: 0.5rem 0.9rem; cursor: pointer; font-weight: 600; }
pre {
  margin: 0; padding: 0.2rem 0.9rem 0.9rem; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 0.9rem/1.45 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
table { width: 100%; border-spacing: 0; padding: 0.4rem 0.9rem 0.7rem; font-size: 0.9rem; }
caption { text-align: left; padding: 0.3rem 0.2rem; font-weight: 600; caption-side: top; }
th { text-align: left; vertical-align: top; padding-right: 1rem; }
th { font-weight: 400; color: var(--quiet); }
td { overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
@media (max-width: 45rem) { .pictures { grid-template-columns: minmax(0, 1fr); } }
@media print { details:not([open]) { display: none; } }
"""

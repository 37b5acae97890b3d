"""Style of the page: light and dark, and on paper."""

from rltrain.report.drawing import PALETTE

_ON_BLACK = ("#4a9fe0", "#f58549", "#2dbf94", "#e29cc4", "#f0b440", "#9ad4f5", "#c09a76")


def _series(colours: tuple[str, ...]) -> str:
    return " ".join(f"--series-{place}: {colour};" for place, colour in enumerate(colours))


PAGE_STYLE = (
    f"""
:root {{ {_series(PALETTE)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_series(_ON_BLACK)} }} }}
"""
    + """
:root { --ink: #1b1f24; --paper: #ffffff; --soft: #5b6570; --line: #d9dee3; --wash: #f4f6f8; --note: #fff6df;
  --edge: #d9a400; --link: #0b62a8; --best: #e8f3ec; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ea; --paper: #14171a; --soft: #9aa4ae; --line: #333a41; --wash: #1c2126; --note: #2b2614;
    --edge: #c79a1c; --link: #7ab8f0; --best: #16291f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 24px 20px 48px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 36px 0 10px; overflow-wrap: anywhere; }
header p, figcaption, footer, dd { color: var(--soft); }
p, li, dd, figcaption { overflow-wrap: anywhere; }
.notes { background: var(--note); border-left: 4px solid var(--edge); padding: 10px 18px; margin-top: 20px; }
.notes h2 { margin: 0 0 4px; font-size: 1rem; }
.notes ul { margin: 0; padding-left: 18px; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.84rem; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; border-bottom: 2px solid var(--line); vertical-align: bottom; }
th, td { padding: 5px 10px 5px 6px; white-space: nowrap; max-width: 380px; overflow: hidden; text-overflow: ellipsis; }
td { border-bottom: 1px solid var(--line); }
.n { text-align: right; }
tr.best td { background: var(--best); font-weight: 600; }
figure { margin: 0; }
figure svg { display: block; width: 100%; height: auto; color: var(--ink); }
figcaption { font-size: 0.87rem; max-width: 760px; margin-top: 6px; }
figcaption span { white-space: nowrap; }
a { color: var(--link); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 6px 18px; margin: 0; font-size: 0.9rem; }
dt { font-weight: 600; }
dd { margin: 0; }
details { margin-top: 24px; }
summary { cursor: pointer; font-weight: 600; }
footer { margin-top: 40px; border-top: 1px solid var(--line); font-size: 0.85rem; }
@media (max-width: 600px) { dl { display: block; } dd { margin-bottom: 8px; } }
@media print { main { max-width: none; } section { break-inside: avoid; } }
"""
)

"""One HTML page that needs nothing but itself: tiles of figures, drawings, tables.

It follows the reader's light or dark theme and fits a phone. Everything that comes from a run is
escaped.
"""

from collections.abc import Sequence
from html import escape
from typing import Any, Final

from simnet.reports.drawing import to_svg
from simnet.reports.plots_market import Plot

STYLE: Final = """
:root{--ink:#20242b;--faint:#9aa3ad;--page:#f5f6f8;--card:#fff;--edge:#e1e4e9;--good:#1c8058;
--bad:#c6362e;--face:system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--ink:#dfe3ea;--faint:#6b7480;--page:#14171c;
--card:#1d2127;--edge:#2c323a;--good:#4fc397;--bad:#f0716a}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 var(--face)}
main{max-width:1180px;margin:0 auto;padding:24px 16px 48px}
h1{font-size:1.7rem;line-height:1.2;margin:0}h2{font-size:1.05rem;margin:0 0 6px}
.about{margin:4px 0 20px;opacity:.8}
.tiles{display:grid;gap:10px;grid-template-columns:repeat(auto-fill,minmax(136px,1fr));
margin:0 0 16px}
.tile,figure,.card{background:var(--card);border:1px solid var(--edge);border-radius:10px}
.tile{padding:10px 14px}.tile b{display:block;font-size:1.45rem;line-height:1.25;font-weight:650}
.tile span{font-size:.82rem;opacity:.75}.good b{color:var(--good)}.bad b{color:var(--bad)}
.plots{display:grid;gap:16px;grid-template-columns:repeat(auto-fill,minmax(min(100%,500px),1fr))}
figure{margin:0;padding:14px 14px 10px}figure svg{display:block;width:100%;height:auto}
figcaption{font-size:.9rem;opacity:.85;margin-top:6px}
.card{padding:14px;margin-top:16px;overflow-x:auto}.fault{border-color:var(--bad)}
table{border-collapse:collapse;font-size:.88rem}
td,th{text-align:left;padding:3px 18px 3px 0;vertical-align:top}
th{font-weight:600;opacity:.75}td{font-variant-numeric:tabular-nums}td.n{text-align:right}
td:last-child{overflow-wrap:anywhere}summary{cursor:pointer}pre{font-size:.8rem;margin:8px 0 0}
@media print{:root{--page:#fff}figure{break-inside:avoid}}
"""

Tile = tuple[str, str, str]  # value, label, "good", "bad" or ""


def page(title: str, about: str, tiles: Sequence[Tile], plots: Sequence[Plot], rest: str) -> str:
    """The whole page; `rest` is HTML that goes under the drawings."""
    told = "".join(
        f'<div class="tile {kind}"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
        for value, label, kind in tiles
    )
    drawn = "".join(map(_figure, plots))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="about">{escape(about)}</p>'
        f'<div class="tiles">{told}</div><div class="plots">{drawn}</div>{rest}'
        "</main></body></html>\n"
    )


def _figure(plot: Plot) -> str:
    # The names that matplotlib gives to parts are the same in each drawing: here they are not.
    svg = to_svg(plot.drawn)
    for mark in ('id="', 'href="#', "url(#"):
        svg = svg.replace(mark, f"{mark}{plot.name}-")
    svg = svg.replace('role="img"', f'role="img" aria-label="{escape(plot.title)}"', 1)
    return (
        f'<figure id="{escape(plot.name)}"><h2>{escape(plot.title)}</h2>{svg}'
        f"<figcaption>{escape(plot.caption)}</figcaption></figure>"
    )


def table(rows: Sequence[Sequence[Any]], head: Sequence[str] = ()) -> str:
    """Rows as a table; numbers stand to the right."""
    lines = []
    if head:
        lines.append("".join(f"<th>{escape(name)}</th>" for name in head))
    for row in rows:
        cells = (
            f"<td{' class=n' if isinstance(cell, int | float) else ''}>{escape(_said(cell))}</td>"
            for cell in row
        )
        lines.append("".join(cells))
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _said(cell: Any) -> str:
    if isinstance(cell, float):
        return f"{cell:,.4g}"
    return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)


def card(title: str, inside: str, kind: str = "") -> str:
    """A box of its own."""
    return f'<section class="card {kind}"><h2>{escape(title)}</h2>{inside}</section>'


def folded(title: str, text: str) -> str:
    """Text that opens on a click."""
    told = f"<summary>{escape(title)}</summary><pre>{escape(text)}</pre>"
    return f'<section class="card"><details>{told}</details></section>'

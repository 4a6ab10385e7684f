"""Small line plots as SVG, without any library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

WIDTH: Final = 250
HEIGHT: Final = 170
LEFT: Final = 40
TOP: Final = 34
GAP: Final = 34
COLUMNS: Final = 3
COLOURS: Final = ("#d62728", "#ff9896", "#1f77b4", "#2ca02c", "#9467bd", "#8c8c8c", "#aec7e8", "#98df8a")
TICKS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot: lines by name over the same abscissae; both axes go from 0 to 1."""

    title: str
    x: Sequence[float]
    lines: Mapping[str, Sequence[float]]


def draw(panels: Sequence[Panel]) -> str:
    """All panels in rows, and the legend in the last place."""
    rows = -(-(len(panels) + 1) // COLUMNS)
    width = COLUMNS * (LEFT + WIDTH + GAP)
    height = rows * (TOP + HEIGHT + GAP)
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, panel in enumerate(panels):
        body += _placed(number, _panel(panel))
    body += _placed(len(panels), _legend(panels[0].lines))
    return "\n".join([*body, "</svg>", ""])


def _placed(number: int, content: Iterable[str]) -> Iterator[str]:
    row, column = divmod(number, COLUMNS)
    yield f'<g transform="translate({column * (LEFT + WIDTH + GAP) + LEFT},{row * (TOP + HEIGHT + GAP) + TOP})">'
    yield from content
    yield "</g>"


def _panel(panel: Panel) -> Iterator[str]:
    yield f'<text x="0" y="-12" font-size="13" font-weight="bold">{escape(panel.title)}</text>'
    for tick in TICKS:
        x, y = tick * WIDTH, HEIGHT * (1 - tick)
        yield f'<line x1="0" y1="{y:g}" x2="{WIDTH}" y2="{y:g}" stroke="#dddddd"/>'
        yield f'<text x="-6" y="{y + 4:g}" text-anchor="end">{tick:.0%}</text>'
        yield f'<text x="{x:g}" y="{HEIGHT + 14}" text-anchor="middle">{tick:.0%}</text>'
    for colour, (name, values) in zip(COLOURS, panel.lines.items(), strict=True):
        points = " ".join(f"{x * WIDTH:.1f},{HEIGHT * (1 - y):.1f}" for x, y in zip(panel.x, values, strict=True))
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2">'
        yield f"<title>{escape(name)}</title></polyline>"


def _legend(lines: Iterable[str]) -> Iterator[str]:
    yield '<text x="0" y="-12">hit ratio (up) over the size of the cache (right)</text>'
    for number, (colour, name) in enumerate(zip(COLOURS, lines, strict=True)):
        y = number * 22 + 10
        yield f'<line x1="0" y1="{y}" x2="30" y2="{y}" stroke="{colour}" stroke-width="3"/>'
        yield f'<text x="38" y="{y + 4}">{escape(name)}</text>'

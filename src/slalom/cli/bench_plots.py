"""The plots of a report as SVG text that stands in a page: speeds, limits, and one request over time.

Only a report needs matplotlib, so only a report imports this.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from slalom.bench.comparison import Comparison
from slalom.bench.protected import Timeline
from slalom.bench.rows import Row
from slalom.cli.comparison_view import cores_text, readable_rate
from slalom.cli.screen import printable, readable_bytes
from slalom.trusted.recorder import Side, Span

WIDTH = 10.0  # inches, of 72 points
_LEVELS = {"device": "#9c755f", "enclave": "#bab0ac", "verified": "#4e79a7", "blinded": "#f28e2b", "private": "#e15759"}
_ENGINE = "#8c8c8c"
_LINES = ("#1b7837", "#762a83", "#b35806", "#555555")
_DASHES = ("-", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LABEL_SHARE = 0.045  # of the width, below which a span has no room for its name
_STYLE: Any = {
    "font.size": 9, "svg.hashsalt": "slalom", "axes.spines.top": False, "axes.spines.right": False,
    "axes.unicode_minus": False, "text.parse_math": False,
}  # fmt: skip


def speeds_svg(found: Comparison) -> str:
    """Bars of images a second, a panel for each number of cores, whiskers from p10 to p90."""
    groups = [[row for row in found.rows if row.cores == cores] for cores in sorted({row.cores for row in found.rows})]
    heights = [len(group) + 1.2 for group in groups]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, 0.32 * sum(heights) + 0.5), layout="constrained")
        panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)
        for axes, group in zip(panels[:, 0], groups, strict=True):
            _draw_bars(axes, group)
        panels[-1, 0].set_xlabel("images/s, median; whiskers from p10 to p90")
        return _text_of(figure, "speeds")


def _draw_bars(axes: Axes, rows: Sequence[Row]) -> None:
    rates = [row.rate for row in rows]
    low = [max(0.0, rate.median - rate.p10) for rate in rates]
    high = [max(0.0, rate.p90 - rate.median) for rate in rates]
    places = list(range(len(rows)))
    colours = [_LEVELS.get(row.name, _ENGINE) for row in rows]
    axes.barh(places, [rate.median for rate in rates], xerr=(low, high), color=colours, capsize=3, height=0.7)
    for place, rate in zip(places, rates, strict=True):
        axes.annotate(
            readable_rate(rate.median), (rate.p90, place), (6, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_yticks(places, [row.name for row in rows])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_title(cores_text(rows[0].cores) if rows else "", loc="left", fontsize=9, fontweight="bold")


def limits_svg(found: Comparison) -> str:
    """Rooflines: images a second against the bytes of an image, beside the lines that the machine draws."""
    rows = [row for row in found.rows if row.memory_bytes]
    link = [(name, rate) for name, rate in _link_lines(found) if rate]
    memory = [(f"memory, {cores_text(cores)}", rate) for cores, rate in sorted(found.limits.memory.items())]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
        panels = figure.subplots(1, 2 if link else 1, squeeze=False)[0]
        _draw_roofline(panels[-1], [(row, row.memory_bytes) for row in rows], memory, found)
        panels[-1].set_xlabel("bytes that the trusted side moves for an image, at least")
        if link:
            _draw_roofline(
                panels[0], [(row, max(row.bytes_to_device, row.bytes_from_device)) for row in rows], link, found
            )
            panels[0].set_xlabel("bytes of an image over the link, the busier way")
        panels[0].set_ylabel("images/s")
        return _text_of(figure, "limits")


def _link_lines(found: Comparison) -> tuple[tuple[str, float | None], ...]:
    return (("link, to the device", found.limits.to_device), ("link, from the device", found.limits.from_device))


def _draw_roofline(
    axes: Axes, points: Sequence[tuple[Row, float]], lines: Sequence[tuple[str, float]], found: Comparison
) -> None:
    sizes = [size for _, size in points] or [1.0]
    ends = [min(sizes) / 3, max(sizes) * 3]
    for index, (name, rate) in enumerate(lines):
        label = f"{name}: {readable_bytes(rate)}/s"
        colour, dash = _LINES[index % len(_LINES)], _DASHES[index % len(_DASHES)]
        axes.plot(ends, [rate / end for end in ends], label=label, color=colour, linestyle=dash, linewidth=1.3)
    if found.limits.gpu_rate:
        label = f"compute, plain GPU: {readable_rate(found.limits.gpu_rate)}/s"
        axes.axhline(found.limits.gpu_rate, color="black", linestyle="--", linewidth=1.2, label=label)
    counts = sorted({row.cores for row, _ in points})
    for row, size in points:
        marker = _MARKERS[counts.index(row.cores) % len(_MARKERS)]
        label = f"{row.name}, {cores_text(row.cores)}"
        axes.plot([size], [row.rate.median], marker, color=_LEVELS.get(row.name, _ENGINE), label=label, markersize=7)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # a plot may lie within one power of ten
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda size, _: readable_bytes(size))
    axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:,.10g}")
    axes.grid(True, which="major", color="#e5e5e5", linewidth=0.6)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, fontsize=7, frameon=False)


def timeline_svg(found: Timeline) -> str:
    """One request: a lane for each side of each micro-batch, a bar for each step, milliseconds from its beginning."""
    parts = sorted({span.micro_batch for span in found.spans})
    lanes = [(side, part) for part in parts for side in (Side.DEVICE, Side.TRUSTED)]
    end = max((span.end for span in found.spans), default=0.0) or 1.0
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, 0.42 * len(lanes) + 0.9), layout="constrained")
        axes = figure.subplots()
        for place, (side, part) in enumerate(lanes):
            mine = [span for span in found.spans if (span.side, span.micro_batch) == (side, part)]
            _draw_lane(axes, place, mine, end)
        axes.set_yticks(range(len(lanes)), [f"{_lane_name(side)}, part {part + 1}" for side, part in lanes])
        axes.set_ylim(len(lanes) - 0.4, -0.6)
        axes.set_xlim(0, end * 1e3)
        axes.set_xlabel(f"ms; {found.level}, {cores_text(found.cores)}, {found.batch} images")
        return _text_of(figure, f"timeline-{found.level}")


def _lane_name(side: Side) -> str:
    return "device and link" if side is Side.DEVICE else "trusted"


def _draw_lane(axes: Axes, place: int, spans: Sequence[Span], end: float) -> None:
    shades = ("#76b7b2", "#a8d5d1") if spans and spans[0].side is Side.DEVICE else ("#e15759", "#f1a5a6")
    bars = [(span.begin * 1e3, (span.end - span.begin) * 1e3) for span in spans]
    colours = [shades[index % 2] for index in range(len(spans))]
    axes.broken_barh(bars, (place - 0.35, 0.7), facecolors=colours)
    for span in spans:
        share = (span.end - span.begin) / end
        if share >= _LABEL_SHARE:
            text = _shortened(printable(span.step), int(share * 105))
            axes.text((span.begin + span.end) * 5e2, place, text, ha="center", va="center", fontsize=6.5, clip_on=True)


def _shortened(text: str, length: int) -> str:
    """Its end, where a name of many parts differs from the next."""
    return text if len(text) <= length else "…" + text[len(text) - max(0, length - 1) :]


def _text_of(figure: Figure, name: str) -> str:
    """The figure as an `svg` element. Names within it begin with its own: a page holds several."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue()
    text = text[text.index("<svg") :].replace("xlink:href", "href")
    text = re.sub(r"\s+xmlns(:\w+)?=\"[^\"]*\"", "", text)
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)  # comments repeat the words
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text)

"""One page of a comparison that opens anywhere: plots, tables beside them, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from slalom.bench.comparison import Comparison
from slalom.cli.bench_plots import limits_svg, speeds_svg, timeline_svg
from slalom.cli.comparison_view import limit_cells, notes, origin_line, speed_cells, stage_cells
from slalom.cli.screen import printable

_STYLE = """
:root { color-scheme: light; }
body { background: #fff; color: #222; font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; margin: 2rem auto;
  max-width: 62rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.platform { background: #fff4d6; border-left: 4px solid #d9a400; padding: .4rem .8rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .87rem; }
th, td { padding: .15rem .7rem; text-align: right; border-bottom: 1px solid #e3e3e3; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
svg { max-width: 100%; height: auto; } .note { color: #555; font-size: .87rem; }
"""

_SPEED = ("row", "cores", "images/s", "p10 - p90", "latency p50", "p90", "of in-TEE", "of torch")
_LIMITS = ("level", "cores", "up", "down", "link limit", "share", "memory limit", "share")
_STAGES = ("level", "cores", "trusted", "wait", "device", "masks", "set-up, once")
_SPEED_NOTE = (
    "Of in-TEE: over the strongest engine that computes everything on as many trusted cores. Of torch: over torch in "
    "fp32 on as many cores. Masks of a request are made before its clock starts. Latency is of a request."
)
_LIMITS_NOTE = (
    "Limits in images/s, measured in this run: bandwidth over the bytes of an image. Memory counts the least that the "
    "trusted side moves for what crosses, with the masks of what is blinded. A dashed line is what the plain GPU does."
)
_STAGES_NOTE = (
    "Seconds of one image. Wait is for the device and the link, as the trusted side sees it. Device sums answers that "
    "overlap. Masks are made ahead. Set-up is once a session."
)
_TIMELINE_NOTE = (
    "One request as the trusted side saw it. Device and link: from an ask to its answer, or from one claim to the next "
    "where the device runs ahead. Trusted: until the next ask."
)


def comparison_page(found: Comparison) -> str:
    """The page, HTML that is XML too. Everything that came from elsewhere is escaped."""
    levels = [row for row in found.rows if row.stages is not None]
    body = [
        f"<h1>{_text(found.model)}</h1>",
        f'<p class="note">{_text(origin_line(found))}</p>',
        f'<p class="platform">{_text(found.platform)}. Weights: {_text(found.weights)}.</p>',
        *_section("Speed", speeds_svg(found), (_SPEED, [speed_cells(found, row) for row in found.rows]), _SPEED_NOTE),
    ]
    if levels:
        cells = [limit_cells(found, row) for row in levels]
        body += _section("Limits", limits_svg(found), (_LIMITS, cells), _LIMITS_NOTE)
        body += _section("Where the time goes", "", (_STAGES, [stage_cells(row) for row in levels]), _STAGES_NOTE)
    for timeline in found.timelines:
        body += [f"<h2>One request, {_text(timeline.level)}</h2>", timeline_svg(timeline)]
        body.append(f'<p class="note">{_text(_TIMELINE_NOTE)}</p>')
    body += ["<h2>How it was measured</h2>", _list([*notes(found), *_versions(found)])]
    title = f"slalom bench: {_text(found.model)}"
    head = f'<meta charset="utf-8"/><title>{title}</title><style>{_STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def _section(
    title: str, plot: str, table: tuple[Sequence[str], Iterable[Sequence[str]]], explanation: str
) -> list[str]:
    head, rows = table
    return [f"<h2>{_text(title)}</h2>", plot, _table(head, rows), f'<p class="note">{_text(explanation)}</p>']


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["".join(f"<th>{_text(name)}</th>" for name in head)]
    lines += ["".join(f"<td>{_text(cell)}</td>" for cell in row) for row in rows]
    return '<div class="scroll"><table>' + "\n".join(f"<tr>{line}</tr>" for line in lines) + "</table></div>"


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "\n".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>"


def _versions(found: Comparison) -> list[str]:
    origin = found.provenance
    names = ("slalom", "python", "numpy", "torch", "openvino")
    known = [f"{name} {getattr(origin, name)}" for name in names if getattr(origin, name)]
    return [", ".join(known), f"plan digest {found.plan_digest}, spawned workers compute on {found.worker_device}"]


def _text(text: str) -> str:
    return escape(printable(text))

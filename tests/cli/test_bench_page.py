"""The page of a comparison: well formed, whole, fetching nothing, and nobody's words in it but as text."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from slalom.bench.comparison import comparison_document
from slalom.cli import bench_plots
from slalom.cli.bench_page import comparison_page
from slalom.errors import InputError
from tests.cli.running import assert_refused, slalom
from tests.comparisons import comparison

PAGE = comparison_page(comparison())


def test_it_is_well_formed_and_has_every_row() -> None:
    root = ElementTree.fromstring(PAGE.removeprefix("<!DOCTYPE html>\n"))
    assert root.tag == "html"
    cells = [["".join(cell.itertext()) for cell in row] for row in root.iter("tr")]
    for row in comparison().rows:
        cores = "GPU" if row.cores == 0 else str(row.cores)
        assert any(line[:2] == [row.name, cores] for line in cells), row.name
    assert len(list(root.iter("svg"))) == 3
    text = "".join(root.itertext())
    for word in ("simulation: no TEE", "not measured: openvino bf16", "0123456789ab", "50 GB/s up", "random (seed 0)"):
        assert word in text


def test_a_plot_within_one_power_of_ten_has_plain_labels() -> None:
    """The plotter would label the ticks between by itself, in its own notation."""
    found = comparison()
    figure = Figure()
    axes = figure.subplots()
    rows = [row for row in found.rows if row.memory_bytes]
    bench_plots._draw_roofline(axes, [(row, 2e7) for row in rows], [("link", 5e10)], found)
    figure.canvas.draw()
    assert len([label for label in axes.get_xticklabels() if label.get_text().endswith("MB")]) >= 3
    between = [*axes.get_xticklabels(minor=True), *axes.get_yticklabels(minor=True)]
    assert not any(label.get_text() for label in between)


def test_it_fetches_and_runs_nothing() -> None:
    seen: list[tuple[str, str, str | None]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.extend((tag, *attribute) for attribute in attrs or [("", None)])

    Reader().feed(PAGE)
    tags = {tag for tag, _, _ in seen}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "image", "foreignobject"}
    assert all((value or "").startswith("#") for _, name, value in seen if name in ("href", "src", "xlink:href"))
    assert not any(name.startswith("on") for _, name, _ in seen)
    assert "http:" not in PAGE and PAGE.count("https:") == PAGE.count("&lt;script src=&quot;https:")
    assert "@import" not in PAGE and "url(" not in PAGE.replace("url(#", "")


def test_names_within_are_unique() -> None:
    root = ElementTree.fromstring(PAGE.removeprefix("<!DOCTYPE html>\n"))
    names = [name for element in root.iter() if (name := element.get("id"))]
    assert len(names) == len(set(names))
    used = {name.removeprefix("#") for element in root.iter() if (name := element.get("href"))}
    assert used <= set(names)


def test_from_a_document_of_an_earlier_run(tmp_path: Path) -> None:
    measured, page, lines = tmp_path / "found.json", tmp_path / "page.html", tmp_path / "rows.csv"
    measured.write_text(json.dumps({"side_by_side": comparison_document(comparison())}))
    result = slalom("bench", "--from", measured, "--report", page, "--append", lines)
    assert (result.exit_code, result.stderr) == (0, "")
    assert page.read_text("utf-8") == PAGE
    assert len(lines.read_text("utf-8").splitlines()) > len(comparison().rows)
    for content in ("{}", "[]", "no JSON"):
        measured.write_text(content)
        assert_refused(slalom("bench", "--from", measured), InputError)

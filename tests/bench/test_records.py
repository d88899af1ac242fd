"""Lines of the CSV file: whole, under one header, or refused with the file as it was."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from slalom.bench import records
from slalom.bench.records import COLUMNS, append_rows
from slalom.errors import InputError
from tests.comparisons import HOSTILE, comparison


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_new_file_and_one_that_grows(tmp_path: Path) -> None:
    path, found = tmp_path / "rows.csv", comparison()
    append_rows(path, found)
    append_rows(path, found)
    rows = read(path)
    assert path.read_text("utf-8").startswith(",".join(COLUMNS) + "\n")
    assert [row["row"] for row in rows] == [row.name for row in found.rows] * 2
    assert rows[0]["model"] == HOSTILE and rows[0]["commit"] == "0123456789ab" and rows[0]["gpu"] == "a GPU"
    assert (rows[0]["cores"], rows[0]["bytes_to_device"], rows[0]["link_share"]) == ("0", "", "")
    private = rows[-1]
    assert (private["row"], private["cores"], private["over_in_tee"]) == ("private", "4", "2.0")
    assert (private["images_per_second"], private["images_per_second_p10"]) == ("320.0", "288.0")
    assert (private["mask_seconds"], private["memory_rate"], private["worker_device"]) == (
        "0.004",
        "60000000000.0",
        "cuda",
    )
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", ["a,b\n1,2\n", ",".join(COLUMNS[:-1]) + "\n", ",".join(COLUMNS) + "\n1,2"])
def test_other_columns_and_half_a_line_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        append_rows(path, comparison())
    assert caught.value.hint and path.read_text() == content


def test_nothing_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.csv"
    append_rows(path, comparison())
    before = path.read_bytes()

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(records.Path, "replace", fail)
    with pytest.raises(OSError):
        append_rows(path, comparison())
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        append_rows(tmp_path / "no" / "rows.csv", comparison())
    with pytest.raises(InputError):
        append_rows(tmp_path, comparison())

"""The documents are true of the code: links, paths, names, commands, exit codes, and the example of the README."""

from __future__ import annotations

import importlib
import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "slalom"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PATH = re.compile(r"\.?[\w-]+(/[\w.-]+)+/?|[\w-]+/|[\w-]+\.(py|inl|hpp|cpp|md|toml)")
_DOTTED = re.compile(r"(slalom\.)?[a-z_]+(\.\w+)+")
_NOT_BUILT = {"--tee"}  # named as later work, and so must not exist

names_of_documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def prose(document: Path) -> str:
    """A document without its code blocks."""
    return _BLOCK.sub("", document.read_text(encoding="utf-8"))


def spans(document: Path) -> list[str]:
    """Everything a document sets in code, outside blocks."""
    return _CODE.findall(prose(document))


# ---------------------------------------------------------------- links, paths and names


def test_the_documents_are_there() -> None:
    expected = {"README", "ARCHITECTURE", "SECURITY", "CHANGELOG", "CONTRIBUTING", "glossary"}
    assert expected <= {path.stem for path in DOCUMENTS}


@names_of_documents
def test_relative_links_lead_somewhere(document: Path) -> None:
    targets = [link.split("#")[0] for link in _LINK.findall(prose(document)) if "://" not in link]
    missing = [target for target in targets if target and not (document.parent / target).exists()]
    assert missing == []


@names_of_documents
def test_paths_exist(document: Path) -> None:
    missing = [span for span in spans(document) if _PATH.fullmatch(span) and not _is_somewhere(span)]
    assert missing == []


def _is_somewhere(path: str) -> bool:
    if (ROOT / path).exists() or (PACKAGE / path).exists():
        return True
    return "/" not in path and any(next((ROOT / room).rglob(path), None) for room in ("src", "native", "reference"))


@names_of_documents
def test_dotted_names_exist(document: Path) -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    tokens = [span for span in spans(document) if _DOTTED.fullmatch(span)]
    named = [token.removeprefix("slalom.") for token in tokens]
    missing = [name for name in named if name.split(".")[0] in rooms and not _is_importable(name)]
    assert missing == []


def _is_importable(name: str) -> bool:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(["slalom", *parts[:length]]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[length:]:
            if not hasattr(found, attribute):
                return False
            found = getattr(found, attribute)
        return True
    return False


def test_the_index_lists_every_decision() -> None:
    folder = ROOT / "docs" / "decisions"
    linked = set(_LINK.findall((folder / "README.md").read_text(encoding="utf-8")))
    assert linked == {path.name for path in folder.glob("0*.md")}


def test_figures_are_well_formed_and_described() -> None:
    figures = list((ROOT / "docs" / "figures").glob("*.svg"))
    assert figures
    for figure in figures:
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.parse(figure).iter()}
        assert {"title", "desc"} <= tags


# ---------------------------------------------------------------- make, the command line, extras, exit codes


@names_of_documents
def test_make_targets_exist(document: Path) -> None:
    rules = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    wanted = {found for text in _commands(document) for found in re.findall(r"^make ([a-z-]+)", text)}
    assert wanted <= rules


def _commands(document: Path) -> Iterator[str]:
    yield from spans(document)
    for language, block in _BLOCK.findall(document.read_text(encoding="utf-8")):
        if language == "console":
            yield from block.splitlines()


def _options() -> dict[str, set[str]]:
    typer = pytest.importorskip("typer")
    command = typer.main.get_command(importlib.import_module("slalom.cli.app").app)
    return {name: {flag for item in entry.params for flag in item.opts} for name, entry in command.commands.items()}


def test_commands_of_the_readme_exist() -> None:
    options = _options()
    lines = [text for text in _commands(ROOT / "README.md") if text.startswith("slalom ")]
    assert len(lines) > 6
    for line in lines:
        _, name, *words = shlex.split(line, comments=True)
        assert name in options
        assert {word for word in words if word.startswith("-")} <= options[name], line
        _check_values(line, words)


def _check_values(line: str, words: list[str]) -> None:
    """The words after the flags that name one of a few things."""
    from slalom import attacks
    from slalom.trusted.policy import Check, Protection, Schedule
    from slalom.zoo import catalogue

    known = {"--protection": list(Protection), "--check": list(Check), "--schedule": list(Schedule)}
    known["--attack"] = list(attacks.names())
    for flag, value in itertools.pairwise(words):
        assert value in known.get(flag, [value]), line
    if words and not words[0].startswith("-"):
        assert words[0] in catalogue.names() or words[0].endswith(".slalom"), line


def test_flags_of_the_readme_exist() -> None:
    """In the table of the prototype's flags, ours stand in the second column."""
    options = _options()
    every = set().union(*options.values())
    text = re.sub(r"^\|[^|]*--[^|]*\|", "|", _BLOCK.sub("", README), flags=re.MULTILINE)
    named = [span.split() for span in _CODE.findall(text) if "--" in span]
    flags = {word for words in named for word in words if word.startswith("--")}
    assert flags - _NOT_BUILT <= every
    assert not _NOT_BUILT & every, "it exists now: say so"
    for words in named:
        _check_values(" ".join(words), words if words[0].startswith("--") else [])


def test_networks_named_in_the_readme_are_those_of_the_zoo() -> None:
    from slalom.zoo import catalogue

    start = README.index("Networks by name:")
    listed = _CODE.findall(README[start : README.index(".", start)])
    assert listed == list(catalogue.names())


def test_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(re.findall(r'`pip install "\.\[(\w+)\]"`', README)) == set(project["optional-dependencies"])


def test_exit_codes_are_those_of_the_errors() -> None:
    from slalom import errors

    rows = re.findall(r"^\| (\d+) \| `(\w+)`", README, re.MULTILINE)
    rows += re.findall(r"^\| (\d+) \| `(\w+)` \(for", README, re.MULTILINE)
    assert {name: int(code) for code, name in rows} == {
        kind.__name__: kind.exit_code
        for kind in errors.SlalomError.__subclasses__() + errors.ApiMisuse.__subclasses__()
        if kind is not errors.ApiMisuse
    }
    assert errors.ApiMisuse.exit_code == 2


# ---------------------------------------------------------------- the example


def test_the_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    examples = [block for language, block in _BLOCK.findall(README) if language == "python"]
    assert len(examples) == 1
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(compile(examples[0], "README.md", "exec"), scope)
    assert scope["logits"].shape == (4, 10)
    assert (tmp_path / "network.slalom").is_file()
    assert 30 < scope["session"].report.soundness_bits < 51

"""`python -I -B -m slalom.gramine.rehearsal PLAN [IMAGES]`: what the trusted side opens, as JSON on stdout.

Runs `slalom eval` at level `enclave`, prepares a private session against a device that is never asked, and makes a TCP
connection to itself; torch is refused, as it will be absent from the enclave. What is opened meanwhile is recorded.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import pkgutil
import site
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any, NoReturn

OUTSIDE = ("torch", "triton")
_UNREAL = ("/proc/", "/sys/", "/dev/")  # Gramine's own, or no files
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Outside(MetaPathFinder):
    """Makes what must not be inside look as if it were not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Raises ModuleNotFoundError for what belongs to the device."""
        if name.partition(".")[0] in OUTSIDE:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


class NoDevice:
    """A device that takes a plan and is never asked."""

    def load(self, plan: object) -> None:
        """Takes nothing."""

    def _refuse(self, *asked: object) -> NoReturn:
        raise SystemExit("the rehearsal asked the device")

    run_ahead = compute = run = _refuse

    def close(self) -> None:
        """Ends nothing."""


def main() -> None:
    """Rehearses, and writes the lists of files, shared libraries and import roots."""
    opened: set[str] = set()
    sys.addaudithook(lambda event, details: _note_open(opened, event, details))
    sys.meta_path.insert(0, Outside())
    sys.path.append("")  # as `slalom.cli.main` does
    with redirect_stdout(io.StringIO()):
        _evaluate(sys.argv[1], sys.argv[2:])
    _prepare(sys.argv[1])
    _import_rooms(("link", "trusted"))
    _connect()
    files = opened | set(_modules()) | set(_start_up())
    found = {
        "files": sorted(path for path in map(os.path.abspath, files) if _is_content(path)),
        "libraries": sorted({os.path.normpath(path) for path in _libraries() if path.startswith("/")}),
        "roots": [path for path in sys.path if path and Path(path).is_dir()],
    }
    sys.stdout.write(json.dumps(found))


def _note_open(opened: set[str], event: str, details: Sequence[Any]) -> None:
    if event == "open" and isinstance(details[0], str) and not details[2] & _WRITING:
        opened.add(details[0])


def _evaluate(plan_file: str, images: list[str]) -> None:
    from slalom.cli.app import app

    options = ["--protection", "enclave", "--batch-size", "1", "--batches", "1", "--threads", "1", "--json"]
    chosen = [word for path in images for word in ("--images", path)]
    app(["eval", plan_file, *options, *chosen], prog_name="slalom", standalone_mode=False)
    for path in images:
        _decode_all(Path(path), plan_file)


def _decode_all(images: Path, plan_file: str) -> None:
    """Every photo, since each format brings a decoder of its own."""
    from slalom.plan import Plan
    from slalom.zoo.photos import find_photos, load_photo

    preprocessing = Plan.load(plan_file).graph.preprocessing
    for photo in find_photos(images):
        if preprocessing is not None:
            load_photo(photo, preprocessing)


def _prepare(plan_file: str) -> None:
    from slalom.plan import Plan
    from slalom.session import Session

    with Session(Plan.load(plan_file), protection="private", device=NoDevice(), threads=2) as session:
        session.prepare_masks(1)


def _import_rooms(rooms: Sequence[str]) -> None:
    """Modules that a real run may import late."""
    for room in rooms:
        package = import_module(f"slalom.{room}")
        for found in pkgutil.walk_packages(package.__path__, f"slalom.{room}."):
            import_module(found.name)


def _connect() -> None:
    """What the standard library imports when an address is first used."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=10).close()


def _modules() -> Iterator[str]:
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str):
            yield path


def _start_up() -> Iterator[str]:
    """What the interpreter reads before any code can watch it."""
    yield sys.executable
    yield str(Path(sys.prefix) / "pyvenv.cfg")
    yield str(Path(import_module("slalom.cli").__file__ or "").with_name("__main__.py"))  # what -m slalom.cli starts
    for folder in site.getsitepackages():
        yield from map(str, Path(folder).glob("*.pth"))


def _is_content(path: str) -> bool:
    """A regular file that the enclave shall read; byte code is made from the source, and never read."""
    return not path.startswith(_UNREAL) and not path.endswith(".pyc") and Path(path).is_file()


def _libraries() -> list[str]:
    """The names by which shared libraries were loaded, by the loader's own list (dl_iterate_phdr)."""
    found: list[str] = []

    class Entry(ctypes.Structure):
        _fields_ = (("address", ctypes.c_void_p), ("name", ctypes.c_char_p))

    def visit(entry: Any, size: int, data: object) -> int:
        found.append(os.fsdecode(entry.contents.name or b""))
        return 0

    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Entry), ctypes.c_size_t, ctypes.c_void_p)
    ctypes.CDLL(None).dl_iterate_phdr(kind(visit), None)
    return found


if __name__ == "__main__":
    main()

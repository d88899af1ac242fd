"""Who may import what, and what no file may hold: the trust boundary as rules over the source."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHARED = ("slalom.plan", "slalom.arithmetic", "slalom.link", "slalom.errors")


@dataclass(frozen=True)
class Room:
    """A folder of `slalom` and the modules it may import beside the standard library and itself."""

    name: str
    allowed: tuple[str, ...]
    lean: bool = True  # none of the standard library's ways to run, load or fetch code


ROOMS = (
    Room("plan", ("numpy", "slalom.errors", "slalom.files")),
    Room("arithmetic", ("numpy", "cryptography", "slalom._native", "slalom.plan", "slalom.errors")),
    Room("link", ("numpy", *SHARED)),
    Room("trusted", ("numpy", "cryptography", *SHARED)),
    Room("device", ("numpy", "torch", "triton", *SHARED), lean=False),
    Room("attacks", ("numpy", "torch", "slalom.device", *SHARED), lean=False),
    Room(
        "gramine", ("slalom.plan", "slalom.errors", "slalom.session", "slalom.cli.app", "slalom.zoo.photos"), lean=False
    ),
    Room("worker", ("slalom.device", "slalom.attacks", "slalom.isolation", "torch", *SHARED), lean=False),
    Room("fleet", ("slalom.worker.options", "slalom.worker.boot", *SHARED), lean=False),
    Room("isolation", ("py_landlock", "pyseccomp", "slalom.errors"), lean=False),
    Room("importer", ("numpy", "torch", *SHARED), lean=False),
)

FORBIDDEN_IN_LEAN = {
    "pickle", "marshal", "shelve", "ctypes", "subprocess", "multiprocessing", "importlib", "runpy", "code", "urllib",
    "http", "random",
}  # fmt: skip
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "breakpoint", "input", "print"}


def import_faults(room: Room, source: str, file_name: str) -> list[str]:
    """What a file of a room imports and may not, wherever in the file the import stands."""
    faults = []
    for name in imported_modules(source):
        top = name.split(".")[0]
        own = within(name, (f"slalom.{room.name}", *room.allowed))
        standard = top in sys.stdlib_module_names and not (room.lean and top in FORBIDDEN_IN_LEAN)
        if not own and not standard:
            faults.append(f"{file_name}: {room.name} may not import {name or 'by a relative path'}")
    return faults


def imported_modules(source: str) -> Iterator[str]:
    """The full names a file imports; '' for a relative import. `from slalom import x` names slalom.x."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "" if node.level else node.module or ""
            yield from (f"slalom.{alias.name}" for alias in node.names) if module == "slalom" else (module,)


def within(name: str, packages: tuple[str, ...]) -> bool:
    """Whether a module is one of these packages, or in one."""
    return any(name == package or name.startswith(package + ".") for package in packages)


def habit_faults(source: str, file_name: str) -> list[str]:
    """Asserts, and handlers that swallow every error: a handler of everything must raise, or be bound and passed on."""
    faults = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            faults.append(f"{file_name}:{node.lineno}: assert")
        elif isinstance(node, ast.ExceptHandler):
            names = caught(node)
            if "" in names or ("Exception" in names and not names_it(node)):
                faults.append(f"{file_name}:{node.lineno}: except Exception")
            elif "BaseException" in names and not passes_on(node):
                faults.append(f"{file_name}:{node.lineno}: a swallowed BaseException")
    return faults


def caught(handler: ast.ExceptHandler) -> set[str]:
    """The names a handler catches; '' for all."""
    if handler.type is None:
        return {""}
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {ast.unparse(kind).split(".")[-1] for kind in kinds}


def names_it(handler: ast.ExceptHandler) -> bool:
    """Whether a handler ends by raising an error of its own from the one it caught: foreign code made nameable."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is not None and last.cause is not None


def passes_on(handler: ast.ExceptHandler) -> bool:
    """Whether a handler raises again, or gives the error it bound to another thread."""
    raises = any(isinstance(node, ast.Raise) and node.exc is None for node in ast.walk(handler))
    used = any(isinstance(node, ast.Name) and node.id == handler.name for node in ast.walk(handler))
    return raises or (handler.name is not None and used)


def call_faults(source: str, file_name: str) -> list[str]:
    """Calls that run text as code, or speak to a terminal, and readings of the environment."""
    faults = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
            faults.append(f"{file_name}:{node.lineno}: {node.func.id}()")
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv", "np.random"):
            faults.append(f"{file_name}:{node.lineno}: {ast.unparse(node)}")
    return faults


def files_of(folder: Path) -> list[Path]:
    """Every Python file below a folder."""
    return sorted(folder.rglob("*.py"))

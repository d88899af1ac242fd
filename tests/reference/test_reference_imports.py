"""Independence: the reference shares the vocabulary and the errors with the product, and nothing else."""

from __future__ import annotations

import ast
from pathlib import Path

import reference

ALLOWED_MODULES = {"slalom.plan.steps", "slalom.errors"}
ALLOWED_PACKAGES = {"reference", "numpy", "random", "secrets", "fractions", "math", "dataclasses", "enum", "typing"}
ALLOWED_PACKAGES |= {"collections", "__future__"}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            names.add(node.module or "")
    return names


def test_imports_are_independent() -> None:
    files = sorted(Path(reference.__file__).parent.glob("**/*.py"))
    assert len(files) >= 9
    for path in files:
        foreign = {
            name
            for name in imported(path)
            if name not in ALLOWED_MODULES and name.split(".")[0] not in ALLOWED_PACKAGES
        }
        assert not foreign, f"{path.name} imports {sorted(foreign)}"

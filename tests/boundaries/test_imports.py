"""The trust boundary is a folder boundary: imports and habits of every file of the source, and rules that can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

import slalom
from tests.boundaries.rules import ROOMS, Room, call_faults, files_of, habit_faults, import_faults

SOURCE = Path(slalom.__file__).parent
BY_NAME = {room.name: room for room in ROOMS}


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_rooms_import_only_what_they_may(room: Room) -> None:
    files = files_of(SOURCE / room.name)
    assert len(files) >= 2
    faults = [fault for path in files for fault in import_faults(room, path.read_text("utf-8"), path.name)]
    assert not faults


def test_the_ways_in_import_nothing_of_torch_when_they_are_imported() -> None:
    """`slalom` and `slalom.session` reach the device and the importer inside functions alone."""
    import ast

    for name in ("__init__.py", "session.py", "supervision.py", "reporting.py", "errors.py", "files.py"):
        tree = ast.parse((SOURCE / name).read_text("utf-8"))
        top = "\n".join(ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
        room = Room("session", ("numpy", "slalom.trusted", "slalom.plan", "slalom.arithmetic", "slalom.link",
                                "slalom.errors", "slalom.session", "slalom.supervision", "slalom.reporting",
                                "slalom.fleet", "slalom.worker.options", "slalom.isolation"),
                    lean=name != "__init__.py")  # fmt: skip
        assert not import_faults(room, top, name)


@pytest.mark.parametrize("path", files_of(SOURCE), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_assert_and_no_swallowed_error(path: Path) -> None:
    assert not habit_faults(path.read_text("utf-8"), path.name)


@pytest.mark.parametrize("name", ["plan", "arithmetic", "link", "trusted"])
def test_no_text_is_run_and_no_environment_is_read(name: str) -> None:
    allowed = {"engine.py": "np.random"}  # the self-test's extreme values: no secret
    for path in files_of(SOURCE / name):
        faults = call_faults(path.read_text("utf-8"), path.name)
        assert not [fault for fault in faults if not fault.endswith(allowed.get(path.name, "-"))]


def test_secrets_are_drawn_in_one_file() -> None:
    """The operating system's randomness enters by `trusted/randomness.py`, and by no other file of the trusted side."""
    sources = ("import secrets", "urandom", "np.random", "getrandbits", "default_rng")
    drawing = {
        path.name for path in files_of(SOURCE / "trusted") if any(word in path.read_text("utf-8") for word in sources)
    }
    assert drawing == {"randomness.py"}


@pytest.mark.parametrize(
    ("room", "planted"),
    [
        ("trusted", "import torch"),
        ("trusted", "import torch.nn.functional as F"),
        ("trusted", "from slalom.device.local import LocalDevice"),
        ("trusted", "from slalom.importer import compile"),
        ("trusted", "from slalom import attacks"),
        ("trusted", "from slalom import device"),
        ("trusted", "import slalom.zoo"),
        ("trusted", "import slalom.cli.app"),
        ("trusted", "import slalom.bench"),
        ("trusted", "import slalom"),
        ("trusted", "from ..device import local"),
        ("trusted", "import pickle"),
        ("trusted", "import importlib"),
        ("trusted", "from random import Random"),
        ("trusted", "import trustedness"),
        ("device", "from slalom.trusted.randomness import Randomness"),
        ("device", "from slalom import trusted"),
        ("device", "import slalom.session"),
        ("device", "import slalom.trusted"),
        ("attacks", "import slalom.trusted.checker"),
        ("plan", "import torch"),
        ("plan", "from slalom.trusted import policy"),
        ("plan", "from slalom.arithmetic import field"),
        ("plan", "from slalom.planning import x"),
        ("arithmetic", "import scipy"),
        ("arithmetic", "from slalom.link import port"),
        ("link", "from slalom.trusted import walk"),
        ("link", "import pickle"),
        ("importer", "import slalom.trusted"),
        ("isolation", "import numpy"),
        ("isolation", "import torch"),
        ("isolation", "from slalom.link import port"),
        ("isolation", "import slalom"),
    ],
)
def test_a_planted_import_is_found(room: str, planted: str) -> None:
    """At the top, in a function, under a condition, and in a class."""
    assert import_faults(BY_NAME[room], planted, "x.py")
    for frame in ("def f():\n    {}", "if TYPE_CHECKING:\n    {}", "class C:\n    def f(self):\n        {}",
                  "try:\n    {}\nexcept ImportError:\n    pass"):  # fmt: skip
        assert import_faults(BY_NAME[room], frame.format(planted), "x.py"), frame


@pytest.mark.parametrize(
    ("room", "right"),
    [
        ("trusted", "import threading, numpy as np\nfrom cryptography.hazmat.primitives import hashes"),
        ("trusted", "from slalom.plan import Plan\nfrom slalom.trusted.masks import Mask"),
        ("device", "import torch\nfrom slalom.link.port import Claim"),
        ("plan", "import json\nfrom slalom.plan.steps import Graph"),
    ],
)
def test_what_is_right_is_not_found(room: str, right: str) -> None:
    assert not import_faults(BY_NAME[room], right, "x.py")


@pytest.mark.parametrize(
    "planted",
    [
        "assert x",
        "try:\n    f()\nexcept Exception:\n    raise",
        "try:\n    f()\nexcept (ValueError, Exception) as e:\n    pass",
        "try:\n    f()\nexcept:\n    pass",
        "try:\n    f()\nexcept BaseException:\n    pass",
        "try:\n    f()\nexcept BaseException as error:\n    log()",
    ],
)
def test_a_planted_habit_is_found(planted: str) -> None:
    assert habit_faults(planted, "x.py")
    assert habit_faults("def f():\n" + "\n".join("    " + line for line in planted.splitlines()), "x.py")


def test_right_habits_are_not_found() -> None:
    assert not habit_faults("try:\n    f()\nexcept ValueError:\n    pass", "x.py")
    assert not habit_faults("try:\n    f()\nexcept BaseException:\n    undo()\n    raise", "x.py")
    assert not habit_faults("try:\n    f()\nexcept Exception as error:\n    raise ModelError() from error", "x.py")


@pytest.mark.parametrize("planted", ["eval('1')", "print(x)", "os.environ['A']", "os.getenv('A')", "np.random.rand()"])
def test_a_planted_call_is_found(planted: str) -> None:
    assert call_faults(planted, "x.py")

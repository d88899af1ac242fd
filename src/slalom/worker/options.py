"""What a worker is told when it starts: one JSON argument from whoever starts it, who trusts it least."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from enum import IntEnum

from slalom.errors import ApiMisuse


class StartFailure(IntEnum):
    """The exit code of a worker that could not start: a number, for a worker's words are shown to nobody."""

    OPTIONS = 64
    PACKAGE = 65
    PLAN = 66
    ISOLATION = 67
    DEVICE = 68
    PLACE = 69


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker runs.

    plan: a file; or None, and the plan is in the open descriptor `plan_descriptor`. listen: an endpoint; or None, and
    `link_descriptor` is a connected socket. device: cpu or cuda. threads: of its engine, None for all. isolation:
    strict, best-effort or off. allow_shm: whether files of /dev/shm may be opened, for a trusted side that gives memory
    by name. parent: the process whose end is the worker's too. attack: a cheating device by name, `attack_step` and
    `attack_seed` as `attacks.make` takes them.
    """

    plan: str | None = None
    plan_descriptor: int | None = None
    listen: str | None = None
    link_descriptor: int | None = None
    device: str = "cpu"
    threads: int | None = None
    isolation: str = "best-effort"
    allow_shm: bool = False
    parent: int | None = None
    attack: str | None = None
    attack_step: str | None = None
    attack_seed: int = 0

    def encode(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))


def decode_options(text: str) -> WorkerOptions:
    """The options in one line of JSON. Raises ApiMisuse for what is unknown, missing or of another type."""
    try:
        found = json.loads(text)
        options = WorkerOptions(**found)
    except (ValueError, TypeError) as error:
        raise ApiMisuse("a worker is started by `slalom worker`, not by hand") from error
    for field in fields(WorkerOptions):
        value = getattr(options, field.name)
        if ("None" if value is None else type(value).__name__) not in str(field.type).split(" | "):
            raise ApiMisuse(f"option {field.name} of a worker has another type")
    return options

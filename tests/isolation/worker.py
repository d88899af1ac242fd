"""A worker that is confined as asked, and then turns hostile. Run as a program: attack, protection, target (JSON)."""

from __future__ import annotations

import dataclasses
import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path

from slalom.isolation import confine
from slalom.isolation.confine import begin_confinement
from slalom.isolation.files import LandlockOffer
from slalom.isolation.level import Isolation
from tests.isolation.attacks import SECRET, Target, attack


def run_off(target: Target) -> None:
    begin_confinement(Isolation.OFF, parent=target.parent).seal()


def run_landlock(target: Target) -> None:
    """Begun and not sealed: what landlock refuses alone."""
    begin_confinement(Isolation.STRICT, parent=target.parent, keep=(target.terminal,))


def run_seccomp(target: Target) -> None:
    """On a kernel without landlock: what the filter refuses alone."""
    confine.find_landlock = lambda: LandlockOffer(0, None, None)
    report = begin_confinement(Isolation.BEST_EFFORT, parent=target.parent, keep=(target.terminal,)).seal()
    if report.landlock_abi or not report.seccomp:
        sys.exit("this is no test of seccomp alone")


def run_strict(target: Target) -> None:
    begin_confinement(Isolation.STRICT, parent=target.parent, keep=(target.terminal,)).seal()


PROTECTIONS: dict[str, Callable[[Target], None]] = {
    "off": run_off, "landlock": run_landlock, "seccomp": run_seccomp, "strict": run_strict,
}  # fmt: skip


def main() -> None:
    name, protection, target = sys.argv[1], sys.argv[2], Target(**json.loads(sys.argv[3]))
    PROTECTIONS[protection](target)
    try:
        proof = attack(name)(target)
    except OSError as error:
        print("refused", errno.errorcode[error.errno or 0])
    else:
        print("done", proof.decode() if proof == SECRET else "without proof")


def arguments(name: str, protection: str, target: Target) -> list[str]:
    """The command line of this program."""
    facts = json.dumps(dataclasses.asdict(target))
    return [sys.executable, "-P", str(Path(__file__).resolve()), name, protection, facts]


if __name__ == "__main__":
    main()

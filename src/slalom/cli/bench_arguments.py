"""From the words of `slalom bench` to what is measured."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass

from slalom.arithmetic.dispatch import Isa
from slalom.bench.cores import usable_cores
from slalom.bench.float_timing import FAMILIES, Engine
from slalom.bench.limits import COPY_BYTES
from slalom.bench.protected import Arrangement, Masks
from slalom.bench.side_by_side import Wanted
from slalom.bench.timing import Effort
from slalom.cli.arguments import require_devices, require_positive
from slalom.errors import ApiMisuse
from slalom.fleet.roster import SPAWN
from slalom.trusted.policy import Protection

ALL = "all"
NONE = "none"
WORKER_DEVICES = ("cpu", "cuda")
QUICK = Effort(0.02, 2)
_QUICK_BYTES = 2**16
_DEFAULT_CORES = (1, 4)


@dataclass(frozen=True)
class BenchWords:
    """The options as they were given. `commit` is of the code, where it runs outside a checkout."""

    levels: str
    baselines: str | None
    cores: str | None
    devices: list[str] | None
    worker_device: str
    micro_batches: int
    repeats: int | None
    seconds: float | None
    quick: bool
    rows_only: bool
    isa: Isa | None
    batch_size: int
    masks: str
    dealer: str
    commit: str | None


def parse_wanted(words: BenchWords) -> Wanted:
    """What these words ask for. Raises ApiMisuse for what is unknown, missing or makes no sense."""
    require_positive("--batch-size", words.batch_size)
    require_positive("--micro-batches", words.micro_batches)
    devices = words.devices or [SPAWN]
    require_devices([*devices, words.dealer])
    if words.worker_device not in WORKER_DEVICES:
        raise ApiMisuse(f"unknown worker device {words.worker_device!r:.40}", hint="choose cpu or cuda")
    arrangement = Arrangement(
        tuple(devices),
        words.worker_device,
        words.micro_batches,
        None if words.isa is None else words.isa.value,
        words.dealer,
    )
    return Wanted(
        levels=_parse_levels(words.levels),
        engines=_parse_baselines(words.baselines),
        cores=_parse_cores(words.cores, words.quick),
        arrangement=arrangement,
        effort=_parse_effort(words),
        masks=_parse_masks(words.masks),
        copy_bytes=_QUICK_BYTES if words.quick else COPY_BYTES,
    )


def require_plots() -> None:
    """Raises ApiMisuse where a page cannot be drawn."""
    _require_package("matplotlib", "a report")


def _require_package(name: str, what: str) -> None:
    try:
        found = importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise ApiMisuse(f"{what} needs {name}, which is not installed", hint="install the bench extra, see the README")


def _parse_levels(text: str) -> tuple[Protection, ...]:
    words = list(Protection) if text == ALL else text.split(",")
    unknown = [word for word in words if word not in list(Protection)]
    if unknown:
        raise ApiMisuse(f"unknown level {unknown[0]!r:.40}", hint=f"choose of {', '.join(Protection)}, or all")
    return tuple(level for level in Protection if level in words)


def _parse_masks(text: str) -> tuple[Masks, ...]:
    words = list(Masks) if text == ALL else text.split(",")
    unknown = [word for word in words if word not in list(Masks)]
    if unknown:
        raise ApiMisuse(
            f"unknown way to come by masks {unknown[0]!r:.40}", hint=f"choose of {', '.join(Masks)}, or all"
        )
    return tuple(way for way in Masks if way in words)


def _parse_baselines(text: str | None) -> tuple[Engine, ...]:
    """Every engine by default: what is not here is left out, and said. One that is named must be here."""
    if text is None:
        return tuple(Engine)
    words = [] if text == NONE else text.split(",")
    unknown = [word for word in words if word not in FAMILIES]
    if unknown:
        raise ApiMisuse(f"unknown baseline {unknown[0]!r:.40}", hint=f"choose of {', '.join(FAMILIES)}, or none")
    if "openvino" in words:
        _require_package("openvino", "an OpenVINO row")
    return tuple(engine for engine in Engine if engine.family in words)


def _parse_cores(text: str | None, quick: bool) -> tuple[int, ...]:
    most = usable_cores()
    if text is None:
        chosen: Sequence[int] = [1] if quick else [count for count in (*_DEFAULT_CORES, most) if count <= most]
        return tuple(sorted(set(chosen)))
    try:
        counts = sorted({most if word == ALL else int(word) for word in text.split(",")})
    except ValueError as error:
        raise ApiMisuse(f"--cores takes numbers and all, not {text!r:.40}", hint="such as 1,4,all") from error
    require_positive("--cores", counts[0])
    if counts[-1] > most:
        raise ApiMisuse(f"there are {most} cores here, not {counts[-1]}", hint="--cores 1,4,all")
    return tuple(counts)


def _parse_effort(words: BenchWords) -> Effort:
    require_positive("--repeats", words.repeats)
    if words.seconds is not None and not (math.isfinite(words.seconds) and words.seconds > 0):
        raise ApiMisuse(f"--seconds must be positive, not {words.seconds}")
    usual = QUICK if words.quick else Effort()
    return Effort(
        usual.seconds if words.seconds is None else words.seconds,
        usual.repeats if words.repeats is None else words.repeats,
    )

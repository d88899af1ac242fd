"""What a session tells of itself: the figures of all its lives together, its workers, and what went wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from fractions import Fraction

from slalom.isolation.report import IsolationReport
from slalom.link.port import DevicePort
from slalom.link.remote import RemoteDevice
from slalom.trusted.bank import MaskFigures
from slalom.trusted.session import SessionReport

_SUMMED = tuple(field.name for field in fields(SessionReport) if field.type in ("int", "float"))
_COUNTED = tuple(field.name for field in fields(MaskFigures))


DEALER_TRUST = "is told the seed of every mask: with the device it would know every input"
DEALER_ON_THIS_MACHINE = "simulation: it runs on this machine, and shows no more than what a dealer costs"


class Outcome(StrEnum):
    """What was done about a failure."""

    RAISED = "raised"
    RETRIED = "run again on another worker"
    COMPUTED_INSIDE = "computed inside"
    LEFT_OUT = "left out"


@dataclass(frozen=True)
class Incident:
    """A worker that failed: which one, the class and the text of its error, and what was done."""

    worker: str
    error: str
    message: str
    outcome: Outcome


@dataclass(frozen=True)
class Worker:
    """A worker in use. `isolation` is what it says of its confinement: to be believed of one that was spawned here, and
    of no other. `in_process`: it shares the trusted process, which protects nothing (simulation)."""

    name: str
    isolation: str
    in_process: bool


@dataclass(frozen=True)
class Report(SessionReport):
    """The figures of a session: sums over the workers it had. `incidents` in the order they happened."""

    incidents: tuple[Incident, ...] = ()


def merge_reports(reports: Sequence[SessionReport], incidents: tuple[Incident, ...]) -> Report:
    """One report of several lives. The probability that a lie passed is the sum: each life was an attempt."""
    sums = {name: sum(getattr(report, name) for report in reports) for name in _SUMMED}
    used = [report.error for report in reports if report.exposed] or [report.error for report in reports[:1]]
    steady: Counter[str] = Counter()
    for report in reports:
        steady.update(report.steady_bytes)
    masks = MaskFigures(**{name: sum(getattr(report.masks, name) for report in reports) for name in _COUNTED})
    return Report(
        **sums,
        masks=masks,
        error=min(Fraction(1), sum(used, Fraction(0))),
        steady_bytes=dict(steady),
        incidents=incidents,
    )


def describe_worker(name: str, device: DevicePort | None) -> Worker:
    """A worker as people read of it."""
    if isinstance(device, RemoteDevice) and device.welcome is not None:
        return Worker(name, IsolationReport.decode(device.welcome.isolation).summary, in_process=False)
    return Worker(name, "none: it shares the trusted process", in_process=device is not None)

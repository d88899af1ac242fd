"""A hostile worker lies about every field, at every moment: each time one constant error, and nothing is left."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from slalom.errors import ApiMisuse, DeviceError, IntegrityError, SlalomError, WireError
from slalom.link.message import Bulk
from slalom.session import Session
from tests.devices import NumpyDevice, case_of, plan_of, same
from tests.link.hostile import Hostile, Lie, Script
from tests.link.lies import LEVELS, Case, all_cases
from tests.link.serving import PATIENCE, Servant, nothing_left, options_of, reach

CASES = {case.name: case for case in all_cases()}
RUNS = [(name, level) for name, case in CASES.items() for level in case.levels]
NETWORK = "dense"
IMAGES, EXPECTED = case_of(NETWORK, 4)


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> Iterator[None]:
    """What is there before is not looked at again whenever a test asks for what it left."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@dataclass(frozen=True)
class Refusal:
    """What the user of a session saw of an attack."""

    error: type[SlalomError]
    text: str


def attack(case: Case, level: tuple[str, str], bulk: Bulk) -> Refusal | None:
    """Opens a session on the hostile worker and uses it until it is refused; outputs before that are right."""
    timeout = case.timeout_seconds or PATIENCE
    script = Script(Lie(case.kinds, case.act, case.place))
    device = reach(
        lambda stream: Servant(NumpyDevice(), stream, lambda s: Hostile(s, script)), options_of(bulk, timeout)
    )
    refusal = use(device, level, timeout)
    assert script.told, "the lie was never told"
    return refusal


def use(device: object, level: tuple[str, str], timeout: float = PATIENCE, tries: int = 3) -> Refusal | None:
    """The first error of a session and its requests; after it the session is over."""
    protection, schedule = level
    try:
        session = Session(plan_of(NETWORK), protection=protection, schedule=schedule, device=device,  # type: ignore[arg-type]
                          threads=1, timeout_seconds=timeout)  # fmt: skip
    except SlalomError as error:
        return Refusal(type(error), str(error))
    with session:
        for _ in range(tries):
            try:
                outputs = session.run(IMAGES)
            except SlalomError as error:
                refusal = Refusal(type(error), str(error))
                break
            assert same(outputs, EXPECTED)
        else:
            return None
        with pytest.raises(ApiMisuse, match="the session is over"):
            session.run(IMAGES)
    return refusal


@pytest.mark.parametrize(("name", "level"), RUNS, ids=[f"{name}-{'-'.join(level)}" for name, level in RUNS])
def test_every_lie_is_refused(name: str, level: tuple[str, str]) -> None:
    case = CASES[name]
    with nothing_left():
        for bulk in case.bulks:
            refusal = attack(case, level, bulk)
            assert refusal is not None, f"not refused over {bulk.name}"
            assert issubclass(refusal.error, case.error), (bulk.name, refusal)
            assert refusal.text in case.says, (bulk.name, refusal)


@pytest.mark.parametrize("level", LEVELS, ids="-".join)
@pytest.mark.parametrize("bulk", Bulk, ids=lambda bulk: bulk.name.lower())
def test_without_a_lie_all_is_right(level: tuple[str, str], bulk: Bulk) -> None:
    with nothing_left():
        device = reach(lambda stream: Servant(NumpyDevice(), stream), options_of(bulk))
        assert use(device, level) is None


def test_there_are_enough_lies_and_they_name_no_secret() -> None:
    assert len(CASES) >= 40
    texts = {text for case in CASES.values() for text in case.says}
    assert len(texts) < 20
    assert all(text.islower() or text.isascii() for text in texts)
    fields = ("sequence", "request", "slot", "batch", "element", "size")
    assert not [text for text in texts if any(field in text for field in fields)]


def test_errors_are_what_is_specified() -> None:
    for case in CASES.values():
        assert IntegrityError not in case.error
        assert set(case.error) <= {WireError, DeviceError}

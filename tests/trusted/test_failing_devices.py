"""Devices that hang, raise, end early or late, answer twice, or write to what they were given: never a wrong output."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from slalom.errors import ApiMisuse, DeviceError, IntegrityError, SlalomError
from slalom.link.port import Claim
from slalom.plan.steps import Linear
from slalom.session import Session
from tests.devices import NumpyDevice, case_of, linear_steps_of, plan_of, same

EXCHANGES = [("blinded", "ahead"), ("private", "ahead"), ("verified", "layerwise")]
LEVELS = [("device", "ahead"), ("verified", "ahead"), *EXCHANGES]
IMAGES, EXPECTED = case_of("residual", 4)


def run(device: NumpyDevice, protection: str, schedule: str = "ahead", **more: Any) -> Any:
    with Session(
        plan_of("residual"), protection=protection, schedule=schedule, device=device, threads=1, **more
    ) as session:
        try:
            return session.run(IMAGES)
        except SlalomError:
            with pytest.raises(ApiMisuse, match="the session is over"):
                session.run(IMAGES)
            raise


def device_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("slalom-device")]


class Hanging(NumpyDevice):
    """Waits for a word before it computes one step."""

    def __init__(self, step: str = "conv2") -> None:
        self.step = step
        self.go_on = threading.Event()

    def linear(self, step: Linear, words: np.ndarray) -> np.ndarray:
        if step.name == self.step:
            self.go_on.wait(30)
        return super().linear(step, words)


@pytest.mark.parametrize("step", ["conv1", "fc"])
@pytest.mark.parametrize(("protection", "schedule"), LEVELS)
def test_a_device_that_hangs_is_left(protection: str, schedule: str, step: str) -> None:
    """Within the timeout and a second; and its thread ends as soon as the device lets it."""
    device = Hanging(step)
    begin = time.monotonic()
    with pytest.raises(DeviceError, match=r"did not answer within 0\.2 seconds"):
        run(device, protection, schedule, timeout_seconds=0.2)
    assert time.monotonic() - begin < 4
    device.go_on.set()
    end = time.monotonic() + 5
    while device_threads() and time.monotonic() < end:
        time.sleep(0.01)
    assert not device_threads()


@pytest.mark.parametrize(("protection", "schedule"), LEVELS)
def test_no_thread_is_left_behind(protection: str, schedule: str) -> None:
    run(NumpyDevice(), protection, schedule)
    end = time.monotonic() + 5
    while device_threads() and time.monotonic() < end:
        time.sleep(0.01)
    assert not device_threads()


FORGED = [np.zeros((2, 5), np.float32)]
RAISED: list[BaseException] = [
    RuntimeError("device"),
    MemoryError(),
    StopIteration(),
    StopIteration(FORGED),
    GeneratorExit(),
    KeyboardInterrupt(),
    SystemExit(0),
    AssertionError(),
    TimeoutError(),
    KeyError("x"),
]


@pytest.mark.parametrize("error", RAISED, ids=repr)
@pytest.mark.parametrize(("protection", "schedule"), LEVELS)
@pytest.mark.parametrize("step", ["conv1", "fc"])
def test_whatever_a_device_raises_is_a_device_error(
    protection: str, schedule: str, step: str, error: BaseException
) -> None:
    """Above all StopIteration with a value, which would end the walk with the device's own outputs."""

    class Raising(NumpyDevice):
        def linear(self, at: Linear, words: np.ndarray) -> np.ndarray:
            if at.name == step:
                raise error
            return super().linear(at, words)

    with pytest.raises(DeviceError):
        run(Raising(), protection, schedule)


class Answering(NumpyDevice):
    """Changes the list of claims of every exchange."""

    def __init__(self, change: Callable[[list[np.ndarray]], Any]) -> None:
        self.change = change

    def compute(self, step_names: Sequence[str], words: np.ndarray) -> Any:
        return self.change(list(super().compute(step_names, words)))


class TwoFaced(list):  # type: ignore[type-arg]
    """Says one length, and is another list when it is read."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Any]:
        raise StopIteration(FORGED)


class Shell:
    """Looks like an array from some distance."""

    dtype, shape, nbytes = np.dtype(np.int32), (2, 6, 6, 4), 0


ANSWERS: dict[str, Callable[[list[np.ndarray]], Any]] = {
    "nothing": lambda claims: None,
    "no claims": lambda claims: [],
    "one claim too many": lambda claims: [*claims, claims[0]],
    "the array alone": lambda claims: claims[0],
    "an iterator": iter,
    "a dictionary": lambda claims: dict(enumerate(claims)),
    "a list of another class": TwoFaced,
    "lists": lambda claims: [claim.tolist() for claim in claims],
    "bytes": lambda claims: [claim.tobytes() for claim in claims],
    "None for a claim": lambda claims: [None],
    "a shell": lambda claims: [Shell()],
    "a view class": lambda claims: [np.asarray(claim).view(np.matrixlib.defmatrix.matrix) if False else
                                    np.ma.array(claim) for claim in claims],
    "int64": lambda claims: [claim.astype(np.int64) for claim in claims],
    "uint32": lambda claims: [claim.view(np.uint32) for claim in claims],
    "float32": lambda claims: [claim.view(np.float32) for claim in claims],
    "big endian": lambda claims: [claim.astype(">i4") for claim in claims],
    "objects": lambda claims: [claim.astype(object) for claim in claims],
    "flat": lambda claims: [claim.reshape(-1) for claim in claims],
    "one item": lambda claims: [claim[:1] for claim in claims],
    "one item more": lambda claims: [np.concatenate([claim, claim[:1]]) for claim in claims],
    "strided": lambda claims: [np.repeat(claim, 2, axis=-1)[..., ::2] for claim in claims],
    "broadcast": lambda claims: [np.broadcast_to(claim[:1, ..., :1], claim.shape) for claim in claims],
    "unaligned": lambda claims: [np.frombuffer(b"x" + claim.tobytes(), np.int32, offset=1).reshape(claim.shape)
                                 for claim in claims],
}  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize(("protection", "schedule"), EXCHANGES)
def test_answers_of_another_form(protection: str, schedule: str, answer: str) -> None:
    with pytest.raises(IntegrityError) as raised:
        run(Answering(ANSWERS[answer]), protection, schedule)
    assert raised.value.step in linear_steps_of("residual")


class Streaming(NumpyDevice):
    """Changes the stream of claims of every run ahead."""

    def __init__(self, change: Callable[[Iterator[Claim]], Any]) -> None:
        self.change = change

    def run_ahead(self, activation: np.ndarray) -> Any:
        return self.change(super().run_ahead(activation))


def endless(claims: Iterator[Claim]) -> Iterator[Claim]:
    """Claims of steps that are not there, one after another, and big: all of memory if they are kept."""
    for number in range(10**9):
        yield Claim(f"more{number}", np.zeros(2**16, np.int32))


def twice(claims: Iterator[Claim]) -> Iterator[Claim]:
    for claim in claims:
        yield from (claim, claim)


def late_extra(claims: Iterator[Claim]) -> Iterator[Claim]:
    first = next(claims)
    yield first
    yield from claims
    yield first


STREAMS: dict[str, tuple[Callable[[Iterator[Claim]], Any], type[SlalomError]]] = {
    "nothing": (lambda claims: None, DeviceError),
    "a number": (lambda claims: 7, DeviceError),
    "a list": (list, DeviceError),
    "no claims": (lambda claims: iter(()), IntegrityError),
    "one claim": (lambda claims: iter([next(claims)]), IntegrityError),
    "all but the last": (lambda claims: iter(list(claims)[:-1]), IntegrityError),
    "all but the first": (lambda claims: iter(list(claims)[1:]), IntegrityError),
    "None first": (lambda claims: iter([None, *claims]), IntegrityError),
    "each twice": (twice, IntegrityError),
    "the first again at the end": (late_extra, IntegrityError),
    "endless": (endless, IntegrityError),
    "without names": (lambda claims: iter([claim.words for claim in claims]), DeviceError),
    "pairs": (lambda claims: iter([(claim.step, claim.words) for claim in claims]), DeviceError),
    "errors": (lambda claims: iter([RuntimeError()]), DeviceError),
    "names that are bytes": (lambda claims: (Claim(c.step.encode(), c.words) for c in claims), DeviceError),  # type: ignore
    "names that are lists": (lambda claims: (Claim([c.step], c.words) for c in claims), DeviceError),  # type: ignore
    "words that are lists": (lambda claims: (Claim(c.step, c.words.tolist()) for c in claims), IntegrityError),  # type: ignore
    "one name for all": (lambda claims: (Claim("conv1", c.words) for c in claims), IntegrityError),
}


@pytest.mark.parametrize("stream", STREAMS)
def test_streams_of_another_form(stream: str) -> None:
    change, error = STREAMS[stream]
    with pytest.raises(error):
        run(Streaming(change), "verified", timeout_seconds=10)


@pytest.mark.parametrize(
    ("order", "pattern"),
    [((1, 1, 0), "answered one step twice"), ((0, 0, 1), "answered a step that was not asked")],
)
def test_a_step_answered_twice_is_refused(order: tuple[int, ...], pattern: str) -> None:
    """Also where both claims are right, and the first of them is used, or still waits, when the second comes."""

    def repeat(claims: Iterator[Claim]) -> Iterator[Claim]:
        known = list(claims)
        yield from (known[index] for index in order)
        yield from known[2:]

    with pytest.raises(IntegrityError, match=pattern):
        run(Streaming(repeat), "verified", micro_batches=1)


def test_claims_in_another_order_are_taken() -> None:
    """The order is the device's affair: each claim is checked as what it says it is."""
    assert same(run(Streaming(lambda claims: reversed(list(claims))), "verified"), EXPECTED)


class Whole(NumpyDevice):
    """Changes the outputs of the whole network."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        self.change = change

    def run(self, activation: np.ndarray) -> Any:
        return self.change(super().run(activation))


@pytest.mark.parametrize(
    "change",
    [
        lambda outputs: None,
        lambda outputs: [],
        lambda outputs: outputs * 2,
        lambda outputs: outputs[0],
        lambda outputs: [outputs[0][:1]],
        lambda outputs: [outputs[0].astype(np.float64)],
        lambda outputs: [outputs[0].tolist()],
        lambda outputs: [None],
    ],
)
def test_whole_outputs_of_another_form(change: Callable[[Any], Any]) -> None:
    with pytest.raises(DeviceError):
        run(Whole(change), "device")


class Scribbling(NumpyDevice):
    """Computes honestly, and writes over what it was given, then and later."""

    def __init__(self, early: bool) -> None:
        self.early = early
        self.given: list[np.ndarray] = []

    def scribble(self) -> None:
        for words in self.given:
            words[...] = np.array(7, words.dtype)

    def linear(self, step: Linear, words: np.ndarray) -> np.ndarray:
        claim = super().linear(step, words.copy())
        self.scribble()
        return claim

    def compute(self, step_names: Sequence[str], words: np.ndarray) -> Sequence[np.ndarray]:
        self.given.append(words)
        return super().compute(step_names, words)

    def run_ahead(self, activation: np.ndarray) -> Iterator[Claim]:
        self.given.append(activation)
        if self.early:
            self.scribble()
        return super().run_ahead(activation.copy())


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("name", ["residual", "sequence_dense", "every_step"])
@pytest.mark.parametrize(("protection", "schedule"), [("verified", "ahead"), *EXCHANGES])
def test_a_device_cannot_reach_what_the_trusted_side_uses_again(
    protection: str, schedule: str, name: str, early: bool
) -> None:
    """A shortcut reads a value long after the device has had it, and the input is read beside the device."""
    images, expected = case_of(name, 4)
    for isa in ("numpy", None):
        with Session(
            plan_of(name), protection=protection, schedule=schedule, device=Scribbling(early), threads=1, isa=isa
        ) as session:
            try:
                assert same(session.run(images), expected)
            except IntegrityError:
                assert early and schedule == "ahead" and protection == "verified"  # it ran on its own scribble

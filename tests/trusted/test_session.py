"""A session's life: what it refuses, what ends it, and that nothing secret is left when it has ended."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import numpy as np
import pytest

from slalom.errors import ApiMisuse, InputError, IntegrityError, PrivacyError
from slalom.isolation.secret import SecretMemory
from slalom.plan.steps import Linear
from slalom.session import Session
from tests.devices import NumpyDevice, case_of, plan_of, same

CHECKS = ("direct", "batched", "preprocessed")


class Liar(NumpyDevice):
    """Honest until told to lie, then one off in the first element of every claim of one step."""

    def __init__(self, step: str = "conv2") -> None:
        self.step = step
        self.lying = False

    def linear(self, step: Linear, words: np.ndarray) -> np.ndarray:
        claim = super().linear(step, words)
        if self.lying and step.name == self.step:
            claim.reshape(-1)[0] += 1
        return claim


def open_session(protection: str = "private", check: str = "preprocessed", **more: Any) -> tuple[Session, Liar]:
    device = Liar()
    return Session(plan_of("residual"), protection=protection, check=check, device=device, threads=1, **more), device


def secrets_of(session: Session) -> dict[str, list[Any]]:
    """Every array of a session that must not outlive it, and the key."""
    trusted: Any = session._crew.lives[0].trusted
    arrays: dict[str, list[Any]] = {"key": [trusted._randomness._key], "probes": [], "images": []}
    if trusted._probes is not None and hasattr(trusted._probes, "_rounds"):
        for rounds in trusted._probes._rounds.values():
            arrays["probes"] += [array for probe in rounds for array in (probe.probe, probe.image)]
    if trusted._masks is not None:
        masks = [mask for ready in trusted._masks._ready.values() for mask in ready]
        arrays["images"] += [
            image for item in masks for mask in item._masks.values() for image in mask._secret.images.values()
        ]
    return arrays


@pytest.mark.parametrize("schedule", ["ahead", "layerwise"])
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("protection", ["verified", "private"])
def test_a_failed_check_ends_the_session(protection: str, check: str, schedule: str) -> None:
    session, device = open_session(protection, check, schedule=schedule)
    images, expected = case_of("residual", 3)
    assert same(session.run(images), expected)
    device.lying = True
    with pytest.raises(IntegrityError, match="'conv2' failed its check") as raised:
        session.run(images)
    assert raised.value.step == "conv2"
    device.lying = False
    for _ in range(2):
        with pytest.raises(ApiMisuse, match="the session is over: an earlier request failed"):
            session.run(images)
        with pytest.raises(ApiMisuse, match="the session is over"):
            session.prepare_masks(3)
    session.close()


@pytest.mark.parametrize("ending", ["lie", "close", "exit"])
@pytest.mark.parametrize("protection", ["verified", "private"])
def test_secrets_are_overwritten(protection: str, ending: str) -> None:
    session, device = open_session(protection, rounds=2)
    session.prepare_masks(4)
    secrets = secrets_of(session)
    assert len(secrets["probes"]) == 4 * 2 * 2
    assert bool(secrets["images"]) == (protection == "private")
    key = secrets["key"][0]
    assert isinstance(key, SecretMemory) and len(key.buffer) == 32 and any(key.buffer)
    for array in (*secrets["probes"], *secrets["images"]):
        assert array.any()
    if ending == "lie":  # in the first step, so that no mask has done its work before
        device.step, device.lying = "conv1", True
        with pytest.raises(IntegrityError):
            session.run(case_of("residual", 4)[0])
    elif ending == "exit":
        with session:
            pass
    else:
        session.close()
    for array in (*secrets["probes"], *secrets["images"]):
        assert not array.any()
    with pytest.raises(ApiMisuse, match="wiped"):
        len(key.buffer)
    assert session.report.steady_bytes.get("mask_images", 0) == 0


@pytest.mark.parametrize("check", CHECKS)
def test_what_is_in_flight_when_a_check_fails_is_overwritten(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks spent and probes drawn for the other steps and micro-batches of the request that failed."""
    from slalom.trusted.masks import MaskSet
    from slalom.trusted.probes import FreshProbes, PreprocessedProbes

    session, device = open_session("private", check, micro_batches=3)
    spent: list[Any] = []
    take = MaskSet.take

    def record_mask(self: MaskSet, value: str) -> Any:
        spent.append(take(self, value))
        return spent[-1]

    monkeypatch.setattr(MaskSet, "take", record_mask)
    drawn: list[tuple[str, Any]] = []
    for source in (FreshProbes, PreprocessedProbes):
        draw = source.draw

        def record_probes(self: Any, step: Linear, batch: int, draw: Any = draw) -> Any:
            drawn.append((step.name, draw(self, step, batch)))
            return drawn[-1][1]

        monkeypatch.setattr(source, "draw", record_probes)
    device.lying = True
    with pytest.raises(IntegrityError):
        session.run(case_of("residual", 5)[0])
    assert spent and drawn
    pending = [sets for name, sets in drawn if name == "conv2"]  # fails in the first micro-batch
    for probe in (probe for sets in pending for rounds in sets for probe in rounds):
        assert not probe.probe.any() and not probe.image.any()
    images = [image for mask in spent for name, image in mask.images.items() if name != "conv1"]
    assert len(images) > 1
    assert not any(image.any() for image in images)
    assert sum(not mask.words.any() for mask in spent) == 3  # the mask that each micro-batch used last


def test_closing_twice_and_the_context_manager() -> None:
    session, _ = open_session()
    session.close()
    session.close()
    with pytest.raises(ApiMisuse, match="the session is over: it was closed"):
        session.run(case_of("residual", 1)[0])
    with open_session()[0] as inner:
        inner.run(case_of("residual", 1)[0])
    with pytest.raises(ApiMisuse, match="over"):
        inner.run(case_of("residual", 1)[0])
    with pytest.raises(KeyError), open_session()[0] as broken:
        raise KeyError
    with pytest.raises(ApiMisuse, match="over"):
        broken.run(case_of("residual", 1)[0])


GOOD = case_of("residual", 2)[0]


def spoiled(value: float) -> np.ndarray:
    images = GOOD.copy()
    images[1, 2, 5, 5] = value
    return images


@pytest.mark.parametrize("protection", ["device", "enclave", "verified", "blinded", "private"])
def test_unusable_images_leave_the_session_usable(protection: str) -> None:
    session, _ = open_session(protection)
    bad: list[Any] = [
        GOOD[0],
        GOOD[:, :2],
        GOOD.transpose(0, 2, 3, 1),
        GOOD.reshape(2, -1),
        GOOD[None],
        GOOD[:0],
        np.float32(1),
        GOOD.astype(np.float64),
        GOOD.astype(np.float16),
        GOOD.astype(np.int16),
        GOOD.astype(">f4"),
        GOOD.astype(object),
        spoiled(np.nan),
        spoiled(np.inf),
        spoiled(-np.inf),
        GOOD.tolist(),
        None,
        "images",
        memoryview(GOOD.copy()),
    ]
    for images in bad:
        with pytest.raises(InputError) as raised:
            session.run(images)
        assert "\n" not in str(raised.value)
    images, expected = case_of("residual", 2)
    assert same(session.run(images), expected)
    assert session.report.images == 2


def test_images_in_any_memory_order() -> None:
    images, expected = case_of("residual", 5)
    session, _ = open_session()
    strided = np.repeat(images, 2, axis=3)[:, :, :, ::2]
    reversed_twice = np.ascontiguousarray(images[::-1, :, ::-1])[::-1, :, ::-1]
    locked = images.copy()
    locked.setflags(write=False)
    for given in (np.asfortranarray(images), strided, reversed_twice, locked):
        assert same(session.run(given), expected)


def test_eight_threads_each_get_their_own_answer() -> None:
    session, _ = open_session("private", micro_batches=2)
    session.prepare_masks(3)
    wrong: list[int] = []

    def work(seed: int) -> None:
        images, expected = case_of("residual", 1 + seed % 3, seed)
        for _ in range(4):
            if not same(session.run(images), expected):
                wrong.append(seed)

    for seed in range(8):
        case_of("residual", 1 + seed % 3, seed)
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert session.report.images == 4 * sum(1 + seed % 3 for seed in range(8))
    session.close()


@pytest.mark.parametrize("protection", ["device", "verified", "private"])
def test_requests_take_turns_at_the_device(protection: str) -> None:
    """A device has one caller at a time, and need not be safe for threads."""

    class Watching(NumpyDevice):
        callers = most = 0

        def linear(self, step: Linear, words: np.ndarray) -> np.ndarray:
            self.callers += 1
            self.most = max(self.most, self.callers)
            time.sleep(0.005)
            self.callers -= 1
            return super().linear(step, words)

    device = Watching()
    with Session(plan_of("residual"), protection=protection, device=device, threads=1) as session:
        threads = [threading.Thread(target=session.run, args=(GOOD,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert device.most == 1
    assert session.report.images == 4 * len(GOOD)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("protection", ["verified", "blinded", "private"])
def test_a_forked_child_is_refused(protection: str, prepared: bool) -> None:
    """Above all with masks made before the fork: child and parent would both spend them."""
    session, _ = open_session(protection)
    images, expected = case_of("residual", 2)
    if prepared:
        session.prepare_masks(2)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            session.run(images)
        except PrivacyError:
            try:
                session.prepare_masks(2)
            except PrivacyError:
                code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert same(session.run(images), expected)
    session.close()


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ({"protection": "none"}, "unknown protection 'none'"),
        ({"protection": None}, "unknown protection None"),
        ({"check": "never"}, "unknown check"),
        ({"schedule": "later"}, "unknown schedule"),
        ({"rounds": 0}, "rounds must be 1..64, not 0"),
        ({"rounds": -1}, "rounds must be"),
        ({"rounds": True}, "rounds must be"),
        ({"rounds": 1.0}, "rounds must be"),
        ({"rounds": 65}, "rounds must be"),
        ({"micro_batches": 0}, "micro_batches must be"),
        ({"micro_batches": 1.5}, "micro_batches must be"),
        ({"micro_batches": True}, "micro_batches must be"),
        ({"timeout_seconds": 0}, "timeout_seconds must be"),
        ({"timeout_seconds": -1.0}, "timeout_seconds must be"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds must be"),
        ({"timeout_seconds": float("inf")}, "timeout_seconds must be"),
        ({"threads": 0}, "threads must be"),
        ({"threads": 1.5}, "threads must be"),
        ({"threads": True}, "threads must be"),
        ({"isa": "mmx"}, "unknown instruction set"),
        ({"device": "tpu"}, "'tpu' is no place of a worker"),
        ({"device": []}, "no device is named"),
        ({"on_failure": "ignore"}, "unknown on_failure"),
        ({"isolation": "none"}, "there is no isolation"),
        ({"device": "spawn", "bulk": "pickle"}, "unknown bulk"),
        ({"device": "spawn", "bulk": "shm"}, "given a memory file"),
        ({"device": "tcp:127.0.0.1:1", "bulk": "memfd"}, "cannot be sent over tcp"),
        ({"device": "spawn", "attack": "kindness"}, "there is no attack"),
    ],
)
def test_arguments_that_have_no_meaning(arguments: dict[str, Any], pattern: str) -> None:
    with pytest.raises(ApiMisuse, match=pattern):
        Session(plan_of("dense"), **{"device": NumpyDevice(), **arguments})


def test_a_plan_must_be_a_plan() -> None:
    with pytest.raises(ApiMisuse, match=r"plan must be a slalom\.Plan, not str"):
        Session("network.slalom")  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, -1, 1.0, True, None])
def test_masks_for_no_images(count: Any) -> None:
    for protection in ("private", "verified"):
        session, _ = open_session(protection)
        with pytest.raises(ApiMisuse, match="masks are made for"):
            session.prepare_masks(count)
        assert same(session.run(GOOD), case_of("residual", 2)[1])


def test_more_rounds_than_a_pass_carries() -> None:
    """One pass carries 64 probe images: 64 rounds of one reader, 32 of two."""
    import dataclasses

    from slalom.plan import Plan
    from slalom.plan.steps import Output

    plan = plan_of("dense")
    fc1, hidden = plan.graph.steps[:2]
    twin = dataclasses.replace(fc1, name="twin")
    real = dataclasses.replace(plan.graph.steps[3], name="real")  # type: ignore[type-var]
    second = dataclasses.replace(plan.graph.steps[2], name="second")
    more = dataclasses.replace(hidden, name="more", source="twin")  # type: ignore[call-arg]
    second, real = dataclasses.replace(second, source="more"), dataclasses.replace(real, source="second")  # type: ignore
    graph = dataclasses.replace(
        plan.graph,
        steps=(*plan.graph.steps, twin, more, second, real),
        outputs=(*plan.graph.outputs, Output("real", plan.graph.outputs[0].layout)),
    )
    forked = Plan(graph, plan.tensors)
    images, expected = case_of("dense", 3)
    for isa in ("numpy", None):
        for protection, rounds in (("private", 32), ("blinded", 64), ("enclave", 64)):
            with Session(forked, protection=protection, rounds=rounds, device=NumpyDevice(), isa=isa) as session:
                assert same(session.run(images), (expected[0], expected[0]))
        with pytest.raises(ApiMisuse, match="33 rounds are too many where 2 linear steps"):
            Session(forked, protection="private", rounds=33, device=NumpyDevice(), isa=isa)
    with Session(plan, protection="private", rounds=64, device=NumpyDevice()) as session:
        assert same(session.run(images), expected)


@pytest.mark.parametrize("protection", ["device", "enclave", "verified", "blinded", "private"])
def test_a_network_without_linear_steps(protection: str) -> None:
    from slalom.plan import Plan
    from slalom.plan.steps import Activation, Affine, Graph, Input, Layout, Output, Pointwise, Real

    graph = Graph(
        "plain",
        Input("x", Layout.PLAIN, Activation((3,), 0.5, 8)),
        (Pointwise("y", "x", (Affine("m", "b"),), Real((3,))),),
        (Output("y", Layout.PLAIN),),
    )
    plan = Plan(graph, {"m": np.ones(1, np.float32), "b": np.full(1, 0.25, np.float32)})
    images = np.array([[0.5, 1.2, -3.0]], np.float32)
    with Session(plan, protection=protection, device=NumpyDevice()) as session:
        np.testing.assert_array_equal(session.run(images), np.array([[1.25, 2.25, -5.75]], np.float32))


def test_messages_hold_no_number_of_the_user_or_the_device() -> None:
    session, device = open_session("private")
    device.lying = True
    with pytest.raises(IntegrityError) as raised:
        session.run(GOOD)
    digits = "".join(character for character in str(raised.value).replace("conv2", "") if character.isdigit())
    assert not digits

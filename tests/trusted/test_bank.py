"""Masks made ahead: between their marks, within their memory, each used once whatever happens in between."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slalom.errors import ApiMisuse, IntegrityError, MaskError, SlalomError
from slalom.session import Session
from slalom.trusted.bank import MaskBank, MaskBankOptions, WhenEmpty
from slalom.trusted.masks import MaskMaker
from slalom.trusted.randomness import PlainMemory, Randomness
from slalom.trusted.refill import Refill
from slalom.trusted.vault import Vault
from tests.devices import NumpyDevice, case_of, plan_of, same
from tests.link.serving import wait_until
from tests.trusted.test_masks import make_bank

NAME = "residual"
GOOD, EXPECTED = case_of(NAME, 4)
EVERYTHING = 10**9


def bank_of(options: MaskBankOptions, folder: Path | None = None, name: str = NAME) -> tuple[MaskBank, Randomness]:
    """A bank of a hand-built graph, and what its masks come from."""
    plain, randomness = make_bank(name)
    vault = None if options.spill is None or folder is None else Vault(options.spill, bytes(32), PlainMemory)
    return MaskBank(plain.maker, options, vault), randomness


@contextmanager
def refilled(bank: MaskBank, batches: list[int]) -> Iterator[None]:
    refill = Refill(bank, bank.maker, batches)
    try:
        yield
    finally:
        refill.stop(20)
        bank.destroy()


def use(bank: MaskBank, batches: list[int], timeout_seconds: float = 20.0) -> list[bytes]:
    """Reserves sets and takes every mask of them."""
    return [
        masks.take(value).words.tobytes()
        for masks in bank.reserve(batches, timeout_seconds)
        for value in bank.maker.values
    ]


# ---------------------------------------------------------------- marks and memory


def test_it_is_filled_to_its_target_and_again_once_it_is_low() -> None:
    bank, _ = bank_of(MaskBankOptions(request=4, target=12, low=5, memory=EVERYTHING))
    with refilled(bank, [2, 2]):
        assert wait_until(lambda: bank.figures.ready_images == 12)
        use(bank, [2, 2])
        time.sleep(0.1)
        assert bank.figures.ready_images == 8, "above the low mark nothing is made"
        use(bank, [2, 2])
        assert wait_until(lambda: bank.figures.ready_images == 12)
    assert bank.figures.used_images == 8


def test_it_takes_no_more_memory_than_it_may() -> None:
    bank, _ = bank_of(MaskBankOptions(request=2, target=100))
    budget = 3 * bank.maker.set_bytes(2) + 1
    bank, _ = bank_of(MaskBankOptions(request=2, target=100, memory=budget))
    with refilled(bank, [2]):
        assert wait_until(lambda: bank.figures.ready_images == 6)
        time.sleep(0.1)
        assert bank.figures.ready_bytes == 3 * bank.maker.set_bytes(2) <= budget


def test_what_does_not_fit_is_spilled_and_brought_in(tmp_path: Path) -> None:
    size = bank_of(MaskBankOptions(request=2, target=2))[0].maker.set_bytes(2)
    options = MaskBankOptions(request=2, target=10, low=0, memory=2 * size, spill=tmp_path / "masks")
    bank, _ = bank_of(options, tmp_path)
    with refilled(bank, [2]):
        assert wait_until(lambda: (bank.figures.ready_images, bank.figures.spilled_images) == (4, 6))
        assert 0 < bank.figures.spilled_bytes <= (tmp_path / "masks").stat().st_size
        words = use(bank, [2, 2])
        assert wait_until(lambda: (bank.figures.ready_images, bank.figures.spilled_images) == (4, 2))
        words += use(bank, [2, 2, 2])
        assert len(set(words)) == len(words)
        assert bank.maker.made == 5 * len(bank.maker.values), "the spilled ones were used"
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize("name", ["every_step", "residual"])
def test_masks_that_were_spilled_are_what_they_were(name: str, tmp_path: Path) -> None:
    """Their words from their stream again, and their images as they were sealed."""
    made: dict[int, Any] = {}
    bank, _ = bank_of(MaskBankOptions(request=3, target=3, memory=1, spill=tmp_path / "masks"), tmp_path, name)
    make = bank.maker.make

    def watched(value: str, batch: int, *, inline: bool = False) -> Any:
        mask = make(value, batch, inline=inline)
        secret = mask._secret
        made[value] = (secret.words.copy(), {step: image.copy() for step, image in secret.images.items()})
        return mask

    bank.maker.make = watched  # type: ignore[method-assign]
    bank.prepare(3)
    assert bank.figures.ready_images == 0 and bank.figures.spilled_images == 3
    (masks,) = bank.reserve([3], 1.0)
    for value in bank.maker.values:
        mask = masks.take(value)
        np.testing.assert_array_equal(mask.words, made[value][0])
        for step, image in mask.images.items():
            np.testing.assert_array_equal(image, made[value][1][step])
    bank.destroy()


def test_sets_that_are_too_small_keep_nobody_waiting() -> None:
    """As many images are ready as the target says, and yet none of them are for this request."""
    options = MaskBankOptions(request=4, target=4, memory=EVERYTHING, when_empty=WhenEmpty.WAIT)
    bank, _ = bank_of(options)
    for _ in range(8):
        bank.prepare(1)
    with refilled(bank, [2, 2]):
        use(bank, [2, 2], 5.0)
        use(bank, [1, 1])
        use(bank, [2, 2], 5.0)


def test_a_request_beyond_the_target_is_refused_at_once() -> None:
    options = MaskBankOptions(request=4, target=4, memory=EVERYTHING, when_empty=WhenEmpty.WAIT)
    bank, _ = bank_of(options)
    begin = time.monotonic()
    with refilled(bank, [4]), pytest.raises(MaskError, match="no masks are ready"):
        bank.reserve([5], 20.0)
    assert time.monotonic() - begin < 5


# ---------------------------------------------------------------- what a request does that finds too few


def test_an_empty_bank_refuses_makes_or_waits() -> None:
    bank, _ = bank_of(MaskBankOptions(request=2, target=2, when_empty=WhenEmpty.FAIL))
    with pytest.raises(MaskError, match="no masks are ready"):
        bank.reserve([2], 1.0)
    bank.prepare(2)
    with pytest.raises(MaskError, match="no masks are ready"):
        bank.reserve([2, 2], 1.0)
    assert bank.figures.ready_images == 2, "nothing was taken"
    assert len(use(bank, [2])) == len(bank.maker.values)

    bank, _ = bank_of(MaskBankOptions(request=2, target=2, when_empty=WhenEmpty.COMPUTE))
    assert len(use(bank, [2])) == len(bank.maker.values)
    assert bank.maker.inline_seconds > 0

    bank, _ = bank_of(MaskBankOptions(request=2, target=4, low=4, memory=EVERYTHING, when_empty=WhenEmpty.WAIT))
    with pytest.raises(MaskError, match="no masks are ready"):
        bank.reserve([2], 0.05)
    with refilled(bank, [2]):
        words = [word for _ in range(5) for word in use(bank, [2, 2])]
    assert len(set(words)) == len(words)
    assert bank.maker.inline_seconds == 0 and bank.figures.waited_seconds > 0


def test_whoever_waits_is_told_what_ended_the_refill() -> None:
    bank, randomness = bank_of(MaskBankOptions(request=2, target=2, when_empty=WhenEmpty.WAIT))
    randomness.destroy()
    begin = time.monotonic()
    with refilled(bank, [2]), pytest.raises(SlalomError, match="destroyed"):
        bank.reserve([2], 20.0)
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ({"request": 0, "target": 1}, "request must be a whole number"),
        ({"request": 1, "target": 0}, "target must be a whole number"),
        ({"request": 1, "target": 1.5}, "target must be a whole number"),
        ({"request": 1, "target": 1, "memory": -1}, "memory must be a whole number"),
        ({"request": 4, "target": 3}, "less than one request of 4"),
        ({"request": 1, "target": 4, "low": 5}, "low mark"),
    ],
)
def test_options_that_have_no_meaning(arguments: dict[str, Any], pattern: str) -> None:
    with pytest.raises(ApiMisuse, match=pattern):
        MaskBankOptions(**arguments)


# ---------------------------------------------------------------- through a session


def open_session(**more: Any) -> Session:
    return Session(plan_of(NAME), protection="private", device=NumpyDevice(), threads=1, **more)


@pytest.mark.parametrize("spilled", [False, True])
def test_a_session_takes_its_masks_from_the_bank_and_gives_the_same_bits(spilled: bool, tmp_path: Path) -> None:
    options = MaskBankOptions(
        request=4, target=8, low=8, memory=1 if spilled else EVERYTHING,
        spill=tmp_path if spilled else None, when_empty=WhenEmpty.WAIT,
    )  # fmt: skip
    before = threading.active_count()
    with open_session(mask_bank=options) as session:
        for _ in range(4):
            assert same(session.run(GOOD), EXPECTED)
        images, expected = case_of(NAME, 3)
        assert same(session.run(images), expected), "fewer than usual"
        figures = session.report.masks
        assert figures.used_images == 19 and figures.lost_images == 0
        assert session.report.mask_seconds > 0
    assert wait_until(lambda: threading.active_count() <= before)
    assert not list(tmp_path.iterdir())


def test_a_request_that_finds_none_is_refused_and_the_session_goes_on() -> None:
    options = MaskBankOptions(request=4, target=4, low=4, memory=EVERYTHING, when_empty=WhenEmpty.FAIL)
    with open_session(mask_bank=options) as session:
        with pytest.raises(MaskError, match="no masks are ready"):
            session.run(case_of(NAME, 9)[0])
        assert session.report.exposed == 0
        assert wait_until(lambda: session.report.masks.ready_images == 4)
        assert same(session.run(GOOD), EXPECTED)


@pytest.mark.parametrize("attack", ["change", "cut", "replay"])
def test_a_spilled_file_that_was_tampered_with(attack: str, tmp_path: Path) -> None:
    """A named error, the masks gone, and a session that goes on with others."""
    options = MaskBankOptions(request=4, target=4, low=4, memory=1, spill=tmp_path, when_empty=WhenEmpty.WAIT)
    with open_session(mask_bank=options, micro_batches=1) as session:
        assert wait_until(lambda: session.report.masks.spilled_images == 4)
        (path,) = tmp_path.iterdir()
        earlier = path.read_bytes()
        if attack == "replay":
            assert same(session.run(GOOD), EXPECTED)
            assert wait_until(lambda: session.report.masks.spilled_images == 4)
            time.sleep(0.05)
            assert path.read_bytes() != earlier
            path.write_bytes(earlier)
        elif attack == "change":
            path.write_bytes(bytes([earlier[0] ^ 1]) + earlier[1:])
        else:
            os.truncate(path, len(earlier) // 2)
        used = session.report.masks.used_images
        with pytest.raises(MaskError, match="it is gone"):
            session.run(GOOD)
        assert session.report.masks.lost_images == 4
        assert session.report.exposed == used, "nothing crossed"
        assert wait_until(lambda: session.report.masks.spilled_images == 4)
        assert same(session.run(GOOD), EXPECTED)


def arrays_of(item: Any) -> dict[str, list[np.ndarray]]:
    """The words and images of every mask of a set, by value."""
    secrets = {value: mask._secret for value, mask in item._masks.items()}
    return {value: [secret.words, *secret.images.values()] for value, secret in secrets.items()}


def test_what_a_failed_request_reserved_and_did_not_use_is_overwritten() -> None:
    device = Device([])
    with Session(plan_of(NAME), protection="private", device=device, threads=1, micro_batches=2) as session:
        session.prepare_masks(4)
        trusted: Any = session._crew.lives[0].trusted
        sets = [arrays_of(item) for ready in trusted._masks._ready.values() for item in ready]
        assert all(array.any() for arrays in sets for group in arrays.values() for array in group)
        device.lies = True
        with pytest.raises(IntegrityError):
            session.run(GOOD)
    first = next(iter(sets[0]))
    left = [array for arrays in sets for value, group in arrays.items() if value != first for array in group]
    assert len(left) > 4 and not any(array.any() for array in left)


def test_where_one_set_was_tampered_with_the_others_of_the_request_are_overwritten(tmp_path: Path) -> None:
    size = bank_of(MaskBankOptions(request=2, target=2))[0].maker.set_bytes(2)
    bank, _ = bank_of(MaskBankOptions(request=2, target=8, memory=size, spill=tmp_path / "masks"), tmp_path)
    for _ in range(3):
        bank.prepare(2)
    (ready,) = bank._ready[2]
    kept = [array for group in arrays_of(ready).values() for array in group]
    (tmp_path / "masks").write_bytes(bytes((tmp_path / "masks").stat().st_size))
    with pytest.raises(MaskError, match="it is gone"):
        bank.reserve([2, 2, 2], 1.0)
    assert not any(array.any() for array in kept)
    assert (bank.figures.ready_images, bank.figures.spilled_images, bank.figures.lost_images) == (0, 0, 2)
    assert not bank._vault._sealed, "what was reserved beside it does not open any more"  # type: ignore[union-attr]
    bank.destroy()


def test_a_request_that_waits_for_masks_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MaskBank, "wanted", lambda self, usual, turn, *, filling: None)
    options = MaskBankOptions(request=4, target=4, low=4, memory=EVERYTHING, when_empty=WhenEmpty.WAIT)
    told: list[str] = []

    def ask(session: Session) -> None:
        try:
            session.run(GOOD)
        except MaskError as error:
            told.append(str(error))

    session = open_session(mask_bank=options, timeout_seconds=600)
    thread = threading.Thread(target=ask, args=(session,))
    thread.start()
    (life,) = session._crew.lives
    assert wait_until(life.trusted._lock.locked)
    session.close()
    thread.join(20)
    assert told == ["the session was closed"]


def test_a_bank_that_cannot_hold_one_micro_batch_is_refused() -> None:
    with pytest.raises(ApiMisuse, match="masks for one micro-batch take"):
        open_session(mask_bank=MaskBankOptions(request=4, target=4, memory=1))


def test_two_workers_spill_side_by_side(tmp_path: Path) -> None:
    options = MaskBankOptions(request=4, target=4, low=4, memory=1, spill=tmp_path, when_empty=WhenEmpty.WAIT)
    devices = [NumpyDevice(), NumpyDevice()]
    with Session(plan_of(NAME), protection="private", device=devices, threads=1, mask_bank=options) as session:
        assert len(list(tmp_path.iterdir())) == 2
        run_at_once(session, GOOD, [4, 4, 4])
        assert session.report.masks.used_images == 12
    assert not list(tmp_path.iterdir())


def test_masks_that_were_made_behind_are_made_by_threads_that_let_others_go(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    make = MaskMaker.make

    def watched(self: MaskMaker, *arguments: Any, **more: Any) -> Any:
        seen.add(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return make(self, *arguments, **more)

    monkeypatch.setattr(MaskMaker, "make", watched)
    options = MaskBankOptions(request=4, target=4, low=4, memory=EVERYTHING, when_empty=WhenEmpty.WAIT)
    with open_session(mask_bank=options) as session:
        session.run(GOOD)
    assert seen == {19}
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == 0


# ---------------------------------------------------------------- single use, whatever happens


class Device(NumpyDevice):
    """Writes down what it is shown, and lies when told. One list for all that ever were."""

    def __init__(self, seen: list[bytes]) -> None:
        self._seen = seen
        self.lies = False

    def compute(self, step_names: Any, words: Any) -> Any:
        self._seen.extend(words[item].tobytes() for item in range(len(words)))
        claims = [np.array(claim) for claim in super().compute(step_names, words)]
        if self.lies:
            claims[0].reshape(-1)[0] += 1
        return claims


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 40))])
def test_no_blinded_words_ever_repeat(seed: int, tmp_path: Path) -> None:
    """Random requests, threads, lies that end a session, restarts, forks and files rolled back, always with the same
    image: a mask that came back would show as words that came back. And the child of a fork shows nothing at all."""
    chance, seen = random.Random(seed), list[bytes]()
    one = np.repeat(GOOD[:1], 8, axis=0)
    for life in range(4):
        device = Device(seen)
        options = MaskBankOptions(
            request=4, target=8, low=chance.choice([0, 8]), memory=chance.choice([1, 2000, EVERYTHING]), spill=tmp_path,
            when_empty=chance.choice([WhenEmpty.WAIT, WhenEmpty.COMPUTE]),
        )  # fmt: skip
        session = Session(plan_of(NAME), protection="private", device=device, threads=1, mask_bank=options,
                          micro_batches=chance.choice([1, 2, 3]), timeout_seconds=10)  # fmt: skip
        with session:
            (path,) = tmp_path.iterdir()
            for _ in range(10):
                event = chance.choice(["run", "run", "run", "threads", "fork", "roll back", "prepare", "lie"])
                kept = path.read_bytes()
                try:
                    if event == "threads":
                        run_at_once(session, one, [chance.randint(1, 4) for _ in range(3)])
                    elif event == "fork":
                        assert shown_by_child(session, one[:2], seen) == 0
                    elif event == "prepare":
                        session.prepare_masks(chance.randint(1, 4))
                    elif event == "roll back":
                        session.run(one[:4])
                        path.write_bytes(kept)
                    elif event == "lie" and life < 3:
                        device.lies = True
                        with pytest.raises(IntegrityError):
                            session.run(one[: chance.randint(1, 4)])
                        break
                    session.run(one[: chance.randint(1, 4)])
                except MaskError:
                    device.lies = False  # a file that was rolled back: refused before anything crossed
    assert len(seen) > 50
    repeated = [words for words, count in Counter(seen).items() if count > 1]
    assert not repeated


def test_the_property_sees_masks_that_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with streams that come back: what is asserted above fails."""
    seen: list[bytes] = []
    monkeypatch.setattr(Randomness, "draw_stream", lambda self: 7)
    with Session(plan_of(NAME), protection="private", device=Device(seen), threads=1) as session:
        for _ in range(2):
            session.run(GOOD[:1])
    assert max(Counter(seen).values()) > 1


def run_at_once(session: Session, images: np.ndarray, sizes: list[int]) -> None:
    failures: list[BaseException] = []

    def work(size: int) -> None:
        try:
            session.run(images[:size])
        except MaskError:
            pass
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures


def shown_by_child(session: Session, images: np.ndarray, seen: list[bytes]) -> int:
    """How many rows a forked child showed its device."""
    child = os.fork()
    if child == 0:
        before, code = len(seen), 100
        try:
            try:
                session.run(images)
            except SlalomError:
                code = len(seen) - before
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
